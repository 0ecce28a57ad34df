"""EVT words: what Prophesee cameras send, decoded into t, x, y and p. The formats are published by the maker.

Times come in two halves: the upper one in words of its own, of 28 bits (EVT2, EVT2.1) or 12 (EVT3), that begin again
from 0 when they are full. A decoder of our own was chosen because no library was right on all files that were tried:
clocks that begin late, step back or are full, events before the first time, and EVT2.1. EVT3, whose words are as many
as its events' parts, is decoded by a compiled loop; the others in numpy, since their reader need not wait for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from deflare_core.io.oddities import JUMP, MISSING, PLACELESS, STRANGE, TIMELESS, Oddities
from deflare_core.io.reading import Columns
from deflare_core.kernels import evt_loops
from deflare_core.kernels.evt_loops import UNKNOWN

EVT2_KINDS = (0, 1, 6, 7, 8, 10, 13, 14, 15)


class Clock:
    """Absolute values of a counter that begins again from 0 when its bits are full.

    A value that is less by half a round or more has begun again, whether or not the last and first values were seen.
    One that is less by fewer has stepped back, and so has one that seems to go on by nearly a round.
    """

    def __init__(self, bits: int) -> None:
        self._round = 1 << bits
        self.last: int | None = None

    def unwrap(self, values: np.ndarray) -> np.ndarray:
        """The absolute values int64 `(N,)` of those that follow the ones seen before; the first of all is itself."""
        if not len(values):
            return np.empty(0, np.int64)
        values = values.astype(np.int64)
        start = int(values[0]) if self.last is None else self.last
        steps = np.diff(values, prepend=start % self._round)
        steps[steps <= -self._round // 2] += self._round
        steps[steps > self._round * 15 // 16] -= self._round
        absolute = start + np.cumsum(steps)
        self.last = int(absolute[-1])
        return absolute


def decode_evt2(pieces: Iterable[tuple[np.ndarray, np.ndarray | None]], oddities: Oddities) -> Iterator[Columns]:
    """The events of words of EVT2, or of EVT2.1 in two halves, a piece at a time.

    Parameters
    ----------
    pieces : uint32 `(N,)` words; and for EVT2.1 uint32 `(N,)`, a bit for each of 32 pixels of the row, else None.
    """
    clock, high = Clock(28), UNKNOWN
    for words, masks in pieces:
        kind = words >> 28
        _count_strange(kind, EVT2_KINDS, oddities)
        is_time = kind == 8
        at = np.flatnonzero(kind <= 1 if masks is None else (kind <= 1) & (masks != 0))
        highs, high = _latest(is_time, _unwrap(clock, words[is_time] & 0xFFFFFFF, 64, oddities), high, at)
        words = words[at]
        columns = highs * 64 + (words >> 22 & 63), words >> 11 & 2047, words & 2047, words >> 28
        yield _leave_out_unknown(columns if masks is None else _spread(columns, masks[at]), oddities)


def decode_evt3(pieces: Iterable[np.ndarray], oddities: Oddities) -> Iterator[Columns]:
    """The events of words of EVT3, uint16 `(N,)`, a piece at a time."""
    clock, state = Clock(12), np.array([UNKNOWN, 0, UNKNOWN, UNKNOWN, 0])
    for words in pieces:
        num_events, num_strange = evt_loops.count_words(words)
        oddities.add(STRANGE, num_strange, len(words))
        ticks = _unwrap(clock, words[words >> 12 == 8] & 4095, 4096, oddities)
        columns = np.empty((3, num_events), np.int64), np.empty(num_events, np.uint8)
        counts = np.zeros(5, np.int64)
        evt_loops.decode_words(words, ticks, state, *columns[0], columns[1], counts)
        num_known, num_lows, num_missing, num_timeless, num_placeless = counts.tolist()
        oddities.add(MISSING, num_missing, num_lows)
        oddities.add(TIMELESS, num_timeless, num_events)
        oddities.add(PLACELESS, num_placeless, num_events)
        t, x, y = columns[0][:, :num_known]
        yield t, x, y, columns[1][:num_known]


def _latest(is_new: np.ndarray, values: np.ndarray, before: int, at: np.ndarray) -> tuple[np.ndarray, int]:
    """The last value up to each of the words at these places, int64 `(M,)`, and the last of all; first `before`."""
    values = np.concatenate([np.array([before]), values])
    return values[np.cumsum(is_new)[at]], int(values[-1])


def _unwrap(clock: Clock, values: np.ndarray, tick_us: int, oddities: Oddities) -> np.ndarray:
    """The absolute ticks of time words, whose jumps are counted: cameras send one for each tick, or nearly so."""
    before = clock.last
    ticks = clock.unwrap(values)
    steps_us = np.diff(ticks, prepend=ticks[:1] if before is None else before) * tick_us
    is_jump = np.abs(steps_us) > 1_000_000
    at = int(is_jump.argmax()) if len(ticks) else 0
    detail = f", first by {steps_us[at] / 1e6:+,.3f} s to {ticks[at] * tick_us} us" if is_jump.any() else ""
    oddities.add(JUMP, int(is_jump.sum()), len(ticks), detail)
    return ticks


def _spread(columns: Columns, masks: np.ndarray) -> Columns:
    """An event for each bit of each word's mask, in the order of words and bits; x grows by the bit."""
    if (masks == 1).all():
        return columns
    width = 8 * masks.itemsize
    bits = np.unpackbits(masks.view(np.uint8), bitorder="little").view(bool)
    word, bit = np.divmod(np.flatnonzero(bits), width)
    t, x, y, p = (column[word] for column in columns)
    return t, x + bit, y, p


def _leave_out_unknown(columns: Columns, oddities: Oddities) -> Columns:
    t, x, y, p = columns
    timeless = t < UNKNOWN // 2
    placeless = ~timeless & ((x < 0) | (y < 0))
    oddities.add(TIMELESS, int(timeless.sum()), len(t))
    oddities.add(PLACELESS, int(placeless.sum()), len(t))
    keep = ~timeless & ~placeless
    return columns if keep.all() else (t[keep], x[keep], y[keep], p[keep])


def _count_strange(kind: np.ndarray, known: tuple[int, ...], oddities: Oddities) -> None:
    oddities.add(STRANGE, len(kind) - int(np.isin(kind, known).sum()), len(kind))
