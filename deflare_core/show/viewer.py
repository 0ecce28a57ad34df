"""The viewer: input, target, output and what was removed side by side in a notebook, through all of a recording.

Python holds the recordings and the state, `viewer.js` draws. A window's pictures travel once, as binary buffers of a
message that the front end asks for; as traits they would be saved in every executed notebook (up to 40 MB here). Every
control is a trait, so `viewer.bin_index = 3`, `viewer.observe(...)` and `ipywidgets.jslink(...)` work.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deflare_core.codec import bin_edges_us
from deflare_core.events import WINDOW_US, Events
from deflare_core.io.recordings import Recording
from deflare_core.show.figures import SIGNED, draw_signed, find_limit, make_figure
from deflare_core.show.stretches import (
    INPUT,
    OUTPUT,
    REMOVED,
    TARGET,
    Panel,
    Source,
    Timeline,
    choose_length_us,
    keep_highest,
    keep_last,
    load_panels,
)
from deflare_core.show.viewer_film import check_film, write_gif

Voxel = np.ndarray | torch.Tensor
LoadWindow = Callable[[int], Sequence[Any]]
"""Gives `(input, target, output)` of a window by its number; trailing ones may be left out, or None."""

CAUSE_COLOURS = {
    "unknown": "#c4c4c4",
    "background": "#6b6b6b",
    "noise": "#e0a100",
    "light": "#2f9e6e",
    "flare": "#9440b8",
}

POLARITIES = ("both", "positive", "negative")
SPANS = ("bin", "window", "stretch")
LOOKS = ("counts", "surface")
COLOURS = ("polarity", "cause")
SHORTEST_MS, LONGEST_MS = 0.1, 60_000
"""Milliseconds that one picture may show; of more a recording of today's sensors does not fit into memory."""
FRAME_US, MOST_FRAMES = 2_500, 100
"""What a frame of a film shows at least, and how many it has at most."""
SURFACE_STEPS = 127
"""A time surface travels as whole numbers up to this."""


class VoxelBinViewer(anywidget.AnyWidget):
    """An interactive view of one window's voxels, and of the windows before and after it.

    Parameters
    ----------
    input : the voxel before, float or integer `(bins, H, W)`, array or tensor, also with leading axes of length 1.
    target : the voxel that the output should equal, if known.
    output : the voxel that the network made, if any; what it removed of the input is then shown as well.
    window_us : length of the window in microseconds, for the time axis.
    t0_us : absolute start of the first window, microseconds.

    Raises
    ------
    ValueError
        When a voxel is not `(bins, H, W)`, holds a value that is not finite, or the shapes differ.
    """

    _esm = Path(__file__).with_name("viewer.js")
    _css = Path(__file__).with_name("viewer.css")

    span = traitlets.Enum(SPANS, "bin", help="how much of the recording one picture shows").tag(sync=True)
    stretch_ms = traitlets.Float(50.0, help="what the span `stretch` shows, milliseconds").tag(sync=True)
    look = traitlets.Enum(LOOKS, "counts", help="counted events, or a time surface that fades").tag(sync=True)
    colour = traitlets.Enum(COLOURS, "polarity", help="what the colours of events say").tag(sync=True)
    bin_index = traitlets.Int(0, help="the bin on show, from 0").tag(sync=True)
    index = traitlets.Int(0, help="the window or stretch on show, from 0").tag(sync=True)
    num_windows = traitlets.Int(1, help="how many of them can be stepped through", read_only=True).tag(sync=True)
    playing = traitlets.Bool(False, help="whether time runs by itself").tag(sync=True)
    polarity = traitlets.Enum(POLARITIES, "both", help="which sign of events is drawn").tag(sync=True)
    limit = traitlets.Float(
        None, allow_none=True, help="events per cell at which red and blue are full; None: found for each window"
    ).tag(sync=True)
    view = traitlets.List(traitlets.Float(), help="shown cells [x0, y0, x1, y1); empty: all").tag(sync=True)
    pixel = traitlets.List(traitlets.Int(), help="the pixel [x, y] of the time course; empty: none").tag(sync=True)
    maximised = traitlets.Unicode("", help="title of the panel that is shown alone; empty: none").tag(sync=True)
    blinking = traitlets.Bool(False, help="whether input and output take turns in one place").tag(sync=True)
    window_us = traitlets.Int(WINDOW_US, help="length of a window or stretch, us", read_only=True).tag(sync=True)
    t0_us = traitlets.Int(0, help="absolute start of the first window, us", read_only=True).tag(sync=True)
    has_time = traitlets.Bool(False, help="whether it can show stretches and time surfaces", read_only=True).tag(
        sync=True
    )
    palette = traitlets.Dict(SIGNED, help="colours of one event and of many, by sign", read_only=True).tag(sync=True)
    causes = traitlets.Dict(CAUSE_COLOURS, help="the colour of each cause, by rank", read_only=True).tag(sync=True)

    def __init__(
        self,
        input: Voxel,
        target: Voxel | None = None,
        output: Voxel | None = None,
        *,
        window_us: int = WINDOW_US,
        t0_us: int = 0,
    ) -> None:
        self._load_window: LoadWindow | None = None
        self._timeline: Timeline | None = None
        self._panels = make_panels(input, target, output)
        super().__init__()
        self.set_trait("window_us", window_us)
        self.set_trait("t0_us", t0_us)
        self.on_msg(self._answer)

    @classmethod
    def of_windows(
        cls,
        load_window: LoadWindow,
        num_windows: int,
        index: int = 0,
        *,
        window_us: int = WINDOW_US,
        t0_us: int = 0,
    ) -> VoxelBinViewer:
        """A viewer that steps through windows, from the one numbered `index` on."""
        viewer = cls(*load_window(index), window_us=window_us, t0_us=t0_us)
        viewer.set_trait("num_windows", num_windows)
        viewer.index = index
        viewer._load_window = load_window
        return viewer

    @classmethod
    def of_recordings(
        cls,
        input: Events | Recording,
        target: Events | Recording | None = None,
        output: Events | Recording | None = None,
        *,
        t0_us: int,
        num_windows: int,
        index: int = 0,
        span: str | None = None,
        labels: NDArray[np.uint8] | None = None,
    ) -> VoxelBinViewer:
        """A viewer that steps through recordings on one clock, from `t0_us` on, over `num_windows` windows of 20 ms.

        Of open recordings only what is on show is read, so they may be of any length.

        Parameters
        ----------
        index : the window that is shown first, or that lies in the stretch that is.
        span : "bin", "window" or "stretch"; None takes the shortest in which something is seen.
        labels : what caused each event of an input in memory, keys of `events.CAUSES`; an open one has its own.
        """
        given = {INPUT: input, TARGET: target, OUTPUT: output}
        sources = {title: Source(events) for title, events in given.items() if events is not None}
        timeline = Timeline(sources | {INPUT: Source(input, labels)}, t0_us, num_windows * WINDOW_US)
        viewer = cls(np.zeros((1, 1, 1)), t0_us=t0_us)
        viewer.set_trait("num_windows", num_windows)
        viewer.set_trait("has_time", True)
        viewer.index = index
        chosen, length_us = choose_length_us(timeline)
        viewer.span = span or chosen
        viewer.stretch_ms = length_us / 1000 if chosen == "stretch" else viewer.stretch_ms
        viewer._timeline = timeline
        viewer._cut_again()
        return viewer

    @property
    def panels(self) -> dict[str, NDArray[np.float32]]:
        """The panels of the window or stretch on show by title, float32 `(bins, H, W)`, signed events per cell.

        With an output that which was removed is among them; in the look `surface` the cells are those of time surfaces.
        """
        return {title: panel.cells for title, panel in self._panels.items()}

    @property
    def voxels(self) -> dict[str, NDArray[np.float32]]:
        """The same, but for what was removed."""
        return {title: cells for title, cells in self.panels.items() if title != REMOVED}

    @property
    def num_bins(self) -> int:
        """Bins of the voxels on show."""
        return len(self._panels[INPUT].cells)

    @property
    def start_us(self) -> int:
        """The absolute start of the window or stretch on show."""
        return self.t0_us + self.index * self.window_us

    @property
    def shown_limit(self) -> float:
        """The limit of the colours: the one that was set, or what suits the window on show."""
        return self.limit or find_limits(self._panels)[self.span != "bin"]

    def show(self, input: Voxel, target: Voxel | None = None, output: Voxel | None = None) -> None:
        """Replace the voxels `(bins, H, W)` on show; bin, fixed limit and zoom stay, so that windows compare."""
        self._show_panels(make_panels(input, target, output))

    def jump(self, to: str) -> None:
        """Go to the window or stretch with the most `events`, or to the one from which most were `removed`."""
        if self._timeline and (to == "events" or OUTPUT in self._timeline.sources):
            self.index = self._timeline.find_most("removed" if to == "removed" else "events", self.window_us)

    def figure(self, bin_index: int | None = None) -> Figure:
        """What is on show as a static figure, with the viewer's colours, limit, polarity and zoom; or one bin of it."""
        shown = self.bin_index if bin_index is None and self.span == "bin" else bin_index
        bins = [*range(self.num_bins)] if shown is None else [self._check_bin_index(shown)]
        pictures = {title: self._draw(panel, shown) for title, panel in self._panels.items()}
        figure, grid = _lay_out_panels(len(pictures), *self._panels[INPUT].cells.shape[1:])
        for axes, (title, picture) in zip(grid, pictures.items(), strict=True):
            positive, negative = self._panels[title].counts[bins].sum(0)
            image = draw_signed(axes, picture, self.shown_limit, 2 if self.look == "counts" else 1)
            axes.set_title(f"{title}: {positive:,.0f} positive, {abs(negative):,.0f} negative")
        if self.view:
            x0, y0, x1, y1 = self.view
            grid[0].set(xlim=(x0 - 0.5, x1 - 0.5), ylim=(y1 - 0.5, y0 - 0.5))
        figure.supxlabel("x, pixels")
        figure.supylabel("y, pixels")
        label = "events per cell" if self.look == "counts" else "time surface"
        figure.colorbar(image, ax=grid, label=label, extend="both", pad=0.02, aspect=40)
        figure.suptitle(self._name_time(bins))
        return figure

    def film(self) -> bytes:
        """The window or stretch on show as an animated GIF, with the viewer's colours, limit, polarity and zoom.

        A frame shows a bin, and of a long stretch as little as a hundredth.
        """
        num = self.num_bins
        if self._timeline is not None:
            num = int(np.clip(self.window_us // FRAME_US, self.num_bins, MOST_FRAMES))
        shown = [self._crop(panel.cells[0]).shape for title, panel in self._panels.items() if self._is_in_sight(title)]
        check_film(num, len(shown), shown[0])
        limit = self.limit or find_limits(self._panels)[0]
        return write_gif(self._draw_frames(num), limit, 2 if self.look == "counts" else 1)

    def _draw_frames(self, num: int) -> Iterator[tuple[str, dict[str, NDArray[np.float32]]]]:
        """The words below each of so many frames of what is on show, and its pictures by title."""
        edges_us = bin_edges_us(num, self.window_us, self.start_us)
        for k, (start_us, end_us) in enumerate(itertools.pairwise(edges_us.tolist())):
            if self._timeline is None:
                pictures = {title: self._draw(panel, k) for title, panel in self._panels.items()}
            else:
                panels = load_panels(self._timeline.sources, start_us, end_us - start_us, self.look)
                pictures = {title: self._draw(panel, None) for title, panel in panels.items()}
            shown = {title: self._crop(picture) for title, picture in pictures.items() if self._is_in_sight(title)}
            yield f"{start_us / 1000:,.1f} to {end_us / 1000:,.1f} ms", shown

    def _is_in_sight(self, title: str) -> bool:
        return self.maximised not in self._panels or title == self.maximised

    def _crop(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part of a picture `(H, W)` that the zoom shows, in whole cells."""
        x0, y0, x1, y1 = self.view or (0, 0, *picture.shape[::-1])
        return picture[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]

    def _draw(self, panel: Panel, bin_index: int | None) -> NDArray[np.float32]:
        """A bin of a panel, or all of them, as one picture `(H, W)` of the polarity on show."""
        pictures = panel.whole if bin_index is None else keep_last(panel.cells[[bin_index]])
        return pictures[POLARITIES.index(self.polarity)]

    def _name_time(self, bins: list[int]) -> str:
        """Where in the recording some bins lie, in words."""
        edges = bin_edges_us(self.num_bins, self.window_us, self.start_us)
        name = f"{'Stretch' if self.span == 'stretch' else 'Window'} {self.index}"
        name += f", bin {bins[0]}" if len(bins) == 1 else ""
        return f"{name}: {edges[bins[0]] / 1000:,.1f} to {edges[bins[-1] + 1] / 1000:,.1f} ms"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            # Where there is no front end (an HTML export, a repository's web page) the picture is what is seen.
            picture = io.BytesIO()
            self.figure().savefig(picture, format="png")
            bundle[0]["image/png"] = base64.b64encode(picture.getvalue()).decode()
        return bundle

    def _answer(self, _widget: object, content: dict, _buffers: object) -> None:
        kind = content.get("kind")
        if kind == "window please":
            self._send_window()
            self._send_rates()
        elif kind == "jump":
            self.jump(content["to"])
        elif kind == "film please":
            name = f"voxel_{'stretch' if self.span == 'stretch' else 'window'}{self.index}.gif"
            self.send({"kind": "film", "name": name}, [self.film()])

    def _send_window(self) -> None:
        header, buffers = pack_window(self._panels)
        place = {"index": self.index, "start_us": self.start_us, "window_us": self.window_us, "span": self.span}
        self.send({"kind": "window", **place, **header}, buffers)

    def _send_rates(self) -> None:
        if self._timeline:
            bar_us, events, removed = self._timeline.rates
            counts = {"events": events.tolist(), "removed": None if removed is None else removed.tolist()}
            self.send({"kind": "rates", "bar_us": bar_us, **counts})

    def _show_panels(self, panels: dict[str, Panel]) -> None:
        self._panels = panels
        self.bin_index = min(self.bin_index, self.num_bins - 1)
        self._send_window()

    @traitlets.observe("index")
    def _step(self, change: Any) -> None:
        if self._load_window is not None:
            self.show(*self._load_window(change["new"]))
        elif self._timeline is not None:
            self._show_panels(self._timeline.load(self.index, self.window_us, self.look))

    @traitlets.observe("span", "stretch_ms", "look")
    def _cut_again(self, _change: Any = None) -> None:
        """Show what is at the same time as before, in a stretch of the length that is now asked for."""
        if (timeline := self._timeline) is None:
            return
        length_us = round(self.stretch_ms * 1000) if self.span == "stretch" else WINDOW_US
        number, self._timeline = (self.start_us - self.t0_us) // length_us, None
        self.set_trait("num_windows", max(self.num_windows, number + 1))
        self.index = number
        self.set_trait("num_windows", timeline.count_stretches(length_us))
        self.set_trait("window_us", length_us)
        self._timeline = timeline
        self._show_panels(timeline.load(number, length_us, self.look))

    @traitlets.validate("bin_index")
    def _check_bin(self, proposal: Any) -> int:
        return self._check_bin_index(proposal["value"])

    @traitlets.validate("index")
    def _check_index(self, proposal: Any) -> int:
        if not 0 <= proposal["value"] < self.num_windows:
            raise ValueError(f"Windows are numbered 0 to {self.num_windows - 1}; received index {proposal['value']}.")
        return proposal["value"]

    @traitlets.validate("limit")
    def _check_limit(self, proposal: Any) -> float | None:
        if proposal["value"] is not None and not (np.isfinite(proposal["value"]) and proposal["value"] > 0):
            raise ValueError(f"limit is a positive number of events per cell; received {proposal['value']}.")
        return proposal["value"]

    @traitlets.validate("stretch_ms")
    def _check_stretch(self, proposal: Any) -> float:
        if not SHORTEST_MS <= proposal["value"] <= LONGEST_MS:
            raise ValueError(
                f"stretch_ms is {SHORTEST_MS} to {LONGEST_MS:,} milliseconds; received {proposal['value']}."
            )
        return proposal["value"]

    @traitlets.validate("span", "look")
    def _check_time(self, proposal: Any) -> str:
        if proposal["value"] in ("stretch", "surface") and not self.has_time:
            raise ValueError(f"'{proposal['value']}' needs the times of events; show recordings, not voxels.")
        return proposal["value"]

    def _check_bin_index(self, bin_index: int) -> int:
        if not 0 <= bin_index < self.num_bins:
            raise ValueError(f"Bins are numbered 0 to {self.num_bins - 1}; received bin_index {bin_index}.")
        return bin_index


def make_panels(input: Voxel, target: Voxel | None = None, output: Voxel | None = None) -> dict[str, Panel]:
    """The panels of voxels `(bins, H, W)` by title; with an output also that by which it is nearer to zero."""
    voxels = check_voxels(input, target, output)
    if OUTPUT in voxels:
        before = voxels[INPUT]
        voxels[REMOVED] = np.clip(before - voxels[OUTPUT], np.minimum(before, 0), np.maximum(before, 0))
    return {title: Panel(cells, sum_signs(cells)) for title, cells in voxels.items()}


def sum_signs(cells: NDArray[np.float32]) -> NDArray[np.float64]:
    """The sums of the positive and of the negative cells of each bin, float64 `(bins, 2)`, both as positive numbers."""
    sums = [np.maximum(sign * cells, 0).sum((1, 2), dtype=np.float64) for sign in (1, -1)]
    return np.stack(sums, axis=1)


def check_voxels(
    input: Voxel, target: Voxel | None = None, output: Voxel | None = None
) -> dict[str, NDArray[np.float32]]:
    """The given voxels by title, float32 `(bins, H, W)` in host memory, all of one shape."""
    given = {INPUT: input, TARGET: target, OUTPUT: output}
    voxels = {title: _check_voxel(title, voxel) for title, voxel in given.items() if voxel is not None}
    shapes = {title: voxel.shape for title, voxel in voxels.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"All voxels must have one shape (bins, height, width); received {shapes}.")
    return voxels


def _check_voxel(title: str, voxel: Voxel) -> NDArray[np.float32]:
    array = voxel.detach().cpu().float().numpy() if isinstance(voxel, torch.Tensor) else np.asarray(voxel)
    if array.ndim < 3 or array.size == 0 or any(n != 1 for n in array.shape[:-3]):
        raise ValueError(f"{title} must be a voxel (bins, height, width); received shape {array.shape}.")
    array = np.ascontiguousarray(array.reshape(array.shape[-3:]), dtype=np.float32)
    if (wrong := ~np.isfinite(array)).any():
        first = tuple(map(int, np.unravel_index(wrong.argmax(), array.shape)))
        raise ValueError(
            f"{title} holds {int(wrong.sum())} cells that are not finite, the first at (bin, y, x) = {first}. "
            "Check the network or file that made it."
        )
    return array


def pack_window(panels: dict[str, Panel]) -> tuple[dict[str, Any], list[bytes]]:
    """What the front end needs to restore the panels: shape, limits, and for each panel how its buffers are packed.

    Behind its bins `(bins, H, W)` each panel has all of them in one picture, of both signs and of each.
    """
    is_surface = panels[INPUT].look == "surface"
    headers, buffers, largest = [], [], 1.0
    for title, panel in panels.items():
        cells = np.concatenate([panel.cells, panel.whole])
        largest = max(largest, float(np.abs(cells).max()))
        header, buffer = pack_cells(np.rint(cells * SURFACE_STEPS) if is_surface else cells)
        headers.append({"title": title, "counts": panel.counts.tolist(), "cells": header, "causes": None})
        buffers.append(buffer)
        if panel.causes is not None:
            headers[-1]["causes"], buffer = pack_cells(np.concatenate([panel.causes, keep_highest(panel.causes)]))
            buffers.append(buffer)
    scale = 1 / SURFACE_STEPS if is_surface else 1
    common = {"shape": list(panels[INPUT].cells.shape), "look": panels[INPUT].look, "limits": find_limits(panels)}
    return {**common, "largest": largest, "scale": scale, "panels": headers}, buffers


def pack_cells(cells: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """How the cells are packed, and the bytes: whole numbers in as few as hold them, else little-endian float32.

    Where fewer than one in eight is not zero, only those travel, behind their places as uint32.
    """
    dtype = next((name for name in ("int8", "int16") if _holds(name, cells)), "float32")
    cells = cells.astype(np.dtype(dtype).newbyteorder("<")).ravel()
    places = np.flatnonzero(cells)
    if 8 * len(places) >= cells.size:
        return {"dtype": dtype, "filled": None}, cells.tobytes()
    return {"dtype": dtype, "filled": len(places)}, places.astype("<u4").tobytes() + cells[places].tobytes()


def _holds(dtype: str, cells: np.ndarray) -> bool:
    """Whether a type of whole numbers holds all cells exactly."""
    info = np.iinfo(dtype)
    return bool(cells.min() >= info.min and cells.max() <= info.max and np.array_equal(cells.astype(dtype), cells))


def find_limits(panels: dict[str, Panel]) -> tuple[float, float]:
    """The limits of the colours that suit single bins, and all of them in one picture."""
    if panels[INPUT].look == "surface":
        return 1.0, 1.0
    bins, wholes = [panel.cells for panel in panels.values()], [panel.whole[0] for panel in panels.values()]
    return find_default_limit(bins), find_default_limit(wholes)


def find_default_limit(voxels: list[NDArray[np.float32]]) -> float:
    """The colour limit that `find_limit` finds for voxels `(bins, H, W)`, rounded up to whole events per cell."""
    return float(np.ceil(find_limit(voxels)))


def _lay_out_panels(count: int, height: int, width: int) -> tuple[Figure, list[Axes]]:
    """A figure with axes for `count` images, two in a row, and large enough that 640 columns keep a pixel each."""
    rows, columns = -(-count // 2), min(count, 2)
    figure = make_figure(6.6 * columns + 1, (6.6 * height / width + 0.2) * rows + 0.6)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.remove()
    return figure, list(grid[:count])
