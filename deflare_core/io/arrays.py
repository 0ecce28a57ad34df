"""Arrays of numpy: npz archives and npy files of events, read and written."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from deflare_core.events import STRUCTURED_DTYPE, Events, SensorSize, check_sensor_size
from deflare_core.io.layouts import DTYPES
from deflare_core.io.reading import PIECE_EVENTS, Columns, Content, Reading, TimeUnit, pick_columns, to_microseconds
from deflare_core.system.errors import DeflareError

DAMAGED_ARRAY = (ValueError, TypeError, SyntaxError, EOFError, MemoryError, TokenError)
"""What numpy raises where an array's header or its length is damaged."""


def read_npz(path: Path, reading: Reading) -> Content:
    """The content of an archive; its arrays are read whole, because they are compressed so."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, *DAMAGED_ARRAY) as error:
        raise DeflareError(f"the archive is damaged or cut short ({error}); copy or make it again.") from error
    size = arrays.pop("sensor_size", None)
    stated = None if size is None else check_sensor_size(tuple(size.ravel().tolist()))
    if len(arrays) == 1:
        arrays = _columns_of(*arrays.values())
    return stated, _pieces(pick_columns(arrays), reading.time_unit)


def read_npy(path: Path, reading: Reading) -> Content:
    """The content of an array, which stays on disk."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED_ARRAY as error:
        raise DeflareError(f"the array cannot be read, or was cut short ({error}); copy or make it again.") from error
    return None, _pieces(pick_columns(_columns_of(array)), reading.time_unit)


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


def _columns_of(array: np.ndarray) -> dict[str, np.ndarray]:
    """The columns by name of a structured array, or of an `(N, 4)` array `[t, x, y, p]`."""
    if array.dtype.names is not None:
        return {name: array[name] for name in array.dtype.names}
    if array.ndim != 2 or array.shape[1] != 4:
        raise DeflareError(f"expected fields x, y, t, p or an (N, 4) array [t, x, y, p]; its shape is {array.shape}.")
    return dict(zip("txyp", array.T, strict=True))


def _pieces(columns: Columns, unit: TimeUnit | None) -> Iterator[Columns]:
    for first in range(0, len(columns[0]), PIECE_EVENTS):
        t, x, y, p = (column[first : first + PIECE_EVENTS] for column in columns)
        if unit is None and t.dtype.kind == "f" and (np.isfinite(t) & (t != np.trunc(t))).any():
            raise DeflareError("the times are not whole microseconds; give time_unit='s', 'ms' or 'us'.")
        yield to_microseconds(t, unit or "us"), x, y, p


def _member(name: str) -> zipfile.ZipInfo:
    """A compressed array of an npz archive, without the time of day, so that the same events give the same bytes."""
    member = zipfile.ZipInfo(f"{name}.npy")
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def write_npy_header(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Write what an npy file says of its array before the values, which may then follow piece by piece."""
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": shape})
