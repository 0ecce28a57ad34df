"""Formats: what kind of recording a file is, told by its content, and its events piece by piece.

| format | known by | read as |
|---|---|---|
| HDF5 | signature | by `recordings.Recording`, in place |
| npz, npy | signature | arrays `t, x, y, p`, fields `x, y, t, p`, or columns `[t, x, y, p]` |
| csv | text without binary bytes | columns by name, or `t x y p`; the unit of time must be declared |
| evt, dat | header lines that begin with `%` | Prophesee RAW EVT2, EVT2.1 and EVT3, and DAT, through faery |
| aedat4 | `#!AER-DAT4` | iniVation AEDAT4, through faery |

Only HDF5 can be read at any place in time. Everything else is streamed once from the start into a temporary HDF5
recording, which is then opened in its stead (`recordings.open_recording`): memory stays bounded for recordings of
any length, each window is read once, and there is one reader of windows to trust. It costs one pass and the disk
space of the copy. Left out: all of it in memory (a minute of a busy sensor is gigabytes), and a seekable reader per
format (as many indices as formats). Of an npz archive the arrays are read whole, because they are compressed so.

The decoders of camera formats are not written here: faery (LGPL-3.0) is an optional dependency, imported when needed.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tokenize import TokenError
from types import ModuleType
from typing import Literal

import h5py
import numpy as np

from deflare_core.events import Events, PolarityRule, SensorSize, checked_sensor_size

Format = Literal["hdf5", "npz", "npy", "csv", "evt", "dat", "aedat4"]
TimeUnit = Literal["s", "ms", "us"]
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

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
MICROSECONDS: Mapping[TimeUnit, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
EVT_VERSIONS = {"2": "evt2", "2.0": "evt2", "2.1": "evt2.1", "21": "evt2.1", "3": "evt3", "3.0": "evt3"}
WORD_BYTES = {"evt2": 4, "evt2.1": 8, "evt3": 2, "dat": 8}
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
PIECE_EVENTS = 1 << 18
HEAD_BYTES = 4096


DAMAGED_ARRAY = (ValueError, TypeError, SyntaxError, EOFError, MemoryError, TokenError)
"""What numpy raises where an array's header or its length is damaged."""


class RecordingError(ValueError):
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


@dataclass(frozen=True, slots=True)
class _Content:
    """What a file holds: the sensor size it states, if any, and its columns, times in microseconds."""

    sensor_size: SensorSize | None
    columns: Iterator[Columns]


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
    """The format of a recording, by its content.

    Raises
    ------
    RecordingError
        When the file is missing, a folder, empty, of no known format, or named as another format than it is.
    """
    path = Path(path)
    if not path.exists():
        raise RecordingError(f"{path}: no such file.")
    if path.is_dir():
        raise RecordingError(f"{path}: is a folder; name one recording in it.")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    with errors_named(path):
        found: Format = "hdf5" if h5py.is_hdf5(path) else _format_of_head(head)
        named = SUFFIX_FORMATS.get(path.suffix.lower(), found)
        if named != found:
            raise ValueError(f"is not {FORMAT_NAMES[named]} but {FORMAT_NAMES[found]}; rename it to match its content.")
    return found


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
            raise ValueError(f"time_unit must be 's', 'ms' or 'us'; received {time_unit!r}.")
        content = READERS[found](path, sensor_size, time_unit)
        size = agreed_sensor_size(content.sensor_size, sensor_size)
    return EventStream(found, size, _pieces(path, content.columns, size, polarity))


def agreed_sensor_size(stated: SensorSize | None, asked: SensorSize | None) -> SensorSize:
    """The one size (height, width) that the file states or the caller asked for; two that differ are a ValueError."""
    if stated is None and asked is None:
        raise ValueError("the file does not state its sensor; give sensor_size=(height, width).")
    asked = stated if asked is None else checked_sensor_size(asked)
    if stated is not None and stated != asked:
        raise ValueError(f"the sensor is {stated} (height, width), but {asked} was asked for.")
    assert asked is not None
    return asked


def _pieces(path: Path, columns: Iterator[Columns], size: SensorSize, polarity: PolarityRule) -> Iterator[Events]:
    first = 0
    with errors_named(path):
        for piece in columns:
            try:
                events = Events.from_columns(*piece, size, polarity=polarity)
            except ValueError as error:
                raise ValueError(f"{error} (events counted from {first})" if first else str(error)) from error
            yield events
            first += len(events)


def _format_of_head(head: bytes) -> Format:
    signatures: Mapping[bytes, Format] = {b"PK\x03\x04": "npz", b"\x93NUMPY": "npy", b"#!AER-DAT4": "aedat4"}
    for signature, found in signatures.items():
        if head.startswith(signature):
            return found
    for signature, name in UNREAD.items():
        if head.startswith(signature):
            raise ValueError(f"is {name}, which is not read; export it as AEDAT4, HDF5 or text with its own tools.")
    if not head:
        raise ValueError("the file is empty.")
    if _evt_version(head):
        return "evt"
    if head.startswith(b"%") and re.search(rb"^% *(Data file containing|Version [12]\b)", head, re.MULTILINE):
        return "dat"
    if b"\0" not in head and _is_text(head):
        return "csv"
    raise ValueError(f"is in no known format; read are {', '.join(FORMAT_NAMES.values())}.")


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8, apart from a character cut at their end."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return len(head) == HEAD_BYTES and error.start > len(head) - 4
    return True


# Arrays


def _read_npz(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> _Content:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, *DAMAGED_ARRAY) as error:
        raise ValueError(f"the archive is damaged or cut short ({error}); copy or make it again.") from error
    size = arrays.pop("sensor_size", None)
    stated = None if size is None else checked_sensor_size(tuple(size.tolist()))
    if len(arrays) == 1:
        arrays = _array_columns(*arrays.values())
    return _Content(stated, _array_pieces(_checked_columns(arrays), time_unit))


def _read_npy(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> _Content:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED_ARRAY as error:
        raise ValueError(f"the array cannot be read, or was cut short ({error}); copy or make it again.") from error
    return _Content(None, _array_pieces(_checked_columns(_array_columns(array)), time_unit))


def _array_columns(array: np.ndarray) -> dict[str, np.ndarray]:
    """The columns by name of a structured array, or of an `(N, 4)` array `[t, x, y, p]`."""
    if array.dtype.names is not None:
        return {name: array[name] for name in array.dtype.names}
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"expected fields x, y, t, p or an (N, 4) array [t, x, y, p]; its shape is {array.shape}.")
    return dict(zip("txyp", array.T, strict=True))


def _checked_columns(columns: Mapping[str, np.ndarray]) -> Columns:
    missing = [name for name in "txyp" if name not in columns]
    if missing:
        raise ValueError(f"lacks {missing}; it holds {sorted(columns)}.")
    t, x, y, p = (columns[name] for name in "txyp")
    shapes = {name: columns[name].shape for name in "txyp"}
    if len(set(shapes.values())) > 1 or t.ndim != 1:
        raise ValueError(f"t, x, y and p must be one-dimensional and of one length; their shapes are {shapes}.")
    return t, x, y, p


def _array_pieces(columns: Columns, time_unit: TimeUnit | None) -> Iterator[Columns]:
    for first in range(0, len(columns[0]), PIECE_EVENTS):
        t, x, y, p = (column[first : first + PIECE_EVENTS] for column in columns)
        if time_unit is None and t.dtype.kind == "f" and (np.isfinite(t) & (t != np.trunc(t))).any():
            raise ValueError("the times are not whole microseconds; give time_unit='s', 'ms' or 'us'.")
        yield _microseconds(t, time_unit or "us"), x, y, p


def _microseconds(t: np.ndarray, unit: TimeUnit) -> np.ndarray:
    """Times in microseconds: whole numbers stay exact, seconds and milliseconds are rounded to the nearest one."""
    if unit == "us" or t.dtype.kind not in "iuf":
        return t
    if t.dtype.kind != "f":
        return t.astype(np.int64) * MICROSECONDS[unit]
    return np.rint(t.astype(np.float64) * MICROSECONDS[unit])


# Text


@dataclass(frozen=True, slots=True)
class _TextHead:
    """How a text table begins: what it declares, its column names, its lines before the events, its separator."""

    declared: Mapping[str, str]
    names: list[str]
    num_lines: int
    separator: str | None


def _read_csv(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> _Content:
    head = _text_head(path)
    unit = _agreed_unit(head, time_unit)
    stated = None
    if {"height", "width"} <= head.declared.keys():
        stated = checked_sensor_size((head.declared["height"], head.declared["width"]))  # type: ignore[arg-type]
    return _Content(stated, _text_pieces(path, head, unit))


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
                raise ValueError(f"line {num_lines + 1} holds neither numbers nor the names t, x, y, p: {line[:60]!r}.")
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
    """The unit of time that the caller, a header line or a column's name declares; none, or two, is a ValueError."""
    named = {name.removeprefix("t_") for name in head.names if name in ("t_s", "t_ms", "t_us")}
    stated = {head.declared["time_unit"]} if "time_unit" in head.declared else set()
    units = named | stated | ({asked} if asked else set())
    if not units:
        raise ValueError(
            "does not say its unit of time; give time_unit='s', 'ms' or 'us', or begin it with '# time_unit: us'."
        )
    if len(units) > 1 or not units <= MICROSECONDS.keys():
        raise ValueError(f"the unit of time must be one of 's', 'ms' and 'us'; declared are {sorted(units)}.")
    return units.pop()  # type: ignore[return-value]


def _text_pieces(path: Path, head: _TextHead, unit: TimeUnit) -> Iterator[Columns]:
    names = [CSV_NAMES.get(name, name) for name in head.names] or list("txyp")
    first_line = head.num_lines + 1
    with path.open(encoding="utf-8-sig") as file:
        lines = islice(file, head.num_lines, None)
        while piece := list(islice(lines, PIECE_EVENTS)):
            table = _numbers(piece, head.separator, first_line)
            if table.size and table.shape[1] != len(names):
                raise ValueError(f"has {table.shape[1]} columns; expected {names}. Name them in a line of their own.")
            t, x, y, p = _checked_columns(dict(zip(names, table.T.reshape(len(names), -1), strict=True)))
            yield _microseconds(t, unit), x, y, p
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
        raise ValueError(f"not a table of numbers: {cause} (rows counted from line {first_line}).") from error


# Camera formats, through faery


def _read_evt(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> _Content:
    version = EVT_VERSIONS.get(_evt_version(_head(path)))
    if version is None:
        raise ValueError(f"is EVT{_evt_version(_head(path))}; read are EVT2, EVT2.1 and EVT3.")
    _check_whole_words(path, WORD_BYTES[version], 0)
    return _read_faery(path, sensor_size, "evt")


def _read_dat(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> _Content:
    _check_whole_words(path, WORD_BYTES["dat"], 2)
    return _read_faery(path, sensor_size, "dat")


def _read_aedat4(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> _Content:
    return _read_faery(path, sensor_size, "aedat")


def _read_faery(path: Path, sensor_size: SensorSize | None, file_type: str) -> _Content:
    """The content of a camera file. A fallback of one pixel tells whether the file states its size."""
    unstated = (1, 1)
    faery = _faery()
    try:
        decoder = faery.events_stream_from_file(path, dimensions_fallback=unstated, file_type=file_type)
    except Exception as error:  # faery raises bare exceptions
        raise ValueError(_undecodable(error)) from error
    width, height = decoder.dimensions()
    if (width, height) != unstated:
        return _Content((height, width), _faery_pieces(decoder))
    if sensor_size is not None:
        fallback = checked_sensor_size(sensor_size)[::-1]
        decoder = faery.events_stream_from_file(path, dimensions_fallback=fallback, file_type=file_type)
    return _Content(None, _faery_pieces(decoder))


def _faery() -> ModuleType:
    try:
        import faery
    except ImportError as error:
        raise ValueError("camera formats are read through faery: pip install 'deflare[formats]'.") from error
    return faery


def _faery_pieces(decoder: Iterable[np.ndarray]) -> Iterator[Columns]:
    """The columns of a decoder's packets, several packets at a time because they are small."""
    packets = iter(decoder)
    while batch := _batch(packets):
        events = np.concatenate(batch)
        yield events["t"], events["x"], events["y"], events["p"]


def _batch(packets: Iterator[np.ndarray]) -> list[np.ndarray]:
    batch: list[np.ndarray] = []
    try:
        while sum(map(len, batch)) < PIECE_EVENTS and (packet := next(packets, None)) is not None:
            batch.append(packet)
    except Exception as error:  # faery raises bare exceptions
        raise ValueError(_undecodable(error)) from error
    return batch


def _undecodable(error: Exception) -> str:
    cause = " ".join(str(error).split())
    if "overflow" in cause:
        return f"{cause}; give the sensor size of the camera that made the recording, or copy the file again."
    return f"cannot be decoded ({cause}); copy or record it again."


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _evt_version(head: bytes) -> str:
    """The EVT version in a Prophesee header as it is written there, or '' when there is none."""
    found = re.search(rb"^% *(?:evt +|format +EVT)([\d.]+)", head, re.MULTILINE | re.IGNORECASE)
    return found[1].decode() if found and head.startswith(b"%") else ""


def _check_whole_words(path: Path, word_bytes: int, bytes_before: int) -> None:
    """Refuse a file that ends inside a word: faery would drop the rest in silence."""
    start = 0
    with path.open("rb") as file:
        while (line := file.readline(HEAD_BYTES)).startswith(b"% ") and line.strip() != b"% end":
            start = file.tell()
        start = file.tell() if line.strip() == b"% end" else start
    if (path.stat().st_size - start - bytes_before) % word_bytes:
        raise ValueError("the file is cut short: it ends in the middle of an event; copy or record it again.")


READERS: Mapping[Format, Callable[[Path, SensorSize | None, TimeUnit | None], _Content]] = {
    "npz": _read_npz,
    "npy": _read_npy,
    "csv": _read_csv,
    "evt": _read_evt,
    "dat": _read_dat,
    "aedat4": _read_aedat4,
}
