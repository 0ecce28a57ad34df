"""Figures: functions that take events or arrays and return a matplotlib Figure; only `save_figure` writes one.

One palette throughout: red is brighter (positive), blue is darker (negative), white is nothing; signed voxels share
symmetric limits about 0 within a figure. Where only a sample of the events is drawn, the figure says how many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import ImageColor

from deflare_core.events import Events
from deflare_core.streams.statistics import count_events
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.limits import MOST_INCHES
from deflare_core.system.markdown import printable

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from deflare_core.scores.roc import Roc

POSITIVE, NEGATIVE, NEUTRAL, ACCENT = "#c1272d", "#1f5fa8", "#4d4d4d", "#2f9e6e"
POLARITIES = (("positive (brighter)", POSITIVE), ("negative (darker)", NEGATIVE))
SIGNED = {"positive": ("#e2413a", "#7d0c14"), "negative": ("#3579c8", "#0e2f66")}
"""Colours of one event in a cell and of many: a single one is to be seen as well as the busiest."""
STEPS = 127
"""Colours on each side of white in a palette."""
SURPLUS_MAP = matplotlib.colormaps["PRGn_r"]
"""Purple, the colour of flare, where the input has more events; green, that of the target, where it has."""
DOTS_PANEL_INCHES, VOXEL_PANEL_INCHES = 2.6, 2.9
BINS_IN_A_ROW = 4
VOXEL_PANEL_PIXELS = 320
"""Wider pictures are drawn at less than their size, where single events would go missing."""
STREAMS = {"input": NEUTRAL, "output": "#b8860b", "target": ACCENT, "removed": "#7a3e9d"}
"""Colours of recordings by name, in the order in which figures show them; red and blue are for polarities."""
METHOD_COLOURS = {**STREAMS, "network": STREAMS["output"]}


def draw_voxels(voxels: Mapping[str, np.ndarray], t0_us: int, window_us: int, limit: float | None = None) -> Figure:
    """The bins of each named voxel `(bins, H, W)` as images, four in a row, all on one symmetric colour scale.

    It ends at `limit` events per cell; none takes that of `find_limit`. The titles give the bins' times.
    """
    limit = limit or find_limit(list(voxels.values()))
    num_bins, height, width = next(iter(voxels.values())).shape
    columns, block = min(num_bins, BINS_IN_A_ROW), -(-width // VOXEL_PANEL_PIXELS)
    rows = -(-num_bins // columns)
    panel = VOXEL_PANEL_INCHES
    figure = make_figure(panel * columns + 1.2, (panel * height / width + 0.25) * rows * len(voxels) + 0.2)
    grid = figure.subplots(rows * len(voxels), columns, sharex=True, sharey=True, squeeze=False)
    edges_us = t0_us + np.arange(num_bins + 1) * window_us / num_bins
    for k, (name, voxel) in enumerate(voxels.items()):
        panels = grid[k * rows : (k + 1) * rows].ravel()
        for axes, cells in zip(panels, voxel, strict=False):
            image = draw_signed(axes, find_strongest(cells, block), limit)
            axes.set(xticks=[], yticks=[])
        _title_spans(panels[:num_bins], edges_us, 8)
        panels[0].set_ylabel(f"{name}\n{voxel.sum():+,.0f} net")
        for spare in panels[num_bins:]:
            spare.remove()
    label = "events per cell, signed" + (f",\nstrongest of {block} x {block} cells" if block > 1 else "")
    shown = [axes for axes in figure.axes if axes.images]
    figure.colorbar(image, ax=shown, label=label, extend="both", shrink=min(0.9, 4 / len(voxels) / rows), pad=0.01)
    return figure


def list_voxels(voxels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of input, output and target that there are, in this order, and what the output removed of the input."""
    named = {name: voxels[name] for name in STREAMS if name in voxels}
    return named | ({"removed": voxels["input"] - voxels["output"]} if "output" in voxels else {})


def draw_events(recordings: Mapping[str, Events], t_start_us: int, t_end_us: int) -> Figure:
    """One panel per named recording: the signed sum of events at each pixel over `[t_start_us, t_end_us)`."""
    return lay_out_events(recordings, t_start_us, t_end_us)[0]


def draw_pair(flare: Events, clean: Events, t_start_us: int, t_end_us: int) -> Figure:
    """Input and target of one window, and where the input has more events (purple) or fewer (green)."""
    pair = {"input": flare.window(t_start_us, t_end_us), "target": clean.window(t_start_us, t_end_us)}
    figure, (axes,) = lay_out_events(pair, t_start_us, t_end_us, num_more=1)
    surplus = count_events(pair["input"]) - count_events(pair["target"])
    limit = find_limit([surplus])
    image = axes.imshow(surplus, cmap=SURPLUS_MAP, vmin=-limit, vmax=limit, interpolation="nearest")
    more, fewer = surplus.clip(min=0).sum(), (-surplus).clip(min=0).sum()
    axes.set_title(f"input less target: {more:,} more, {fewer:,} fewer", fontsize=10)
    figure.colorbar(image, ax=axes, label="events per pixel, input less target", extend="both", shrink=0.85, pad=0.02)
    return figure


def lay_out_events(
    recordings: Mapping[str, Events], t_start_us: int, t_end_us: int, num_more: int = 0
) -> tuple[Figure, list[Axes]]:
    """The figure that `draw_events` draws, and `num_more` empty panels to the right of it."""
    shown = {name: events.window(t_start_us, t_end_us) for name, events in recordings.items()}
    pictures = [sum_polarities(events) for events in shown.values()]
    limit, (height, width), num = find_limit(pictures), pictures[0].shape, len(shown) + num_more
    figure = make_figure(4.2 * num + 0.8, 4.2 * height / width + 0.9)
    grid = list(figure.subplots(1, num, sharex=True, sharey=True, squeeze=False)[0])
    for axes, (name, events), picture in zip(grid, shown.items(), pictures, strict=False):
        image = draw_signed(axes, picture, limit)
        axes.set_title(f"{as_label(name)}: {len(events):,} events", fontsize=10)
    for axes in grid:
        axes.set_xlabel("x, pixels")
    grid[0].set_ylabel("y, pixels")
    figure.suptitle(f"{t_start_us / 1e3:.1f} to {t_end_us / 1e3:.1f} ms", fontsize=10)
    label = "events per pixel, signed"
    figure.colorbar(image, ax=grid[: len(shown)], label=label, extend="both", shrink=0.85, pad=0.02)
    return figure, grid[len(shown) :]


def draw_event_series(recordings: Mapping[str, Events], t_start_us: int, t_end_us: int, num_frames: int = 5) -> Figure:
    """Red and blue dots of the events in consecutive slices of time, one row per named recording."""
    edges = np.linspace(t_start_us, t_end_us, num_frames + 1).astype(int)
    height, width = next(iter(recordings.values())).sensor_size
    panel = DOTS_PANEL_INCHES
    figure = make_figure(panel * num_frames + 0.6, (panel * height / width + 0.2) * len(recordings) + 0.7)
    grid = figure.subplots(len(recordings), num_frames, sharex=True, sharey=True, squeeze=False)
    for row, (name, events) in zip(grid, recordings.items(), strict=True):
        for axes, start, end in zip(row, edges[:-1], edges[1:], strict=True):
            _draw_dots(axes, events.window(int(start), int(end)))
        row[0].set_ylabel(f"{name}\ny, pixels")
    _title_spans(grid[0], edges, 8, loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("x, pixels")
    figure.legend(handles=_polarity_handles(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _title_spans(
    panels: Iterable[Axes], edges_us: np.ndarray, font_size: int, loc: Literal["left", "center"] = "center"
) -> None:
    for axes, start_us, end_us in zip(panels, edges_us[:-1], edges_us[1:], strict=True):
        axes.set_title(f"{start_us / 1e3:,.1f} to {end_us / 1e3:,.1f} ms", fontsize=font_size, loc=loc)


def draw_event_cloud(events: Events, seed: int, max_events: int = 20_000) -> Figure:
    """The events as a cloud in x, y and time; of more than `max_events` a random sample, whose size the title says."""
    shown = sample_events(events, max_events, seed)
    figure = make_figure(6.5, 5.2)
    axes = figure.add_subplot(projection="3d")
    colours = np.where(shown.p > 0, POSITIVE, NEGATIVE)
    size = np.clip(12_000 / max(len(shown), 1), 0.6, 4)
    axes.scatter(shown.t / 1e3, shown.x, shown.y, c=colours, s=size, linewidths=0, depthshade=False)
    height, width = events.sensor_size
    axes.set(xlabel="time, ms", ylabel="x, pixels", zlabel="y, pixels", ylim=(0, width), zlim=(height, 0))
    axes.set_box_aspect((1.6, 1.2, 1.2 * height / width))
    axes.tick_params(labelsize=8)
    axes.set_title(f"{len(shown):,} of {len(events):,} events", fontsize=10)
    axes.legend(handles=_polarity_handles(), loc="upper left", frameon=False)
    return figure


def draw_turning_cloud(events: Events, seed: int, max_events: int = 20_000) -> go.Figure:
    """The cloud that `draw_event_cloud` draws, of the same events, as a plotly figure to turn and zoom in a browser.

    `figure.write_html(path)` writes a page of about 5 MB that works without a network.
    """
    # Only this figure needs plotly, whose import takes longer than that of all else here.
    import plotly.graph_objects as go

    shown = sample_events(events, max_events, seed)
    figure = go.Figure()
    for sign, (name, colour) in zip((1, -1), POLARITIES, strict=True):
        part = shown[shown.p == sign]
        marker = {"size": 1.5, "color": colour}
        figure.add_trace(go.Scatter3d(x=part.t / 1e3, y=part.x, z=part.y, mode="markers", marker=marker, name=name))
    height, width = events.sensor_size
    axes = {
        "xaxis_title": "time, ms",
        "yaxis": {"title": "x, pixels", "range": [0, width]},
        "zaxis": {"title": "y, pixels", "range": [height, 0]},
        "aspectratio": {"x": 1.6, "y": 1, "z": height / width},
        # Farther away than plotly's own first view, which cuts off the end of so long a box.
        "camera": {"eye": {"x": 0.8, "y": -1.8, "z": 0.7}},
    }
    title = f"{len(shown):,} of {len(events):,} events"
    figure.update_layout(title=title, scene=axes, legend={"itemsizing": "constant"}, height=600)
    return figure


def draw_event_rates(recordings: Mapping[str, Events], clock_us: tuple[int, int], bin_us: int = 1000) -> Figure:
    """The event rate over time by polarity, one panel per named recording, on one scale."""
    edges = np.arange(clock_us[0], clock_us[1] + bin_us, bin_us)
    figure = make_figure(8, 1.9 * len(recordings) + 0.7)
    grid = figure.subplots(len(recordings), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, events) in zip(grid, recordings.items(), strict=True):
        for sign, colour, label in ((1, POSITIVE, "positive"), (-1, NEGATIVE, "negative")):
            rates = sign * np.histogram(events.t[events.p == sign], edges)[0] / bin_us
            axes.stairs(rates, edges / 1e3, color=colour, fill=True, alpha=0.85, label=label)
        axes.axhline(0, color=NEUTRAL, linewidth=0.6)
        axes.set_ylabel(f"{name}\nMev/s")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    grid[-1].set_xlabel("time, ms")
    return figure


def draw_scores(
    summary: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
) -> Figure:
    """Bars of the named scores, one panel each, one row per method; a bar that would dwarf the others is cut off.

    The summary holds means by method and score; the ends of their intervals are drawn as lines across the bars' ends.
    """
    from deflare_core.scores.metrics import find_score  # With it torch is loaded, which no other picture needs.

    figure = make_figure(1.5 * len(names) + 1, 0.24 * len(summary) + 0.8)
    grid = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    methods = [as_label(method.replace("_", " ")) for method in summary]
    colours = [METHOD_COLOURS.get(method, NEUTRAL) for method in summary]
    for axes, name in zip(grid, names, strict=True):
        values = np.array([scores.get(name, np.nan) for scores in summary.values()])
        bounds = [(intervals or {}).get(m, {}).get(name, (v, v)) for m, v in zip(summary, values, strict=True)]
        low, high = np.array(bounds).T
        end = _bars_end(high)
        axes.barh(methods, np.nan_to_num(np.minimum(values, end)), color=colours, height=0.7)
        axes.hlines(methods, np.minimum(low, end), np.minimum(high, end), color="black", linewidth=1, alpha=0.6)
        for row, (value, tip) in enumerate(zip(values, np.nan_to_num(np.minimum(high, end)), strict=True)):
            label = "-" if np.isnan(value) else f"{value:.3g}" + (" >" if value > end else "")
            axes.annotate(label, (tip, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_title(find_score(name).label, fontsize=8)
        axes.set(xlim=(0, 1.45 * end), xticks=[0, end], xticklabels=["0", f"{end:.2g}"])
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    grid[0].invert_yaxis()
    return figure


def _bars_end(values: np.ndarray) -> float:
    """Where bars end at the latest: at the largest value, or at five times the median where that is far less."""
    known = values[np.isfinite(values) & (values > 0)]
    return float(min(known.max(), 5 * np.median(known))) if len(known) else 1.0


def draw_signed(axes: Axes, picture: np.ndarray, limit: float, power: float = 2) -> AxesImage:
    """The image of a signed `(H, W)` array drawn on the axes, from -limit (blue) to +limit (red)."""
    colours = ListedColormap(make_palette(limit, power) / 255)
    return axes.imshow(picture, cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")


def make_palette(limit: float, power: float = 2) -> NDArray[np.uint8]:
    """The colours from -limit to +limit events in a cell, uint8 `(2 * STEPS + 1, 3)`, white in the middle.

    From none to one event a colour gathers with that power, so that what is less than half an event stays faint; from
    one to the limit it darkens.
    """
    events = np.arange(1, STEPS + 1) / STEPS * limit
    one = min(1.0, limit)
    pale = np.minimum(events / one, 1)[:, None] ** power
    dark = (np.maximum(events - one, 0) / max(limit - one, 1e-9))[:, None]
    sides = {}
    for name, colours in SIGNED.items():
        single, many = (np.array(ImageColor.getrgb(colour)) for colour in colours)
        sides[name] = np.where(dark > 0, single + dark * (many - single), 255 + pale * (single - 255))
    levels = np.concatenate([sides["negative"][::-1], np.full((1, 3), 255), sides["positive"]])
    return np.floor(levels + 0.5).astype(np.uint8)


def sum_polarities(events: Events) -> np.ndarray:
    """The signed sum of events at each pixel, int64 `(H, W)`."""
    return count_events(events[events.p > 0]) - count_events(events[events.p < 0])


def find_strongest(picture: np.ndarray, block: int) -> np.ndarray:
    """The entry farthest from 0 of each block of `block` x `block` pixels, `(rows, columns)`; see `cut_blocks`."""
    blocks = cut_blocks(picture, block)
    return np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)[..., 0]


def cut_blocks(picture: np.ndarray, block: int) -> np.ndarray:
    """The entries of each block of `block` x `block` pixels, `(rows, columns, block ** 2)`.

    Blocks that reach over the edge are filled up with 0.
    """
    padded = np.pad(picture, [(0, -size % block) for size in picture.shape])
    rows, columns = (size // block for size in padded.shape)
    return padded.reshape(rows, block, columns, block).swapaxes(1, 2).reshape(rows, columns, -1)


def sample_events(events: Events, max_events: int, seed: int) -> Events:
    """At most `max_events` of the events, in their order; which of them is drawn from the seed."""
    if len(events) <= max_events:
        return events
    shown = np.random.default_rng(seed).choice(len(events), max_events, replace=False)
    return events[np.isin(np.arange(len(events)), shown)]


def find_limit(pictures: Sequence[np.ndarray], percent: float = 99) -> float:
    """The value that `percent` of the occupied cells of all pictures `(..., H, W)` do not exceed, at least 1 event.

    It is the limit of their colours: lamps saturate, so that what moves near them stays visible.
    """
    # Cells below half an event decode to nothing; counted in, a network's faint noise would set the limit.
    occupied = np.concatenate([np.abs(picture[np.abs(picture) >= 0.5]) for picture in pictures])
    return max(1.0, float(np.percentile(occupied, percent))) if len(occupied) else 1.0


def make_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure in which labels and legends find room by themselves."""
    return Figure(figsize=(width_inches, min(height_inches, MOST_INCHES)), dpi=110, layout="constrained")


def _draw_dots(axes: Axes, events: Events) -> None:
    height, width = events.sensor_size
    pixel_points = DOTS_PANEL_INCHES * 72 / width
    size = max(0.4, pixel_points**2)
    axes.scatter(events.x, events.y, c=np.where(events.p > 0, POSITIVE, NEGATIVE), s=size, linewidths=0, marker="s")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    # Beside the events, which it would cover within the panel.
    axes.text(1, 1.02, f"{len(events):,} events", transform=axes.transAxes, fontsize=7, ha="right", va="bottom")


def as_label(name: object) -> str:
    """A name as figures show it as it is: one with dollars would be read as a formula."""
    return printable(name).replace("$", r"\$")


def pick_colours(names: Iterable[str]) -> list[str]:
    """The colour of each recording: by its name, or by its place among the names."""
    return [STREAMS.get(name, by_place) for name, by_place in zip(names, STREAMS.values(), strict=False)]


def _polarity_handles() -> list[Line2D]:
    return [Line2D([], [], marker="o", linestyle="", color=colour, label=label) for label, colour in POLARITIES]


def save_figure(figure: Figure, path: Path) -> Path:
    """The path at which the figure was written, in the format of its suffix."""
    with complete_or_absent(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
    return path


def draw_roc(roc: Roc, kept: float) -> Figure:
    """The ROC curve of a network, with the point that keeps the given share of the other events."""
    figure = make_figure(5, 4.2)
    axes = figure.subplots()
    axes.plot(1 - roc.kept, roc.removed, color=METHOD_COLOURS["network"], label=f"network, area {roc.area:.3f}")
    axes.plot([0, 1], [0, 1], color=NEUTRAL, linestyle=":", label="chance, area 0.5")
    at = (1 - kept, roc.removed_at(kept))
    axes.plot(*at, "o", color=METHOD_COLOURS["network"], label=f"{at[1]:.1%} removed where {kept:.0%} are kept")
    axes.set(xlabel="share of other events removed", ylabel="share of flare's events removed", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="lower right")
    return figure
