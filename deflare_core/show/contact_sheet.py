"""Contact sheets: a whole recording at a glance, as a table of pictures over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from deflare_core.events import Events
from deflare_core.io.reading import AS_STATED, Reading
from deflare_core.io.recordings import Recording, find_span_us, open_together
from deflare_core.show.figures import as_label, cut_blocks, draw_signed, find_limit, make_figure, sum_polarities
from deflare_core.show.room import SHEET, TAKE_A_PART, check_room
from deflare_core.streams.matching import match_events

SHEET_WINDOW_US = 20_000
MAX_PANEL_PIXELS = 200


def draw_contact_sheet(
    recordings: Mapping[str, Path | Recording], num: int = 8, reading: Reading = AS_STATED
) -> Figure:
    """One row per named recording and one column per window, with the number of events in each panel.

    Below an "input" and its "output" a row shows the events that were removed.

    The windows are spread evenly from the start of the recordings to their end. They last 20 ms, or less where `num`
    of them would not fit side by side. Only one window at a time is read; of recordings given by path, `reading` says
    what they do not say themselves.

    Raises
    ------
    ValueError
        For no recordings, sensors that differ, recordings without duration, less than one window, or no room in memory.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1; received {num}.")
    with open_together(recordings, reading) as opened:
        windows = spread_windows_us(*find_span_us(opened), num)
        check_room(SHEET, next(iter(opened.values())).sensor_size, opened.values(), windows, TAKE_A_PART)
        columns = [_sum_window(opened, *window) for window in windows]
    panels = {name: [column[name] for column in columns] for name in columns[0]}
    return _draw_panels(panels, windows)


def spread_windows_us(t_start_us: int, t_end_us: int, num: int) -> list[tuple[int, int]]:
    """Start and end of `num` windows from the start to the end of a span, each in the middle of its share of it."""
    edges = np.linspace(t_start_us, t_end_us, num + 1)
    length = min(SHEET_WINDOW_US, max(1, (t_end_us - t_start_us) // num))
    starts = ((edges[:-1] + edges[1:] - length) // 2).astype(int).tolist()
    return [(start, start + length) for start in starts]


def _sum_window(opened: Mapping[str, Recording], start_us: int, end_us: int) -> dict[str, tuple[np.ndarray, int]]:
    """What a panel shows of a window, by recording."""
    return {name: _sum_blocks(events) for name, events in _read_window(opened, start_us, end_us).items()}


def _read_window(opened: Mapping[str, Recording], start_us: int, end_us: int) -> dict[str, Events]:
    """The events of a window by recording, and of an input those that its output lacks."""
    events = {name: recording.window(start_us, end_us) for name, recording in opened.items()}
    if {"input", "output"} <= events.keys():
        kept, _ = match_events(events["input"], events["output"])
        events["removed"] = events["input"][~np.isin(np.arange(len(events["input"])), kept)]
    return events


def _sum_blocks(events: Events) -> tuple[np.ndarray, int]:
    """The signed sum of events over blocks of pixels, as fine as a small panel can show, and their number."""
    picture = sum_polarities(events)
    block = -(-max(picture.shape) // MAX_PANEL_PIXELS)
    return cut_blocks(picture, block).sum(-1), len(events)


def _draw_panels(panels: Mapping[str, list[tuple[np.ndarray, int]]], windows: list[tuple[int, int]]) -> Figure:
    pictures = [picture for row in panels.values() for picture, _ in row]
    # Lower than elsewhere: a few lamps may saturate in small panels, for the rest must stay visible.
    limit = find_limit(pictures, percent=90)
    height, width = pictures[0].shape
    figure = make_figure(1.7 * len(windows) + 1, (1.7 * height / width + 0.2) * len(panels) + 0.4)
    grid = figure.subplots(len(panels), len(windows), squeeze=False)
    for axes_row, (name, row) in zip(grid, panels.items(), strict=True):
        for axes, (picture, count) in zip(axes_row, row, strict=True):
            image = draw_signed(axes, picture, limit)
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, -0.03, f"{count:,}", transform=axes.transAxes, fontsize=7, ha="center", va="top")
        axes_row[0].set_ylabel(as_label(name))
    for axes, (start, end) in zip(grid[0], windows, strict=True):
        axes.set_title(f"{start / 1e3:,.1f} to {end / 1e3:,.1f} ms", fontsize=8)
    bar = figure.colorbar(image, ax=grid, extend="both", shrink=0.9, pad=0.01)
    bar.set_label("events, signed", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure
