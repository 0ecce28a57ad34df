"""Scores without a reference: what methods do to a recording whose flare-free truth nobody knows.

Lamps on the mains flicker and things that move do not, so the input's pixels are told apart once, by whether they are
locked to the flicker, and every method's events are counted at both kinds. A method is good here when the flickering
pixels fall silent while the others keep their recorded events; no figure alone says so, since deleting everything
silences the lamp and changing nothing keeps the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from deflare_core.deflaring.method import Method
from deflare_core.events import Events
from deflare_core.inference import deflare
from deflare_core.streams.comb_filter import find_mains_hz
from deflare_core.streams.matching import find_matched
from deflare_core.streams.statistics import find_flicker_share, find_locked_pixels, find_spectrum
from deflare_core.system.errors import DeflareError
from deflare_core.system.markdown import markdown_table


def deflare_by_all(recording: Events, methods: Iterable[Method], seed: int) -> dict[str, Events]:
    """What each method makes of a recording with events, by name; windows are on the grid of whole window lengths."""
    if not len(recording):
        raise DeflareError("The recording holds no events, so there is nothing to compare methods by.")
    return {method.name: deflare(recording, method, seed=seed) for method in methods}


def score_without_truth(
    before: Events, after: Events, duration_us: int, flicker_hz: float, span_us: tuple[int, int] | None = None
) -> dict[str, float]:
    """What a method did to a recording, by name, without a truth; shares of nothing are nan.

    num_before, num_after       events in and out.
    kept, removed               shares of the recorded events that are in the output with their own time, pixel and
                                polarity (`find_matched`), and that are not.
    invented                    the share of the output's events that were not recorded.
    power_before, power_after   power at the flicker's frequency for each event of busy pixels; about 1 is no flicker.
    locked_before, locked_after share of the busy pixels' events that are at locked pixels, each stream by itself
                                (`find_flicker_share`); in the output, pixels that are no longer busy are out.
    flicker_rate_before_hz, flicker_rate_after_hz, flicker_kept
                                events per second at flickering pixels, and the share of their recorded events kept.
    moving_rate_before_hz, moving_rate_after_hz, moving_kept
                                the same at all other pixels, in the time span only.

    Flickering pixels are those that `find_locked_pixels` finds in the input, whatever the method does to them.
    All others count as moving: edges that pass, but also noise and pixels with too few events to tell. Whatever moves
    across a flickering pixel counts as flicker.

    Parameters
    ----------
    before, after : the recording, and what the method made of it.
    duration_us : its length from its first event on, at least five periods of the flicker; some seconds at most, since
        over long times the mains drift away from any one frequency.
    flicker_hz : the flicker's frequency.
    span_us : start and end of the time in which moving events are counted, such as that in which somebody walks past;
        none counts the whole recording.

    Raises
    ------
    DeflareError
        When the sensors differ, the span is empty, or the recording is shorter than five periods.
    """
    if before.sensor_size != after.sensor_size:
        raise DeflareError(f"Sensors of {before.sensor_size} and {after.sensor_size} pixels do not compare.")
    kept = find_matched(after, before)
    at_lamp = find_locked_pixels(before, duration_us, flicker_hz)
    sides = {"before": before, "after": after}
    start_us = int(before.t[0]) if len(before) else 0
    whole_us = start_us, start_us + duration_us
    return (
        {f"num_{side}": float(len(events)) for side, events in sides.items()}
        | {"kept": _share(kept), "removed": 1 - _share(kept)}
        | {"invented": 1 - int(kept.sum()) / len(after) if len(after) else np.nan}
        | {f"power_{side}": _power(events, before, duration_us, flicker_hz) for side, events in sides.items()}
        | {f"locked_{side}": find_flicker_share(events, duration_us, flicker_hz) for side, events in sides.items()}
        | _counted("flicker", before, after, kept, at_lamp, whole_us)
        | _counted("moving", before, after, kept, ~at_lamp, span_us or whole_us)
    )


def tabulate_without_truth(
    recording: Events,
    outputs: Mapping[str, Events],
    flicker_hz: float | None = None,
    span_us: tuple[int, int] | None = None,
) -> str:
    """The scores of every method as a Markdown table, below a sentence about the recording itself.

    The outputs are by the methods' names, as `deflare_by_all` gives them; the rest is as in `score_without_truth`. No
    frequency takes 100 or 120 Hz, whichever is stronger.
    """
    if not outputs:
        raise ValueError("There are no methods to compare.")
    flicker_hz = flicker_hz or find_mains_hz(recording)
    duration_us = recording.duration_us + 1
    scores = {
        name: score_without_truth(recording, events, duration_us, flicker_hz, span_us)
        for name, events in outputs.items()
    }
    rows = [[name, *(write(row[column]) for column, (_, write) in COLUMNS.items())] for name, row in scores.items()]
    head = ["method", *(title for title, _ in COLUMNS.values())]
    return f"{_about(next(iter(scores.values())), flicker_hz)}\n\n{markdown_table(head, rows)}\n"


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{share:.1%}"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"


def _kilohertz(rate_hz: float) -> str:
    return f"{rate_hz / 1e3:.1f}"


COLUMNS = {
    "kept": ("kept", _percent),
    "removed": ("removed", _percent),
    "invented": ("invented", _percent),
    "power_after": ("flicker power", _number),
    "locked_after": ("locked", _percent),
    "flicker_rate_after_hz": ("flickering pixels, 1000 events/s", _kilohertz),
    "flicker_kept": ("their events kept", _percent),
    "moving_rate_after_hz": ("other pixels, 1000 events/s", _kilohertz),
    "moving_kept": ("their events kept", _percent),
}
"""The scores that the table shows, with their titles and how they are written."""


def _about(scores: Mapping[str, float], flicker_hz: float) -> str:
    return (
        f"Recorded: {scores['num_before']:,.0f} events; at {flicker_hz:g} Hz a power of "
        f"{_number(scores['power_before'])} per event (about 1 is none), {_percent(scores['locked_before'])} of busy "
        f"pixels' events at locked pixels; {_kilohertz(scores['flicker_rate_before_hz'])} thousand events/s at "
        f"flickering pixels and {_kilohertz(scores['moving_rate_before_hz'])} at the others. After each method:"
    )


def _counted(
    name: str,
    before: Events,
    after: Events,
    kept: NDArray[np.bool_],
    pixels: NDArray[np.bool_],
    span_us: tuple[int, int],
) -> dict[str, float]:
    """Events per second at some pixels in a time, before and after, and the share of the recorded ones kept."""
    if span_us[1] <= span_us[0]:
        raise DeflareError(f"From {span_us[0]} to {span_us[1]} us there is no time to count events in.")
    recorded, given = (
        pixels[events.y, events.x] & (events.t >= span_us[0]) & (events.t < span_us[1]) for events in (before, after)
    )
    per_second = 1e6 / (span_us[1] - span_us[0])
    return {
        f"{name}_rate_before_hz": float(recorded.sum() * per_second),
        f"{name}_rate_after_hz": float(given.sum() * per_second),
        f"{name}_kept": _share(kept[recorded]),
    }


def _power(events: Events, before: Events, duration_us: int, flicker_hz: float) -> float:
    # A spectrum counts from the first of its events, so the time to the recording's end is what is left.
    left_us = duration_us - int(events.t[0] - before.t[0]) if len(events) else duration_us
    return float(find_spectrum(events, left_us, np.array([flicker_hz]))[0])


def _share(found: NDArray[np.bool_]) -> float:
    return float(found.mean()) if len(found) else np.nan
