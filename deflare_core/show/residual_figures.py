"""Figures of residuals: the given one against the wanted one, and where it is spent."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deflare_core.scores.residuals import CELL_KINDS
from deflare_core.show.figures import ACCENT, NEUTRAL, make_figure
from deflare_core.show.statistics_figures import CAUSE_COLOURS

DENSITY_MAP = matplotlib.colormaps["Greys"]
SPENT_COLOURS = {**CAUSE_COLOURS, "empty": "#ececec"}


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
    tables = {name: _joint(wanted, residual, edges) for name, residual in given.items()}
    top = max(table.max() for table in tables.values())
    figure = make_figure(3.5 * len(given) + 0.9, 3.9)
    grid = figure.subplots(1, len(given), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, table) in zip(grid, tables.items(), strict=True):
        image = axes.pcolormesh(edges, edges, table.T, cmap=DENSITY_MAP, norm=LogNorm(0.5, top))
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
        bars = axes.barh(names, share, left=left, color=SPENT_COLOURS[kind], label=kind, height=0.7)
        colour = "white" if kind in ("background", "flare") else "black"
        labels = [f"{value:.0f}" if value >= 4 else "" for value in share]
        axes.bar_label(bars, labels, label_type="center", fontsize=8, color=colour)
        left += share
    for place, name in enumerate(names):
        if all(np.isnan(value) for value in spent[name].values()):
            axes.text(1, place, "no residual", fontsize=8, va="center")
    axes.set(xlabel="share of the residual's absolute sum, %", xlim=(0, 100))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    return figure


def _joint(
    wanted: NDArray[np.floating], given: NDArray[np.floating], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The number of cells with each wanted and given value, those beyond the edges counted at the edge."""
    inside = [np.clip(voxel.ravel(), edges[0], edges[-1]) for voxel in (wanted, given)]
    return np.histogram2d(inside[0], inside[1], bins=[edges, edges])[0]
