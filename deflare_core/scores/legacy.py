"""The published metrics as the published numbers were computed, quirks included, to compare with tables in print.

The evaluation of E-Deflare (arXiv 2512.09016) departs from its definitions where the comments below say so. For
anything else use `metrics` and `distances`, which keep both streams on one clock and one scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deflare_core.events import NUM_BINS, WINDOW_US, Events
from deflare_core.scores.distances import SIDE, measure_point_distances, score_distances
from deflare_core.scores.metrics import score_voxels

BIN_US = WINDOW_US // NUM_BINS
NEVER_ZERO = 1e-6
"""Added to extents so that one of 0 can be divided by; it also keeps the far end of an integer scale below 100."""


def score_as_published(estimate: Events, truth: Events) -> dict[str, float]:
    """Every published metric of a recording by name, means over its pieces of 20 ms; none where a stream is empty."""
    # Pieces are paired by their number among those that are not empty, whatever time each one is from.
    rows = [score_piece(*pair) for pair in zip(cut_pieces(estimate), cut_pieces(truth), strict=False)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def score_piece(estimate: Events, truth: Events) -> dict[str, float]:
    """Every published metric of a pair of pieces."""
    distances = score_distances(measure_point_distances(scale_piece(estimate), scale_piece(truth)))
    return score_voxels(encode_piece(estimate), encode_piece(truth)) | {k: distances[k] for k in ("chamfer", "gauss")}


def cut_pieces(events: Events) -> list[Events]:
    """The pieces of 20 ms that hold events."""
    if not len(events):
        return []
    # Each stream's clock starts at its own first event.
    first_us = int(events.t[0])
    found = events.windows(first_us, events.duration_us // WINDOW_US + 1)
    # A silent piece is left out, and all that follow move up.
    return [piece for piece in found if len(piece)]


def encode_piece(piece: Events) -> NDArray[np.float32]:
    """The signed voxel `(8, H, W)` of a piece."""
    # Bins start at the piece's first event, and what is late for the last one goes into it.
    late = np.minimum((piece.t - piece.t[0]) // BIN_US, NUM_BINS - 1)
    voxel = np.zeros((NUM_BINS, *piece.sensor_size), np.float32)
    np.add.at(voxel, (late, piece.y, piece.x), piece.p)
    return voxel


def scale_piece(piece: Events) -> NDArray[np.float64]:
    """The places `(N, 4)` of a piece's events in (x, y, p, t), each from 0 to 100 of the piece's own extent."""
    # Columns, rows and polarities are cut to whole numbers.
    x, y = (np.trunc(_stretch(column.astype(np.int64))) for column in (piece.x, piece.y))
    # Polarities are multiplied as 8-bit numbers: 2 * 100 wraps around to -56, so -1 and +1 come out 27 apart, not 100.
    p = np.trunc(_stretch(piece.p.astype(np.int8)))
    return np.column_stack([x, y, p, _stretch(piece.t.astype(np.float64))])


def _stretch(values: np.ndarray) -> NDArray[np.float64]:
    """The values from the smallest on, times 100 in their own dtype, over their extent."""
    above = values - values.min()
    return above * values.dtype.type(SIDE) / (float(above.max()) + NEVER_ZERO)
