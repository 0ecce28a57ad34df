"""Camera files written byte by byte."""

import struct


def evt2_bytes(events, header=b"% evt 2.0\n% geometry 16x12\n% end\n"):
    """EVT2 words: type 8 holds the upper 28 bits of the time, types 0 and 1 the lower 6, x and y of OFF and ON."""
    words = []
    for t, x, y, p in events.to_array().tolist():
        words += [8 << 28 | t >> 6, (p > 0) << 28 | (t & 63) << 22 | x << 11 | y]
    return header + struct.pack(f"<{len(words)}I", *words)


def evt3_bytes(events, header=b"% evt 3.0\n% geometry 16x12\n% end\n"):
    """EVT3 words: types 8 and 6 hold the upper and lower 12 bits of the time, type 0 the row, type 2 the event."""
    words = []
    for t, x, y, p in events.to_array().tolist():
        words += [8 << 12 | t >> 12, 6 << 12 | t & 4095, y, 2 << 12 | (p > 0) << 11 | x]
    return header + struct.pack(f"<{len(words)}H", *words)


def dat_bytes(events):
    """DAT: time, then 14 bits of x, 14 of y and the polarity, after an event type (12) and its size (8)."""
    header = b"% Data file containing CD events.\n% Version 2\n% Height 12\n% Width 16\n\x0c\x08"
    rows = events.to_array().tolist()
    return header + b"".join(struct.pack("<II", t, (p > 0) << 28 | y << 14 | x) for t, x, y, p in rows)
