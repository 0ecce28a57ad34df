"""Baselines: what a trained network has to beat, each a function from a whole recording to a whole recording.

input           the recording as it is.
empty           no events at all: what any score gives for deleting everything.
encode_decode   through the voxel and back: recorded times are lost, every voxel score is that of the input.
baf             background-activity filter: events that a neighbour pixel supports (Delbruck, 2008).
efr             comb filter at the mains frequency (Wang et al., ICRA 2022); the first period passes unfiltered.
pfd_a, pfd_b    polarity-focused denoising, the general variant and the one made for flicker (see `filters`).
"""

from __future__ import annotations

from deflare_core.codec import events_to_voxel, voxel_to_events
from deflare_core.comb import mains_frequency_hz, remove_flicker
from deflare_core.events import WINDOW_US, Events
from deflare_core.filters import has_support, polarity_focused
from deflare_core.windows import Baseline, Clock, window_seed


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
    "baf": lambda events, clock_us, seed: events[has_support(events)],
    "efr": lambda events, clock_us, seed: remove_flicker(events, mains_frequency_hz(events)),
    "pfd_a": lambda events, clock_us, seed: events[polarity_focused(events, clock_us[0], "a")],
    "pfd_b": lambda events, clock_us, seed: events[polarity_focused(events, clock_us[0], "b")],
}
"""Every baseline by name: from events, the start and end of their clock, and a seed of what is random, to events."""
