"""Figures of statistics: intervals, flicker and causes of recordings, and what networks' residuals are spent on.

Red and blue stay polarities, as in `figures.py`, so causes have colours of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from deflare_core.events import CAUSES, WINDOW_US, Events
from deflare_core.scores.residuals import CELL_KINDS
from deflare_core.show.figures import ACCENT, NEUTRAL, STREAMS, make_figure, pick_colours
from deflare_core.streams.comb_filter import MAINS_HZ
from deflare_core.streams.statistics import INTERVAL_EDGES_US, find_intervals_us, find_spectrum, share_intervals

CAUSE_COLOURS = {"background": NEUTRAL, "light": "#e3a62b", "flare": STREAMS["removed"], "noise": "#bdbdbd"}
CELL_COLOURS = {**CAUSE_COLOURS, "empty": "#ececec"}


def draw_intervals(recordings: Mapping[str, Events]) -> Figure:
    """The times from each event to the next of its pixel, as shares of all of them, on a logarithmic time axis."""
    figure = make_figure(7, 3.2)
    axes = figure.subplots()
    for (name, events), colour in zip(recordings.items(), pick_colours(recordings), strict=True):
        intervals = find_intervals_us(events)
        label = f"{name}: {len(intervals):,} intervals"
        if len(intervals):
            label += f", median {np.median(intervals) / 1e3:,.2f} ms"
        axes.stairs(share_intervals(intervals) * 100, INTERVAL_EDGES_US / 1e3, color=colour, label=label)
    axes.set(xscale="log", xlabel="time to the pixel's next event, ms", ylabel="share of intervals, %")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_spectra(recordings: Mapping[str, Events], duration_us: int) -> Figure:
    """The flicker spectrum of each recording from 20 to 400 Hz, with the frequencies of lamps on the mains marked.

    Events more than `duration_us` microseconds after a recording's first one are left out.
    """
    frequencies_hz = list_frequencies_hz(duration_us)
    figure = make_figure(7, 3.4)
    axes = figure.subplots()
    for (name, events), colour in zip(recordings.items(), pick_colours(recordings), strict=True):
        start_us = int(events.t[0]) if len(events) else 0
        power = find_spectrum(events.window(start_us, start_us + duration_us), duration_us, frequencies_hz)
        peak = "no pixel has enough events"
        if not np.isnan(power).all():
            peak = f"highest at {frequencies_hz[power.argmax()]:.1f} Hz, {power.max():,.1f}"
        axes.plot(frequencies_hz, power, color=colour, linewidth=1, label=f"{name}: {peak}")
    # Left and right of their lines, since 100 and 120 Hz are too close for both in the middle.
    for hz, side in zip(MAINS_HZ, ("right", "left"), strict=True):
        axes.axvline(hz, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
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
    """Frequencies from 20 to 400 Hz, float64 `(F,)`: two or more to a line's width, with each multiple of 20 Hz."""
    steps_in_20_hz = int(np.ceil(2 * 20 * duration_us / 1e6))
    return np.linspace(20, 400, 19 * steps_in_20_hz + 1)


def draw_causes(
    recordings: Mapping[str, tuple[Events, NDArray[np.uint8]]], clock_us: tuple[int, int], window_us: int = WINDOW_US
) -> Figure:
    """What the events of each window are due to: stacked bars of shares, one panel for each recording.

    Recordings are events and their labels (keys of `CAUSES`, uint8 `(N,)`) by name; `clock_us` is their start and end.
    """
    edges_us = np.arange(clock_us[0], clock_us[1] + window_us, window_us)
    figure = make_figure(7, 2.2 * len(recordings) + 0.5)
    grid = figure.subplots(len(recordings), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, (events, labels)) in zip(grid, recordings.items(), strict=True):
        counts = count_causes(events, labels, edges_us)
        total = counts.sum(0)
        shares = 100 * counts / np.maximum(total, 1)
        where, width = edges_us[:-1] / 1e3, 0.9 * window_us / 1e3
        for kind, share, bottom in zip(CAUSES.values(), shares, shares.cumsum(0) - shares, strict=True):
            axes.bar(where, share, width, bottom, align="edge", color=CAUSE_COLOURS[kind], label=kind)
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


def draw_residuals(
    wanted: NDArray[np.floating], given: Mapping[str, NDArray[np.floating]], limit: float | None = None
) -> Figure:
    """One panel per named residual: how many cells have which wanted and given value; the green line is perfection.

    Parameters
    ----------
    wanted : target less input, `(bins, H, W)`.
    given : output less input by name, of the same shape.
    limit : the axes' end, events per cell; none takes the 99.9th percentile of the cells to change, rounded up.
        Bins are half an event wide, one of them about 0; cells beyond the end are drawn at the edge.
    """
    changed = np.abs(wanted[wanted != 0])
    end = limit or (float(np.ceil(np.percentile(changed, 99.9))) if len(changed) else 1.0)
    edges = np.arange(-end - 0.25, end + 0.5, 0.5)
    # Cells beyond the edges are counted at the edge.
    x, *ys = (np.clip(voxel.ravel(), edges[0], edges[-1]) for voxel in (wanted, *given.values()))
    tables = [np.histogram2d(x, y, bins=[edges, edges])[0] for y in ys]
    top = max(table.max() for table in tables)
    figure = make_figure(3.5 * len(given) + 0.9, 3.9)
    grid = figure.subplots(1, len(given), sharex=True, sharey=True, squeeze=False)[0]
    for axes, name, table in zip(grid, given, tables, strict=True):
        image = axes.pcolormesh(edges, edges, table.T, cmap="Greys", norm=LogNorm(0.5, top))
        axes.plot([-end, end], [-end, end], color=ACCENT, linewidth=1, label="given is wanted")
        axes.axhline(0, color=NEUTRAL, linewidth=0.5)
        axes.set(title=name, xlabel="wanted, events per cell", aspect="equal")
    grid[0].set_ylabel("given, events per cell")
    grid[0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.colorbar(image, ax=grid, label=f"cells of {wanted.size:,}", shrink=0.85, pad=0.02)
    return figure


def draw_residual_shares(spent: Mapping[str, Mapping[str, float]]) -> Figure:
    """One bar for each named residual: its share at cells of each cause, as `share_residual` gives them."""
    figure = make_figure(7, 0.45 * len(spent) + 1.3)
    axes = figure.subplots()
    names = list(spent)
    left = np.zeros(len(names))
    for kind in CELL_KINDS:
        share = np.array([100 * np.nan_to_num(spent[name][kind]) for name in names])
        bars = axes.barh(names, share, left=left, color=CELL_COLOURS[kind], label=kind, height=0.7)
        colour = "white" if kind in ("background", "flare") else "black"
        labels = [f"{value:.0f}" if value >= 4 else "" for value in share]
        axes.bar_label(bars, labels, label_type="center", fontsize=8, color=colour)
        left += share
    for place, name in enumerate(names):
        if np.isnan(list(spent[name].values())).all():
            axes.text(1, place, "no residual", fontsize=8, va="center")
    axes.set(xlabel="share of the residual's absolute sum, %", xlim=(0, 100))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    return figure
