"""Text tables: events as lines of numbers, their columns named or `t x y p`, their unit of time declared."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from deflare_core.events import Events, SensorSize, check_sensor_size
from deflare_core.io.reading import (
    HEAD_BYTES,
    MICROSECONDS,
    PIECE_EVENTS,
    Columns,
    Content,
    Reading,
    TimeUnit,
    explain_damage,
    pick_columns,
    to_microseconds,
)
from deflare_core.system.errors import DeflareError

COLUMN_OF: Mapping[str, str] = {
    **dict.fromkeys(("t", "t_s", "t_ms", "t_us", "time", "timestamp"), "t"),
    **{"x": "x", "y": "y", "p": "p", "polarity": "p"},
}
"""The columns that text calls so."""


@dataclass(frozen=True, slots=True)
class _Head:
    """How a text table begins: what it declares, its column names, its lines before the events, its separator."""

    declared: Mapping[str, str]
    names: list[str]
    num_lines: int
    separator: str | None


def is_text(head: bytes) -> bool:
    """Whether the bytes that a file begins with are UTF-8, apart from a character cut at their end."""
    if not head or b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return len(head) == HEAD_BYTES and error.start > len(head) - 4
    return True


def read_text(path: Path, reading: Reading) -> Content:
    """The content of a text table."""
    with explain_damage(UnicodeDecodeError):
        head = _read_head(path)
    unit = _agree_on_unit(head, reading.time_unit)
    stated = None
    if {"height", "width"} <= head.declared.keys():
        stated = check_sensor_size((head.declared["height"], head.declared["width"]))  # type: ignore[arg-type]
    return stated, _pieces(path, head, unit)


def write_text(path: Path, sensor_size: SensorSize, num_events: int, pieces: Callable[[], Iterator[Events]]) -> None:
    """Write a line of what is declared, a line of names, and a line `t,x,y,p` per event."""
    height, width = sensor_size
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# time_unit: us, height: {height}, width: {width}\nt,x,y,p\n")
        for events in pieces():
            np.savetxt(file, events.to_array(), fmt="%d", delimiter=",")


def _read_head(path: Path) -> _Head:
    declared: dict[str, str] = {}
    names: list[str] = []
    separator, num_lines = None, 0
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            comment = line.startswith(("#", "%"))
            separator = next((mark for mark in ",;" if mark in line), None)
            words = [word.strip().lower() for word in line.strip("#% \t\r\n").split(separator)]
            if words and not comment and _is_number(words[0]):
                break
            if words and not comment and not {"x", "y"} <= set(words):
                raise DeflareError(
                    f"is text, but line {num_lines + 1} holds neither numbers nor the names t, x, y, p: {line[:60]!r}."
                )
            if words and (not comment or (len(words) >= 4 and set(words) <= COLUMN_OF.keys())):
                names = words
            declared |= dict(re.findall(r"\b(time_unit|height|width)\s*[:=]\s*(\w+)", line)) if comment else {}
            num_lines += 1
    return _Head(declared, names, num_lines, separator)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _agree_on_unit(head: _Head, asked: TimeUnit | None) -> TimeUnit:
    """The unit of time that the caller, a header line or a column's name declares; none, or two, is an error."""
    named = {name.removeprefix("t_") for name in head.names if name in ("t_s", "t_ms", "t_us")}
    units = named | {unit for unit in (head.declared.get("time_unit"), asked) if unit}
    if not units:
        raise DeflareError(
            "does not say its unit of time; give time_unit='s', 'ms' or 'us', as in --time-unit us, or begin it with "
            "'# time_unit: us'."
        )
    if len(units) > 1 or not units <= MICROSECONDS.keys():
        raise DeflareError(f"the unit of time must be one of 's', 'ms' and 'us'; declared are {sorted(units)}.")
    return units.pop()  # type: ignore[return-value]


def _pieces(path: Path, head: _Head, unit: TimeUnit) -> Iterator[Columns]:
    names = [COLUMN_OF.get(name, name) for name in head.names] or list("txyp")
    first_line = head.num_lines + 1
    with path.open(encoding="utf-8-sig") as file:
        lines = islice(file, head.num_lines, None)
        while piece := _take(lines):
            table = _numbers(piece, head.separator, first_line)
            if table.size and table.shape[1] != len(names):
                raise DeflareError(f"has {table.shape[1]} columns; expected {names}. Name them in a line of their own.")
            t, x, y, p = pick_columns(dict(zip(names, table.T.reshape(len(names), -1), strict=True)))
            yield to_microseconds(t, unit), x, y, p
            first_line += len(piece)


@explain_damage(UnicodeDecodeError)
def _take(lines: Iterator[str]) -> list[str]:
    return list(islice(lines, PIECE_EVENTS))


def _numbers(lines: list[str], separator: str | None, first_line: int) -> np.ndarray:
    """The numbers of some lines, float64 `(lines, columns)`: exact for whole numbers below 2^53."""
    lines = [line for line in lines if line.strip() and line[0] not in "#%"]
    if not lines:
        return np.empty((0, 0))
    try:
        return np.loadtxt(lines, delimiter=separator, ndmin=2, comments=None)
    except ValueError as error:
        cause = str(error).split(";")[0].rstrip(".")
        raise DeflareError(f"not a table of numbers: {cause} (rows counted from line {first_line}).") from error
