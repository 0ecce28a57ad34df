"""Formats: what kind of recording a file is, told by its content, and its events piece by piece.

| format | known by | read as |
|---|---|---|
| HDF5 | signature | by `recordings.Recording`, in place |
| npz, npy | signature | arrays `t, x, y, p`, fields `x, y, t, p`, or columns `[t, x, y, p]` |
| csv | text without binary bytes | columns by name, or `t x y p`; the unit of time must be declared |
| evt, dat | header lines that begin with `%` | Prophesee RAW EVT2 and EVT3, and DAT, through faery |
| aedat4 | `#!AER-DAT4` | iniVation AEDAT4, through faery |

Only HDF5 can be read at any place in time. Everything else is streamed once from the start into a temporary HDF5
recording, which is then opened in its stead (`recordings.open_recording`): memory stays bounded for recordings of
any length, each window is read once, and there is one reader of windows to trust. It costs one pass and the disk
space of the copy. Left out: all of it in memory (a minute of a busy sensor is gigabytes), and a seekable reader per
format (as many indices as formats). Of an npz archive the arrays are read whole, because they are compressed so.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Literal

import h5py
import numpy as np

from deflare_core.events import Events, PolarityRule, SensorSize, checked_sensor_size
from deflare_core.io.camera import HEAD_BYTES, evt_version, read_aedat4, read_dat, read_evt
from deflare_core.io.columns import (
    MICROSECONDS,
    PIECE_EVENTS,
    Columns,
    Content,
    TimeUnit,
    checked_columns,
    microseconds,
)
from deflare_core.io.text import read_csv
from deflare_core.system.errors import DeflareError

Format = Literal["hdf5", "npz", "npy", "csv", "evt", "dat", "aedat4"]

FORMAT_NAMES: Mapping[Format, str] = {
    "hdf5": "an HDF5 file",
    "npz": "an npz archive",
    "npy": "an npy array",
    "csv": "a text table",
    "evt": "a Prophesee RAW file",
    "dat": "a Prophesee DAT file",
    "aedat4": "an AEDAT4 file",
}
SUFFIX_FORMATS: Mapping[str, Format] = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".npz": "npz",
    ".npy": "npy",
    ".csv": "csv",
    ".txt": "csv",
    ".raw": "evt",
    ".dat": "dat",
    ".aedat4": "aedat4",
}
UNREAD = {b"#!AER-DAT": "an AEDAT file older than 4", b"#ROSBAG": "a ROS bag", b"\x89MCAP": "an MCAP bag"}

DAMAGED_ARRAY = (ValueError, TypeError, SyntaxError, EOFError, MemoryError, TokenError)
"""What numpy raises where an array's header or its length is damaged."""


class RecordingError(DeflareError):
    """A recording that cannot be read as asked; the message names the file, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class EventStream:
    """The events of a file from its start to its end, to be gone through once.

    Parameters
    ----------
    format : what the file is.
    sensor_size : (height, width).
    pieces : the events, a piece at a time.
    """

    format: Format
    sensor_size: SensorSize
    pieces: Iterator[Events]


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Turn what goes wrong while reading into an error that names the file."""
    try:
        yield
    except RecordingError:
        raise
    except (ValueError, TypeError) as error:
        raise RecordingError(f"{path}: {error}") from error
    except (OSError, RuntimeError, KeyError, OverflowError) as error:
        raise RecordingError(f"{path}: the file is damaged ({error}); copy or record it again.") from error


def format_of(path: str | Path) -> Format:
    """The format of a recording, by its content, whatever its name.

    Raises
    ------
    RecordingError
        When the file is missing, a folder, empty, or of no known format.
    """
    path = Path(path)
    if not path.exists():
        raise RecordingError(f"{path}: no such file.")
    if path.is_dir():
        raise RecordingError(f"{path}: is a folder; name one recording in it.")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    with errors_named(path):
        return "hdf5" if h5py.is_hdf5(path) else _format_of_head(head)


def read_stream(
    path: str | Path,
    sensor_size: SensorSize | None = None,
    polarity: PolarityRule = "strict",
    time_unit: TimeUnit | None = None,
) -> EventStream:
    """The events of a recording that is not HDF5, as a stream.

    Parameters
    ----------
    path : an npz, npy, csv, RAW, DAT or AEDAT4 file.
    sensor_size : (height, width); needed only when the file does not say. One that contradicts the file is an error.
    polarity : "strict", or "lenient" to read 1 as positive and anything else as negative.
    time_unit : unit of the times in text and arrays. Text must declare it, here or in the file; arrays of whole
        numbers are in microseconds unless said otherwise. Camera formats know theirs.

    Raises
    ------
    RecordingError
        When the file cannot be read as asked, at once or on the way through; the message names it.
    """
    path = Path(path)
    found = format_of(path)
    with errors_named(path):
        if time_unit is not None and time_unit not in MICROSECONDS:
            raise DeflareError(f"time_unit must be 's', 'ms' or 'us'; received {time_unit!r}.")
        content = READERS[found](path, sensor_size, time_unit)
        size = agreed_sensor_size(content.sensor_size, sensor_size)
    return EventStream(found, size, _pieces(path, content.columns, size, polarity))


def agreed_sensor_size(stated: SensorSize | None, asked: SensorSize | None) -> SensorSize:
    """The one size (height, width) that the file states or the caller asked for; two that differ are a DeflareError."""
    if stated is None and asked is None:
        raise DeflareError(
            "the file does not state its sensor; give sensor_size=(height, width), as in --sensor-size 480 640, or "
            "write a file that does: deflare convert OLD NEW.h5 --sensor-size 480 640."
        )
    asked = stated if asked is None else checked_sensor_size(asked)
    if stated is not None and stated != asked:
        raise DeflareError(
            f"the sensor is {stated} (height, width), but {asked} was asked for; the file states that size itself, so "
            "give none or the same, and if events lie outside it, correct them or that statement."
        )
    assert asked is not None
    return asked


def _pieces(path: Path, columns: Iterator[Columns], size: SensorSize, polarity: PolarityRule) -> Iterator[Events]:
    first = 0
    with errors_named(path):
        for piece in columns:
            try:
                events = Events.from_columns(*piece, size, polarity=polarity)
            except DeflareError as error:
                raise DeflareError(f"{error} (events counted from {first})" if first else str(error)) from error
            yield events
            first += len(events)


def _format_of_head(head: bytes) -> Format:
    signatures: Mapping[bytes, Format] = {b"PK\x03\x04": "npz", b"\x93NUMPY": "npy", b"#!AER-DAT4": "aedat4"}
    for signature, found in signatures.items():
        if head.startswith(signature):
            return found
    for signature, name in UNREAD.items():
        if head.startswith(signature):
            raise DeflareError(f"is {name}, which is not read; export it as AEDAT4, HDF5 or text with its own tools.")
    if not head:
        raise DeflareError("the file is empty.")
    if evt_version(head):
        return "evt"
    if head.startswith(b"%") and re.search(rb"^% *(Data file containing|Version [12]\b)", head, re.MULTILINE):
        return "dat"
    if b"\0" not in head and _is_text(head):
        return "csv"
    raise DeflareError(f"is in no known format; read are {', '.join(FORMAT_NAMES.values())}.")


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8, apart from a character cut at their end."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return len(head) == HEAD_BYTES and error.start > len(head) - 4
    return True


def _read_npz(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> Content:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, *DAMAGED_ARRAY) as error:
        raise DeflareError(f"the archive is damaged or cut short ({error}); copy or make it again.") from error
    size = arrays.pop("sensor_size", None)
    stated = None if size is None else checked_sensor_size(tuple(size.tolist()))
    if len(arrays) == 1:
        arrays = _array_columns(*arrays.values())
    return Content(stated, _array_pieces(checked_columns(arrays), time_unit))


def _read_npy(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> Content:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED_ARRAY as error:
        raise DeflareError(f"the array cannot be read, or was cut short ({error}); copy or make it again.") from error
    return Content(None, _array_pieces(checked_columns(_array_columns(array)), time_unit))


def _array_columns(array: np.ndarray) -> dict[str, np.ndarray]:
    """The columns by name of a structured array, or of an `(N, 4)` array `[t, x, y, p]`."""
    if array.dtype.names is not None:
        return {name: array[name] for name in array.dtype.names}
    if array.ndim != 2 or array.shape[1] != 4:
        raise DeflareError(f"expected fields x, y, t, p or an (N, 4) array [t, x, y, p]; its shape is {array.shape}.")
    return dict(zip("txyp", array.T, strict=True))


def _array_pieces(columns: Columns, time_unit: TimeUnit | None) -> Iterator[Columns]:
    for first in range(0, len(columns[0]), PIECE_EVENTS):
        t, x, y, p = (column[first : first + PIECE_EVENTS] for column in columns)
        if time_unit is None and t.dtype.kind == "f" and (np.isfinite(t) & (t != np.trunc(t))).any():
            raise DeflareError("the times are not whole microseconds; give time_unit='s', 'ms' or 'us'.")
        yield microseconds(t, time_unit or "us"), x, y, p


READERS: Mapping[Format, Callable[[Path, SensorSize | None, TimeUnit | None], Content]] = {
    "npz": _read_npz,
    "npy": _read_npy,
    "csv": read_csv,
    "evt": read_evt,
    "dat": read_dat,
    "aedat4": read_aedat4,
}
