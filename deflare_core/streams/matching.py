"""Matching: which events of one stream are also in another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deflare_core.events import Events
from deflare_core.kernels.numba_cache import CompiledLater


def find_matched(estimate: Events, recorded: Events) -> NDArray[np.bool_]:
    """Which of the recorded events are in the estimate, with their exact time, pixel and polarity; bool `(N,)`.

    Of several equal recorded events the first ones count, as many as the estimate holds. This tells what any method
    kept of a recording; `len(estimate) - find_matched(estimate, recorded).sum()` events are of its own making.
    """
    start_us = min((int(events.t[0]) for events in (estimate, recorded) if len(events)), default=0)
    ours, theirs = _keys(estimate, start_us), _keys(recorded, start_us)
    order = np.argsort(theirs, kind="stable")
    return _find_matches(np.sort(ours, kind="stable"), order, theirs[order])


def match_events(before: Events, after: Events) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the events that stand in both, `(M,)` of the first and of the second, pair by pair.

    Events are the same that agree in time, pixel and polarity; of doubles as many match as stand in both.
    """
    start_us = min([part.t[0] for part in (before, after) if len(part)], default=0)
    (key, order), (other_key, other_order) = (_sort_keys(part, start_us) for part in (before, after))
    _, mine, others = np.intersect1d(key, other_key, assume_unique=True, return_indices=True)
    return order[mine], other_order[others]


def _keys(events: Events, start_us: int) -> NDArray[np.int64]:
    """An int64 for each event's time, pixel and polarity, the time weighing most: nearly sorted already."""
    height, width = events.sensor_size
    pixel = (events.y.astype(np.int64) * width + events.x) * 2 + (events.p > 0)
    return (events.t - start_us) * (2 * height * width) + pixel


@CompiledLater
def _find_matches(keys, order, recorded_keys):  # type: ignore[no-untyped-def]
    """Whether each recorded event has a partner of its own, by walking along both sorted streams at once.

    keys           2     5  5     7        i stops at the first key that is not smaller,
    recorded_keys  2  3  5     6  7  7     and moves on where it finds a partner, so that
    found          x     x        x        each key is the partner of one event only.
    """
    found = np.zeros(len(order), np.bool_)
    i = 0
    for k in range(len(order)):
        while i < len(keys) and keys[i] < recorded_keys[k]:
            i += 1
        if i < len(keys) and keys[i] == recorded_keys[k]:
            found[order[k]] = True
            i += 1
    return found


def _sort_keys(events: Events, start_us: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A sorted number for each event, different for doubles, and the events' order by it."""
    key = _keys(events, start_us)
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.maximum.accumulate(np.where(np.diff(key, prepend=-1) != 0, np.arange(len(key)), 0))
    return key * 64 + np.minimum(np.arange(len(key)) - first, 63), order
