"""EVT words: what Prophesee cameras send, decoded into t, x, y and p. The formats are published by the maker.

Times come in two halves: the upper one in words of its own, of 28 bits (EVT2, EVT2.1) or 12 (EVT3), that begin again
from 0 when they are full. A decoder of our own was chosen because no library was right on all files that were tried:
clocks that begin late, step back or are full, events before the first time, and EVT2.1. It is in numpy, because the
reader of another format should not wait for a compiler.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from deflare_core.io.oddities import JUMP, MISSING, PLACELESS, STRANGE, TIMELESS, Oddities
from deflare_core.io.reading import Columns

UNKNOWN = -(1 << 50)
"""A time, row or column of which no word has spoken yet; no sum of lengths makes it positive."""
EVT2_KINDS = (0, 1, 6, 7, 8, 10, 13, 14, 15)
EVT3_KINDS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 14, 15)
VECTOR_BITS = np.array([0, 0, 0, 0, 12, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
"""How many pixels of a row an EVT3 word of each kind speaks of."""
VECTOR_MASKS = ((1 << VECTOR_BITS) - 1).astype(np.uint16)


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
    clock, high, low, row, first, polarity = Clock(12), UNKNOWN, 0, UNKNOWN, UNKNOWN, 0
    for words in pieces:
        kind, value = words >> 12, words & 4095
        _count_strange(kind, EVT3_KINDS, oddities)
        masks = value & VECTOR_MASKS[kind]
        masks[kind == 2] = 1
        at = np.flatnonzero(masks)
        is_time, is_low, is_row, is_base = kind == 8, kind == 6, kind <= 1, kind == 3
        ticks = _unwrap(clock, value[is_time], 4096, oddities)
        # A new upper half comes before its lower half, which starts at 0.
        is_low[np.flatnonzero(is_time)[np.diff(ticks, prepend=high) != 0]] = True
        highs, high = _latest(is_time, ticks, high, at)
        lows, low = _latest(is_low, _count_on(value[is_low], is_time[is_low], low, oddities), low, at)
        # Kind 1 is the row of an event of another sort, and bit 11 means a second camera.
        named = words[is_row].astype(np.int64)
        rows, row = _latest(is_row, np.where(named < 2048, named, UNKNOWN), row, at)
        # A vector of pixels starts where the one before it in its row ended.
        ends = np.cumsum(VECTOR_BITS[kind])
        firsts, first = _latest(is_base, (value[is_base] & 2047) - ends[is_base], first, at)
        polarities, polarity = _latest(is_base, value[is_base] >> 11, polarity, at)
        kind, value, is_single = kind[at], value[at], kind[at] == 2
        x = np.where(is_single, value & 2047, firsts + ends[at] - VECTOR_BITS[kind])
        p = np.where(is_single, value >> 11, polarities)
        yield _leave_out_unknown(_spread((highs * 4096 + lows, x, rows, p), masks[at]), oddities)
        first += int(ends[-1])


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


def _count_on(values: np.ndarray, is_new: np.ndarray, before: int, oddities: Oddities) -> np.ndarray:
    """The lower halves, int64 `(N,)`, 4096 more for each time that they began again where an upper half is missing.

    Where a new upper half stands they are 0.
    """
    lows = np.where(is_new, 0, values.astype(np.int64))
    began = (np.diff(lows, prepend=before % 4096) < -2048) & ~is_new
    oddities.add(MISSING, int(began.sum()), len(lows))
    rounds = np.cumsum(began)
    rounds -= np.maximum.accumulate(np.where(is_new, rounds, -(before // 4096)))
    return lows + 4096 * rounds


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
