"""Text tables: events as lines of numbers, their columns named or `t x y p`, their unit of time declared."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from deflare_core.events import Events, SensorSize, check_sensor_size
from deflare_core.io.column_names import find_columns, meaning_of, require_columns, unit_of
from deflare_core.io.column_order import ENOUGH_EVENTS, find_order
from deflare_core.io.reading import (
    HEAD_BYTES,
    LATEST_US,
    MICROSECONDS,
    PIECE_EVENTS,
    Columns,
    Content,
    Reading,
    TimeUnit,
    explain_damage,
    to_microseconds,
)
from deflare_core.system.errors import DeflareError
from deflare_core.system.limits import MOST_LINE_BYTES

WORDS: Mapping[str, float] = {"true": 1, "false": 0, "on": 1, "off": 0}
"""Words for polarities."""
NUMBER_BYTES = 64
"""The longest number that a text may hold, in characters."""
PRINTED = bytes(range(32, 127)) + b"\t\n\r"
LARGEST_FRACTION_US = 2.0**51
"""Below this a float64 number of any unit is nearer to its own microsecond than to the next."""
DECIMAL_COMMA = re.compile(r"""(?:^|[;\t])"?-?\d+,\d+"?[;\t]|[;\t]"?-?\d+,\d+"?\s*$|"-?\d+,\d+\"""")
"""A number with a comma, in quotes or between other separators."""
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
SIZE_STATEMENTS = (
    r"geometry\s*[:=]?\s*(?P<width>\d+)\s*[,x]\s*(?P<height>\d+)",
    r"height\s*[:=]\s*(?P<height>\d+)",
    r"width\s*[:=]\s*(?P<width>\d+)",
)
"""How a line of comment states the sensor: Prophesee's `%geometry:1280,720`, and ours."""


@dataclass(frozen=True, slots=True)
class _Head:
    """How a text table begins.

    Parameters
    ----------
    declared : what its comments state: `time_unit`, `height` and `width`.
    names : its columns', as many as its rows have; none if they have none.
    num_lines : those before the events.
    separator : what stands between two values; None for blanks.
    first_row : the values of the first event, as words.
    """

    declared: Mapping[str, str]
    names: list[str]
    num_lines: int
    separator: str | None
    first_row: list[str]


def is_text(head: bytes) -> bool:
    """Whether the bytes that a file begins with are text, or are gzipped and begin as text.

    Text is UTF-8, or any other code of one byte a character of which nearly all are those of ASCII.
    """
    if head.startswith(b"\x1f\x8b"):
        with_text = zlib.decompressobj(31)
        try:
            return is_text(with_text.decompress(head, HEAD_BYTES)[: HEAD_BYTES - 1] or b"\0")
        except zlib.error:
            return False
    if not head or b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        is_cut = len(head) >= HEAD_BYTES - 1 and error.start > len(head) - 4
        return is_cut or len(head.translate(None, PRINTED)) < len(head) / 20
    return True


def read_text(path: Path, reading: Reading) -> Content:
    """The content of a text table."""
    head = _read_head(path)
    stated = _stated_size(head, reading)
    size = reading.sensor_size or stated
    head = _name_columns(head, path, size, reading)
    if head.names:
        require_columns(head.names)
    unit = _agree_on_unit(head, reading)
    reading.choose_stream(["events"])
    return Content(stated, _pieces(path, head, unit), f"columns {', '.join(head.names)}")


def write_text(path: Path, sensor_size: SensorSize, num_events: int, pieces: Callable[[], Iterator[Events]]) -> None:
    """Write a line of what is declared, a line of names, and a line `t,x,y,p` per event."""
    height, width = sensor_size
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# time_unit: us, height: {height}, width: {width}\nt,x,y,p\n")
        for events in pieces():
            np.savetxt(file, events.to_array(), fmt="%d", delimiter=",")


def _open(path: Path) -> TextIO:
    """A text file, gzipped or not; a byte that is no UTF-8 stands where it is, and only among numbers is an error."""
    with path.open("rb") as file:
        is_gzipped = file.read(2) == b"\x1f\x8b"
    content: Any = gzip.GzipFile(path) if is_gzipped else io.BufferedReader(io.FileIO(path))
    lines = io.BufferedReader(_ShortLines(content), HEAD_BYTES)
    return io.TextIOWrapper(lines, encoding="utf-8-sig", errors="surrogateescape")


class _ShortLines(io.RawIOBase):
    """The bytes of a file, of which no line is so long that it fills the memory."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file, self._length = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._file.read1(len(buffer))
        end = max(part.rfind(b"\n"), part.rfind(b"\r"))
        self._length = self._length + len(part) if end < 0 else len(part) - end
        if self._length > MOST_LINE_BYTES:
            raise DeflareError(f"has a line of more than {MOST_LINE_BYTES:,} bytes; write one event in each.")
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()


@explain_damage(*GZIP_ERRORS)
def _read_head(path: Path) -> _Head:
    declared: dict[str, str] = {}
    names: list[str] = []
    separator, num_lines, words, is_named = None, 0, [], False
    with _open(path) as file:
        for line in file:
            # Excel's first line may name the separator.
            comment = line.startswith(("#", "%", "sep="))
            separator = _separator(line)
            words = _split(line.lstrip("#% "), separator)
            if not comment and DECIMAL_COMMA.search(line):
                raise DeflareError(
                    f"writes decimals with a comma, or thousands: {line[:40]!r}; write decimals with a point, and "
                    "thousands without a mark."
                )
            if words and not comment and (is_named or _is_value(words)):
                if len(words) != 2 or "width" in declared or names:
                    break
                # E2VID's texts begin with a line of width and height.
                declared |= {"width": words[0], "height": words[1]}
            elif words and not comment and not {"x", "y"} <= {meaning_of(word) for word in words}:
                raise DeflareError(
                    f"is text, but line {num_lines + 1} holds neither numbers nor the names t, x, y, p: {line[:60]!r}."
                )
            elif words and (not comment or set("txyp") <= {meaning_of(word) for word in words}):
                names, is_named = words, not comment
                declared |= _declared_by_faery(words)
            declared |= _declarations(line.lower()) if comment else {}
            num_lines += 1
        else:
            words = []
    return _Head(declared, names, num_lines, separator, words)


def _separator(line: str) -> str | None:
    return next((mark for mark in ";," if mark in line), None)


def _split(line: str, separator: str | None) -> list[str]:
    return [word.strip().strip("\"'").strip() for word in line.strip().split(separator)]


def _declarations(line: str) -> dict[str, str]:
    found = dict(re.findall(r"\b(time_unit)\s*[:=]\s*(\w+)", line))
    for statement in SIZE_STATEMENTS:
        if match := re.search(rf"\b{statement}", line):
            found |= match.groupdict()
    return found


def _declared_by_faery(names: list[str]) -> dict[str, str]:
    """What faery's names `t,x@1280,y@720,on` say: the sensor, and microseconds."""
    found = re.fullmatch(r"t,x@(\d+),y@(\d+),on", ",".join(names).lower())
    return {"width": found[1], "height": found[2], "time_unit": "us"} if found else {}


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_value(words: list[str]) -> bool:
    """Whether the words of a line are those of an event: one that begins with a polarity in words ends in a number."""
    return _is_number(words[0]) or (words[0].lower() in WORDS and _is_number(words[-1]))


def _stated_size(head: _Head, reading: Reading) -> SensorSize | None:
    """The sensor that a text states; one that cannot be understood counts only if the caller gives none."""
    if not {"height", "width"} <= head.declared.keys():
        return None
    with suppress(DeflareError) if reading.sensor_size else nullcontext():
        return check_sensor_size((head.declared["height"], head.declared["width"]))  # type: ignore[arg-type]
    return None


def _name_columns(head: _Head, path: Path, size: SensorSize | None, reading: Reading) -> _Head:
    """The head with a name for every column that its rows have; those without a meaning may have an empty one."""
    num_columns = len(head.first_row)
    if not num_columns:
        return head
    # A comma at the end of a line makes one more column, which holds nothing.
    named = head.names
    while len(named) > num_columns and named[-1] == "":
        named = named[:-1]
    while named and len(named) < num_columns and head.first_row[len(named)] == "":
        named = [*named, ""]
    if named and len(named) != num_columns:
        raise DeflareError(f"names {len(named)} columns, {named}, but its rows have {num_columns}.")
    return replace(head, names=named or _find_names(head, path, size, reading))


def _find_names(head: _Head, path: Path, size: SensorSize | None, reading: Reading) -> list[str]:
    """Names for the columns of a table that names none, by the values of its first events."""
    num_columns = len([word for word in head.first_row if word])
    with _open(path) as file:
        lines = _events_of(_take(islice(file, head.num_lines, None)))
    if num_columns < 4 or (num_columns > 4 and len(lines) < ENOUGH_EVENTS):
        raise DeflareError(f"has {num_columns} columns; expected t, x, y, p. Name them in a line of their own.")
    rest = [""] * (len(head.first_row) - 4)
    table = _parse(lines, replace(head, names=[*"txyp", *rest]), head.num_lines + 1)
    return [*find_order([_to_float(table[name]) for name in "txyp"], size, reading.polarity), *rest]


def _agree_on_unit(head: _Head, reading: Reading) -> TimeUnit:
    """The unit of time that the caller, a header line or a column's name declares; none, or two, is an error."""
    name = find_columns(head.names).get("t", "")
    stated = {f"column {name}": unit} if (unit := unit_of(name)) else {}
    if declared := head.declared.get("time_unit"):
        stated["its first lines"] = declared  # type: ignore[assignment]
    if agreed := reading.agree_on_unit(stated):
        return agreed
    raise DeflareError(
        "does not say its unit of time; give time_unit='s', 'ms', 'us' or 'ns' (--time-unit), whichever it is, or "
        "begin it with a line such as '# time_unit: us'. `deflare info` says how long it would last in each."
    )


def _pieces(path: Path, head: _Head, unit: TimeUnit) -> Iterator[Columns]:
    first_line = head.num_lines + 1
    with _open(path) as file:
        lines = islice(file, head.num_lines, None)
        while piece := _take(lines):
            if rows := _events_of(piece):
                table = _parse(rows, head, first_line)
                t, x, y, p = (table[column] for column in "txyp")
                yield _times_us(t, unit), x, y, _to_float(p)
            first_line += len(piece)


@explain_damage(*GZIP_ERRORS)
def _take(lines: Iterator[str]) -> list[str]:
    return list(islice(lines, PIECE_EVENTS))


def _events_of(lines: list[str]) -> list[str]:
    """The lines that are neither blank nor a comment."""
    return [line for line in lines if line.strip() and line[0] not in "#%"]


def _parse(lines: list[str], head: _Head, first_line: int) -> np.ndarray:
    """The values of some lines, with fields t, x, y and p: numbers, but times and other words as they are written."""
    columns = {name: column for column, name in find_columns(head.names).items()}
    fields = []
    for k, (name, word) in enumerate(zip(head.names, head.first_row, strict=True)):
        column = columns.get(name)
        kind = "S1" if column is None else "f8" if column != "t" and _is_number(word) else f"S{NUMBER_BYTES}"
        fields.append((column or f"column {k}", kind))
    quote = '"' if '"' in lines[0] else None
    try:
        return np.loadtxt(lines, fields, delimiter=head.separator, ndmin=1, comments=None, quotechar=quote)
    except ValueError as error:
        cause = str(error).split(";")[0].rstrip(".")
        raise DeflareError(f"not a table of numbers: {cause} (rows counted from line {first_line}).") from error


def _to_float(values: np.ndarray) -> np.ndarray:
    """Numbers `(N,)` of which some may be words, as float64."""
    if values.dtype.kind == "f":
        return values
    words = np.char.lower(np.char.strip(values))
    for word, number in WORDS.items():
        words[words == word.encode()] = str(number).encode()
    try:
        return words.astype(np.float64)
    except ValueError as error:
        raise DeflareError(f"not a table of numbers: {error}.") from error


def _times_us(words: np.ndarray, unit: TimeUnit) -> np.ndarray:
    """Times `(N,)`, as they are written, in microseconds: no digit is lost, because whole numbers stay such."""
    if np.char.str_len(words).max() >= NUMBER_BYTES:
        raise DeflareError(f"not a table of numbers: a time has {NUMBER_BYTES} characters or more.")
    try:
        is_whole, whole = True, words.astype(np.int64)
    except ValueError:
        is_whole = False
    except OverflowError as error:
        raise DeflareError(f"a time does not fit 64 bits ({error}); check the times and their unit.") from error
    return to_microseconds(whole, unit) if is_whole else _fractions_us(words, unit)


def _fractions_us(words: np.ndarray, unit: TimeUnit) -> np.ndarray:
    """Times `(N,)` that are written with a fraction or an exponent, in microseconds, to the nearest one."""
    floats = _to_float(words)
    largest_us = float(np.abs(floats).max() * float(MICROSECONDS[unit]))
    if unit != "us" and LARGEST_FRACTION_US <= largest_us < LATEST_US:
        exact = [round(Fraction(word.decode().strip()) * MICROSECONDS[unit]) for word in words.tolist()]
        return np.array(exact, np.int64)
    return to_microseconds(floats, unit)
