"""Sorting: the events of a recording out of order, put in the order of their times in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from tempfile import TemporaryFile, gettempdir
from typing import IO

import numpy as np

from deflare_core.io.oddities import LATE, Oddities
from deflare_core.system.atomic_files import NO_ROOM
from deflare_core.system.errors import DeflareError

Table = Mapping[str, np.ndarray]
"""Columns of one length by name, `t` among them."""
SAMPLE_EVENTS = 1 << 12
"""One time of so many is kept in memory, to find the borders of what is sorted at once."""
SAMPLES_AT_ONCE = 1 << 6
WRAP_US = 1 << 30
"""A step back of so much (18 minutes) is a clock that started again: sorting would mix what is far apart."""


def count_late(tables: Iterable[Table], oddities: Oddities) -> Iterator[Table]:
    """The same tables; after the last one, how many rows came after newer ones is added to the oddities."""
    newest_us, num_late, total, latest_us = int(np.iinfo(np.int64).min), 0, 0, 0
    for table in tables:
        yield table
        if not len(t := table["t"]):
            continue
        newest = np.maximum.accumulate(np.maximum(t, newest_us))
        newest_us, total = int(newest[-1]), total + len(t)
        num_late += int((t < newest).sum())
        latest_us = max(latest_us, int((newest - t).max()))
    oddities.add(LATE, num_late, total, f", by up to {latest_us} us")


def sort_by_time(tables: Iterable[Table]) -> Iterator[np.ndarray]:
    """The rows of some tables as structured arrays, in the order of `t`; rows of one time stay in their order.

    They are kept in a temporary file meanwhile, each table sorted, and merged from there. A step back by more than
    `WRAP_US` is a DeflareError.
    """
    with TemporaryFile(prefix="deflare-") as file:
        lengths, samples, dtype = _write_runs(file, tables)
        if dtype is None:
            return
        stored = np.memmap(file, dtype, "r")
        borders = np.cumsum([0, *lengths])
        runs = [stored[first:last] for first, last in pairwise(borders.tolist())]
        edges = np.unique(np.sort(samples)[SAMPLES_AT_ONCE::SAMPLES_AT_ONCE])
        yield from _merge(runs, edges)


def _write_runs(file: IO[bytes], tables: Iterable[Table]) -> tuple[list[int], np.ndarray, np.dtype | None]:
    """Write each table sorted; the lengths of all, samples of their times, and the type of a row."""
    lengths, samples, dtype, last_us = [], [np.empty(0, np.int64)], None, None
    for table in tables:
        dtype = dtype or np.dtype([(name, column.dtype) for name, column in table.items()])
        _check_steps(table["t"], last_us)
        rows = np.empty(len(table["t"]), dtype)
        order = np.argsort(table["t"], kind="stable")
        for name, column in table.items():
            rows[name] = column[order]
        _write(file, rows)
        lengths.append(len(rows))
        samples.append(rows["t"][::SAMPLE_EVENTS])
        last_us = int(table["t"][-1]) if len(rows) else last_us
    file.flush()
    return lengths, np.concatenate(samples), dtype if sum(lengths) else None


def _write(file: IO[bytes], rows: np.ndarray) -> None:
    try:
        file.write(rows.tobytes())
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        place = gettempdir()
        raise OSError(error.errno, f"{place}: no room for what is sorted; make some, or set TMPDIR.") from error


def _check_steps(t: np.ndarray, before_us: int | None) -> None:
    """Raise a DeflareError if the clock goes back by more than anything that is only out of order."""
    steps = np.diff(t, prepend=t[:1] if before_us is None else before_us)
    if len(steps) and steps.min() < -WRAP_US:
        at = int(steps.argmin())
        raise DeflareError(
            f"the clock goes back by {-steps[at] / 1e6:,.1f} s to {t[at]} us: it started again or is of too few bits. "
            "Sorting would mix its parts; divide the recording there."
        )


def _merge(runs: list[np.ndarray], edges: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of sorted runs, all before the first edge, then all before the next."""
    firsts = [0] * len(runs)
    for edge in [*edges.tolist(), None]:
        lasts = [len(run) if edge is None else int(np.searchsorted(run["t"], edge)) for run in runs]
        parts = [run[first:last] for run, first, last in zip(runs, firsts, lasts, strict=True) if last > first]
        if parts:
            rows = np.concatenate(parts)
            yield rows[np.argsort(rows["t"], kind="stable")]
        firsts = lasts
