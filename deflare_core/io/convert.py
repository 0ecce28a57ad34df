"""Convert: any readable recording in, an HDF5 recording out, or an npz, npy or csv file of the same events.

HDF5 keeps everything: extra columns, the declared clock, attributes. npz keeps the events and the sensor size, csv
these and the unit of time, npy the events only. Whatever the format, memory holds one piece of the recording.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from deflare_core.events import STRUCTURED_DTYPE, Events, PolarityRule, SensorSize
from deflare_core.io.columns import TimeUnit
from deflare_core.io.formats import format_of, read_stream
from deflare_core.io.layouts import COLUMNS
from deflare_core.io.recordings import Recording, open_recording, write_stream
from deflare_core.io.writer import DTYPES, RecordingWriter
from deflare_core.system.atomic_files import HDF5_SUFFIXES, check_output, complete_or_absent


def convert(
    source: str | Path,
    target: str | Path,
    *,
    sensor_size: SensorSize | None = None,
    polarity: PolarityRule = "strict",
    time_unit: TimeUnit | None = None,
    progress: bool = True,
) -> int:
    """The number of events written to `target`, which is then complete; on any error it is as it was before.

    Parameters
    ----------
    source : a recording of any format that `formats` knows.
    target : the file to make; its suffix says the format: .h5, .hdf5, .npz, .npy, .csv or .txt.
    sensor_size : (height, width), needed only when the source does not say.
    polarity : "strict", or "lenient" to read 1 as positive and anything else as negative.
    time_unit : "s", "ms" or "us", where the source does not declare its unit of time.
    progress : show a progress bar.

    Raises
    ------
    RecordingError
        When the source cannot be read as asked.
    ValueError
        When no such file can be made of the recording (`check_output`).
    """
    source, target = Path(source), Path(target)
    suffix = target.suffix.lower()
    check_output(target, source, (*HDF5_SUFFIXES, *WRITERS))
    if suffix in HDF5_SUFFIXES and format_of(source) != "hdf5":
        return write_stream(target, read_stream(source, sensor_size, polarity, time_unit), source, progress)
    with open_recording(source, sensor_size, polarity, time_unit) as recording:
        if suffix in HDF5_SUFFIXES:
            _write_hdf5(target, recording, progress)
        else:
            with complete_or_absent(target) as temporary:
                WRITERS[suffix](temporary, recording, progress)
        return len(recording)


def _pieces(
    recording: Recording, progress: bool, description: str = ""
) -> Iterator[tuple[Events, dict[str, np.ndarray]]]:
    """The pieces of a recording, under a progress bar."""
    with tqdm(total=len(recording), unit="event", unit_scale=True, desc=description, disable=not progress) as bar:
        for events, columns in recording.pieces():
            yield events, columns
            bar.update(len(events))


def _write_hdf5(target: Path, recording: Recording, progress: bool) -> None:
    recording.check_length()
    attributes = _plain_attributes(recording)
    source = str(attributes.pop("source", recording.path.name))
    writer = RecordingWriter(
        target,
        recording.sensor_size,
        source=source,
        clock_us=recording.clock_us if recording.declares_clock else None,
        attributes=attributes,
    )
    with writer:
        for events, columns in _pieces(recording, progress):
            writer.append(events, **columns)


def _plain_attributes(recording: Recording) -> dict[str, str | int | float]:
    """The attributes that are text or single numbers; what else a foreign file may hold means nothing in a copy."""
    values = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in recording.attributes.items()
    }
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


def _write_npz(temporary: Path, recording: Recording, progress: bool) -> None:
    """An archive of `t, x, y, p` and `sensor_size`, each column going through the recording once."""
    with zipfile.ZipFile(temporary, "w") as archive:
        for name in COLUMNS:
            with archive.open(_member(name), "w", force_zip64=True) as file:
                _write_header(file, np.dtype(DTYPES[name]), len(recording))
                for events, _ in _pieces(recording, progress, name):
                    file.write(getattr(events, name).tobytes())
        with archive.open(_member("sensor_size"), "w") as file:
            np.save(file, np.array(recording.sensor_size))


def _member(name: str) -> zipfile.ZipInfo:
    """A compressed array of an npz archive, without the time of day, so that the same events give the same bytes."""
    member = zipfile.ZipInfo(f"{name}.npy")
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def _write_npy(temporary: Path, recording: Recording, progress: bool) -> None:
    """A structured array with fields `x, y, t, p`."""
    with temporary.open("wb") as file:
        _write_header(file, STRUCTURED_DTYPE, len(recording))
        for events, _ in _pieces(recording, progress):
            file.write(events.to_structured().tobytes())


def _write_header(file: IO[bytes], dtype: np.dtype, length: int) -> None:
    description = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": description, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def _write_csv(temporary: Path, recording: Recording, progress: bool) -> None:
    """A line of what is declared, a line of names, and a line `t,x,y,p` per event."""
    height, width = recording.sensor_size
    with temporary.open("w", encoding="utf-8") as file:
        file.write(f"# time_unit: us, height: {height}, width: {width}\nt,x,y,p\n")
        for events, _ in _pieces(recording, progress):
            np.savetxt(file, events.to_array(), fmt="%d", delimiter=",")


WRITERS: Mapping[str, Callable[[Path, Recording, bool], None]] = {
    ".npz": _write_npz,
    ".npy": _write_npy,
    ".csv": _write_csv,
    ".txt": _write_csv,
}
