"""Alignment: what tells that the two recordings of a pair do not show one scene the same way round and at one time.

Measured on 60 right pairs, simulated and semi-real: at least 79 % of a partner's events fall, pixel by pixel, where the
recording has as many, and no turned or moved partner comes nearer than 11 points; at least 42 % of them are in the
recording to the microsecond, and no other time has more. A pair of two cameras has no such events, and is not judged by
its times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deflare_core.events import Events
from deflare_core.io.pairs import count_flare
from deflare_core.io.recordings import Recording

LEAST_EVENTS = 1_000
"""Fewer than these fall where they do by chance."""
MOST_PIXELS = 1 << 23
"""Pixels of a sensor whose pictures are compared; the Fourier transform of more takes gigabytes."""
SAMPLED = 1_000
MOST_IN_PIXEL = 2_000
"""Pixels with more events than this have some at every distance in time."""
LEAST_BETTER = 0.1
"""By how much more of its events another place or time must fit a partner than its own."""
TURNS = {
    "": (slice(None), slice(None)),
    "mirrored from left to right": (slice(None), slice(None, None, -1)),
    "upside down": (slice(None, None, -1), slice(None)),
    "turned by half": (slice(None, None, -1), slice(None, None, -1)),
}
"""The ways round in which a partner may lie, and the rows and columns that undo each."""

Counts = NDArray[np.int64]


def find_misalignment(noisy: Recording, clean: Recording) -> list[str]:
    """Sentences, with figures, for all that tells of a partner that does not fit; none where nothing does."""
    if num_flare := count_flare(clean):
        return [f"{clean.path}: {num_flare:,} of its events are labelled as flare; name the folder with flare first."]
    height, width = noisy.sensor_size
    if min(len(noisy), len(clean)) < LEAST_EVENTS or height * width > MOST_PIXELS:
        return []
    found = {"fall on the other's, pixel by pixel": compare_places(*map(_count_pixels, (noisy, clean)))}
    if len(noisy) <= MOST_IN_PIXEL * height * width:
        sample = _sample(clean)
        found["be in the other"] = compare_times(_take(noisy, sample), sample)
    named = f"{clean.path}: fits {noisy.path} better"
    return [
        f"{named} {fit.how}: {fit.then:.0%} of its events would {what}, instead of {fit.now:.0%}."
        for what, fit in found.items()
        if fit.then >= fit.now + LEAST_BETTER
    ]


class Fit(NamedTuple):
    """The shares of a partner's events that fit as it is, and as they would if it lay otherwise, in words."""

    now: float
    then: float
    how: str


def compare_places(ours: Counts, theirs: Counts) -> Fit:
    """How a partner fits best if it is turned and moved, from the events of each pixel `(H, W)` of both."""
    spectrum, best = np.fft.rfft2(np.sqrt(ours)), Fit(_share(ours, theirs), 0.0, "")
    for turn, undone in TURNS.items():
        turned = theirs[undone]
        likeness = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(np.sqrt(turned))), ours.shape)
        move = np.unravel_index(likeness.argmax(), ours.shape)
        down, right = ((int(m) + n // 2) % n - n // 2 for m, n in zip(move, ours.shape, strict=True))
        moved = f"moved {right:+} columns and {down:+} rows" if right or down else ""
        how = " and ".join(part for part in (turn, moved) if part)
        best = max(best, best._replace(then=_share(ours, np.roll(turned, move, (0, 1))), how=how), key=lambda f: f.then)
    return best


def compare_times(ours: Events, sample: Events) -> Fit:
    """How some events of a partner fit best if they are moved in time, from the recording's events at their pixels."""
    keys = _keys(ours)
    order = np.argsort(keys, kind="stable")
    firsts, lasts = (np.searchsorted(keys[order], _keys(sample), side) for side in ("left", "right"))
    early = [np.zeros(1, np.int64)]
    for t_us, first, last in zip(sample.t, firsts, lasts, strict=True):
        if last - first <= MOST_IN_PIXEL:
            early.append(np.unique(ours.t[order[first:last]] - t_us))
    steps_us, counts = np.unique(np.concatenate(early), return_counts=True)
    shares = (counts - (steps_us == 0)) / len(sample)  # A zero was put there, so that there is one.
    best = int(shares.argmax())
    return Fit(float(shares[steps_us == 0][0]), float(shares[best]), f"with {steps_us[best]:+,} us added to its times")


def _share(ours: Counts, theirs: Counts) -> float:
    """The share of the smaller recording's events that have one of the other's at their pixel."""
    return float(np.minimum(ours, theirs).sum() / max(1, min(ours.sum(), theirs.sum())))


def _count_pixels(recording: Recording) -> Counts:
    """The events of each pixel, int64 `(H, W)`."""
    height, width = recording.sensor_size
    counts = np.zeros(height * width, np.int64)
    for events in _pieces(recording):
        counts += np.bincount(_keys(events) // 2, minlength=len(counts))
    return counts.reshape(height, width)


def _sample(recording: Recording) -> Events:
    """About a thousand events of a recording, evenly among all."""
    step, first, parts = max(1, len(recording) // SAMPLED), 0, []
    for events in _pieces(recording):
        parts.append(events[-first % step :: step])
        first += len(events)
    return Events.concatenate(parts)


def _take(recording: Recording, sample: Events) -> Events:
    """The events of a recording at the pixels of some others, and of their polarity there."""
    height, width = recording.sensor_size
    wanted = np.zeros(2 * height * width, bool)
    wanted[_keys(sample)] = True
    return Events.concatenate([events[wanted[_keys(events)]] for events in _pieces(recording)])


def _pieces(recording: Recording) -> Iterator[Events]:
    return (events for events, _ in recording.pieces())


def _keys(events: Events) -> NDArray[np.int64]:
    """A number for the pixel and polarity of each event, int64 `(N,)`."""
    return (events.y.astype(np.int64) * events.sensor_size[1] + events.x) * 2 + (events.p > 0)
