"""Recordings: event files on disk, read lazily by time; other formats than HDF5 through a temporary copy.

Timestamps that leave this module are absolute microseconds: a stored `t_offset` has been added exactly once. What is
read of HDF5 is in `layouts`, the other formats are in `formats`, and writing is `writer`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
from tqdm import tqdm

from deflare_core.events import BACKWARDS_ADVICE, Events, check_order, sign_polarities
from deflare_core.io.chunks import CHUNK_EVENTS
from deflare_core.io.formats import HDF5, find_format, read_stream
from deflare_core.io.hdf5_files import open_hdf5
from deflare_core.io.layouts import find_layout
from deflare_core.io.polarities import check_all
from deflare_core.io.reading import (
    AS_STATED,
    PIECE_EVENTS,
    Columns,
    Reading,
    RecordingError,
    name_errors,
)
from deflare_core.io.writer import Attributes, RecordingWriter, check_length
from deflare_core.system.atomic_files import NO_ROOM
from deflare_core.system.errors import DeflareError
from deflare_core.system.limits import EVENT_BYTES, HOUR_US, LONGEST_US, MOST_WINDOWS, check_memory
from deflare_core.system.unfinished import temporary_folder
from deflare_core.windows import Window, derive_seed


class Recording:
    """An open HDF5 file of events: its sensor size, clock and attributes, and its events by time.

    Raises
    ------
    RecordingError
        When the file is missing, not HDF5, truncated, or lacks columns or a sensor size.
    """

    def __init__(self, path: str | Path, reading: Reading = AS_STATED) -> None:
        self.path = Path(path)
        self._rule, self._signs_are_known = reading.polarity, False
        with name_errors(self.path), ExitStack() as unfinished:
            self._file = unfinished.enter_context(open_hdf5(self.path, reading))
            self._layout = find_layout(self._file, reading)
            self.sensor_size = reading.agree_on_size(self._layout.sensor_size)
            unfinished.pop_all()
        self.attributes = self._layout.attributes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._layout)

    @property
    def declares_clock(self) -> bool:
        """Whether the file says when it starts and ends; one that says only one of them declares nothing."""
        return self.declared_clock_us is not None

    @property
    def declared_clock_us(self) -> tuple[int, int] | None:
        """Start and end as the file declares them, if it does."""
        return self._layout.clock_us

    @property
    def span_us(self) -> tuple[int, int]:
        """`[first event, last event + 1)`, (0, 0) if it is empty; a RecordingError if the last is before the first."""
        if not len(self):
            return 0, 0
        with name_errors(self.path):
            first, last = self._time_at(0), self._time_at(len(self) - 1)
        if first > last:
            raise RecordingError(
                f"{self.path}: Time must not go backwards: the first event is at {first} us, the last at {last} us. "
                f"{BACKWARDS_ADVICE}"
            )
        return first, last + 1

    @property
    def clock_us(self) -> tuple[int, int]:
        """Start and end: as the file declares them, else `span_us`.

        Raises
        ------
        RecordingError
            When events lie outside what the file declares, the last one before the first, or at no time at all.
        """
        found = self.span_us
        if self._layout.clock_us is None:
            return found
        start, end = self._layout.clock_us
        if end < start:
            raise RecordingError(f"{self.path}: declares the clock [{start}, {end}) us, which ends before it starts.")
        if end - start > LONGEST_US:
            raise RecordingError(
                f"{self.path}: declares the clock [{start}, {end}) us of {(end - start) / HOUR_US:,.0f} hours; at most "
                f"{LONGEST_US // HOUR_US} are read. Correct its attributes t_start_us and t_end_us."
            )
        if len(self) and not start <= found[0] < found[1] <= end:
            raise RecordingError(
                f"{self.path}: has events in [{found[0]}, {found[1]}) us, but declares [{start}, {end}) us."
            )
        return start, end

    @property
    def is_ours(self) -> bool:
        """Whether the file was written here, and so states all that can be said of how to read it."""
        return {"source", "height", "width"} <= self.attributes.keys() and self._layout.ms_to_idx is not None

    def window_starts(self, window_us: int) -> range:
        """The absolute times, in microseconds, at which the windows begin that cover the recording.

        The first is the declared start or, without one, the last whole multiple of `window_us` before the first event.
        """
        start_us, end_us = self.clock_us
        starts = range(start_us if self.declares_clock else start_us // window_us * window_us, end_us, window_us)
        if len(starts) > MOST_WINDOWS:
            raise RecordingError(
                f"{self.path}: would be {len(starts):,} windows of {window_us} us; at most {MOST_WINDOWS:,} are worked "
                "on. Correct its times, or take a part of it or longer windows."
            )
        return starts

    @property
    def extra_columns(self) -> list[str]:
        """Names of the per-event columns beyond `t, x, y, p`, such as the causes of simulated events."""
        return list(self._layout.extra)

    def window(self, t_start_us: int, t_end_us: int) -> Events:
        """Events of `[t_start_us, t_end_us)`, reading only the part of the file that holds them."""
        with name_errors(self.path):
            return self._slice(*self._span(t_start_us, t_end_us))

    def next_event_us(self, t_us: int) -> int | None:
        """The time of the first event at or after `t_us`; none if there is none."""
        with name_errors(self.path):
            index = self._first_index(t_us)
            return self._time_at(index) if index < len(self) else None

    def count_before(self, edges_us: np.ndarray, *, scan: bool) -> np.ndarray:
        """The number of events before each of these times, int64 of their shape.

        With `scan` all times are read once; without, each edge is sought, which is quicker for few among many events.
        """
        with name_errors(self.path):
            if not scan:
                return np.array([self._first_index(int(edge_us)) for edge_us in edges_us], np.int64)
            pieces = self._ordered_times()
            return sum((np.searchsorted(piece, edges_us) for piece in pieces), np.zeros(len(edges_us), np.int64))

    def check_order(self) -> None:
        """Raise a RecordingError if time goes backwards anywhere in the file; all times are read once."""
        with name_errors(self.path):
            for _ in self._ordered_times():
                pass

    def _ordered_times(self) -> Iterator[np.ndarray]:
        """All times in microseconds, int64, a piece at a time, none before the one that comes before it."""
        for first in range(0, len(self), PIECE_EVENTS):
            before = first - (first > 0)  # Pieces overlap by one event, so that none starts before the last one ends.
            times = self._layout.times[before : first + PIECE_EVENTS]
            check_order(times, before)
            yield times[first - before :]

    def column(self, name: str, t_start_us: int, t_end_us: int) -> np.ndarray:
        """The values of an extra per-event column over `[t_start_us, t_end_us)`, in the type that the file holds."""
        if name not in self._layout.extra:
            raise RecordingError(f"{self.path}: no per-event column '{name}'; the file has {self.extra_columns}.")
        with name_errors(self.path):
            return self._layout.extra[name][slice(*self._span(t_start_us, t_end_us))]

    def load(self) -> Events:
        """All events of the file."""
        with name_errors(self.path):
            return self._slice(0, len(self))

    def pieces(self) -> Iterator[tuple[Events, dict[str, np.ndarray]]]:
        """All events in their order, a piece at a time, with the values of the extra columns."""
        for columns, extra in self.unordered_pieces():
            with name_errors(self.path):
                events = Events.from_columns(*columns, self.sensor_size)
            yield events, extra

    def unordered_pieces(self) -> Iterator[tuple[Columns, dict[str, np.ndarray]]]:
        """The columns of all events as `pieces` gives them, where the events may be out of order or off the sensor."""
        for first in range(0, len(self), PIECE_EVENTS):
            last = min(first + PIECE_EVENTS, len(self))
            with name_errors(self.path):
                extra = {name: column[first:last] for name, column in self._layout.extra.items()}
                columns = self._read(first, last)
            yield columns, extra

    def check_all_read(self, num_events: int) -> None:
        """Raise a RecordingError unless `num_events` are all: windows from start to end hold fewer if out of order."""
        if num_events != len(self):
            raise RecordingError(
                f"{self.path}: Time must not go backwards: of {len(self)} events {num_events} lie in the windows from "
                f"its start to its end. {BACKWARDS_ADVICE}"
            )

    def check_length(self) -> None:
        """Raise a RecordingError unless the recording is short enough to be written as one."""
        start_us = self.clock_us[0] // HOUR_US * HOUR_US
        if len(self):
            with name_errors(self.path):
                check_length((self._time_at(len(self) - 1) - start_us) // 1000 * 1000 + 1000)

    def close(self) -> None:
        """Close the file; the recording cannot be read afterwards."""
        self._file.close()

    def _time_at(self, index: int) -> int:
        return int(self._layout.times[index : index + 1][0])

    def _slice(self, first: int, last: int) -> Events:
        return Events.from_columns(*self._read(first, last), self.sensor_size)

    def _read(self, first: int, last: int) -> Columns:
        """Times in microseconds, x, y and polarities in {-1, +1} of some events, in the order of the file."""
        what = f"to read {last - first:,} events at once"
        advice = "use shorter windows, or take a part of it first (`deflare infer --method input --from --to`)"
        check_memory(EVENT_BYTES * (last - first), what, advice)
        self._check_polarities()
        x, y, p = (column[first:last] for column in (*self._layout.pixels, self._layout.polarities))
        return self._layout.times[first:last], x, y, sign_polarities(p)

    def _check_polarities(self) -> None:
        """Raise a DeflareError unless all polarities of the file follow one convention, whatever part is read of it."""
        if not self._signs_are_known:
            column = self._layout.polarities
            check_all((column[k : k + PIECE_EVENTS] for k in range(0, len(self), PIECE_EVENTS)), self._rule)
            self._signs_are_known = True

    def _span(self, t_start_us: int, t_end_us: int) -> tuple[int, int]:
        """The first event of `[t_start_us, t_end_us)` and the first one after it, by number."""
        first, last = self._first_index(t_start_us), self._first_index(t_end_us)
        return first, max(first, last)

    def _first_index(self, t_us: int) -> int:
        """Index of the first event at or after `t_us`."""
        low, high = bounds = self._search_span(t_us - self._layout.times.offset_us)
        while high - low > CHUNK_EVENTS:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._time_at(middle) < t_us else (low, middle)
        index = low + int(np.searchsorted(self._layout.times[low:high], t_us))
        self._check_index(index, bounds, t_us)
        return index

    def _search_span(self, stored_us: int) -> tuple[int, int]:
        """Where the first event at or after a stored time can be: in its millisecond, if the file has an index."""
        ms_to_idx = self._layout.ms_to_idx
        if ms_to_idx is None or not len(ms_to_idx):
            return 0, len(self)
        ms, last_ms = stored_us // 1000, len(ms_to_idx) - 1
        low = int(ms_to_idx[min(ms, last_ms)]) if ms >= 0 else 0
        high = int(ms_to_idx[max(ms + 1, 0)]) if ms < last_ms else len(self)
        return low, high

    def _check_index(self, index: int, bounds: tuple[int, int], t_us: int) -> None:
        """Raise a DeflareError where `ms_to_idx` sent the search to a wrong place: events would go missing unseen."""
        low, high = bounds
        if (
            not 0 <= low <= high <= len(self)
            or (index == low > 0 and self._time_at(low - 1) >= t_us)
            or (index == high < len(self) and self._time_at(high) < t_us)
        ):
            raise DeflareError(
                "ms_to_idx does not fit the timestamps; remove it from the file or write the file again."
            )


def open_recording(path: str | Path, reading: Reading = AS_STATED, *, progress: bool = True) -> Recording:
    """An open `Recording` of any format that `formats` knows; use it in a `with` block, or close it.

    Parameters
    ----------
    path : the recording.
    reading : what the file does not say itself, such as `Reading(sensor_size=(480, 640))`.
    progress : show a bar where a copy takes long.

    Raises
    ------
    RecordingError
        When the file cannot be read as asked; the message names it.
    """
    return Recording(path, reading) if find_format(path) is HDF5 else _open_copy(Path(path), reading, progress)


def read_windows(recording: Recording, starts: range, window_us: int, seed: int) -> Iterator[Window]:
    """The windows of a recording that begin at these absolute times, with causes where it carries them.

    From a window without events to the next event nothing is read.
    """
    has_causes = "label" in recording.extra_columns
    nothing = Window(0, Events.empty(recording.sensor_size), 0, np.empty(0, np.uint8) if has_causes else None)
    silent_until_us = -math.inf
    for t0_us in starts:
        span, own_seed = (t0_us, t0_us + window_us), derive_seed(seed, t0_us)
        if span[1] <= silent_until_us:
            yield nothing._replace(t0_us=t0_us, seed=own_seed)
            continue
        window = Window(t0_us, recording.window(*span), own_seed, nothing.causes)
        if not len(window.events):
            next_us = recording.next_event_us(t0_us)
            silent_until_us = math.inf if next_us is None else next_us
        elif has_causes:
            window = window._replace(causes=recording.column("label", *span))
        yield window


@contextmanager
def open_together(
    recordings: Mapping[str, Path | Recording], reading: Reading = AS_STATED
) -> Iterator[dict[str, Recording]]:
    """The named recordings, open and of one sensor size; those given by path are closed when the block ends.

    What was written here, such as a result beside its input, is in microseconds and of one stream, whatever `reading`
    says of these. It is a DeflareError if there is none, one cannot be read, or their sensors differ.
    """
    if not recordings:
        raise DeflareError("Expected at least one recording by name; received none.")
    with ExitStack() as stack:
        opened = {
            name: item if isinstance(item, Recording) else stack.enter_context(open_beside(item, reading))
            for name, item in recordings.items()
        }
        sizes = {name: recording.sensor_size for name, recording in opened.items()}
        if len(set(sizes.values())) > 1:
            raise DeflareError(f"The recordings must be of one sensor size (height, width); received {sizes}.")
        yield opened


def open_beside(path: str | Path, reading: Reading) -> Recording:
    """A recording beside others: one that was written here has neither another unit of time nor streams."""
    if find_format(path) is HDF5 and (reading.time_unit or reading.stream):
        known = replace(reading, time_unit=None, stream=None)
        with suppress(RecordingError), Recording(path, known) as recording:
            reading = known if recording.is_ours else reading
    return open_recording(path, reading)


def find_span_us(
    recordings: Mapping[str, Recording], t_start_us: int | None = None, t_end_us: int | None = None
) -> tuple[int, int]:
    """Start and end as given; what is None comes from the clocks of all recordings, first start and last end.

    A span that does not end after it starts is a DeflareError.
    """
    starts, ends = zip(*(recording.clock_us for recording in recordings.values()), strict=True)
    start = min(starts) if t_start_us is None else t_start_us
    end = max(ends) if t_end_us is None else t_end_us
    if end <= start:
        raise DeflareError(f"The span must end after it starts; received [{start}, {end}) us.")
    return start, end


def load_events(path: str | Path, reading: Reading = AS_STATED) -> Events:
    """All events of a recording on disk, at absolute microseconds; arguments and errors are `open_recording`'s."""
    with open_recording(path, reading) as recording:
        return recording.load()


def write_stream(target: Path, path: Path, reading: Reading, progress: bool = True) -> int:
    """The number of events written to the HDF5 recording `target`, going once through a file of another format."""
    sensor_size, pieces = read_stream(path, reading)
    source = f"{path.name}, {find_format(path).name}"
    # Only work of more than two seconds shows a bar.
    bar = tqdm(unit="event", unit_scale=True, desc=path.name, leave=False, delay=2, disable=not progress)
    with bar, name_errors(path), RecordingWriter(target, sensor_size, source=source) as writer:
        for events in pieces:
            writer.append(events)
            bar.update(len(events))
        return writer.num_events


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
    source : where the events come from, kept as an attribute, as `attributes` are.
    clock_us : start and end of the recorded time, where it is known.
    columns : further per-event arrays `(N,)` of any dtype, such as the cause of each event, by name.
    """
    with RecordingWriter(path, events.sensor_size, source=source, clock_us=clock_us, attributes=attributes) as writer:
        writer.append(events, **(columns or {}))


def _open_copy(path: Path, reading: Reading, progress: bool) -> Recording:
    """A recording in a format that can only be read from its start, opened as a temporary HDF5 copy.

    The copy is in the folder for temporary files (the environment variable TMPDIR moves it). It loses its name as soon
    as it is open, and its disk space when it is closed: nothing of it stays, however the process ends. What one leaves
    that is killed (SIGKILL) while it still copies is cleared away by the next.
    """
    with temporary_folder() as folder:
        copy = folder / "recording.h5"
        _write_copy(copy, path, reading, progress)
        recording = Recording(copy)
    recording.path = path
    return recording


def _write_copy(copy: Path, path: Path, reading: Reading, progress: bool) -> None:
    try:
        write_stream(copy, path, reading, progress)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OSError(
            error.errno,
            f"{copy.parent.parent}: no room for the temporary copy of {path}; make some, or set TMPDIR to another "
            "folder.",
        ) from error
