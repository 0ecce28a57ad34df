"""Filters that tell noise and flicker from signal by what neighbouring pixels do; each says which events stay."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deflare_core.events import WINDOW_US, Events
from deflare_core.kernels.numba_cache import CompiledLater
from deflare_core.streams.statistics import find_newest
from deflare_core.system.errors import DeflareError

SUPPORT_US = 10_000
"""How long an event supports its neighbours in the background-activity filter."""
LONG_AGO_US = -(2**62)
"""Before any event, and far enough from the ends of 64 bits to be subtracted from."""
FEWEST_NEIGHBOURS = 3
"""Polarity-focused denoising wants more neighbours than this to be active in an event's polarity."""
LARGEST_DIFFERENCE = 1.0
"""Polarity changes per window that variant a lets a pixel differ from its neighbours, and variant b lets them have."""


def find_supported(events: Events, support_us: int = SUPPORT_US) -> NDArray[np.bool_]:
    """Whether one of the 8 pixels around each event fired in the time before it, bool `(N,)` (Delbruck, 2008)."""
    newest_us = find_newest(events.t, events.x, events.y, *events.sensor_size, 1, False, LONG_AGO_US)
    return newest_us >= events.t - support_us


def find_focused(
    events: Events, t0_us: int, variant: Literal["a", "b"], window_us: int = WINDOW_US
) -> NDArray[np.bool_]:
    """Which events polarity-focused denoising keeps, bool `(N,)`; each window `[t0 + k * window, ...)` by itself.

    First, an event stays if more than 3 of the 8 pixels around fired in its own polarity within the window; noise has
    no such company. Second, the changes of polarity among a pixel's remaining events are compared with their mean over
    its neighbours with remaining events. Variant a keeps a pixel's events if the two differ by at most 1. Variant b
    keeps them if that mean is at most 1, since flicker is what a whole neighbourhood does. Pixels without such
    neighbours lose their events.

    The first window starts at `t0_us`, which is not after the first event.
    """
    if len(events) and events.t[0] < t0_us:
        raise DeflareError(f"The first event is at {events.t[0]} us, before the first window at {t0_us} us.")
    window = (events.t - t0_us) // window_us
    edges = np.append(np.flatnonzero(np.diff(window, prepend=-1)), len(events))
    return _focus(events.x, events.y, events.p, edges, *events.sensor_size, variant == "a")


@CompiledLater
def _focus(x, y, p, edges, height, width, compare):  # type: ignore[no-untyped-def]
    """Both steps, window by window."""
    kept = np.zeros(len(x), np.bool_)
    for k in range(len(edges) - 1):
        first, last = edges[k], edges[k + 1]
        active = np.zeros((2, height + 2, width + 2), np.uint8)
        for i in range(first, last):
            active[np.int64(p[i] > 0), np.int64(y[i]) + 1, np.int64(x[i]) + 1] = 1
        for i in range(first, last):
            kept[i] = _around(active[np.int64(p[i] > 0)], y[i], x[i]) > FEWEST_NEIGHBOURS
        _keep_by_changes(x, y, p, kept, first, last, height, width, compare)
    return kept


@CompiledLater
def _keep_by_changes(x, y, p, kept, first, last, height, width, compare):  # type: ignore[no-untyped-def]
    """The second step in one window: pixels changing polarity as often as those around, or around which it rests.

    Maps have a rim of one pixel, so that the 8 pixels around one at the sensor's edge can be read.
    """
    changes = np.zeros((height + 2, width + 2), np.int32)
    left = np.zeros((height + 2, width + 2), np.uint8)
    polarity = np.zeros((height + 2, width + 2), np.int8)
    for i in range(first, last):
        if kept[i]:
            row, column = np.int64(y[i]) + 1, np.int64(x[i]) + 1
            # The first event of a pixel is no change: before it the polarity is 0.
            changes[row, column] += polarity[row, column] == -p[i]
            polarity[row, column], left[row, column] = p[i], 1
    for i in range(first, last):
        if kept[i]:
            num = _around(left, y[i], x[i])
            mean = _around(changes, y[i], x[i]) / max(num, 1)
            away = abs(changes[np.int64(y[i]) + 1, np.int64(x[i]) + 1] - mean) if compare else mean
            kept[i] = num > 0 and away <= LARGEST_DIFFERENCE


@CompiledLater
def _around(values, y, x):  # type: ignore[no-untyped-def]
    """The sum over the 8 pixels around one, of a map with a rim of one pixel."""
    row, column = np.int64(y) + 1, np.int64(x) + 1
    total = np.int64(0)
    for v in range(row - 1, row + 2):
        for u in range(column - 1, column + 2):
            total += values[v, u]
    return total - values[row, column]
