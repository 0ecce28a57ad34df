"""EVT words decoded one at a time, as the maker's pages describe them: slow, plain, and apart from what is tested."""

import struct


class Counter:
    """A counter of some bits, that goes on by up to 15 of 16 parts of a round, or else back."""

    def __init__(self, bits):
        self.round, self.value = 1 << bits, None

    def follow(self, bits):
        if self.value is None:
            self.value = bits
            return
        step = bits - self.value % self.round
        if step <= -self.round / 2:
            step += self.round
        elif step > self.round * 15 / 16:
            step -= self.round
        self.value += step


def decode_evt2(data):
    """The rows t, x, y, p of words of EVT2, in the order of the file."""
    return decode_evt21([(word, 1) for (word,) in struct.iter_unpack("<I", data)])


def decode_evt21(words):
    """The rows of pairs of a word as in EVT2 and the bits of the pixels from x on."""
    time, rows = Counter(28), []
    for word, mask in words:
        if word >> 28 == 8:
            time.follow(word & 0xFFFFFFF)
        elif word >> 28 in (0, 1) and time.value is not None:
            t, x, y, p = time.value * 64 + (word >> 22 & 63), word >> 11 & 2047, word & 2047, 2 * (word >> 28) - 1
            rows += [(t, x + bit, y, p) for bit in range(32) if mask >> bit & 1]
    return rows


def decode_evt3(data):
    """The rows t, x, y, p of words of EVT3, in the order of the file."""
    time, low, row, base, polarity, rows = Counter(12), 0, None, None, 0, []
    for (word,) in struct.iter_unpack("<H", data):
        kind, value = word >> 12, word & 4095
        if kind == 8:
            before = time.value
            time.follow(value)
            low = low if time.value == before else 0
        elif kind == 6:
            began = value - low % 4096 < -2048
            low = low // 4096 * 4096 + value + 4096 * began
        elif kind in (0, 1):
            row = value if kind == 0 and value < 2048 else None
        elif kind == 3:
            base, polarity = value & 2047, value >> 11
        elif kind in (2, 4, 5):
            width = {2: 1, 4: 12, 5: 8}[kind]
            mask, x, p = (1, value & 2047, value >> 11) if kind == 2 else (value, base, polarity)
            if None not in (time.value, row, x):
                t = time.value * 4096 + low
                rows += [(t, x + bit, row, 2 * p - 1) for bit in range(width) if mask >> bit & 1]
            if kind != 2 and base is not None:
                base += width
    return rows
