"""Text tables: events as lines of numbers, their columns named or `t x y p`, their unit of time declared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from deflare_core.events import SensorSize, checked_sensor_size
from deflare_core.io.columns import (
    MICROSECONDS,
    PIECE_EVENTS,
    Columns,
    Content,
    TimeUnit,
    checked_columns,
    microseconds,
)
from deflare_core.system.errors import DeflareError

CSV_NAMES: Mapping[str, str] = {
    "t": "t",
    "t_s": "t",
    "t_ms": "t",
    "t_us": "t",
    "time": "t",
    "timestamp": "t",
    "x": "x",
    "y": "y",
    "p": "p",
    "polarity": "p",
}


@dataclass(frozen=True, slots=True)
class _TextHead:
    """How a text table begins: what it declares, its column names, its lines before the events, its separator."""

    declared: Mapping[str, str]
    names: list[str]
    num_lines: int
    separator: str | None


def read_csv(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> Content:
    """The content of a text table."""
    head = _text_head(path)
    unit = _agreed_unit(head, time_unit)
    stated = None
    if {"height", "width"} <= head.declared.keys():
        stated = checked_sensor_size((head.declared["height"], head.declared["width"]))  # type: ignore[arg-type]
    return Content(stated, _text_pieces(path, head, unit))


def _text_head(path: Path) -> _TextHead:
    declared: dict[str, str] = {}
    names: list[str] = []
    separator = None
    num_lines = 0
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
            if words and (not comment or (len(words) >= 4 and set(words) <= CSV_NAMES.keys())):
                names = words
            declared |= dict(re.findall(r"\b(time_unit|height|width)\s*[:=]\s*(\w+)", line)) if comment else {}
            num_lines += 1
    return _TextHead(declared, names, num_lines, separator)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _agreed_unit(head: _TextHead, asked: TimeUnit | None) -> TimeUnit:
    """The unit of time that the caller, a header line or a column's name declares; none, or two, is a DeflareError."""
    named = {name.removeprefix("t_") for name in head.names if name in ("t_s", "t_ms", "t_us")}
    stated = {head.declared["time_unit"]} if "time_unit" in head.declared else set()
    units = named | stated | ({asked} if asked else set())
    if not units:
        raise DeflareError(
            "does not say its unit of time; give time_unit='s', 'ms' or 'us', as in --time-unit us, or begin it with "
            "'# time_unit: us'."
        )
    if len(units) > 1 or not units <= MICROSECONDS.keys():
        raise DeflareError(f"the unit of time must be one of 's', 'ms' and 'us'; declared are {sorted(units)}.")
    return units.pop()  # type: ignore[return-value]


def _text_pieces(path: Path, head: _TextHead, unit: TimeUnit) -> Iterator[Columns]:
    names = [CSV_NAMES.get(name, name) for name in head.names] or list("txyp")
    first_line = head.num_lines + 1
    with path.open(encoding="utf-8-sig") as file:
        lines = islice(file, head.num_lines, None)
        while piece := list(islice(lines, PIECE_EVENTS)):
            table = _numbers(piece, head.separator, first_line)
            if table.size and table.shape[1] != len(names):
                raise DeflareError(f"has {table.shape[1]} columns; expected {names}. Name them in a line of their own.")
            t, x, y, p = checked_columns(dict(zip(names, table.T.reshape(len(names), -1), strict=True)))
            yield microseconds(t, unit), x, y, p
            first_line += len(piece)


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
