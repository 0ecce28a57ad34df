"""Convert: any readable recording in, an HDF5 recording out, or a file of another format that is written.

HDF5 keeps everything: extra columns, the declared clock, attributes. npz keeps the events and the sensor size, csv
these and the unit of time, npy the events only. Whatever the format, memory holds one piece of the recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from deflare_core.events import Events, SensorSize
from deflare_core.io.formats import HDF5, SUFFIX_FORMATS, WRITTEN_SUFFIXES, find_format, read_unordered
from deflare_core.io.layouts import DTYPES
from deflare_core.io.oddities import Oddities
from deflare_core.io.reading import AS_STATED, Reading, name_errors
from deflare_core.io.recordings import Recording, open_recording, write_stream
from deflare_core.io.sorting import count_late, sort_by_time
from deflare_core.io.writer import RecordingWriter
from deflare_core.system.atomic_files import check_output, complete_or_absent
from deflare_core.system.unfinished import temporary_folder


def convert(
    source: str | Path, target: str | Path, reading: Reading = AS_STATED, *, sort: bool = False, progress: bool = True
) -> int:
    """The number of events written to `target`, which is then complete; on any error it is as it was before.

    Its suffix says the format. With `sort` the events are put in the order of their times. A source that cannot be
    read, or a target that cannot be made of it, is a DeflareError.
    """
    source, target = Path(source), Path(target)
    check_output(target, source, WRITTEN_SUFFIXES)
    if sort and SUFFIX_FORMATS[target.suffix.lower()] is HDF5:
        return _write_sorted(target, source, reading)
    if sort:
        with temporary_folder() as folder:
            _write_sorted(folder / "sorted.h5", source, reading)
            return convert(folder / "sorted.h5", target, progress=progress)
    form = SUFFIX_FORMATS[target.suffix.lower()]
    if form is HDF5 and find_format(source) is not HDF5:
        return write_stream(target, source, reading, progress)
    with open_recording(source, reading) as recording:
        if form.write is None:
            _write_hdf5(target, recording, progress)
        else:
            with complete_or_absent(target) as temporary:
                pieces = lambda: (events for events, _ in _show_pieces(recording, progress))  # noqa: E731
                form.write(temporary, recording.sensor_size, len(recording), pieces)
        return len(recording)


def _show_pieces(recording: Recording, progress: bool) -> Iterator[tuple[Events, dict[str, np.ndarray]]]:
    """The pieces of a recording, under a progress bar."""
    with tqdm(total=len(recording), unit="event", unit_scale=True, disable=not progress) as bar:
        for events, columns in recording.pieces():
            yield events, columns
            bar.update(len(events))


def _write_hdf5(target: Path, recording: Recording, progress: bool) -> None:
    recording.check_length()
    attributes = _plain_attributes(recording)
    source = str(attributes.pop("source", recording.path.name))
    clock_us = recording.clock_us if recording.declares_clock else None
    with RecordingWriter(
        target, recording.sensor_size, source=source, clock_us=clock_us, attributes=attributes
    ) as writer:
        for events, columns in _show_pieces(recording, progress):
            writer.append(events, **columns)


class Unordered(NamedTuple):
    """A recording whose events may be out of order: its sensor, what it says of itself, and its columns in pieces."""

    sensor_size: SensorSize
    attributes: dict[str, str | int | float]
    clock_us: tuple[int, int] | None
    tables: Iterator[dict[str, np.ndarray]]


def _write_sorted(target: Path, source: Path, reading: Reading) -> int:
    """The number of events written to an HDF5 recording, in the order of their times."""
    with name_errors(source), _open_unordered(source, reading) as found:
        name = str(found.attributes.pop("source", source.name))
        oddities = Oddities(source)
        rows = sort_by_time(count_late(found.tables, oddities))
        # All is sorted before the output is begun, so that a full disk is told of the right place.
        first = list(islice(rows, 1))
        oddities.report()
        with RecordingWriter(
            target, found.sensor_size, source=name, clock_us=found.clock_us, attributes=found.attributes
        ) as writer:
            for part in chain(first, rows):
                columns = {name: part[name] for name in part.dtype.fields or ()}
                t, x, y, p = (columns.pop(name) for name in DTYPES)
                writer.append(Events.from_columns(t, x, y, p, found.sensor_size), **columns)
    return writer.num_events


@contextmanager
def _open_unordered(source: Path, reading: Reading) -> Iterator[Unordered]:
    if find_format(source) is not HDF5:
        size, pieces = read_unordered(source, reading)
        attributes: dict[str, str | int | float] = {"source": f"{source.name}, {find_format(source).name}"}
        yield Unordered(size, attributes, None, (dict(zip("txyp", columns, strict=True)) for columns in pieces))
        return
    with open_recording(source, reading) as recording:
        tables = (dict(zip("txyp", columns, strict=True)) | more for columns, more in recording.unordered_pieces())
        yield Unordered(recording.sensor_size, _plain_attributes(recording), recording.declared_clock_us, tables)


def _plain_attributes(recording: Recording) -> dict[str, str | int | float]:
    """The attributes that are text or single numbers; what else a foreign file may hold means nothing in a copy."""
    values = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in recording.attributes.items()
    }
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}
