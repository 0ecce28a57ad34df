"""The published metrics as the published numbers were computed, quirks included, to compare with tables in print.

The evaluation of E-Deflare (arXiv 2512.09016) departs from its definitions where the comments below say so. For
anything else use `metrics` and `distances`, which keep both streams on one clock and one scale.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deflare_core.events import NUM_BINS, WINDOW_US, Events
from deflare_core.scores.distances import SIDE, find_nearest, score_nearest
from deflare_core.scores.metrics import score_voxels

BIN_US = WINDOW_US / NUM_BINS
SECOND_US = 1e6
NEVER_ZERO = 1e-8
"""Added to extents so that one of 0 can be divided by; it also keeps the far end of an integer scale below 100."""
WITHOUT_PIECES = {"mse": math.inf, "pmse_2": math.inf, "pmse_4": math.inf, "r_f1": 0.0, "t_f1": 0.0, "tp_f1": 0.0}
"""Scores of cells where a stream has no piece of 20 ms, because all its events are at one time."""


def score_as_published(estimate: Events, truth: Events) -> dict[str, float]:
    """Every published metric of a recording by name; none where a stream is empty, which was left out there.

    Scores of cells are means over the pieces of 20 ms, those of distances are of all events at once.
    """
    if not (len(estimate) and len(truth)):
        return {}
    # Pieces are paired by their number among those that are not empty, whatever time each one is from.
    rows = [score_piece(*pair) for pair in zip(cut_pieces(estimate), cut_pieces(truth), strict=False)]
    cells = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else WITHOUT_PIECES
    return cells | score_nearest(find_nearest(scale_events(estimate), scale_events(truth)))


def score_piece(estimate: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, float]:
    """Every published metric of the cells of a pair of pieces, from their voxels `(8, H, W)`."""
    scores = score_voxels(estimate, truth)
    if estimate.any() or truth.any():
        return scores
    # Where the polarities cancel in every cell of both, nothing was found, which there is no success.
    return scores | {name: 0.0 for name in scores if name.endswith("f1")}


def cut_pieces(events: Events) -> list[NDArray[np.float32]]:
    """The signed voxels `(8, H, W)` of the pieces of 20 ms that hold events."""
    times_us = count_in_seconds(events) * SECOND_US
    # A last event at the very end of a piece begins no other one, and is left out.
    starts_us = np.arange(math.ceil((times_us[-1] - times_us[0]) / WINDOW_US)) * float(WINDOW_US) + times_us[0]
    spans = (slice(*np.searchsorted(times_us, (start, start + WINDOW_US))) for start in starts_us)
    # A silent piece is left out, and all that follow move up.
    return [encode_piece(events[span], times_us[span]) for span in spans if span.stop > span.start]


def encode_piece(piece: Events, times_us: NDArray[np.float64]) -> NDArray[np.float32]:
    """The signed voxel `(8, H, W)` of a piece, whose times are given as floating-point numbers of microseconds."""
    # Bins start at the piece's first event, and what is late for the last one goes into it.
    late = np.minimum(((times_us - times_us[0]) / BIN_US).astype(int), NUM_BINS - 1)
    voxel = np.zeros((NUM_BINS, *piece.sensor_size), np.float32)
    np.add.at(voxel, (late, piece.y, piece.x), piece.p)
    return voxel


def scale_events(events: Events) -> NDArray[np.float64]:
    """The places `(N, 4)` of events in (x, y, p, t), each from 0 to 100 of the stream's own extent."""
    # Columns, rows and polarities are multiplied as the small integers that they are, and cut to whole numbers: in 8
    # bits 2 * 100 wraps around to -56, so -1 and +1 come out 27 apart, not 100; in 16 bits columns wrap from 656 on.
    x, y, p = (np.trunc(_stretch(column)) for column in (events.x, events.y, events.p))
    return np.column_stack([x, y, p, _stretch(count_in_seconds(events))])


def count_in_seconds(events: Events) -> NDArray[np.float64]:
    """The times since the stream's own first event, seconds, rounded as there: a border may fall a hair off its event.

    A difference of exactly 20 ms becomes 0.02 or its neighbour, by where in the recording it lies.
    """
    seconds = events.t / SECOND_US
    return seconds - seconds[0]


def _stretch(values: np.ndarray) -> NDArray[np.float64]:
    """The values from the smallest on, times 100 in their own dtype, over their extent."""
    above = values - values.min()
    return above * values.dtype.type(SIDE) / (float(above.max()) + NEVER_ZERO)
