"""How well a network tells flare's events from all others, whatever level its output is rounded at.

Every event is given the share of its cell, and of its polarity where the network sees both, that the output keeps.
Where a recording carries causes, sweeping a threshold over that share gives the curve of flare removed against
others kept, the area under it, and the level to round at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.stream import encoded, own, run_network
from deflare_core.events import Events
from deflare_core.io.recordings import RecordingError
from deflare_core.kernels.event_tensors import EventTensors, cells_of
from deflare_core.model import VoxelNetwork
from deflare_core.scores.metrics import FLARE

STEPS = 1000
"""Shares are counted in steps of a thousandth."""


@dataclass(frozen=True, slots=True)
class Roc:
    """How many events of each kind have each share kept of their cell.

    Parameters
    ----------
    flare, others : `(STEPS + 1,)`, events by the share of their cell that the output keeps; their number or weight.
    """

    flare: NDArray[np.number]
    others: NDArray[np.number]

    @property
    def removed(self) -> NDArray[np.float64]:
        """The share of flare's events that lie below each threshold k / STEPS."""
        return _below(self.flare)

    @property
    def kept(self) -> NDArray[np.float64]:
        """The share of the other events that lie at or above each threshold."""
        return 1 - _below(self.others)

    @property
    def area(self) -> float:
        """The area under the curve: the chance that an event of flare lies below another one; ties count half."""
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


def roc_of(model: VoxelNetwork, data: EventVoxelDataset) -> Roc:
    """The events of all windows of a data set with causes, by the share of their cell that the network keeps.

    Every recording weighs the same, as in all scores; otherwise the few with ten million events would decide.

    Raises
    ------
    RecordingError
        When a recording carries no causes.
    """
    weights = np.zeros((2, STEPS + 1))
    for pair in data.pairs:
        counted = np.zeros((2, STEPS + 1), np.int64)
        for t0_us, noisy, _ in data.events(pair, model.config.context):
            labels = data.provenance(pair, t0_us)
            if labels is None:
                raise RecordingError(
                    f"{pair.noisy}: carries no causes (column `label`), which tell flare from the rest."
                )
            steps = np.rint(kept_shares(model, noisy, t0_us, data.window_us, data.num_bins) * STEPS).astype(np.int64)
            for row, chosen in zip(counted, (labels == FLARE, labels != FLARE), strict=True):
                row += np.bincount(steps[chosen], minlength=STEPS + 1)
        weights += counted / np.maximum(counted.sum(1, keepdims=True), 1)
    return Roc(*weights)


def kept_shares(model: VoxelNetwork, events: Events, t0_us: int, window_us: int, num_bins: int) -> NDArray[np.float64]:
    """For each event of a window, the share of its cell that the network's output keeps, from 0 to 1.

    In a signed cell whose events cancel, and wherever the sign turns, that is 1 and 0. With context, `events` are of
    the window's neighbours too.
    """
    seen = encoded(model, events, t0_us, window_us, num_bins)
    before, after = own(model, seen), run_network(model, seen)
    share = np.divide(after, before, out=np.ones_like(after), where=before != 0).clip(0, 1)
    tensors = EventTensors.from_events(events.window(t0_us, t0_us + window_us))
    cells = cells_of(tensors, num_bins, window_us, t0_us, split_polarity=model.channels == 2).numpy()
    return share.reshape(-1)[cells].astype(np.float64)


def _below(counts: NDArray[np.number]) -> NDArray[np.float64]:
    """The share of all that lies below each step, and below nothing more than all: `(STEPS + 2,)`."""
    return np.concatenate([[0], np.cumsum(counts)]) / (counts.sum() or 1)
