"""Prophesee's files: RAW (EVT2, EVT2.1, EVT3) and DAT, whose headers of text say what follows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deflare_core.events import SensorSize, check_sensor_size
from deflare_core.io.evt_words import Clock, decode_evt2, decode_evt3
from deflare_core.io.oddities import UNFOLLOWED, Oddities
from deflare_core.io.reading import HEAD_BYTES, LATEST_US, Columns, Content, Reading
from deflare_core.system.errors import DeflareError, shorten

PIECE_BYTES = 1 << 18
"""Bytes that are decoded at once."""
WORD_BYTES = {"2": 4, "2.1": 8, "3": 2}
"""Bytes of a word, by the version of EVT."""
EVT3_WORDS = {
    **dict.fromkeys((0, 1), "a row without events"),
    2: "an event",
    3: "the start of a vector without events",
    **dict.fromkeys((4, 5), "a vector of events"),
    **dict.fromkeys((6, 8), "a time"),
}
"""What words of EVT3 are, by their kinds."""
ANNOUNCING = {EVT3_WORDS[kind] for kind in (0, 3)}
"""The words after which a camera sends more."""
DAT_TYPES = (0, 12)
"""The types of DAT files that are read: the one of N-Cars, and the usual one."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the lines `% name value` before the data of a file say; a name may be said twice.

    Parameters
    ----------
    num_bytes : where the data begin.
    """

    said: dict[str, set[str]]
    num_bytes: int

    def get(self, name: str) -> str:
        """What is said of a name, or ''; two different values are an error."""
        values = self.said.get(name, set())
        if len(values) > 1:
            raise DeflareError(f"its header says {name} twice, {shorten(' and '.join(sorted(values)))}; correct it.")
        return next(iter(values), "")

    @property
    def sensor_size(self) -> SensorSize | None:
        """The sensor (height, width), if the header says it."""
        height, width = self.get("height"), self.get("width")
        return check_sensor_size((height, width)) if height and width else None  # type: ignore[arg-type]


def read_evt(path: Path, reading: Reading) -> Content:
    """The content of a Prophesee RAW file: EVT2, EVT2.1 in either order of its halves, or EVT3."""
    reading.choose_stream(["events"])
    header = read_header(path)
    version, oddities = header.get("evt"), Oddities(path)
    if not version:
        raise DeflareError("the file is cut short in its header; copy or record it again.")
    if version not in WORD_BYTES:
        raise DeflareError(
            f"is EVT{shorten(version)}; read are EVT2, EVT2.1 and EVT3. Convert it to DAT or CSV with the tools of the "
            "camera's maker."
        )
    _check_whole_words(path, WORD_BYTES[version], header.num_bytes)
    last = _name_last_word(path, version, header.num_bytes)
    num_words = (path.stat().st_size - header.num_bytes) // WORD_BYTES[version]
    oddities.add(UNFOLLOWED, int(last in ANNOUNCING), num_words, f", its last word is {last}")
    if version == "3":
        pieces = decode_evt3(_read_words(path, header.num_bytes, "<u2"), oddities)
    elif version == "2":
        pieces = decode_evt2(((words, None) for words in _read_words(path, header.num_bytes, "<u4")), oddities)
    else:
        pieces = decode_evt2(_read_halves(path, header), oddities)
    return Content(header.sensor_size, pieces, f"EVT{version}, its last word is {last}", oddities)


def _name_last_word(path: Path, version: str, start: int) -> str:
    """What the last word of a file is: whether it was cut off after an event or a time, nobody can know."""
    if path.stat().st_size == start:
        return "its header"
    with path.open("rb") as file:
        file.seek(-WORD_BYTES[version], os.SEEK_END)
        data = file.read()
    if version == "3":
        return EVT3_WORDS.get(data[1] >> 4, "no event")
    # Either half of a word of EVT2.1 may be the one that says what it is.
    kinds = {data[-1] >> 4} | ({data[3] >> 4} if version == "2.1" else set())
    return "a time" if kinds & {8} else "an event" if kinds & {0, 1} else "no event"


def read_dat(path: Path, reading: Reading) -> Content:
    """The content of a Prophesee DAT file of changes."""
    reading.choose_stream(["events"])
    header = read_header(path)
    with path.open("rb") as file:
        file.seek(header.num_bytes)
        kind, num_bytes = (*file.read(2), 0, 0)[:2]
    if kind not in DAT_TYPES or num_bytes != 8:
        raise DeflareError(f"holds events of type {kind} and {num_bytes} bytes; read are changes, types 0 and 12 of 8.")
    if not (begin_us := header.get("t0") or "0").isdecimal() or int(begin_us) >= LATEST_US:
        raise DeflareError(
            f"its header says T0 {shorten(begin_us)}; expected whole microseconds less than 2^62, correct it."
        )
    start = header.num_bytes + 2
    _check_whole_words(path, 8, start)
    pieces = _decode_dat(_read_words(path, start, "<u4"), header.get("version"), int(begin_us))
    return Content(header.sensor_size, pieces, f"type {kind}", Oddities(path))


def is_evt(head: bytes) -> bool:
    """Whether a file that begins so is a Prophesee RAW file, of whatever EVT version."""
    return head.startswith(b"%") and bool(re.search(rb"^% *(evt +|format +EVT)\d", head, re.MULTILINE | re.IGNORECASE))


def is_dat(head: bytes) -> bool:
    """Whether a file that begins so is a Prophesee DAT file."""
    return head.startswith(b"%") and bool(re.search(rb"^% *(Data file containing|Version [12]\b)", head, re.MULTILINE))


def read_header(path: Path) -> Header:
    """The header of a file: its lines of text that begin with %, up to `% end` where it stands."""
    said: dict[str, set[str]] = {}
    with path.open("rb") as file:
        num_bytes = 0
        while re.fullmatch(rb"%[^\0-\x08\n-\x1f]+\r?\n", line := file.readline(HEAD_BYTES)):
            num_bytes = file.tell()
            text = line.decode("latin-1").strip("% \t\r\n").lower()
            if text == "end":
                break
            for name, value in _read_line(text):
                said.setdefault(name, set()).add(value)
    return Header(said, num_bytes)


def _read_line(text: str) -> Iterator[tuple[str, str]]:
    """The names and values of a line such as `format EVT3;height=720;width=1280`, in lower case."""
    name, _, value = text.replace(":", " ").partition(" ")
    value = value.strip()
    if name == "geometry" and (size := re.fullmatch(r"(\d+) *x *(\d+)", value)):
        yield from (("width", size[1]), ("height", size[2]))
    elif name == "format":
        evt, *rest = value.split(";")
        yield "evt", _name_version(evt.removeprefix("evt"))
        yield from ((key.strip(), word.strip()) for key, _, word in (part.partition("=") for part in rest))
    else:
        yield name, _name_version(value) if name == "evt" else value


def _name_version(text: str) -> str:
    """The version of EVT in one spelling: 2 for 2.0, 2.1 for 21."""
    return {"21": "2.1"}.get(text, text.removesuffix(".0"))


def _read_words(path: Path, start: int, dtype: str) -> Iterator[np.ndarray]:
    """The words of a file from a byte on, a piece at a time."""
    with path.open("rb") as file:
        file.seek(start)
        while data := file.read(PIECE_BYTES):
            yield np.frombuffer(data, dtype)


def _read_halves(path: Path, header: Header) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The halves of the words of EVT2.1: the one that is as a word of EVT2, and the bits of pixels.

    Which comes first differs between cameras, and not all headers say it. A time word shows it, whose other half is 0.
    """
    first = None
    for words in _read_words(path, header.num_bytes, "<u4"):
        halves = words.reshape(-1, 2)
        if first is None:
            num_times = [int((((halves[:, k] >> 28) == 8) & (halves[:, 1 - k] == 0)).sum()) for k in (0, 1)]
            first = int(num_times[1] > num_times[0])
            if num_times[0] == num_times[1]:
                first = int(header.get("endianness") != "legacy")
        yield halves[:, first], halves[:, 1 - first]


def _decode_dat(pieces: Iterator[np.ndarray], version: str, start_us: int) -> Iterator[Columns]:
    """The events of DAT: 32 bits of time from a start on, then x, y and polarity."""
    clock = Clock(32)
    for words in pieces:
        t, word = words.reshape(-1, 2).T
        # Of the 32 bits version 1 uses only 18, for sensors of up to 512 x 256; a header may lack the version.
        version = version or ("2" if (word >> 18).any() else "1")
        x_bits, y_bits, p_bit = (9, 8, 17) if version == "1" else (14, 14, 28)
        x, y = word & (1 << x_bits) - 1, word >> x_bits & (1 << y_bits) - 1
        yield clock.unwrap(t) + start_us, x, y, word >> p_bit & 1


def _check_whole_words(path: Path, word_bytes: int, start: int) -> None:
    """Raise a DeflareError unless a file ends with a whole word."""
    if (path.stat().st_size - start) % word_bytes:
        raise DeflareError("the file is cut short: it ends in the middle of an event; copy or record it again.")
