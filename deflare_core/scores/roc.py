"""How well a network tells flare's events from all others, whatever level its output is rounded at.

Every event is given the share of its cell, and of its polarity where the network sees both, that the output keeps.
Where a recording carries causes, sweeping a threshold over that share gives the curve of flare removed against
others kept, the area under it, and the level to round at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deflare_core.codec import encode_window
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.method import NetworkMethod
from deflare_core.events import FLARE, Events
from deflare_core.io.recordings import RecordingError
from deflare_core.kernels.event_tensors import EventTensors, find_cells
from deflare_core.model import VoxelNetwork
from deflare_core.windows import Cut

STEPS = 1000
"""Shares are counted in steps of a thousandth."""


@dataclass(frozen=True, slots=True)
class Roc:
    """How many events of each kind, or what weight of them, have each share kept of their cell, `(STEPS + 1,)`."""

    flare: NDArray[np.number]
    others: NDArray[np.number]

    @property
    def removed(self) -> NDArray[np.float64]:
        """The share of flare's events that fall below each threshold k / STEPS."""
        return _below(self.flare)

    @property
    def kept(self) -> NDArray[np.float64]:
        """The share of the other events that stand at or above each threshold."""
        return 1 - _below(self.others)

    @property
    def area(self) -> float:
        """The area under the curve: the chance that an event of flare stands below another one; ties count half."""
        share = self.others / (self.others.sum() or 1)
        return float((share * (self.removed[:-1] + np.diff(self.removed) / 2)).sum())

    def removed_at(self, kept: float) -> float:
        """The share of flare's events removed at the highest threshold that keeps at least `kept` of the others."""
        return float(self.removed[self.threshold_at(kept)])

    def threshold_at(self, kept: float) -> int:
        """The highest threshold, in steps, that keeps at least `kept` of the others."""
        return int(np.flatnonzero(self.kept >= kept)[-1])

    def level_at(self, kept: float) -> float:
        """The `ModelConfig.level` at that threshold, from which share on a cell's only event stays.

        It lies between 0 and 1, which are no levels.
        """
        return min(max(self.threshold_at(kept), 1), STEPS - 1) / STEPS


def measure_roc(model: VoxelNetwork, data: EventVoxelDataset) -> Roc:
    """The events of all windows of a data set with causes, by the share of their cell that the network keeps.

    Every recording weighs the same, as in all scores; otherwise the few with ten million events would decide.
    """
    weights, method = np.zeros((2, STEPS + 1)), NetworkMethod(model)
    for pair in data.pairs:
        counted = np.zeros((2, STEPS + 1), np.int64)
        windows = data.read_input(pair, method.reach)
        for window, part in zip(data.windows(pair), method.deflare(windows, data.cut, method.reach)):  # noqa: B905
            if window.causes is None:
                raise RecordingError(
                    f"{pair.noisy}: carries no causes (column `label`), which tell flare from the rest."
                )
            assert part.output is not None, "A network has an output."
            shares = find_shares(window.noisy, part.output, window.t0_us, data.cut)
            steps = np.rint(shares * STEPS).astype(np.int64)
            for row, chosen in zip(counted, (window.causes == FLARE, window.causes != FLARE), strict=True):
                row += np.bincount(steps[chosen], minlength=STEPS + 1)
        weights += counted / np.maximum(counted.sum(1, keepdims=True), 1)
    return Roc(*weights)


def find_shares(events: Events, output: torch.Tensor, t0_us: int, cut: Cut) -> NDArray[np.float64]:
    """For each of a window's N events, the share of its cell that the network's output keeps, `(N,)` from 0 to 1.

    In a signed cell whose events cancel, and wherever the sign turns, that is 1 and 0. The output is float32
    `(C, bins, H, W)`.
    """
    after, tensors = output.cpu(), EventTensors.from_events(events)
    before = encode_window(tensors, t0_us, cut, len(after))
    share = torch.where(before != 0, after / before, 1).clip(0, 1)
    cells = find_cells(tensors, cut.num_bins, cut.window_us, t0_us, split_polarity=len(after) == 2)
    return share.flatten()[cells].double().numpy()


def _below(counts: NDArray[np.number]) -> NDArray[np.float64]:
    """The share of all that lies below each step, and below nothing more than all: `(STEPS + 2,)`."""
    return np.concatenate([[0], np.cumsum(counts)]) / (counts.sum() or 1)
