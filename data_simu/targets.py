"""Targets: what the network is to make of the real recording, given the one through an ideal lens.

physical   the events of the ideal lens, as they are.
snapped    the same, each moved to the time of the event of the same pixel and polarity in the input that flare did not
           cause, where there is one within 5 ms. Flare shifts event times without changing what is seen; no network
           that keeps recorded events can undo that, and a voxel score should not charge it for that.
subset     the input's events that flare did not cause.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from data_simu.sensor import FLARE, LabelledEvents
from deflare_core.events import Events

TOLERANCE_US = 5_000


def make_target(kind: str, clean: LabelledEvents, real: LabelledEvents) -> LabelledEvents:
    """The target of that kind: "physical", "snapped" or "subset"."""
    if kind == "physical":
        return clean
    kept = real.label != FLARE
    wanted = LabelledEvents(real.events[kept], real.label[kept])
    return wanted if kind == "subset" else snap(clean, wanted.events)


def snap(clean: LabelledEvents, wanted: Events) -> LabelledEvents:
    """The clean events, each at the time of its partner among the wanted ones, if it has one within 5 ms.

    Partners are of one pixel and polarity and are taken in the order of time, each at most once.
    """
    events = clean.events
    order, key, t = _by_pixel(events)
    _, wanted_key, wanted_t = _by_pixel(wanted)
    moved = np.empty(len(events), np.int64)
    moved[order] = _partner_times(key, t, wanted_key, wanted_t, TOLERANCE_US)
    again = np.argsort(moved, kind="stable")
    snapped = Events(moved[again], events.x[again], events.y[again], events.p[again], events.sensor_size)
    return LabelledEvents(snapped, clean.label[again])


def _by_pixel(events: Events) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
    """An order by pixel and polarity, then time; the key of pixel and polarity, and the time, in that order."""
    key = (events.y.astype(np.int64) * events.sensor_size[1] + events.x) * 2 + (events.p > 0)
    order = np.argsort(key, kind="stable")
    return order, key[order], events.t[order]


@numba.njit(cache=True, nogil=True)
def _partner_times(key, t, wanted_key, wanted_t, tolerance_us):  # type: ignore[no-untyped-def]
    """For each event the time of its partner, or its own if it has none."""
    times = t.copy()
    j = 0
    for i in range(len(t)):
        while j < len(wanted_t) and (
            wanted_key[j] < key[i] or (wanted_key[j] == key[i] and wanted_t[j] < t[i] - tolerance_us)
        ):
            j += 1
        if j < len(wanted_t) and wanted_key[j] == key[i] and wanted_t[j] <= t[i] + tolerance_us:
            times[i] = wanted_t[j]
            j += 1
    return times
