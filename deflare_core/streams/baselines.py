"""Baselines: what a trained network has to beat, each a function from a whole recording to a whole recording."""

from __future__ import annotations

import re
from collections.abc import Callable

from deflare_core.codec import events_to_voxel, voxel_to_events
from deflare_core.events import WINDOW_US, Events
from deflare_core.streams.comb_filter import find_mains_hz, remove_flicker
from deflare_core.streams.filters import find_focused, find_supported
from deflare_core.windows import Clock, window_seed

Baseline = Callable[[Events, Clock, int], Events]
"""From a whole recording, the start and end of its clock, and a seed, to a whole recording."""


def encode_decode(events: Events, clock_us: Clock, seed: int) -> Events:
    """The events decoded from the voxels of the recording's windows."""
    parts = []
    for t0_us in range(clock_us[0], clock_us[1], WINDOW_US):
        voxel = events_to_voxel(events.window(t0_us, t0_us + WINDOW_US), t0_us=t0_us)
        parts.append(voxel_to_events(voxel, WINDOW_US, events.sensor_size, t0_us=t0_us, seed=window_seed(seed, t0_us)))
    return Events.concatenate(parts)


BASELINES: dict[str, Baseline] = {
    "input": lambda events, clock_us, seed: events,
    "empty": lambda events, clock_us, seed: Events.empty(events.sensor_size),
    "encode_decode": encode_decode,
    "baf": lambda events, clock_us, seed: events[find_supported(events)],
    "efr": lambda events, clock_us, seed: remove_flicker(events, find_mains_hz(events)),
    "pfd_a": lambda events, clock_us, seed: events[find_focused(events, clock_us[0], "a")],
    "pfd_b": lambda events, clock_us, seed: events[find_focused(events, clock_us[0], "b")],
}
"""Every baseline by name: from events, the start and end of their clock, and a seed of what is random, to events."""
ABOUT = {
    "input": "the recording as it is",
    "empty": "no events at all: what any score gives for deleting everything",
    "encode_decode": "through the voxel and back: recorded times are lost, every voxel score is that of the input",
    "baf": "background-activity filter: events that a neighbouring pixel supports (Delbruck, 2008)",
    "efr": "comb filter at 100 or 120 Hz, whichever the recording flickers at more (Wang et al., ICRA 2022); in its "
    "first period a pixel's events pass, since there is nothing yet to compare them with",
    "pfd_a": "polarity-focused denoising, general variant: pixels that change polarity as often as their neighbours",
    "pfd_b": "polarity-focused denoising, variant for flicker: pixels around which polarity rests",
}
"""What each baseline is, for reports."""
COMB_AT = re.compile(r"efr_([1-9]\d*(?:\.\d+)?)hz")


def baseline_named(name: str) -> Baseline:
    """The baseline of that name; `efr_50hz` is the comb filter for 50 Hz and its multiples, `efr_90.5hz` for others.

    Raises
    ------
    ValueError
        When there is none of that name.
    """
    if comb := COMB_AT.fullmatch(name):
        flicker_hz = float(comb.group(1))
        return lambda events, clock_us, seed: remove_flicker(events, flicker_hz)
    if name not in BASELINES:
        known = ", ".join(BASELINES)
        raise ValueError(
            f"There is no method '{name}'; known are network, oracle (to evaluate), {known}, "
            "and efr at another frequency, such as efr_50hz."
        )
    return BASELINES[name]


def about(name: str) -> str:
    """What the baseline of that name is, for reports."""
    comb = COMB_AT.fullmatch(name)
    return f"comb filter at {comb.group(1)} Hz (see efr)" if comb else ABOUT[name]
