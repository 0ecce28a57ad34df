"""Formats: what kind of recording a file is, by its content, and its events piece by piece. One row is one format.

Only HDF5 can be read at any place in time. Everything else is streamed once from the start into a temporary HDF5
recording, which is then opened in its stead (`recordings.open_recording`). Memory stays bounded, and there is one
reader of windows to trust; it costs one pass and the disk space of the copy. Left out: all of it in memory (a minute
of a busy sensor is gigabytes), and a seekable reader per format (as many indices as formats).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deflare_core.events import Events, SensorSize
from deflare_core.io.aedat4 import read_aedat4
from deflare_core.io.arrays import read_npy, read_npz, write_npy, write_npz
from deflare_core.io.arrival import keep_on_sensor, put_in_order
from deflare_core.io.camera_files import is_dat, is_evt, read_dat, read_evt
from deflare_core.io.event_stream import read_event_stream
from deflare_core.io.oddities import Oddities
from deflare_core.io.polarities import Polarities
from deflare_core.io.reading import (
    HEAD_BYTES,
    LATEST_US,
    Columns,
    Content,
    Reading,
    RecordingError,
    TimeUnit,
    check_times,
    explain_damage,
    name_errors,
)
from deflare_core.io.text_tables import is_text, read_text, write_text
from deflare_core.system.errors import DeflareError
from deflare_core.system.input_files import check_input

Arrange = Callable[[Iterator[Columns], Oddities], Iterator[Columns]]
"""What puts the events of a camera in order, or leaves them as they are."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of recordings.

    Parameters
    ----------
    name : what messages call such a file.
    endings : those of its files' names, with a blank between them.
    holds : what is read of it, for README.md of this folder.
    is_of : whether a file that begins with these bytes is of this format, whatever its name.
    read : the content of a file from its start to its end; none for HDF5, which is read in place.
    write : writes the events that `pieces()` gives each time to a path; none where it is not written, or is HDF5.
    unit : of its times; None where it is not the same in all its files.
    """

    name: str
    endings: str
    holds: str
    is_of: Callable[[bytes], bool]
    read: Callable[[Path, Reading], Content] | None = None
    write: Callable[[Path, SensorSize, int, Callable[[], Iterator[Events]]], None] | None = None
    unit: TimeUnit | None = "us"


def begins(signature: bytes) -> Callable[[bytes], bool]:
    """A check whether the first bytes of a file are a signature."""
    return lambda head: head.startswith(signature)


HDF5 = Format(
    "an HDF5 file",
    ".h5 .hdf5",
    "`events/{t,x,y,p}`: ours, plain, DSEC's (`ms_to_idx`, `t_offset`, Blosc), E-Flare's, event_utils' (`xs ys ts ps`);"
    " or one group or table of these columns: M3ED's, MVSEC's, v2e's, Prophesee's `CD/events`",
    # Before its signature an HDF5 file may hold a user block of any power of two from 512 bytes on.
    lambda head: any(head.startswith(b"\x89HDF\r\n\x1a\n", at) for at in (0, *(512 << k for k in range(7)))),
    unit=None,
)
NPZ = Format(
    "an npz archive",
    ".npz",
    "`t, x, y, p` by any of their names, EVIMO2's `events_t, events_xy, events_p`, or one array as in npy",
    begins(b"PK\x03\x04"),
    read_npz,
    write_npz,
    unit=None,
)
NPY = Format(
    "an npy array",
    ".npy",
    "fields `t, x, y, p` by any of their names, the columns `t x y p`, or EVIMO2's files `events_t`, `events_xy` and "
    "`events_p`, by one of them",
    begins(b"\x93NUMPY"),
    read_npy,
    write_npy,
    unit=None,
)
TEXT = Format(
    "a text table",
    ".csv .txt",
    "columns by name, or `t x y p`, Prophesee's `x y p t`, E2VID's with the size first, gzipped too; the unit of time "
    "declared in the file or by `--time-unit`",
    is_text,
    read_text,
    write_text,
    unit=None,
)
EVT = Format("a Prophesee RAW file", ".raw", "EVT2, EVT2.1 in either byte order, and EVT3", is_evt, read_evt)
DAT = Format("a Prophesee DAT file", ".dat", "changes, those of N-Cars too", is_dat, read_dat)
AEDAT4 = Format(
    "an AEDAT4 file",
    ".aedat4",
    "iniVation's events; `--stream` chooses one of several cameras",
    begins(b"#!AER-DAT4"),
    read_aedat4,
)
ES = Format(
    "an Event Stream file", ".es", "version 2 of DVS and ATIS cameras", begins(b"Event Stream"), read_event_stream
)
FORMATS = (HDF5, NPZ, NPY, AEDAT4, EVT, DAT, ES, TEXT)
"""Every format, in the order in which a file is compared with them: text last, because more than one begins so."""
EXPORT, UNPACK = "export it as AEDAT4, HDF5 or text", "unpack it, and name one file of it"
UNREAD = {
    b"#!AER-DAT": ("an AEDAT file older than 4", EXPORT),
    b"#ROSBAG": ("a ROS bag", EXPORT),
    b"\x89MCAP": ("an MCAP bag", EXPORT),
    b"MATLAB 5.0 MAT-file": (
        "a MATLAB file older than 7.3",
        "write its events as text, as by writematrix([t(:) x(:) y(:) p(:)], 'events.csv')",
    ),
    b"\xff\xfe": ("text in UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("text in UTF-16", "save it as UTF-8"),
    b"\x1f\x8b": ("gzipped, and no text", UNPACK),
    b"BZh": ("compressed with bzip2", UNPACK),
    b"\xfd7zXZ": ("compressed with xz", UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", UNPACK),
}
"""What is known but not read, by the bytes that it begins with, and what to do about it."""
SUFFIX_FORMATS = {suffix: form for form in FORMATS for suffix in form.endings.split()}
HDF5_SUFFIXES = tuple(HDF5.endings.split())
WRITTEN_SUFFIXES = tuple(suffix for suffix, form in SUFFIX_FORMATS.items() if form is HDF5 or form.write)


def find_format(path: str | Path) -> Format:
    """The format of a recording, by its content, whatever its name; a RecordingError if it is of no known format."""
    path = Path(path)
    check_input(path, RecordingError)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if found := next((form for form in FORMATS if form.is_of(head)), None):
        return found
    if unread := next((row for signature, row in UNREAD.items() if head.startswith(signature)), None):
        raise RecordingError(f"{path}: is {unread[0]}, which is not read; {unread[1]}.")
    if not head:
        raise RecordingError(f"{path}: the file is empty.")
    raise RecordingError(f"{path}: is in no known format; read are {', '.join(form.name for form in FORMATS)}.")


def read_stream(path: Path, reading: Reading) -> tuple[SensorSize, Iterator[Events]]:
    """The sensor (height, width) of a recording that is not HDF5, and its events, a piece at a time, from the start.

    A file that cannot be read as asked is a RecordingError, at once or on the way through.
    """
    size, pieces = read_unordered(path, reading, put_in_order)
    return size, _name_pieces(path, pieces, size)


def read_unordered(
    path: Path, reading: Reading, arrange: Arrange = lambda pieces, oddities: pieces
) -> tuple[SensorSize, Iterator[Columns]]:
    """What `read_stream` gives, as columns t, x, y and p, where events may be out of order or off the sensor.

    Those of cameras are on the sensor, and arranged as is asked for.
    """
    content = find_content(path, reading)
    with name_errors(path):
        size = reading.agree_on_size(content.sensor_size)
    pieces = content.pieces
    if content.oddities:
        pieces = arrange(keep_on_sensor(pieces, size, content.oddities), content.oddities)
    return size, _sign_pieces(path, pieces, reading, content.oddities)


def find_content(path: Path, reading: Reading) -> Content:
    """What a file that is not HDF5 holds, its columns as they are stored but for times in microseconds."""
    form = find_format(path)
    assert form.read is not None, "HDF5 is read in place."
    with name_errors(path), explain_damage(OSError):
        reading.agree_on_unit({"its format": form.unit} if form.unit else {})
        return form.read(path, reading)


def _sign_pieces(
    path: Path, pieces: Iterator[Columns], reading: Reading, oddities: Oddities | None
) -> Iterator[Columns]:
    polarities = Polarities(reading.polarity)
    with name_errors(path), explain_damage(OSError):
        for t, x, y, p in pieces:
            check_times(t, LATEST_US, "in us")
            yield t, x, y, polarities.add(p)
        polarities.check()
        if oddities:
            oddities.report()


def _name_pieces(path: Path, pieces: Iterator[Columns], size: SensorSize) -> Iterator[Events]:
    first = 0
    with name_errors(path):
        for columns in pieces:
            try:
                events = Events.from_columns(*columns, size)
            except DeflareError as error:
                raise DeflareError(f"{error} (events counted from {first})" if first else str(error)) from error
            yield events
            first += len(events)
