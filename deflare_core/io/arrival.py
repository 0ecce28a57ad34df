"""Arrival: the events of a camera as they come, put in the order of their times and kept to the sensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from deflare_core.events import SensorSize
from deflare_core.io.oddities import BEYOND, LATE, Oddities
from deflare_core.io.reading import Columns
from deflare_core.system.errors import DeflareError

LATE_US = 20_000
"""How late an event may come after newer ones: cameras are late by microseconds, or by 8 ms if a word of EVT3 is."""


def keep_on_sensor(pieces: Iterable[Columns], sensor_size: SensorSize, oddities: Oddities) -> Iterator[Columns]:
    """The events on the sensor, a piece at a time; the others are counted."""
    height, width = sensor_size
    for t, x, y, p in pieces:
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        if inside.all():
            oddities.add(BEYOND, 0, len(t))
            yield t, x, y, p
            continue
        detail = f" (x from {x.min()} to {x.max()}, y from {y.min()} to {y.max()} on {width} x {height} pixels)"
        oddities.add(BEYOND, len(t) - int(inside.sum()), len(t), detail)
        yield t[inside], x[inside], y[inside], p[inside]


def put_in_order(pieces: Iterable[Columns], oddities: Oddities) -> Iterator[Columns]:
    """The events in the order of their times; the newest are held back until no late one can come before them.

    Late ones are counted; one that comes more than `LATE_US` after a newer one is a DeflareError.
    """
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
        "was set back, the file is damaged, or events are out of order; for these `deflare convert OLD NEW.h5 --sort`."
    )
