"""Arrays of numpy: npz archives and npy files of events, read and written."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from deflare_core.events import STRUCTURED_DTYPE, Events, SensorSize, check_sensor_size
from deflare_core.io.column_names import NAMES, find_columns, require_columns, unit_of
from deflare_core.io.column_order import ENOUGH_EVENTS, find_order
from deflare_core.io.layouts import DTYPES
from deflare_core.io.reading import (
    PIECE_EVENTS,
    Columns,
    Content,
    Reading,
    TimeUnit,
    pick_columns,
    to_microseconds,
    warn_of_coarse_times,
)
from deflare_core.system.errors import DeflareError, quote
from deflare_core.system.input_files import check_input
from deflare_core.system.limits import check_memory

DAMAGED_ARRAY = (ValueError, TypeError, SyntaxError, EOFError, TokenError)
"""What numpy raises where an array's header or its length is damaged."""
DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, NotImplementedError, *DAMAGED_ARRAY)
EVIMO2 = ("events_t", "events_xy", "events_p")
"""What the arrays of EVIMO2's archives are called, and how its files of one array each end."""
SIZE_NAMES = ("sensor_size", "height", "width")
Named = dict[str, np.ndarray]
"""The columns of a table, by the names that it gives them."""


def read_npz(path: Path, reading: Reading) -> Content:
    """The content of an archive; its arrays are read whole, because they are compressed so."""
    with _explain_damage("archive", DAMAGED_ARCHIVE), np.load(path, allow_pickle=False) as archive:
        # numpy gives the bytes of what is no array.
        names = [name for name in archive.files if f"{name}.npy" in archive.zip.namelist()]
        if not names:
            raise DeflareError(
                f"is a zip of {quote(archive.files[:9])}, no npz archive; unpack it and name one of its files."
            )
        num_bytes = sum(archive.zip.getinfo(f"{name}.npy").file_size for name in names)
        check_memory(num_bytes, "the arrays of the archive", "write it as HDF5 on another machine")
        stated = _stated_size(archive, names, reading)
        columns = _find_events(archive, [name for name in names if name not in SIZE_NAMES], reading, stated)
    return Content(stated, _pieces(path, columns, reading), ", ".join(columns))


def read_npy(path: Path, reading: Reading) -> Content:
    """The content of an array, or of the three of EVIMO2 of which it is one; they stay on disk."""
    array, parts = _map_array(path), list_parts(path)
    reading.choose_stream(["events"])
    if parts and not _is_table(array):
        if missing := [part.name for part in parts.values() if not part.exists()]:
            raise DeflareError(f"is one of the three arrays of a recording of EVIMO2; put {missing[0]} next to it.")
        columns = _columns_of_evimo2({name: _map_array(part) for name, part in parts.items()})
    else:
        columns = _columns_of(array, reading, None)
    return Content(None, _pieces(path, columns, reading), ", ".join(columns))


def list_parts(path: Path) -> dict[str, Path]:
    """The three files of a recording of EVIMO2 by the names of their arrays; none where the file is not one of them."""
    ending = next((name for name in EVIMO2 if path.name.endswith(f"{name}.npy")), None)
    if ending is None:
        return {}
    stem = path.name.removesuffix(f"{ending}.npy")
    return {name: path.with_name(f"{stem}{name}.npy") for name in EVIMO2}


def _map_array(path: Path) -> np.ndarray:
    check_input(path)
    with _explain_damage("array", DAMAGED_ARRAY):
        return np.load(path, mmap_mode="r", allow_pickle=False)


def write_npz(path: Path, sensor_size: SensorSize, num_events: int, pieces: Callable[[], Iterator[Events]]) -> None:
    """Write an archive of `t, x, y, p` and `sensor_size`, going through the events once for each column."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, dtype in DTYPES.items():
            with archive.open(_member(name), "w", force_zip64=True) as file:
                write_npy_header(file, np.dtype(dtype), (num_events,))
                for events in pieces():
                    file.write(getattr(events, name).tobytes())
        with archive.open(_member("sensor_size"), "w") as file:
            np.save(file, np.array(sensor_size))


def write_npy(path: Path, sensor_size: SensorSize, num_events: int, pieces: Callable[[], Iterator[Events]]) -> None:
    """Write a structured array with fields `x, y, t, p`."""
    with path.open("wb") as file:
        write_npy_header(file, STRUCTURED_DTYPE, (num_events,))
        for events in pieces():
            file.write(events.to_structured().tobytes())


@contextmanager
def _explain_damage(what: str, kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except DeflareError:
        raise
    except MemoryError as error:
        raise DeflareError(
            f"the {what} does not fit into memory ({error}); use a machine with more or, if it is a small file, "
            "copy or make it again: then it is damaged."
        ) from error
    except kinds as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise DeflareError(
                f"the {what} cannot be read: it holds objects of Python as a pickle, whose code is never run; save "
                "numbers instead."
            ) from error
        raise DeflareError(
            f"the {what} cannot be read: it is damaged or cut short ({error}); copy or make it again."
        ) from error


def _stated_size(archive: np.lib.npyio.NpzFile, names: list[str], reading: Reading) -> SensorSize | None:
    """The sensor that an archive states; one that cannot be understood counts only if the caller gives none."""
    stating = ["sensor_size"] if "sensor_size" in names else ["height", "width"]
    if not set(stating) <= set(names):
        return None
    try:
        size = check_sensor_size(tuple(value for name in stating for value in archive[name].ravel().tolist()))
        return reading.turn_size(size) if stating == ["sensor_size"] else size
    except DeflareError:
        if reading.sensor_size is None:
            raise
        return None


def _find_events(archive: np.lib.npyio.NpzFile, names: list[str], reading: Reading, size: SensorSize | None) -> Named:
    """The columns of an archive: its arrays t, x, y and p, or the one table of events among its arrays."""
    if len(found := find_columns(names)) == len(NAMES):
        reading.choose_stream(["events"])
        return {name: archive[name] for name in found.values()}
    if set(EVIMO2) <= set(names):
        return _columns_of_evimo2(archive)
    tables = {name: array for name in names if _is_table(array := archive[name])}
    if not tables:
        require_columns(names)
    named = "events" if reading.stream is None and "events" in tables else reading.choose_stream(tables)
    return _columns_of(tables[named], reading, size)


def _columns_of_evimo2(arrays: Mapping[str, np.ndarray]) -> Named:
    """The columns of the arrays of EVIMO2, whose times are in seconds unless they are whole numbers."""
    t, xy, p = (arrays[name] for name in EVIMO2)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise DeflareError(f"expected x and y as columns of events_xy, (N, 2); its shape is {xy.shape}.")
    return {"t_s" if t.dtype.kind == "f" else "t": t, "x": xy[:, 0], "y": xy[:, 1], "p": p}


def _is_table(array: np.ndarray) -> bool:
    """Whether an array may be a table of events."""
    if array.dtype.names is not None:
        return len(find_columns(array.dtype.names)) == len(NAMES)
    return array.ndim == 2 and array.dtype.kind in "iufb" and (array.shape[1] == 4 or _lies_on_its_side(array))


def _columns_of(array: np.ndarray, reading: Reading, size: SensorSize | None) -> Named:
    """The columns of a structured array, or of an `(N, 4)` or `(4, N)` array `[t, x, y, p]`."""
    if array.dtype.names is not None:
        return {name: array[name] for name in require_columns(array.dtype.names).values()}
    if array.ndim != 2 or not (array.shape[1] == 4 or _lies_on_its_side(array)):
        raise DeflareError(f"expected fields x, y, t, p or an (N, 4) array [t, x, y, p]; its shape is {array.shape}.")
    columns = array.T if array.shape[1] == 4 else array
    order = find_order([column[:PIECE_EVENTS] for column in columns], reading.sensor_size or size, reading.polarity)
    if order != "txyp":
        raise DeflareError(
            f"holds its columns as {' '.join(order)}, not as t x y p; write them by name: np.savez(FILE, "
            f"{', '.join(f'{name}=a[:, {k}]' for k, name in enumerate(order))})."
        )
    return dict(zip(order, columns, strict=True))


def _lies_on_its_side(array: np.ndarray) -> bool:
    """Whether the rows of an array are columns of events: four, and of more events than anyone has columns."""
    return array.shape[0] == 4 and array.shape[1] >= ENOUGH_EVENTS


def _pieces(path: Path, named: Named, reading: Reading) -> Iterator[Columns]:
    names = require_columns(named)
    kind = named[names["t"]].dtype
    stated: dict[str, str] = {names["t"]: unit} if (unit := unit_of(names["t"])) else {}
    if kind.kind in "mM":
        # Dates count from 1970, as they do in numpy.
        named = named | {names["t"]: named[names["t"]].view(np.dtype(f"{kind.byteorder}i8"))}
        stated[f"its type {kind}"] = _unit_of_type(kind)
    unit = reading.agree_on_unit(stated)
    columns = pick_columns({column: named[name] for column, name in names.items()})
    warn_of_coarse_times(path, columns[0][-1:], unit)
    return _cut(columns, unit)


def _unit_of_type(kind: np.dtype) -> str:
    """The unit of a type of dates or durations; one of several units, such as 25 s, is named as numpy does."""
    unit, count = np.datetime_data(kind)
    return unit if count == 1 else f"{count} {unit}"


def _cut(columns: Columns, unit: TimeUnit | None) -> Iterator[Columns]:
    for first in range(0, len(columns[0]), PIECE_EVENTS):
        t, x, y, p = (column[first : first + PIECE_EVENTS] for column in columns)
        yield to_microseconds(t, unit), x, y, p


def _member(name: str) -> zipfile.ZipInfo:
    """A compressed array of an npz archive, without the time of day, so that the same events give the same bytes."""
    member = zipfile.ZipInfo(f"{name}.npy")
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def write_npy_header(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Write what an npy file says of its array before the values, which may then follow piece by piece."""
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": shape})
