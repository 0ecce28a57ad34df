"""Convert: any readable recording in, an HDF5 recording out, or a file of another format that is written.

HDF5 keeps everything: extra columns, the declared clock, attributes. npz keeps the events and the sensor size, csv
these and the unit of time, npy the events only. Whatever the format, memory holds one piece of the recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deflare_core.events import Events
from deflare_core.io.formats import HDF5, SUFFIX_FORMATS, WRITTEN_SUFFIXES, find_format
from deflare_core.io.reading import AS_STATED, Reading
from deflare_core.io.recordings import Recording, open_recording, write_stream
from deflare_core.io.writer import RecordingWriter
from deflare_core.system.atomic_files import check_output, complete_or_absent


def convert(source: str | Path, target: str | Path, reading: Reading = AS_STATED, *, progress: bool = True) -> int:
    """The number of events written to `target`, which is then complete; on any error it is as it was before.

    Its suffix says the format. A source that cannot be read, or a target that cannot be made of it, is a DeflareError.
    """
    source, target = Path(source), Path(target)
    check_output(target, source, WRITTEN_SUFFIXES)
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


def _plain_attributes(recording: Recording) -> dict[str, str | int | float]:
    """The attributes that are text or single numbers; what else a foreign file may hold means nothing in a copy."""
    values = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in recording.attributes.items()
    }
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}
