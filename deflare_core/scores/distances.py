"""Distances between two streams of events: how far each event is from the nearest one of the other stream.

Events are points in (x, y, p, t), as in the evaluation of E-Deflare (arXiv 2512.09016), on scales that both streams
share: the sensor's width, its height and the window are 100 long each, and the polarities lie 100 apart. The published
tables take distances from estimate to truth alone, which an estimate of few events can make as small as it likes;
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
"""The longest distance there is, from corner to corner of four dimensions; to an empty stream everything is as far."""
GAUSS_WIDTH = 0.4
"""Distances d whose square is small against this hardly count in the Gaussian score, 1 - exp(-d^2 / 0.4)."""
POLARITY, PLACE = 2, [0, 1, 3]
Points = NDArray[np.float64]
Distances = NDArray[np.float64]


class EventDistances(NamedTuple):
    """The distance of every event to the nearest of the other stream: of the estimate's, and of the truth's."""

    to_truth: Distances
    to_estimate: Distances


def measure_distances(estimate: Events, truth: Events, t0_us: int, window_us: int) -> EventDistances:
    """The distances between the events of one window, in both directions, exact.

    Parameters
    ----------
    estimate, truth : events of the window `[t0, t0 + window)` of one sensor.
    t0_us, window_us : the window.

    Raises
    ------
    ValueError
        When the sensors differ.
    """
    if estimate.sensor_size != truth.sensor_size:
        raise ValueError(f"Estimate {estimate.sensor_size} and truth {truth.sensor_size} must be of one sensor size.")
    height, width = truth.sensor_size
    scale = SIDE / np.array([max(width - 1, 1), max(height - 1, 1), 2, window_us])
    points = (np.column_stack([e.x, e.y, e.p, e.t - t0_us]) * scale for e in (estimate, truth))
    return measure_point_distances(*points)


def measure_point_distances(estimate: Points, truth: Points) -> EventDistances:
    """The distances between two sets of places `(N, 4)` in (x, y, p, t), in both directions."""
    return EventDistances(find_nearest(estimate, truth), find_nearest(truth, estimate))


def score_distances(distances: EventDistances) -> dict[str, float]:
    """The Chamfer and the Gaussian score, each from estimate to truth, back, and the mean of both directions.

    Of no events from which to measure the mean is 0.
    """
    means = [[_mean(d), _mean(-np.expm1(-(d**2) / GAUSS_WIDTH))] for d in distances]
    (chamfer, gauss), (chamfer_back, gauss_back) = means
    both = {"chamfer_both": (chamfer + chamfer_back) / 2, "gauss_both": (gauss + gauss_back) / 2}
    return {"chamfer": chamfer, "chamfer_back": chamfer_back, "gauss": gauss, "gauss_back": gauss_back} | both


def find_nearest(points: Points, others: Points) -> Distances:
    """The distance of each of the places to the nearest of the other ones, both `(N, 4)` in (x, y, p, t).

    Polarities lie so far apart that the nearest event is nearly always of the same one, and so many events are in both
    streams that it pays to look for equals first.
    """
    found = np.where(_is_among(points, others), 0.0, np.inf)
    for p in _levels(points):
        for other_p in sorted(_levels(others), key=lambda level: abs(level - p)):
            gap = abs(other_p - p)
            left = np.flatnonzero((points[:, POLARITY] == p) & (found > gap))
            if len(left):
                tree = cKDTree(others[others[:, POLARITY] == other_p][:, PLACE], balanced_tree=False)
                beside, _ = tree.query(points[left][:, PLACE], workers=1 if is_worker() else -1)
                found[left] = np.minimum(found[left], np.hypot(beside, gap))
    return np.minimum(found, FARTHEST)


def _levels(points: Points) -> list[float]:
    return np.unique(points[:, POLARITY]).tolist()


def _is_among(points: Points, others: Points) -> NDArray[np.bool_]:
    """Whether each place is also one of the others; where two numbers collide by chance, equals may go unnoticed."""
    if not len(others):
        return np.zeros(len(points), np.bool_)
    numbers = _numbers(others)
    order = np.argsort(numbers)
    there = np.minimum(np.searchsorted(numbers[order], _numbers(points)), len(others) - 1)
    return (others[order[there]] == points).all(1)


def _numbers(points: Points) -> NDArray[np.uint64]:
    """A number for each place that is hardly ever that of another one."""
    mixed = np.zeros(len(points), np.uint64)
    for column in points.T:
        mixed = (mixed ^ (column + 0.0).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _mean(values: Distances) -> float:
    return float(values.mean()) if len(values) else 0.0
