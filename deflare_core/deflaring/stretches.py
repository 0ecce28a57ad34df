"""Stretches: a baseline's way through a stream of windows, half a second of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from deflare_core.codec import AppliedVoxel
from deflare_core.events import Events
from deflare_core.streams.baselines import Baseline
from deflare_core.streams.matching import find_matched
from deflare_core.windows import Window

STRETCH_US, LEAD_US = 500_000, 300_000
"""A baseline works on stretches of half a second, and sees some time before each, for filters with a memory."""


def deflare_stretches(
    baseline: Baseline, windows: Iterable[Window], window_us: int, seed: int
) -> Iterator[AppliedVoxel]:
    """Every window after a baseline, which works on stretches of half a second, each with 0.3 s of lead.

    What a filter remembers for longer, and what it finds out about a recording (the frequency of the mains), it learns
    again in each stretch.

        windows    |..|..|..| ... |..|..|..|..|..| ... |..|
        stretch 1  |<-- 0.5 s --->|
        stretch 2          |lead >|<--- 0.5 s -------->|

    Parameters
    ----------
    baseline : from a whole recording to a whole recording.
    windows, window_us : windows of one sensor, in order, and their length.
    seed : of what is random in the baseline.
    """
    lead_us, per_stretch = LEAD_US // window_us * window_us, max(1, STRETCH_US // window_us)
    windows, lead = iter(windows), None
    while stretch := list(islice(windows, per_stretch)):
        start_us, end_us = stretch[0].t0_us, stretch[-1].t0_us + window_us
        new = [window.events for window in stretch]
        recorded = Events.concatenate(new if lead is None else [lead, *new])
        span_us = (start_us if lead is None else start_us - lead_us, end_us)
        after = baseline(recorded, span_us, seed) if len(recorded) else recorded
        kept, synthesised = find_matched(after, recorded), ~find_matched(recorded, after)
        for window in stretch:
            given, taken = (_span(events, window.t0_us, window.t0_us + window_us) for events in (after, recorded))
            yield AppliedVoxel(after[given], synthesised[given], kept[taken])
        lead = recorded[_span(recorded, end_us - lead_us, end_us)]


def _span(events: Events, t_start_us: int, t_end_us: int) -> slice:
    first, end = np.searchsorted(events.t, [t_start_us, t_end_us])
    return slice(int(first), int(end))
