"""Event Stream files (.es) of version 2: what a DVS or an ATIS camera saw, a few bytes an event.

Rows are counted from below, as in the readers of the format's author.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deflare_core.io.oddities import Oddities
from deflare_core.io.reading import PIECE_EVENTS, Columns, Content, Reading
from deflare_core.system.errors import DeflareError

KINDS = {1: ("DVS", 1), 2: ("ATIS", 2)}
"""Cameras by the type of stream, and the bits of an event's kind in its first byte; the others count microseconds."""
HEADER = struct.Struct("<12s4B2H")


def read_event_stream(path: Path, reading: Reading) -> Content:
    """The content of an Event Stream file."""
    reading.choose_stream(["events"])
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        raise DeflareError("the file is cut short in its header; copy or record it again.")
    _, major, minor, _, kind, width, height = HEADER.unpack(head)
    if major != 2 or kind not in KINDS:
        raise DeflareError(
            f"is an Event Stream of version {major}.{minor} and type {kind}; read are version 2, types 1 (DVS) and 2 "
            "(ATIS)."
        )
    camera, kind_bits = KINDS[kind]
    pieces = ((t, x, height - 1 - y, p) for t, x, y, p in _decode(path, kind_bits))
    return Content((height, width), pieces, f"{camera} camera", Oddities(path))


def _decode(path: Path, kind_bits: int) -> Iterator[Columns]:
    """The events of changes; those of an ATIS camera's exposures are passed over."""
    data, last_us = b"", 0
    with path.open("rb") as file:
        file.seek(HEADER.size)
        while more := file.read(5 * PIECE_EVENTS):
            data += more
            ends = _find_ends(data, kind_bits)
            used = ends[-1] if len(ends) else 0
            t, x, y, kind = _read_events(np.frombuffer(data[:used], np.uint8), ends, kind_bits)
            t, data = t + last_us, data[used:]
            last_us = int(t[-1]) if len(t) else last_us
            # Of an ATIS camera kinds 0 and 2 are changes, 1 and 3 the start and end of an exposure.
            is_change = kind % kind_bits == 0
            yield t[is_change], x[is_change], y[is_change], kind[is_change] // kind_bits
    if data.strip(bytes(range(256 - (1 << kind_bits), 256))):
        raise DeflareError("the file is cut short: it ends in the middle of an event; copy or record it again.")


def _find_ends(data: bytes, kind_bits: int) -> np.ndarray:
    """Where each event ends: bytes that only add time, one of time and kind, and two each of x and y."""
    low = b"\\x%02x" % (256 - (1 << kind_bits))
    pattern = re.compile(rb"[%b-\xff]*[^%b-\xff].{4}" % (low, low), re.DOTALL)
    ends, at = [], 0
    while found := pattern.match(data, at):
        ends.append(at := found.end())
    return np.array(ends, np.int64)


def _read_events(data: np.ndarray, ends: np.ndarray, kind_bits: int) -> tuple[np.ndarray, ...]:
    """The times from the first byte on, x, y and kinds of the events that end at these bytes."""
    first = data[ends - 5].astype(np.int64)
    body = np.stack([data[ends - k] for k in (4, 3, 2, 1)]).astype(np.int64)
    kind = first & (1 << kind_bits) - 1
    is_time = np.ones(len(data), bool)
    for k in range(1, 6):
        is_time[ends - k] = False
    longest_us = (1 << 8 - kind_bits) - 1
    extra_us = np.where(is_time, (data & (1 << kind_bits) - 1).astype(np.int64), 0) * longest_us
    t = np.cumsum(first >> kind_bits) + np.cumsum(extra_us)[ends - 1]
    return t, body[0] | body[1] << 8, body[2] | body[3] << 8, kind
