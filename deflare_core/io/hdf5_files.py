"""HDF5 files: opened once a trial has shown that HDF5 comes to an end with them.

Of about 7,100 files of which one to three bits were changed, HDF5 hangs on 10 and crashes on 4, nearly always where it
reads texts of any length; code of filters crashes on others. A trial of a sound file takes about 10 ms, once in a
process.
"""

from __future__ import annotations

import errno
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  Filters are known from its import on.

from deflare_core.io.layouts import Layout, find_layout
from deflare_core.io.reading import OF_THE_MACHINE, Reading, RecordingError
from deflare_core.system.errors import DeflareError
from deflare_core.system.input_files import check_input
from deflare_core.system.trials import allow_seconds, find_failure

CACHE_BYTES = 1 << 24
"""Decompressed chunks kept of each column, so that neighbouring windows do not decompress one twice."""
ROBUST_FILTERS = {1, 2, 3, 4, 5, 6, 32000, 32001, 32004, 32015, 32026}
"""Numbers of filters that only refuse changed bits: HDF5's own, lzf, Blosc, lz4, zstd, Blosc2. Bitshuffle crashes."""
SLOWEST_EVENTS = 1_000_000
"""Events that are read in a second at least."""
SURVIVED: set[tuple[object, ...]] = set()
"""What has been tried: files by place and state, and how they are read."""
FAILURES: dict[tuple[object, ...], str] = {}
"""How HDF5 failed, by file."""


def open_hdf5(path: Path, reading: Reading) -> h5py.File:
    """An open HDF5 file that can be read in this process; one that cannot be is a DeflareError that says why."""
    check_input(path, RecordingError)
    _try_once(path, reading)
    try:
        return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    except OSError as error:
        if error.errno == errno.EAGAIN or "unable to lock" in str(error) or "open for write" in str(error):
            raise DeflareError(
                f"is open in a program that writes it, or was not closed by one ({error}); wait until it is closed; if "
                "that program has crashed, h5clear -s FILE of HDF5's tools may mend it."
            ) from error
        if error.errno in OF_THE_MACHINE:
            raise
        raise DeflareError(f"cannot be opened as HDF5 ({error}); copy or record it again.") from error


def _try_once(path: Path, reading: Reading) -> None:
    """Raise a DeflareError if HDF5 hangs or crashes on a file, which could not be caught in this process."""
    state = path.stat()
    file = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
    if (*file, str(reading)) in SURVIVED:
        return
    if failure := FAILURES.get(file) or find_failure(lambda: _read_as(path, reading)):
        FAILURES[file] = failure
        raise DeflareError(f"the file is damaged: HDF5 {failure} when it reads this; copy or record it again.")
    SURVIVED.add((*file, str(reading)))


def _read_as(path: Path, reading: Reading) -> None:
    """Read what is read of a file before its events, and these too where code is not known to be robust."""
    with h5py.File(path, "r") as file:
        layout = find_layout(file, reading)
        if not list_filters(layout) <= ROBUST_FILTERS:
            allow_seconds(len(layout) / SLOWEST_EVENTS)
            for _ in layout.pieces():
                pass


def list_filters(layout: Layout) -> set[int]:
    """The numbers of the filters that the columns t, x, y and p go through."""
    columns = (layout.times.column, *layout.pixels, layout.polarities)
    properties = [column.dataset.id.get_create_plist() for column in columns]
    return {each.get_filter(k)[0] for each in properties for k in range(each.get_nfilters())}
