"""Oddities: what is amiss in a camera's file and can be put right, counted and said, or too much of it to go on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from deflare_core.events import SensorSize
from deflare_core.io.reading import Columns
from deflare_core.system.errors import DeflareError

log = logging.getLogger(__name__)

LATE_US = 20_000
"""How late an event may come after newer ones: cameras are late by microseconds, or by 8 ms if a word of EVT3 is."""
TIMELESS = "events before the first time of the file are left out"
PLACELESS = "events that name no pixel of this camera are left out"
BEYOND = "events beyond the sensor's edge are left out"
STRANGE = "words are of no kind of the format and are passed over"
LATE = "events came after newer ones and are put in order"
JUMP = "time words jump by more than a second"
REFUSALS = {
    BEYOND: (0.01, "give the sensor size of the camera, or correct the one in the file's header"),
    STRANGE: (0.01, "the file is damaged or its header names another format; copy or record it again"),
    TIMELESS: (0.99, "the file is damaged or its header names another format; copy or record it again"),
}
"""The share above which an oddity is an error, and what to do then."""


class Oddities:
    """How often each oddity was found in a file, of how many words or events, and where or how much."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, tuple[int, int, str]] = {}

    def add(self, what: str, count: int, total: int, detail: str = "") -> None:
        """Count more of an oddity; the first detail of it is kept."""
        before, total_before, first = self._found.get(what, (0, 0, ""))
        self._found[what] = (before + count, total_before + total, first or detail)

    def report(self) -> None:
        """Log a warning for each oddity; too much of one is a DeflareError."""
        for what, (count, total, detail) in self._found.items():
            said = f"{count:,} of {total:,} {what}{detail}"
            share, advice = REFUSALS.get(what, (1, ""))
            if count > share * total:
                raise DeflareError(f"{said.replace(' are left out', '')}; {advice}.")
            if count:
                log.warning(f"{self.path}: {said}.")


def put_right(pieces: Iterable[Columns], sensor_size: SensorSize, oddities: Oddities) -> Iterator[Columns]:
    """The events on the sensor in the order of their times, a piece at a time; at the end the oddities are reported.

    An event that comes more than `LATE_US` after a newer one is a DeflareError.
    """
    yield from _order(_leave_out_beyond(pieces, sensor_size, oddities), oddities)
    oddities.report()


def _leave_out_beyond(pieces: Iterable[Columns], sensor_size: SensorSize, oddities: Oddities) -> Iterator[Columns]:
    height, width = sensor_size
    for t, x, y, p in pieces:
        inside = (x < width) & (y < height)
        if inside.all():
            oddities.add(BEYOND, 0, len(t))
            yield t, x, y, p
            continue
        detail = f" (up to x {x.max()}, y {y.max()} on a height of {height} and a width of {width})"
        oddities.add(BEYOND, len(t) - int(inside.sum()), len(t), detail)
        yield t[inside], x[inside], y[inside], p[inside]


def _order(pieces: Iterable[Columns], oddities: Oddities) -> Iterator[Columns]:
    """The events in the order of their times; the newest are held back until no late one can come before them."""
    held: list[Columns] = []
    newest_us: int | None = None
    num_late = total = latest_us = 0
    for piece in pieces:
        t = piece[0]
        if not len(t):
            continue
        newest = np.maximum.accumulate(t if newest_us is None else np.maximum(t, newest_us))
        late_us = newest - t
        if late_us.max() > LATE_US:
            raise DeflareError(_describe_return(newest, t, total))
        newest_us, total = int(newest[-1]), total + len(t)
        held.append(piece)
        if late_us.any():
            num_late, latest_us = num_late + int((late_us > 0).sum()), max(latest_us, int(late_us.max()))
            held = _sort(held, newest_us - LATE_US)
        while held and held[0][0][-1] < newest_us - LATE_US:
            yield held.pop(0)
    yield from held
    oddities.add(LATE, num_late, total, f", by up to {latest_us} us")


def _sort(pieces: list[Columns], border_us: int) -> list[Columns]:
    """The events of pieces in the order of their times, in two pieces: those before the border, and the others."""
    columns = [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    before = int(np.searchsorted(columns[0], border_us, sorter=order))
    halves = [tuple(column[part] for column in columns) for part in (order[:before], order[before:])]
    return [(t, x, y, p) for t, x, y, p in halves if len(t)]


def _describe_return(newest: np.ndarray, t: np.ndarray, num_before: int) -> str:
    at = int((newest - t > LATE_US).argmax())
    return (
        f"the clock goes back by {(newest[at] - t[at]) / 1e6:,.6f} s, to {t[at]} us, at event {num_before + at:,}: it "
        "was set back, or the file is damaged; divide it there with the tools of the maker, or record it again."
    )
