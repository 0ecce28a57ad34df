"""The voxel-bin viewer: input, target, output and residual side by side in a notebook, one slider over the bins.

Python holds the voxels and the state, `viewer.js` draws. A window's voxels travel once, as binary buffers of a
message that the front end asks for; as traits they would be saved in every executed notebook (up to 40 MB here). Every
control is a trait, so `viewer.bin_index = 3`, `viewer.observe(...)` and `ipywidgets.jslink(...)` work.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deflare_core.codec import events_to_voxel
from deflare_core.events import WINDOW_US, Events
from deflare_core.io.recordings import Recording
from deflare_core.show.figures import SIGNED_MAP, draw_signed, find_limit, make_figure

Voxel = np.ndarray | torch.Tensor
LoadWindow = Callable[[int], Sequence[Any]]
"""Gives `(input, target, output)` of a window by its number; trailing ones may be left out, or None."""

PALETTE = [to_hex(colour) for colour in SIGNED_MAP(np.linspace(0, 1, 255))]
"""Colours from -limit to +limit; an odd number, so that zero has one of its own."""

POLARITIES = ("both", "positive", "negative")
RESIDUAL = "Residual"


class VoxelBinViewer(anywidget.AnyWidget):
    """An interactive view of one window's voxels, and of the windows before and after it.

    Parameters
    ----------
    input : the voxel before, float or integer `(bins, H, W)`, array or tensor, also with leading axes of length 1.
    target : the voxel that the output should equal, if known.
    output : the voxel that the network made, if any; the residual `output - input` is then shown as well.
    window_us : length of the window in microseconds, for the time axis.

    Raises
    ------
    ValueError
        When a voxel is not `(bins, H, W)`, holds a value that is not finite, or the shapes differ.
    """

    _esm = Path(__file__).with_name("viewer.js")
    _css = Path(__file__).with_name("viewer.css")

    bin_index = traitlets.Int(0, help="the bin on show, from 0").tag(sync=True)
    index = traitlets.Int(0, help="the window on show, from 0").tag(sync=True)
    num_windows = traitlets.Int(1, help="how many windows can be stepped through", read_only=True).tag(sync=True)
    playing = traitlets.Bool(False, help="whether the bins run by themselves").tag(sync=True)
    polarity = traitlets.Enum(POLARITIES, "both", help="which sign of cells is drawn").tag(sync=True)
    limit = traitlets.Float(1.0, help="events per cell at which red and blue are full").tag(sync=True)
    view = traitlets.List(traitlets.Float(), help="shown cells [x0, y0, x1, y1); empty: all").tag(sync=True)
    pixel = traitlets.List(traitlets.Int(), help="the pixel [x, y] of the time course; empty: none").tag(sync=True)
    window_us = traitlets.Int(WINDOW_US, help="length of a window, microseconds", read_only=True).tag(sync=True)
    palette = traitlets.List(PALETTE, help="colours from -limit to +limit", read_only=True).tag(sync=True)

    def __init__(
        self, input: Voxel, target: Voxel | None = None, output: Voxel | None = None, *, window_us: int = WINDOW_US
    ) -> None:
        self._load_window: LoadWindow | None = None
        self.voxels = check_voxels(input, target, output)
        super().__init__(limit=find_default_limit(list(self.voxels.values())))
        self.set_trait("window_us", window_us)
        self.on_msg(self._answer)

    @classmethod
    def of_windows(cls, load_window: LoadWindow, num_windows: int, index: int = 0) -> VoxelBinViewer:
        """A viewer that steps through windows, from the one numbered `index` on."""
        viewer = cls(*load_window(index))
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
    ) -> VoxelBinViewer:
        """A viewer that steps through recordings on one clock, in 20 ms windows from `t0_us` on.

        Of open recordings only the window on show is read, so they may be of any length.
        """

        def encode(events: Events | Recording | None, k: int) -> Voxel | None:
            if events is None:
                return None
            start_us = t0_us + k * WINDOW_US
            return events_to_voxel(events.window(start_us, start_us + WINDOW_US), t0_us=start_us)

        return cls.of_windows(lambda k: [encode(events, k) for events in (input, target, output)], num_windows, index)

    @property
    def panels(self) -> dict[str, NDArray[np.float32]]:
        """The voxels on show by title, float32 `(bins, H, W)`; with an output also the residual."""
        panels = dict(self.voxels)
        if "Output" in panels:
            panels[RESIDUAL] = panels["Output"] - panels["Input"]
        return panels

    @property
    def num_bins(self) -> int:
        """Bins of the voxels on show."""
        return len(self.voxels["Input"])

    def show(self, input: Voxel, target: Voxel | None = None, output: Voxel | None = None) -> None:
        """Replace the voxels `(bins, H, W)` on show; bin, colour limit and zoom stay, so that windows compare."""
        self.voxels = check_voxels(input, target, output)
        self.bin_index = min(self.bin_index, self.num_bins - 1)
        self._send_window()

    def figure(self, bin_index: int | None = None) -> Figure:
        """The panels of one bin as a static figure with the viewer's colours, limit, polarity and zoom."""
        shown = self.bin_index if bin_index is None else self._check_bin_index(bin_index)
        low, high = {"both": (-np.inf, np.inf), "positive": (0, np.inf), "negative": (-np.inf, 0)}[self.polarity]
        figure, grid = _lay_out_panels(len(self.panels), *self.voxels["Input"].shape[1:])
        for axes, (title, voxel) in zip(grid, self.panels.items(), strict=True):
            image = draw_signed(axes, np.clip(voxel[shown], low, high), self.limit)
            axes.set_title(title)
        if self.view:
            x0, y0, x1, y1 = self.view
            grid[0].set(xlim=(x0 - 0.5, x1 - 0.5), ylim=(y1 - 0.5, y0 - 0.5))
        figure.supxlabel("x, pixels")
        figure.supylabel("y, pixels")
        figure.colorbar(image, ax=grid, label="events per cell", extend="both", pad=0.02, aspect=40)
        bin_ms = self.window_us / self.num_bins / 1000
        figure.suptitle(f"Window {self.index}, bin {shown}: {shown * bin_ms:.1f} to {(shown + 1) * bin_ms:.1f} ms")
        return figure

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            # Where there is no front end (an HTML export, a repository's web page) the picture is what is seen.
            picture = io.BytesIO()
            self.figure().savefig(picture, format="png")
            bundle[0]["image/png"] = base64.b64encode(picture.getvalue()).decode()
        return bundle

    def _answer(self, _widget: object, content: dict, _buffers: object) -> None:
        if content.get("kind") == "window please":
            self._send_window()

    def _send_window(self) -> None:
        header, buffers = pack_window(self.voxels)
        self.send({"kind": "window", "index": self.index, **header}, buffers)

    @traitlets.observe("index")
    def _step(self, change: Any) -> None:
        if self._load_window is not None:
            self.show(*self._load_window(change["new"]))

    @traitlets.validate("bin_index")
    def _check_bin(self, proposal: Any) -> int:
        return self._check_bin_index(proposal["value"])

    @traitlets.validate("index")
    def _check_index(self, proposal: Any) -> int:
        if not 0 <= proposal["value"] < self.num_windows:
            raise ValueError(f"Windows are numbered 0 to {self.num_windows - 1}; received index {proposal['value']}.")
        return proposal["value"]

    @traitlets.validate("limit")
    def _check_limit(self, proposal: Any) -> float:
        if not (np.isfinite(proposal["value"]) and proposal["value"] > 0):
            raise ValueError(f"limit is a positive number of events per cell; received {proposal['value']}.")
        return proposal["value"]

    def _check_bin_index(self, bin_index: int) -> int:
        if not 0 <= bin_index < self.num_bins:
            raise ValueError(f"Bins are numbered 0 to {self.num_bins - 1}; received bin_index {bin_index}.")
        return bin_index


def check_voxels(
    input: Voxel, target: Voxel | None = None, output: Voxel | None = None
) -> dict[str, NDArray[np.float32]]:
    """The given voxels by title, float32 `(bins, H, W)` in host memory, all of one shape."""
    given = {"Input": input, "Target": target, "Output": output}
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


def pack_window(voxels: dict[str, NDArray[np.float32]]) -> tuple[dict[str, Any], list[bytes]]:
    """What the front end needs to restore the voxels `(bins, H, W)`: shape, titles, dtypes, and a buffer for each.

    Whole numbers that fit go as int8, a quarter of the bytes; anything else as float32.
    """
    packed = {title: _pack(voxel) for title, voxel in voxels.items()}
    panels = [{"title": title, "dtype": array.dtype.name} for title, array in packed.items()]
    return {"shape": list(voxels["Input"].shape), "panels": panels}, [array.tobytes() for array in packed.values()]


def _pack(voxel: NDArray[np.float32]) -> np.ndarray:
    """The voxel as int8 if that holds it exactly, else as little-endian float32."""
    if voxel.min() >= -128 and voxel.max() <= 127:
        whole = voxel.astype(np.int8)
        if np.array_equal(whole, voxel):
            return whole
    return voxel.astype("<f4", copy=False)


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
