"""Distances between two streams of events: how far each event is from the nearest one of the other stream.

Events are points in (x, y, p, t), as in the evaluation of E-Deflare (arXiv 2512.09016), on scales that both streams
share: the sensor's width, its height and the window are 100 long each, and the polarities are 100 apart. The published
tables take distances from estimate to truth alone, which an estimate makes small by holding few events.
`score_distances` gives both directions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deflare_core.events import Events
from deflare_core.system.workers import is_worker

SIDE = 100.0
"""Length of the sensor's width, its height, the window, and the gap between the polarities."""
FARTHEST = 2 * SIDE
"""The longest distance there is, from corner to corner of four dimensions; it is also that to an empty stream."""
GAUSS_WIDTH = 0.4
"""Distances d whose square is small against this hardly count in the Gaussian score, 1 - exp(-d^2 / 0.4)."""
POLARITY, PLACE = 2, [0, 1, 3]
Points = NDArray[np.float64]
"""`(N, 4)`: x, y, p and t of events, each on a scale of 100."""
Distances = NDArray[np.float64]
"""`(N,)`, on the scale of the points."""


class EventDistances(NamedTuple):
    """The distance of each event of the estimate to the truth's nearest one, and of the truth's to the estimate's."""

    to_truth: Distances
    to_estimate: Distances


def measure_distances(estimate: Events, truth: Events, t0_us: int, window_us: int) -> EventDistances:
    """The distances between the events of the window `[t0, t0 + window)`, in both directions, exact."""
    if estimate.sensor_size != truth.sensor_size:
        raise ValueError(f"Estimate {estimate.sensor_size} and truth {truth.sensor_size} must be of one sensor size.")
    height, width = truth.sensor_size
    scale = SIDE / np.array([max(width - 1, 1), max(height - 1, 1), 2, window_us])
    ours, theirs = (np.column_stack([e.x, e.y, e.p, e.t - t0_us]) * scale for e in (estimate, truth))
    return EventDistances(find_nearest(ours, theirs), find_nearest(theirs, ours))


def score_distances(distances: EventDistances) -> dict[str, float]:
    """The Chamfer and the Gaussian score, each from estimate to truth, back, and the mean of both directions.

    Of no events from which to measure the mean is 0.
    """
    there, back = (score_nearest(nearest) for nearest in distances)
    both = {f"{name}_both": (there[name] + back[name]) / 2 for name in there}
    return there | {f"{name}_back": score for name, score in back.items()} | both


def score_nearest(nearest: Distances) -> dict[str, float]:
    """The Chamfer and the Gaussian score of distances in one direction; of none 0."""
    return {"chamfer": _mean(nearest), "gauss": _mean(-np.expm1(-(nearest**2) / GAUSS_WIDTH))}


def find_nearest(points: Points, others: Points) -> Distances:
    """The distance of each point `(N, 4)` to the nearest of the others `(M, 4)`, `(N,)`; exact.

    Many events are in both streams, so equal points are looked for first. Polarities are far apart, so the nearest
    event is nearly always of the same one, and the others are searched only for points that could still gain.
    """
    found = np.where(_is_among(points, others), 0.0, np.inf)
    for p in np.unique(points[:, POLARITY]):
        for other_p in sorted(np.unique(others[:, POLARITY]), key=lambda level: abs(level - p)):
            gap = abs(other_p - p)
            left = np.flatnonzero((points[:, POLARITY] == p) & (found > gap))
            if len(left):
                tree = cKDTree(others[others[:, POLARITY] == other_p][:, PLACE], balanced_tree=False)
                apart, _ = tree.query(points[left][:, PLACE], workers=1 if is_worker() else -1)
                found[left] = np.minimum(found[left], np.hypot(apart, gap))
    return np.minimum(found, FARTHEST)


def _is_among(points: Points, others: Points) -> NDArray[np.bool_]:
    """Whether each point is also one of the others, bool `(N,)`; if two hashes collide, an equal may go unnoticed."""
    if not len(others):
        return np.zeros(len(points), np.bool_)
    hashes = _hash(others)
    order = np.argsort(hashes)
    there = np.minimum(np.searchsorted(hashes[order], _hash(points)), len(others) - 1)
    return (others[order[there]] == points).all(1)


def _hash(points: Points) -> NDArray[np.uint64]:
    """A hash of each point, which hardly ever is that of another one."""
    mixed = np.zeros(len(points), np.uint64)
    for column in points.T:
        # Adding 0 turns -0.0, whose bits differ, into 0.0. The factor is 2^64 over the golden ratio.
        mixed = (mixed ^ (column + 0.0).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _mean(values: Distances) -> float:
    return float(values.mean()) if len(values) else 0.0
