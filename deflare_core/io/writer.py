"""The writer of recordings: HDF5 piece by piece, complete or not at all.

What is written follows DSEC's convention: `events/t` counts from `events/t_offset`, and `events/ms_to_idx[k]` is the
first event at or after `k` milliseconds of that count. The offset is the start floored to a whole hour. It is 0 in
the first hour, where readers that ignore it are right. An offset at the first event would shift the two files of a
pair against each other, and 0 everywhere make an index of 10^12 entries for clocks that count from 1970.

Every chunk has a Fletcher-32 checksum: of 1,000 changed bits none read as other events, where 58 of 100 did without.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from deflare_core.events import Events, SensorSize, check_sensor_size
from deflare_core.io.chunks import Compressor, GrowingDataset
from deflare_core.io.layouts import CLOCK_ATTRIBUTES, DTYPES
from deflare_core.system.atomic_files import EnduringFile, complete_or_absent
from deflare_core.system.errors import DeflareError
from deflare_core.system.limits import HOUR_US, LONGEST_US
from deflare_core.system.signals import hold_signals

LAYOUT = ("v108", "v108")
"""HDF5's layout of 2008, whose headers have checksums as chunks do; MATLAB before 2021 reads no later one."""

Attributes = Mapping[str, str | int | float]


class RecordingWriter:
    """The writer of one recording, piece by piece; the file appears when the `with` block ends well.

    Parameters
    ----------
    source : where the events come from, kept as an attribute, as `attributes` are.
    clock_us : start and end of the recorded time, for recordings whose first or last moments may be silent.
    """

    def __init__(
        self,
        path: str | Path,
        sensor_size: SensorSize,
        *,
        source: str,
        clock_us: tuple[int, int] | None = None,
        attributes: Attributes | None = None,
    ) -> None:
        self.sensor_size = check_sensor_size(sensor_size)
        height, width = self.sensor_size
        clock = dict(zip(CLOCK_ATTRIBUTES, clock_us, strict=True)) if clock_us else {}
        self._attributes = {**(attributes or {}), "height": height, "width": width, "source": source, **clock}
        self._t_offset_us = None if clock_us is None else clock_us[0] // HOUR_US * HOUR_US
        self._path, self.num_events = Path(path), 0
        self._last_us: int | None = None
        self._next_ms = 0
        self._index: list[np.ndarray] = []
        self._columns: dict[str, GrowingDataset] = {}
        self._others: dict[str, GrowingDataset] = {}

    def __enter__(self) -> Self:
        with ExitStack() as unfinished:
            temporary = unfinished.enter_context(complete_or_absent(self._path))
            with hold_signals():
                self._disk = unfinished.enter_context(EnduringFile(temporary))
                self._file = unfinished.enter_context(h5py.File(self._disk, "w", libver=LAYOUT))
                self._compressor = unfinished.enter_context(Compressor())
                self._begin()
            self._unfinished = unfinished.pop_all()
        return self

    def _begin(self) -> None:
        self._group = self._file.create_group("events")
        self._columns = {name: self._create(self._group, name, dtype) for name, dtype in DTYPES.items()}
        self._others["ms_to_idx"] = self._create(self._group, "ms_to_idx", np.int64)
        for name, value in self._attributes.items():
            self._group.attrs[name] = value

    @hold_signals()
    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._unfinished.__exit__(kind, error, trace)
            return
        with self._unfinished:
            self._finish()
            self._file.close()
            self._disk.raise_error(self._path)

    @hold_signals()
    def append(self, events: Events, **columns: np.ndarray) -> None:
        """Add events that follow those already written, with an array `(N,)` of any dtype for every extra column.

        Raises
        ------
        ValueError
            When they are of another sensor, start before the last one written, or an extra column does not fit.
        """
        self._check_follows(events, columns)
        if not len(events):
            return
        if self._t_offset_us is None:
            self._t_offset_us = int(events.t[0]) // HOUR_US * HOUR_US
        stored_us = events.t - self._t_offset_us
        self._extend_index(stored_us)
        for name in [name for name in columns if name not in self._columns]:
            self._columns[name] = self._create(self._group, name, columns[name].dtype)
        for name, values in {"t": stored_us, "x": events.x, "y": events.y, "p": events.p, **columns}.items():
            self._columns[name].append(values)
        self.num_events += len(events)
        self._last_us = int(events.t[-1])
        self._disk.raise_error(self._path)

    @hold_signals()
    def extend(self, name: str, values: np.ndarray) -> None:
        """Add values `(M,)` to a dataset of the file that counts something else than the events written."""
        if name not in self._others:
            self._others[name] = self._create(self._file, name, values.dtype)
        self._others[name].append(values)
        self._disk.raise_error(self._path)

    def _create(self, group: h5py.Group, name: str, dtype: np.typing.DTypeLike) -> GrowingDataset:
        return GrowingDataset(group, name, dtype, self._compressor)

    def _check_follows(self, events: Events, columns: Mapping[str, np.ndarray]) -> None:
        if events.sensor_size != self.sensor_size:
            raise ValueError(f"The recording is {self.sensor_size}; received events of a sensor {events.sensor_size}.")
        if len(events) and self._last_us is not None and events.t[0] < self._last_us:
            raise DeflareError(f"Events from {events.t[0]} us cannot follow one at {self._last_us} us.")
        expected = self._columns.keys() - DTYPES.keys() if self.num_events else columns.keys()
        if columns.keys() != expected or any(len(values) != len(events) for values in columns.values()):
            lengths = {name: len(values) for name, values in columns.items()}
            raise ValueError(f"Expected columns {sorted(expected)} of length {len(events)}; received {lengths}.")

    def _extend_index(self, stored_us: np.ndarray) -> None:
        """Add the milliseconds up to these events to `ms_to_idx`."""
        end_ms = int(stored_us[-1]) // 1000 + 1
        check_length(end_ms * 1000)
        ms = np.arange(self._next_ms, end_ms, dtype=np.int64)
        self._index.append(self.num_events + np.searchsorted(stored_us, ms * 1000))
        self._next_ms = max(self._next_ms, end_ms)

    def _finish(self) -> None:
        self._others["ms_to_idx"].append(np.concatenate([*self._index, [self.num_events]]))
        _write_in_header(self._group, "t_offset", np.int64(self._t_offset_us or 0))
        for dataset in (*self._columns.values(), *self._others.values()):
            dataset.finish()
        self._compressor.write_all_but(0)


def check_length(end_us: int) -> None:
    """Raise a DeflareError unless the last millisecond ends at most `LONGEST_US` after the recording's offset."""
    if end_us > LONGEST_US:
        raise DeflareError(
            f"An event lies {end_us / HOUR_US:,.0f} hours after the recording's first one, more than the "
            f"{LONGEST_US // HOUR_US} that are written. Check its timestamps and their unit, or divide it."
        )


def _write_in_header(group: h5py.Group, name: str, value: np.integer) -> None:
    """Write one number as a dataset within its header, whose checksum then holds for it too."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    properties.set_obj_track_times(False)  # One recording is the same bytes at any time of day.
    kind, place = h5py.h5t.py_create(value.dtype), h5py.h5s.create(h5py.h5s.SCALAR)
    h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, place, properties))[()] = value
