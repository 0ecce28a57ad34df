"""Figures of a recording's statistics: intervals, flicker, causes, and what sets a pair's two sides apart.

They return a matplotlib Figure, as those of `figures.py` do. Red and blue stay what they are there, polarities, so
recordings and causes have colours of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from deflare_core.events import WINDOW_US, Events
from deflare_core.scores.metrics import CAUSES
from deflare_core.show.figures import ACCENT, NEUTRAL, draw_signed, find_limit, make_figure, sum_polarities
from deflare_core.streams.statistics import INTERVAL_EDGES_US, find_intervals_us, find_spectrum, share_intervals

RECORDING_COLOURS = (NEUTRAL, ACCENT, "#b8860b", "#7a3e9d")
CAUSE_COLOURS = {"background": NEUTRAL, "light": "#e3a62b", "flare": "#7a3e9d", "noise": "#bdbdbd"}
SURPLUS_MAP = matplotlib.colormaps["PRGn_r"]
"""Purple, the colour of flare, where the input has more events; green, that of the target, where it has."""
MAINS_HZ = (100.0, 120.0)
"""At what lamps flicker on a mains of 50 and of 60 Hz."""


def draw_intervals(recordings: Mapping[str, Events]) -> Figure:
    """The times from each event to the next of its pixel, as shares of all of them, on a logarithmic time axis."""
    figure = make_figure(7, 3.2)
    axes = figure.subplots()
    for (name, events), colour in zip(recordings.items(), RECORDING_COLOURS, strict=False):
        intervals = find_intervals_us(events)
        label = f"{name}: {len(intervals):,} intervals"
        if len(intervals):
            label += f", median {np.median(intervals) / 1e3:,.2f} ms"
        axes.stairs(share_intervals(intervals) * 100, INTERVAL_EDGES_US / 1e3, color=colour, label=label)
    axes.set(xscale="log", xlabel="time to the pixel's next event, ms", ylabel="share of intervals, %")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_spectra(recordings: Mapping[str, Events], duration_us: int, marked_hz: Sequence[float] = MAINS_HZ) -> Figure:
    """The flicker spectrum of each recording from 20 to 400 Hz, with the frequencies of lamps on the mains marked.

    Parameters
    ----------
    recordings : recordings by name.
    duration_us : their length from their first event on; later events are left out.
    marked_hz : frequencies to mark.
    """
    frequencies_hz = list_frequencies_hz(duration_us)
    figure = make_figure(7, 3.4)
    axes = figure.subplots()
    for (name, events), colour in zip(recordings.items(), RECORDING_COLOURS, strict=False):
        start_us = int(events.t[0]) if len(events) else 0
        power = find_spectrum(events.window(start_us, start_us + duration_us), duration_us, frequencies_hz)
        axes.plot(frequencies_hz, power, color=colour, linewidth=1, label=f"{name}: {_peak(frequencies_hz, power)}")
    for k, hz in enumerate(marked_hz):
        axes.axvline(hz, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
        # Alternately left and right of their lines, since 100 and 120 Hz are too close for both in the middle.
        side = "left" if k % 2 else "right"
        axes.text(hz, 1.0, f"{hz:g} Hz", transform=axes.get_xaxis_transform(), fontsize=7, ha=side, va="bottom")
    axes.axhline(1, color=NEUTRAL, linewidth=0.6, linestyle="--", label="events at random times")
    axes.set(xlabel="frequency, Hz", ylabel="power, that of random times is 1", yscale="log", xlim=(20, 400))
    axes.set_title(f"first {duration_us / 1e3:g} ms", fontsize=9, pad=14)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def list_frequencies_hz(duration_us: int) -> NDArray[np.float64]:
    """Frequencies from 20 to 400 Hz, two or more to the width of a line; every multiple of 20 Hz is among them."""
    steps_in_20_hz = int(np.ceil(2 * 20 * duration_us / 1e6))
    return np.linspace(20, 400, 19 * steps_in_20_hz + 1)


def draw_causes(
    recordings: Mapping[str, tuple[Events, NDArray[np.uint8]]], clock_us: tuple[int, int], window_us: int = WINDOW_US
) -> Figure:
    """What the events of each window are due to: stacked bars of shares, one panel for each recording.

    Parameters
    ----------
    recordings : events and their labels (keys of `CAUSES`), by name.
    clock_us : start and end of all recordings.
    window_us : length of a window, microseconds.
    """
    edges_us = np.arange(clock_us[0], clock_us[1] + window_us, window_us)
    figure = make_figure(7, 2.2 * len(recordings) + 0.5)
    grid = figure.subplots(len(recordings), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, (events, labels)) in zip(grid, recordings.items(), strict=True):
        counts = count_causes(events, labels, edges_us)
        total = counts.sum(0)
        tops = np.zeros(len(total))
        for kind, share in zip(CAUSES.values(), 100 * counts / np.maximum(total, 1), strict=True):
            where, width = edges_us[:-1] / 1e3, 0.9 * window_us / 1e3
            axes.bar(where, share, width, tops, align="edge", color=CAUSE_COLOURS[kind], label=kind)
            tops += share
        for edge_us, count in zip(edges_us, total, strict=False):
            axes.text((edge_us + 0.45 * window_us) / 1e3, 101, f"{count:,}", fontsize=7, ha="center", va="bottom")
        axes.set(ylabel=f"{name}\nshare of events, %", ylim=(0, 112), yticks=range(0, 101, 25))
        axes.spines[["top", "right"]].set_visible(False)
    grid[-1].set_xlabel(f"time, ms; a bar is {window_us / 1e3:g} ms, above it its number of events")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return figure


def count_causes(events: Events, labels: NDArray[np.uint8], edges_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many events of each label lie between consecutive edges, int64 `(4, len(edges) - 1)`."""
    if len(labels) != len(events):
        raise ValueError(f"{len(labels)} labels cannot belong to {len(events)} events.")
    return np.stack([np.diff(np.searchsorted(events.t[labels == label], edges_us)) for label in CAUSES])


def draw_pair(flare: Events, clean: Events, t_start_us: int, t_end_us: int) -> Figure:
    """Input and target of one window, and where the input has more events (purple) or fewer (green)."""
    window = {"input": flare.window(t_start_us, t_end_us), "target": clean.window(t_start_us, t_end_us)}
    sums = {name: sum_polarities(events) for name, events in window.items()}
    surplus = count_events(window["input"]) - count_events(window["target"])
    height, width = flare.sensor_size
    figure = make_figure(12.6, 3.6 * height / width + 1.2)
    grid = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, (name, picture) in zip(grid, sums.items(), strict=False):
        image = draw_signed(axes, picture, find_limit(list(sums.values())))
        axes.set_title(f"{name}: {len(window[name]):,} events", fontsize=10)
    limit = find_limit([surplus])
    difference = grid[2].imshow(surplus, cmap=SURPLUS_MAP, vmin=-limit, vmax=limit, interpolation="nearest")
    more, fewer = surplus.clip(min=0).sum(), (-surplus).clip(min=0).sum()
    grid[2].set_title(f"input less target: {more:,} more, {fewer:,} fewer", fontsize=10)
    figure.colorbar(image, ax=grid[:2], label="events per pixel, signed", extend="both", shrink=0.85, pad=0.02)
    figure.colorbar(
        difference, ax=grid[2], label="events per pixel, input less target", extend="both", shrink=0.85, pad=0.02
    )
    figure.suptitle(f"{t_start_us / 1e3:.1f} to {t_end_us / 1e3:.1f} ms", fontsize=10)
    for axes in grid:
        axes.set_xlabel("x, pixels")
    grid[0].set_ylabel("y, pixels")
    return figure


def count_events(events: Events) -> NDArray[np.int64]:
    """The number of events at each pixel, of both polarities, int64 `(H, W)`."""
    height, width = events.sensor_size
    pixel = events.y.astype(np.int64) * width + events.x
    return np.bincount(pixel, minlength=height * width).reshape(height, width)


def _peak(frequencies_hz: NDArray[np.float64], power: NDArray[np.float64]) -> str:
    if np.isnan(power).all():
        return "no pixel has enough events"
    return f"highest at {frequencies_hz[power.argmax()]:.1f} Hz, {power.max():,.1f}"
