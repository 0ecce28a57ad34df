# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The inner loops of EVT3, whose words each change one part of what the next event is made of."""

import numpy as np

from deflare_core.kernels.numba_cache import CompiledLater

UNKNOWN = -(1 << 50)
"""A time, row or column of which no word has spoken yet; no sum of lengths makes it positive."""
EVT3_STRANGE = 0b0011_1010_0000_0000
"""The kinds of words, by bit, that EVT3 does not have: 9, 11, 12 and 13."""
HIGH, LOW, ROW, FIRST, POLARITY = range(5)
"""Places in the state: the halves of the time, the row, where the next vector of pixels starts, and its polarity."""
NUM_EVENTS, NUM_LOWS, NUM_MISSING, NUM_TIMELESS, NUM_PLACELESS = range(5)
"""Places in what `decode_words` counts."""


@CompiledLater
def mask_word(word):
    """A bit for each event of a word."""
    kind = word >> 12
    if kind == 2:
        return 1
    if kind == 4:
        return word & 4095
    return word & 255 if kind == 5 else 0


@CompiledLater
def count_words(words):
    """How many events the words hold, and how many words are of no kind of EVT3."""
    num_events, num_strange = 0, 0
    for k in range(len(words)):
        word = np.int64(words[k])
        num_strange += EVT3_STRANGE >> (word >> 12) & 1
        mask = mask_word(word)
        while mask:
            num_events += 1
            mask &= mask - 1
    return num_events, num_strange


@CompiledLater
def decode_words(words, ticks, state, t, x, y, p, counts):
    """Fill the columns with the events of words whose time and place are known, and count.

    Parameters
    ----------
    words : uint16 `(N,)`.
    ticks : int64, the absolute upper half of each word of time among them.
    state : int64 `(5,)`, what the words before have said; it is brought up to date.
    t, x, y, p : with room for all events of the words.
    counts : int64 `(5,)`, zeros.
    """
    high, low, row, first, polarity = state
    num, tick = 0, 0
    for k in range(len(words)):
        word = np.int64(words[k])
        kind, value = word >> 12, word & 4095
        if kind <= 1:
            # Kind 1 is the row of an event of another sort, and bit 11 means a second camera.
            row = word if word < 2048 else UNKNOWN
        elif kind == 6:
            counts[NUM_LOWS] += 1
            # It began again where an upper half is missing.
            began = value - (low & 4095) < -2048
            counts[NUM_MISSING] += began
            low = value + (low & ~4095) + 4096 * began
        elif kind == 8:
            if ticks[tick] != high:
                # A new upper half comes before its lower half, which starts at 0.
                counts[NUM_LOWS] += 1
                high, low = ticks[tick], 0
            tick += 1
        elif kind == 3:
            first, polarity = value & 2047, value >> 11
        elif kind == 2 or kind == 4 or kind == 5:
            place, sign = (value & 2047, value >> 11) if kind == 2 else (first, polarity)
            mask, time_us = mask_word(word), high * 4096 + low
            while mask:
                if not mask & 1:
                    pass
                elif time_us < UNKNOWN // 2:
                    counts[NUM_TIMELESS] += 1
                elif place < 0 or row < 0:
                    counts[NUM_PLACELESS] += 1
                else:
                    t[num], x[num], y[num], p[num] = time_us, place, row, sign
                    num += 1
                place += 1
                mask >>= 1
            # A vector of pixels starts where the one before it in its row ended.
            first += 12 if kind == 4 else 8 if kind == 5 else 0
    counts[NUM_EVENTS] = num
    state[:] = high, low, row, first, polarity
