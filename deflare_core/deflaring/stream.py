"""The stream: windows through a network and out again as events, the one way that everything takes.

    windows -> encode -> neighbours -> network -> level -> decode -> AppliedVoxel, one for each window, in order

What is silent, with all that the network sees of it, goes through the network once (`silence`).

A path says where that happens: `host` encodes and decodes on the processor, `gpu` does all of it on a GPU. Voxels are
float32 tensors `(C, bins, H, W)`: C = 1 for signed events, C = 2 for the numbers of positive and of negative ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch

from deflare_core.codec import AppliedVoxel
from deflare_core.deflaring.host import HostPath
from deflare_core.deflaring.overlap import look_once, look_overlapping
from deflare_core.deflaring.silence import SilentDecode, SilentVoxel, recall_silence
from deflare_core.kernels.compiler import has_triton
from deflare_core.model import VoxelNetwork
from deflare_core.system.workers import delay_items
from deflare_core.windows import Cut, Window


class Path(Protocol):
    """Where windows are encoded and decoded; `ahead` of them are begun before the first is finished."""

    ahead: int
    silent: SilentVoxel

    def encode(self, window: Window) -> Any:
        """The `window` and its `voxel`, which is that of `silent` where it has no events."""

    def run(self, seen: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """The network's output for a window, from the voxels of it and of its neighbours."""

    def begin(self, encoded: Any, output: torch.Tensor) -> Any:
        """The decode of a window, under way, by the network's output for it."""

    def finish(self, begun: Any) -> AppliedVoxel:
        """The decoded window."""


def deflare_windows(
    model: VoxelNetwork,
    windows: Iterable[Window],
    cut: Cut,
    *,
    overlap: bool = False,
    skip: int = 0,
    path: Path | None = None,
) -> Iterator[AppliedVoxel]:
    """Every window after the network's output was applied to its events, in order.

    Parameters
    ----------
    model : the network, on the device to use.
    windows : windows of one sensor, in order, whose events lie inside them.
    cut : length and bins of a window.
    overlap : blend the outputs of overlapping windows; see `overlap`.
    skip : windows at the start that are only seen, as neighbours of the others.
    path : where windows are encoded and decoded; none chooses by the model.

    Raises
    ------
    DeflareError
        When an output is not finite or beyond +-32,767 events in a cell, or overlapping windows have an odd number of
        bins.
    """
    path = path or choose_path(model, cut)
    look, run = look_overlapping if overlap else look_once, recall_silence(path.run, path.silent)
    decode = SilentDecode(path.begin, path.finish)
    begun = (decode.begin(*each) for each in look(run, map(path.encode, windows), model.config.context, skip))
    yield from (finish() for finish in delay_items(begun, path.ahead))


def choose_path(model: VoxelNetwork, cut: Cut) -> Path:
    """The GPU's path where the network multiplies in half precision on one, else the processor's."""
    if model.device.type == "cuda" and model.is_half_on(model.device) and has_triton():
        from deflare_core.deflaring.gpu import GpuPath

        return GpuPath(model, cut)
    return HostPath(model, cut)
