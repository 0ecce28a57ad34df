"""Corners: where edges of two directions meet, and which of them two recordings share.

Harris' measure on the picture that the newest events draw: a leaky integrator's, in which lamps are no brighter than
what a few events make.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from deflare_core.events import Events
from deflare_core.scores.intensity import Picture, integrate_events

Places = NDArray[np.int64]
BRIGHTEST = 3.0
"""Steps of log intensity at which the picture is cut: flicker makes hundreds."""
SMOOTH_PIXELS, AROUND_PIXELS = 1.0, 2.0
"""Standard deviations of the blur before the gradient is taken, and of the window over which it is summed."""
HARRIS = 0.04
"""How much an edge in one direction counts against a corner (Harris and Stephens, 1988)."""
FAINTEST = 3e-3
"""The least measure of a corner."""
APART_PIXELS = 3
"""Of two corners so near in rows and columns, only the clearer one counts."""
LOOK_US = 20_000
"""How often corners are looked for."""
NEAR_PIXELS = 2.0
"""How far apart two corners are at most that are the same."""


def find_corners(events: Events, t_us: int) -> Places:
    """The corners at a time, int64 `(N, 2)`: row and column of each."""
    down, right = np.gradient(gaussian_filter(draw_newest(events, t_us), SMOOTH_PIXELS))
    dd, rr, dr = (gaussian_filter(product, AROUND_PIXELS) for product in (down**2, right**2, down * right))
    measure = dd * rr - dr**2 - HARRIS * (dd + rr) ** 2
    peaks = (measure > FAINTEST) & (measure == maximum_filter(measure, 2 * APART_PIXELS + 1))
    return np.argwhere(peaks)


def draw_newest(events: Events, t_us: int) -> Picture:
    """The picture in which corners are looked for at a time, `(H, W)`: integrated events, cut at `BRIGHTEST`."""
    return np.clip(integrate_events(events, t_us), -BRIGHTEST, BRIGHTEST)


def match_corners(found: Places, true: Places) -> NDArray[np.int64]:
    """Which corner of `true` each one of `found` is, int64 `(N,)`, or -1: each other's nearest and near enough."""
    matched = np.full(len(found), -1)
    if len(found) and len(true):
        apart = np.linalg.norm(found[:, None] - true[None], axis=2)
        nearest = apart.argmin(1)
        mutual = apart.argmin(0)[nearest] == np.arange(len(found))
        is_same = mutual & (apart.min(1) <= NEAR_PIXELS)
        matched[is_same] = nearest[is_same]
    return matched
