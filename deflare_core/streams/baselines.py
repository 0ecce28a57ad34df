"""Baselines: what a trained network has to beat, each a function from a whole recording to a whole recording.

A baseline is one row of `ROWS`: its name, what it is, and its function. Commands, configurations, reports and error
messages take all three from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from deflare_core.codec import events_to_voxel, voxel_to_events
from deflare_core.events import WINDOW_US, Events
from deflare_core.streams.comb_filter import find_mains_hz, remove_flicker
from deflare_core.streams.filters import find_focused, find_supported
from deflare_core.system.errors import DeflareError
from deflare_core.windows import Clock, derive_seed

Baseline = Callable[[Events, Clock, int], Events]
"""From a whole recording, the start and end of its clock in microseconds, and a seed, to a whole recording."""


class BaselineRow(NamedTuple):
    """A baseline: its name in commands and tables, what it is, and what it does."""

    name: str
    about: str
    function: Baseline


def encode_decode(events: Events, clock_us: Clock, seed: int) -> Events:
    """The events decoded from the voxels of the recording's windows."""
    parts = []
    for t0_us in range(clock_us[0], clock_us[1], WINDOW_US):
        voxel = events_to_voxel(events.window(t0_us, t0_us + WINDOW_US), t0_us=t0_us)
        parts.append(voxel_to_events(voxel, WINDOW_US, events.sensor_size, t0_us=t0_us, seed=derive_seed(seed, t0_us)))
    return Events.concatenate(parts)


ROWS = (
    BaselineRow("input", "the recording as it is", lambda events, clock_us, seed: events),
    BaselineRow(
        "empty",
        "no events at all: what any score gives for deleting everything",
        lambda events, clock_us, seed: Events.empty(events.sensor_size),
    ),
    BaselineRow(
        "encode_decode",
        "through the voxel and back: recorded times are lost, every voxel score is that of the input",
        encode_decode,
    ),
    BaselineRow(
        "baf",
        "background-activity filter: events that a neighbouring pixel supports (Delbruck, 2008)",
        lambda events, clock_us, seed: events[find_supported(events)],
    ),
    BaselineRow(
        "efr",
        "comb filter at 100 or 120 Hz, whichever the recording flickers at more (Wang et al., ICRA 2022); in its first "
        "period a pixel's events pass, since there is nothing yet to compare them with",
        lambda events, clock_us, seed: remove_flicker(events, find_mains_hz(events)),
    ),
    BaselineRow(
        "pfd_a",
        "polarity-focused denoising, general variant: pixels that change polarity as often as their neighbours",
        lambda events, clock_us, seed: events[find_focused(events, clock_us[0], "a")],
    ),
    BaselineRow(
        "pfd_b",
        "polarity-focused denoising, variant for flicker: pixels around which polarity rests",
        lambda events, clock_us, seed: events[find_focused(events, clock_us[0], "b")],
    ),
)
BASELINES: dict[str, Baseline] = {row.name: row.function for row in ROWS}
"""The function of every baseline by name, in the order of tables."""


def find_baseline(name: str) -> BaselineRow:
    """The baseline of that name; `efr_50hz` is the comb filter for 50 Hz and its multiples, `efr_90.5hz` for others.

    Raises
    ------
    DeflareError
        When there is none of that name.
    """
    if comb := re.fullmatch(r"efr_([1-9]\d*(?:\.\d+)?)hz", name):
        hz = float(comb[1])
        return BaselineRow(name, f"comb filter at {comb[1]} Hz (see efr)", lambda e, clock, seed: remove_flicker(e, hz))
    for row in ROWS:
        if row.name == name:
            return row
    raise DeflareError(
        f"There is no method '{name}'; known are network, oracle (to evaluate), {', '.join(BASELINES)}, and efr at "
        "another frequency, such as efr_50hz."
    )
