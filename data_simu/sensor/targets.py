"""Targets: what the network is to make of the real recording, given the one through an ideal lens.

physical   the events of the ideal lens, as they are.
snapped    the same, each moved to the time of the event of the same pixel and polarity in the input that flare did not
           cause, where there is one within 5 ms. Flare shifts event times without changing what is seen; no network
           that keeps recorded events can undo that, and a voxel score should not charge it for that.
subset     the input's events that flare did not cause.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_simu.sensor.firing import FLARE
from data_simu.sensor.sensor import LabelledEvents
from deflare_core.events import Events
from deflare_core.kernels.numba_cache import compiled

TOLERANCE_US = 5_000


def make_target(kind: str, clean: LabelledEvents, real: LabelledEvents) -> LabelledEvents:
    """The target of that kind, "physical", "snapped" or "subset", of the N clean and the M real events."""
    if kind == "physical":
        return clean
    kept = real.label != FLARE
    wanted = LabelledEvents(real.events[kept], real.label[kept])
    return wanted if kind == "subset" else snap(clean, wanted.events)


def snap(clean: LabelledEvents, wanted: Events) -> LabelledEvents:
    """The N clean events, each at the time of its partner among the wanted ones, if it has one within 5 ms.

        clean     ---1-----2--------3----     one pixel, one polarity; 1 and 2 take the times of a and b,
        wanted    ----a-----b------------     3 has no partner and keeps its own

    Partners are of one pixel and polarity and are taken in the order of time, each at most once.
    """
    events = clean.events
    num_keys = 2 * events.sensor_size[0] * events.sensor_size[1]
    moved = _partner_times(_pixel_and_polarity(events), events.t, _pixel_and_polarity(wanted), wanted.t, num_keys)
    order = np.argsort(moved, kind="stable")
    snapped = Events(moved[order], events.x[order], events.y[order], events.p[order], events.sensor_size)
    return LabelledEvents(snapped, clean.label[order])


def _pixel_and_polarity(events: Events) -> NDArray[np.int32]:
    return (events.y.astype(np.int32) * events.sensor_size[1] + events.x) * 2 + (events.p > 0)


@compiled()
def _partner_times(key, t, wanted_key, wanted_t, num_keys):  # type: ignore[no-untyped-def]
    """For each event the time of its partner, or its own if it has none, `(N,)` int64.

    `key` `(N,)` is pixel and polarity as one number below `num_keys`, `t` `(N,)` the time; the same of those wanted.
    """
    order, first = _in_order_of_keys(key, num_keys)
    wanted_order, wanted_first = _in_order_of_keys(wanted_key, num_keys)
    times, wanted_times, moved = t[order], wanted_t[wanted_order], np.empty_like(t)
    snapped = np.empty_like(t)
    for k in range(num_keys):
        pair_up(times, snapped, first[k], first[k + 1], wanted_times, wanted_first[k], wanted_first[k + 1])
    for i in range(len(order)):
        moved[order[i]] = snapped[i]
    return moved


@compiled()
def _in_order_of_keys(key, num_keys):  # type: ignore[no-untyped-def]
    """The order `(N,)` by key, then place, and where each key's entries begin in it, `(num_keys + 1,)`."""
    first = np.zeros(num_keys + 1, np.int64)
    for k in key:
        first[k + 1] += 1
    for k in range(num_keys):
        first[k + 1] += first[k]
    place, order = first[:-1].copy(), np.empty(len(key), np.int64)
    for i in range(len(key)):
        order[place[key[i]]] = i
        place[key[i]] += 1
    return order, first


@compiled()
def pair_up(times, moved, first, last, wanted_times, wanted, wanted_last):  # type: ignore[no-untyped-def]
    """Fill `moved` from `first` to before `last` with the times of these events' partners, or their own.

    Both lists are of one pixel and polarity and in the order of time; each wanted event is taken at most once.
    """
    for i in range(first, last):
        while wanted < wanted_last and wanted_times[wanted] < times[i] - TOLERANCE_US:
            wanted += 1
        moved[i] = times[i]
        if wanted < wanted_last and wanted_times[wanted] <= times[i] + TOLERANCE_US:
            moved[i] = wanted_times[wanted]
            wanted += 1
