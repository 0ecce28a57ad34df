"""Recordings: event files on disk, read lazily by time; other formats through a temporary copy.

Read are HDF5 files with a group `events` holding `t, x, y, p`: the plain layout, the one written here, and DSEC's
(Blosc compression, `ms_to_idx`, `t_offset`). Without a group `events` it is the only group or compound table of
`t, x, y, p` in the file (Prophesee's `CD/events`), or the one called `left` of a stereo recording (M3ED's
`prophesee/left`). Other formats are converted on opening; `formats` says which and why. Timestamps that leave this
module are absolute microseconds: a stored `t_offset` has been added exactly once.
Writing is `recording_writer`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from tqdm import tqdm

from deflare_core.events import Events, PolarityRule, SensorSize, checked_sensor_size, exact_integers
from deflare_core.io.columns import TimeUnit
from deflare_core.io.formats import (
    FORMAT_NAMES,
    EventStream,
    RecordingError,
    agreed_sensor_size,
    errors_named,
    format_of,
    read_stream,
)
from deflare_core.io.layouts import CLOCK_ATTRIBUTES, COLUMNS, event_columns, event_node, first_of, t_offset_us
from deflare_core.io.writer import CHUNK_EVENTS, HOUR_US, Attributes, RecordingWriter, check_length
from deflare_core.system.errors import DeflareError

CACHE_BYTES = 1 << 24
"""Decompressed chunks kept of each column, so that neighbouring windows do not decompress one twice."""
PIECE_EVENTS = 4 * CHUNK_EVENTS


class Recording:
    """An open event file: its sensor size, clock and attributes, and its events by time.

    Parameters
    ----------
    path : the HDF5 file.
    sensor_size : (height, width); needed only when the file does not say. One that contradicts the file is an error.
    polarity : "strict", or "lenient" to read 1 as positive and anything else as negative.

    Raises
    ------
    RecordingError
        When the file is missing, not HDF5, truncated, or lacks columns or a sensor size.
    """

    def __init__(
        self, path: str | Path, sensor_size: SensorSize | None = None, polarity: PolarityRule = "strict"
    ) -> None:
        self.path = Path(path)
        self.polarity = polarity
        self._file = _opened(self.path)
        try:
            with errors_named(self.path):
                self._node = event_node(self._file)
                self._columns = event_columns(self._node)
                self._t_offset_us = t_offset_us(self._file, self._node)
                self._ms_to_idx = first_of(self._file, f"{self._node.name}/ms_to_idx", "ms_to_idx")
                self.attributes = {**self._file.attrs, **self._node.attrs}
                self.sensor_size = agreed_sensor_size(self._stated_size(), sensor_size)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._columns["t"].shape[0])

    @property
    def num_events(self) -> int:
        """The number of events in the file."""
        return len(self)

    @property
    def declares_clock(self) -> bool:
        """Whether the file says when it starts and ends; one that says only one of them declares nothing."""
        return all(name in self.attributes for name in CLOCK_ATTRIBUTES)

    @property
    def clock_us(self) -> tuple[int, int]:
        """Start and end: as the file declares them, else `[first event, last event + 1)`; (0, 0) if it is empty.

        Raises
        ------
        RecordingError
            When events lie outside what the file declares, the last one before the first, or at no time at all.
        """
        with errors_named(self.path):
            found = (self._time_at(0), self._time_at(len(self) - 1) + 1) if len(self) else None
        if found and found[0] >= found[1]:
            raise RecordingError(
                f"{self.path}: Time must not go backwards: the first event is at {found[0]} us, the last at "
                f"{found[1] - 1} us. Sort the recording by time first."
            )
        if not self.declares_clock:
            return found or (0, 0)
        start, end = (int(self.attributes[name]) for name in CLOCK_ATTRIBUTES)
        if found and not start <= found[0] < found[1] <= end:
            raise RecordingError(
                f"{self.path}: has events in [{found[0]}, {found[1]}) us, but declares [{start}, {end}) us."
            )
        return start, end

    def window_starts(self, window_us: int) -> range:
        """The absolute times, in microseconds, at which the windows begin that cover the recording.

        The first is the declared start or, without one, the last whole multiple of `window_us` before the first event.
        """
        start_us, end_us = self.clock_us
        return range(start_us if self.declares_clock else start_us // window_us * window_us, end_us, window_us)

    @property
    def extra_columns(self) -> list[str]:
        """Names of the per-event columns beyond `t, x, y, p`, such as the cause of each event."""
        if isinstance(self._node, h5py.Dataset):
            return []
        return [
            name
            for name, item in self._node.items()
            if name not in COLUMNS
            and isinstance(item, h5py.Dataset)
            and item.shape == (len(self),)
            and name != "ms_to_idx"
        ]

    def window(self, t_start_us: int, t_end_us: int) -> Events:
        """Events of `[t_start_us, t_end_us)`, reading only the part of the file that holds them."""
        with errors_named(self.path):
            first, last = self._first_index(t_start_us), self._first_index(t_end_us)
            return self._slice(first, max(first, last))

    def check_all_read(self, num_events: int) -> None:
        """Nothing, if so many events are all there are; windows from start to end hold fewer only if out of order.

        Raises
        ------
        RecordingError
            When events are missing.
        """
        if num_events != len(self):
            raise RecordingError(
                f"{self.path}: Time must not go backwards: of {len(self)} events {num_events} lie in the windows from "
                "its start to its end. Sort the recording by time first."
            )

    def check_length(self) -> None:
        """Nothing, if the recording is short enough to be written as one.

        Raises
        ------
        RecordingError
            When an event lies too long after its start.
        """
        start_us = self.clock_us[0] // HOUR_US * HOUR_US
        if len(self):
            with errors_named(self.path):
                check_length((self._time_at(len(self) - 1) - start_us) // 1000 * 1000 + 1000)

    def column(self, name: str, t_start_us: int, t_end_us: int) -> np.ndarray:
        """The values of an extra per-event column over `[t_start_us, t_end_us)`."""
        if name not in self.extra_columns:
            raise RecordingError(f"{self.path}: no per-event column '{name}'; the file has {self.extra_columns}.")
        with errors_named(self.path):
            first, last = self._first_index(t_start_us), self._first_index(t_end_us)
            return self._node[name][first : max(first, last)]

    def load(self) -> Events:
        """All events of the file."""
        with errors_named(self.path):
            return self._slice(0, len(self))

    def pieces(self) -> Iterator[tuple[Events, dict[str, np.ndarray]]]:
        """All events in their order, a piece at a time, with the values of the extra columns."""
        names = self.extra_columns
        for first in range(0, len(self), PIECE_EVENTS):
            last = min(first + PIECE_EVENTS, len(self))
            with errors_named(self.path):
                piece = self._slice(first, last), {name: self._node[name][first:last] for name in names}
            yield piece

    def close(self) -> None:
        """Close the file; the recording cannot be read afterwards."""
        self._file.close()

    def _stated_size(self) -> SensorSize | None:
        if {"height", "width"} <= set(self.attributes):
            return checked_sensor_size((self.attributes["height"], self.attributes["width"]))
        if geometry := re.fullmatch(r"(\d+)x(\d+)", str(self.attributes.get("geometry"))):
            return checked_sensor_size((int(geometry[2]), int(geometry[1])))
        resolution = first_of(self._file, f"{self._node.name}/calib/resolution")
        return None if resolution is None else checked_sensor_size(tuple(resolution[()][::-1]))

    def _time_at(self, index: int) -> int:
        stored = np.asarray(self._columns["t"][index : index + 1])
        return int(exact_integers(stored, np.int64, "t")[0]) + self._t_offset_us

    def _slice(self, first: int, last: int) -> Events:
        t, x, y, p = (self._columns[name][first:last] for name in COLUMNS)
        t_us = exact_integers(t, np.int64, "t") + self._t_offset_us
        return Events.from_columns(t_us, x, y, p, self.sensor_size, polarity=self.polarity)

    def _first_index(self, t_us: int) -> int:
        """Index of the first event at or after `t_us`."""
        stored_us = t_us - self._t_offset_us
        low, high = bounds = self._search_span(stored_us)
        column = self._columns["t"]
        while high - low > CHUNK_EVENTS:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if column[middle] < stored_us else (low, middle)
        index = low + int(np.searchsorted(column[low:high], stored_us))
        self._check_index(index, bounds, stored_us)
        return index

    def _search_span(self, stored_us: int) -> tuple[int, int]:
        """Where the first event at or after a stored time can lie: within its millisecond, if the file has an index."""
        if self._ms_to_idx is None or not len(self._ms_to_idx):
            return 0, len(self)
        ms, last_ms = stored_us // 1000, len(self._ms_to_idx) - 1
        low = int(self._ms_to_idx[min(ms, last_ms)]) if ms >= 0 else 0
        high = int(self._ms_to_idx[max(ms + 1, 0)]) if ms < last_ms else len(self)
        return low, high

    def _check_index(self, index: int, bounds: tuple[int, int], stored_us: int) -> None:
        """Refuse an `ms_to_idx` that sent the search to the wrong place: events would go missing unseen."""
        low, high = bounds
        column = self._columns["t"]
        misplaced = not 0 <= low <= high <= len(self)
        misplaced = misplaced or (index == low > 0 and column[low - 1] >= stored_us)
        misplaced = misplaced or (index == high < len(self) and column[high] < stored_us)
        if misplaced:
            raise DeflareError(
                "ms_to_idx does not fit the timestamps; remove it from the file or write the file again."
            )


class ConvertedRecording(Recording):
    """A recording in a format that can only be read from its start, opened through a temporary HDF5 copy.

    The copy lies in the folder for temporary files (the environment variable TMPDIR moves it). It loses its name as
    soon as it is open, and its disk space when it is closed: nothing of it stays, however the process ends. Only one
    that is killed (SIGKILL) while it still copies leaves what it has written, in a folder `deflare-*`.

    Parameters
    ----------
    path : an npz, npy, csv, RAW, DAT or AEDAT4 file.
    sensor_size, polarity, time_unit : as in `open_recording`.

    Raises
    ------
    RecordingError
        When the file cannot be read as asked.
    """

    def __init__(
        self,
        path: str | Path,
        sensor_size: SensorSize | None = None,
        polarity: PolarityRule = "strict",
        time_unit: TimeUnit | None = None,
    ) -> None:
        stream = read_stream(path, sensor_size, polarity, time_unit)
        # On a network's disk the name of an open file cannot be taken, and its folder stays.
        with TemporaryDirectory(prefix="deflare-", ignore_cleanup_errors=True) as folder:
            copy = Path(folder) / "recording.h5"
            write_stream(copy, stream, path)
            super().__init__(copy)
        self.path = Path(path)


def open_recording(
    path: str | Path,
    sensor_size: SensorSize | None = None,
    polarity: PolarityRule = "strict",
    time_unit: TimeUnit | None = None,
) -> Recording:
    """An open `Recording` of any format that `formats` knows; use it in a `with` block, or close it.

    Parameters
    ----------
    path : the recording.
    sensor_size : (height, width); needed only when the file does not say.
    polarity : "strict", or "lenient" to read 1 as positive and anything else as negative.
    time_unit : "s", "ms" or "us", for text that does not declare its unit and arrays in other units than microseconds.

    Raises
    ------
    RecordingError
        When the file cannot be read as asked; the message names it.
    """
    if format_of(path) == "hdf5":
        return Recording(path, sensor_size, polarity)
    return ConvertedRecording(path, sensor_size, polarity, time_unit)


def write_stream(target: Path, stream: EventStream, path: str | Path, progress: bool = True) -> int:
    """The number of events written to the HDF5 recording `target`, going through the stream of file `path` once.

    A progress bar appears when this takes more than two seconds.
    """
    source = f"{Path(path).name}, {FORMAT_NAMES[stream.format]}"
    bar = tqdm(unit="event", unit_scale=True, desc=Path(path).name, leave=False, delay=2, disable=not progress)
    with bar, errors_named(Path(path)), RecordingWriter(target, stream.sensor_size, source=source) as writer:
        for events in stream.pieces:
            writer.append(events)
            bar.update(len(events))
        return writer.num_events


def load_events(
    path: str | Path,
    sensor_size: SensorSize | None = None,
    polarity: PolarityRule = "strict",
    time_unit: TimeUnit | None = None,
) -> Events:
    """All events of a recording on disk, with absolute timestamps in microseconds.

    Parameters
    ----------
    path : a recording in any format that `formats` knows.
    sensor_size : (height, width), needed only when the file does not say.
    polarity : "strict", or "lenient" to read 1 as positive and anything else as negative.
    time_unit : "s", "ms" or "us", where the file does not declare it.

    Raises
    ------
    RecordingError
        When the file cannot be read as asked; the message names it.
    """
    with open_recording(path, sensor_size, polarity, time_unit) as recording:
        return recording.load()


def save_events(
    path: str | Path,
    events: Events,
    *,
    source: str,
    clock_us: tuple[int, int] | None = None,
    attributes: Attributes | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write events as an HDF5 recording, complete or not at all.

    Parameters
    ----------
    path : the file to make; one that stands there is replaced when the new one is complete.
    events : what to write.
    source : where the events come from, kept as an attribute.
    clock_us : start and end of the recorded time, where it is known.
    attributes : further attributes of the file.
    columns : further per-event arrays, such as the cause of each event, by name.
    """
    with RecordingWriter(path, events.sensor_size, source=source, clock_us=clock_us, attributes=attributes) as writer:
        writer.append(events, **(columns or {}))


def _opened(path: Path) -> h5py.File:
    if format_of(path) != "hdf5":
        raise RecordingError(f"{path}: is not an HDF5 file; open_recording reads other formats.")
    try:
        return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    except OSError as error:
        raise RecordingError(f"{path}: cannot be opened as HDF5 ({error}); copy or record it again.") from error
