"""Excerpts: a part of a recording, read as though the recording held nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deflare_core.events import BACKWARDS_ADVICE, Events
from deflare_core.io.reading import PIECE_EVENTS, RecordingError, name_errors
from deflare_core.io.recordings import Recording
from deflare_core.io.writer import check_length
from deflare_core.system.limits import HOUR_US
from deflare_core.windows import Clock

Crop = tuple[int, int, int, int]
"""Top row and left column of a part of the frame, then its height and width."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a recording that is asked for; none: all of it.

    Parameters
    ----------
    start_us, end_us : from when and until when, absolute microseconds of the recording's clock.
    crop : the part of the frame.
    """

    start_us: int | None = None
    end_us: int | None = None
    crop: Crop | None = None

    def open(self, recording: Recording) -> Recording:
        """The part of an open recording.

        Raises
        ------
        RecordingError
            When the recording has no such part.
        """
        if self == WHOLE:
            return recording
        return Excerpt(recording, self._find_clock(recording), self.crop or (0, 0, *recording.sensor_size))

    def _find_clock(self, recording: Recording) -> Clock | None:
        """Start and end of the part, or None where it is not a part in time."""
        asked = {"from": self.start_us, "to": self.end_us}
        said = " ".join(f"{word} {time_us / 1e6:.6f} s" for word, time_us in asked.items() if time_us is not None)
        if not said:
            return None
        first, last = recording.clock_us
        start = first if self.start_us is None else max(first, self.start_us)
        end = last if self.end_us is None else min(last, self.end_us)
        if end <= start:
            raise RecordingError(
                f"{recording.path}: has nothing {said}; its clock runs from {first / 1e6:.6f} s to {last / 1e6:.6f} s."
            )
        return start, end


WHOLE = Part()


class Excerpt(Recording):
    """A part of an open recording, read by windows: a clock of its own, and a sensor of the crop's size.

    Times and the grid of windows are those of the recording, pixels count from the crop's top left corner. To close
    the part is to close the recording.

    Parameters
    ----------
    whole : the recording.
    clock_us : start and end of the part; none takes those of the recording.
    crop : the part of the frame.

    Raises
    ------
    RecordingError
        When the crop is not within the sensor.
    """

    def __init__(self, whole: Recording, clock_us: Clock | None, crop: Crop) -> None:
        vars(self).update(vars(whole))  # The same file and the same columns, seen in part.
        self._clock_us, self._declared_us = clock_us or whole.clock_us, clock_us or whole.declared_clock_us
        self._grid_us = whole.clock_us[0] if whole.declares_clock else 0
        self._whole_size, (self._top, self._left, *size) = whole.sensor_size, crop
        self._is_whole_frame = crop == (0, 0, *whole.sensor_size)
        height, width = whole.sensor_size
        if min(crop) < 0 or min(size) < 1 or self._top + size[0] > height or self._left + size[1] > width:
            raise RecordingError(
                f"{self.path}: the crop must lie within the sensor of height {height} and width {width}; received "
                f"{' '.join(map(str, crop))} (top, left, height, width)."
            )
        self.sensor_size = size[0], size[1]

    @property
    def declared_clock_us(self) -> Clock | None:
        """Start and end of the part; of all time, as the file declares them, if it does."""
        return self._declared_us

    @property
    def clock_us(self) -> Clock:
        """Start and end of the part."""
        return self._clock_us

    def window_starts(self, window_us: int) -> range:
        """The times at which those windows of the whole recording begin that hold something of the part."""
        start, end = self._clock_us
        return range(start - (start - self._grid_us) % window_us, end, window_us)

    def window(self, t_start_us: int, t_end_us: int) -> Events:
        """Events of the part in `[t_start_us, t_end_us)`."""
        return self._take(super().window(*self._clip(t_start_us, t_end_us)))

    def column(self, name: str, t_start_us: int, t_end_us: int) -> np.ndarray:
        """The values of an extra column for the events that `window` gives."""
        span = self._clip(t_start_us, t_end_us)
        return super().column(name, *span)[self._is_inside(super().window(*span))]

    def check_all_read(self, num_events: int) -> None:
        """Raise a RecordingError unless `num_events` are all of the part."""
        with name_errors(self.path):
            first, last = self._span(*self._clock_us)
        num_all = last - first if self._is_whole_frame else self._count(first, last)
        if num_events != num_all:
            raise RecordingError(
                f"{self.path}: Time must not go backwards: of {num_all} events of the part {num_events} lie in its "
                f"windows. {BACKWARDS_ADVICE}"
            )

    def check_length(self) -> None:
        """Raise a RecordingError unless the part is short enough to be written as a recording."""
        with name_errors(self.path):
            check_length(self._clock_us[1] - self._clock_us[0] // HOUR_US * HOUR_US)

    def _slice(self, first: int, last: int) -> Events:
        """Events of the whole frame by number."""
        return Events.from_columns(*self._read(first, last), self._whole_size)

    def _clip(self, t_start_us: int, t_end_us: int) -> Clock:
        start, end = self._clock_us
        return max(start, t_start_us), min(end, t_end_us)

    def _is_inside(self, events: Events) -> np.ndarray:
        (height, width), y, x = self.sensor_size, events.y, events.x
        top, left = self._top, self._left
        return (y >= top) & (y < top + height) & (x >= left) & (x < left + width)

    def _take(self, events: Events) -> Events:
        if self._is_whole_frame:
            return events
        inside = events[self._is_inside(events)]
        y, x = (column - np.uint16(corner) for column, corner in ((inside.y, self._top), (inside.x, self._left)))
        return Events(inside.t, x, y, inside.p, self.sensor_size)

    def _count(self, first: int, last: int) -> int:
        """How many of the events with these numbers are inside the crop."""
        num_inside = 0
        for start in range(first, last, PIECE_EVENTS):
            with name_errors(self.path):
                num_inside += int(self._is_inside(self._slice(start, min(start + PIECE_EVENTS, last))).sum())
        return num_inside
