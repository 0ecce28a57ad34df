"""Silence: what a network makes of windows without events in all that it sees, found once and not again.

A recording may be still for an hour between two events. The network's output for nothing is the same every time, so it
is kept; and where no event comes of it, neither does one of any other silent window, whatever its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from deflare_core.codec import AppliedVoxel
from deflare_core.events import SensorSize

Run = Callable[[Sequence[torch.Tensor | None]], torch.Tensor]
"""From the voxels of a window and of its neighbours to the network's output for the window, all `(C, bins, H, W)`."""


class SilentVoxel:
    """The voxel of a window without events, which all such windows of a stream share: by it they are known."""

    def __init__(self, channels: int, num_bins: int, device: torch.device | str = "cpu") -> None:
        self._shape, self._device = (channels, num_bins), device
        self.voxel: torch.Tensor | None = None

    def of(self, sensor_size: SensorSize) -> torch.Tensor:
        """The voxel, zeros float32 `(C, bins, H, W)`; the sensor is the same each time."""
        if self.voxel is None:
            self.voxel = torch.zeros(*self._shape, *sensor_size, device=self._device)
        return self.voxel

    def is_all(self, voxels: Sequence[torch.Tensor | None]) -> bool:
        """Whether there is nothing but silence, or no window, among the voxels."""
        return self.voxel is not None and all(each is None or each is self.voxel for each in voxels)


def recall_silence(run: Run, silent: SilentVoxel) -> Run:
    """The run of a network that computes its output for silence only once, and gives the same tensor every time."""
    known: list[torch.Tensor] = []

    def run_or_recall(seen: Sequence[torch.Tensor | None]) -> torch.Tensor:
        if not silent.is_all(seen):
            return run(seen)
        if not known:
            known.append(run(seen))
        return known[0]

    return run_or_recall


class SilentDecode:
    """The decode of windows, left out where it is known to give no events: for one output, the last such."""

    def __init__(self, begin: Callable[[Any, torch.Tensor], Any], finish: Callable[[Any], AppliedVoxel]) -> None:
        self._begin, self._finish = begin, finish
        self._output: torch.Tensor | None = None
        self._applied: AppliedVoxel | None = None

    def begin(self, encoded: Any, output: torch.Tensor) -> Callable[[], AppliedVoxel]:
        """What gives the decoded window, whose decode is under way unless it is known."""
        applied = self._applied
        if applied is not None and output is self._output and not len(encoded.window.events):
            return lambda: applied
        begun = self._begin(encoded, output)
        return lambda: self._remember(output, self._finish(begun))

    def _remember(self, output: torch.Tensor, applied: AppliedVoxel) -> AppliedVoxel:
        if not len(applied.kept) and not len(applied.events):
            self._output, self._applied = output, applied
        return applied
