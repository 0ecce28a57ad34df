# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Time order: events from many places sorted by time, in a time that grows with their number only."""

from __future__ import annotations

import numpy as np

from deflare_core.kernels.numba_cache import compiled

kernel = compiled()


@kernel
def sort_events(t_us, code, t_start_us, t_end_us):
    """The events of `[t_start, t_end)` in the order of time, then code: times `(N,)` int64 and codes `(N,)`.

    It is a counting sort: it counts the events of every microsecond, puts each where its microsecond begins, then
    sorts the few that share one.
    """
    place = np.zeros(t_end_us - t_start_us + 1, np.int64)
    for t in t_us:
        if t_start_us <= t < t_end_us:
            place[t - t_start_us + 1] += 1
    for k in range(len(place) - 1):
        place[k + 1] += place[k]
    t_out, code_out = np.empty(place[-1], np.int64), np.empty(place[-1], code.dtype)
    for i in range(len(t_us)):
        if t_start_us <= t_us[i] < t_end_us:
            k = place[t_us[i] - t_start_us]
            place[t_us[i] - t_start_us] += 1
            t_out[k], code_out[k] = t_us[i], code[i]
    first = 0
    for k in range(len(place) - 1):
        sort_stretch(code_out, first, place[k])
        first = place[k]
    return t_out, code_out


@kernel
def sort_stretch(code, first, last):
    """Sort codes from `first` to before `last`, few and nearly in order already, in place, by insertion."""
    for i in range(first + 1, last):
        moving, k = code[i], i
        while k > first and code[k - 1] > moving:
            code[k] = code[k - 1]
            k -= 1
        code[k] = moving
