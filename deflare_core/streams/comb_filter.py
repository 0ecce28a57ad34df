"""A comb filter that takes flicker of a known frequency out of events, after the idea of Wang et al. (ICRA 2022).

Every pixel's events are impulses e of their polarity. With the period d1 of the flicker and d2 = d1 / 10,

    H(z) = (1 - z^-d1) / (1 - r1 z^-d1)  *  (1 - r2 z^-d2) / (1 - z^-d2)

has a zero at each multiple of the flicker's frequency; r2 = 1 - (1 - r1) / 10 gives a gain of 1 to what changes slowly.
The filtered impulses are summed up. While the sum is past a threshold, an event is given and taken off the sum.

A pixel is compared with itself a period ago, so the comb silences what fires in most periods. On a real room under a
120 Hz lamp, in which a flickering pixel fires in one period of sixteen (the median), it takes 1 % of their events.
"""

from __future__ import annotations

import numpy as np

from deflare_core.events import Events
from deflare_core.kernels.numba_cache import CompiledLater
from deflare_core.streams.statistics import find_spectrum

FIRST_POLE, THRESHOLD = 0.6, 0.7
CELLS_PER_PERIOD = 10
"""Time runs in cells as long as the shorter delay, 1 ms at 100 Hz. No pixel keeps time to the microsecond, so an event
and the echo that takes it away need only fall into one cell."""
FORGOTTEN_PERIODS = 20
"""Periods without an event after which a pixel starts afresh: 0.6^20 of its state is left, a 27,000th."""
MAINS_HZ = (100.0, 120.0)
LOOKED_AT_US = 2_000_000


def remove_flicker(events: Events, flicker_hz: float) -> Events:
    """The events after the comb filter, in the order of time.

    An event that passes has the timestamp of a recorded one of its pixel, cell and polarity; without one, it has that
    of the cell's end. In a pixel's first period there is nothing to compare with, so nearly every event passes.
    """
    if not len(events):
        return events
    pixel = events.y.astype(np.int64) * events.sensor_size[1] + events.x
    order = np.argsort(pixel, kind="stable")
    cell_us = 1e6 / flicker_hz / CELLS_PER_PERIOD
    t, at, p = _filter(events.t[order], pixel[order], events.p[order], events.t[0], events.t[-1], cell_us)
    in_time = np.argsort(t, kind="stable")
    y, x = np.divmod(at[in_time], events.sensor_size[1])
    return Events(t[in_time], x.astype(np.uint16), y.astype(np.uint16), p[in_time], events.sensor_size)


def find_mains_hz(events: Events) -> float:
    """100 or 120 Hz: the one at which the recording's first two seconds flicker more; 100 if no pixel is busy."""
    if not len(events):
        return MAINS_HZ[0]
    lasting_us = min(LOOKED_AT_US, events.duration_us + 1)
    start = events.window(int(events.t[0]), int(events.t[0]) + lasting_us)
    power = find_spectrum(start, lasting_us, np.array(MAINS_HZ))
    return MAINS_HZ[int(np.nanargmax(power))] if np.isfinite(power).any() else MAINS_HZ[0]


@CompiledLater
def _filter(t, pixel, p, start_us, end_us, cell_us):  # type: ignore[no-untyped-def]
    """Times, pixels and polarities of what passes, pixel by pixel."""
    out_t, out_pixel, out_p = np.empty(len(t), np.int64), np.empty(len(t), np.int64), np.empty(len(t), np.int8)
    used, first = 0, 0
    while first < len(t):
        last = first + 1
        while (
            last < len(t)
            and pixel[last] == pixel[first]
            and t[last] - t[last - 1] < (FORGOTTEN_PERIODS * CELLS_PER_PERIOD * cell_us)
        ):
            last += 1
        # Within a stretch echoes can give at most about one more event for each of the pixel's own.
        if used + 4 * (last - first) + 8 > len(out_t):
            more = len(out_t) + 4 * (last - first) + 8
            out_t = np.append(out_t, np.empty(more, np.int64))
            out_pixel = np.append(out_pixel, np.empty(more, np.int64))
            out_p = np.append(out_p, np.empty(more, np.int8))
        num = _filter_pixel(t[first:last], p[first:last], start_us, end_us, cell_us, out_t[used:], out_p[used:])
        out_pixel[used : used + num] = pixel[first]
        used += num
        first = last
    return out_t[:used], out_pixel[:used], out_p[:used]


@CompiledLater
def _filter_pixel(t, p, start_us, end_us, cell_us, out_t, out_p):  # type: ignore[no-untyped-def]
    """Write what passes of a pixel's stretch of events; return how many events that is."""
    second_zero = 1 - (1 - FIRST_POLE) / CELLS_PER_PERIOD
    # A ring of one period: each cell reads what was written a period ago, then overwrites it. With e the new impulses,
    #
    #     u = e + echo    echo = r1 u - e, a period ago      the first stage: zeros at the flicker's multiples
    #     v = e + late    late = echo - r2 u + v, u and v    the second stage: a gain of 1 for what changes slowly
    #                     a cell ago                         v is what is summed up
    echo = np.zeros(CELLS_PER_PERIOD)
    first_stage, second_stage, total, used, first = 0.0, 0.0, 0.0, 0, 0
    cell = np.int64((t[0] - start_us) / cell_us)
    forgotten = np.int64((t[-1] - start_us) / cell_us) + FORGOTTEN_PERIODS * CELLS_PER_PERIOD
    end_cell = min(np.int64((end_us - start_us) / cell_us), forgotten)
    while cell <= end_cell:
        new, last = 0.0, first
        while last < len(t) and np.int64((t[last] - start_us) / cell_us) == cell:
            new += p[last]
            last += 1
        now = cell % CELLS_PER_PERIOD
        late = echo[now] - second_zero * first_stage + second_stage
        first_stage, second_stage = new + echo[now], new + late
        echo[now] = FIRST_POLE * first_stage - new
        cell_end_us = min(start_us + np.int64((cell + 1) * cell_us), end_us)
        total, used = _fire(total + second_stage, used, t[first:last], p[first:last], cell_end_us, out_t, out_p)
        first = last
        cell += 1
    return used


@CompiledLater
def _fire(total, used, t, p, cell_end_us, out_t, out_p):  # type: ignore[no-untyped-def]
    """Give events while the sum is past the threshold, at the times of recorded ones first."""
    sign = 1 if total > 0 else -1
    i = 0
    while abs(total) >= THRESHOLD and total * sign > 0 and used < len(out_t):
        while i < len(t) and p[i] != sign:
            i += 1
        out_t[used], out_p[used] = t[i] if i < len(t) else cell_end_us, sign
        total -= sign
        used, i = used + 1, i + 1
    return total, used
