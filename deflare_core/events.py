"""Events: four equal-length arrays `t, x, y, p` and the size of the sensor that fired them.

Everything else in the package is written in terms of this one noun. Timestamps are absolute integer
microseconds and stay so: no function here or elsewhere moves the origin to the first event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deflare_core.system.errors import DeflareError, quote
from deflare_core.system.limits import MOST_PIXELS, MOST_ROWS

SensorSize = tuple[int, int]
PolarityRule = Literal["strict", "lenient"]

WINDOW_US = 20_000
NUM_BINS = 8
BACKGROUND, LIGHT, FLARE, NOISE = range(4)
CAUSES = {BACKGROUND: "background", LIGHT: "light", FLARE: "flare", NOISE: "noise"}
"""What made an event, by the number that simulated recordings keep beside it (column `label`)."""

BACKWARDS_ADVICE = (
    "Sort it (deflare convert OLD NEW.h5 --sort) if events are out of order; divide it where its clock starts again."
)
STRUCTURED_DTYPE = np.dtype([("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "i1")])
"""One event as the tonic library stores it, except that `p` is in {-1, +1}."""


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """A recording, or a stretch of one, in memory.

    Parameters
    ----------
    t : int64 array, microseconds, non-decreasing.
    x, y : uint16 arrays, column and row of the pixel.
    p : int8 array, polarity in {-1, +1}.
    sensor_size : (height, width).

    Raises
    ------
    DeflareError
        When the arrays differ in length or dtype, time goes backwards, a pixel lies outside the sensor, or
        a polarity is neither -1 nor +1.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    sensor_size: SensorSize

    def __post_init__(self) -> None:
        object.__setattr__(self, "sensor_size", check_sensor_size(self.sensor_size))
        _check_layout(self)
        _check_values(self)

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, index: slice | np.ndarray) -> Events:
        """Events at a slice or a boolean mask, in their order (a slice is a view, not a copy)."""
        if isinstance(index, np.ndarray) and index.dtype != np.bool_:
            raise TypeError(f"Events are indexed by a slice or a boolean mask; received an array of {index.dtype}.")
        if isinstance(index, slice) and (index.step or 1) < 1:
            raise ValueError(f"A slice of events needs a positive step; received {index.step}.")
        if isinstance(index, np.ndarray):
            if index.shape != self.t.shape:
                raise IndexError(f"The mask has the shape {index.shape}, but there are {len(self)} events.")
            index = np.flatnonzero(index)  # Gathering by number is five times as fast as by mask.
        return trust_columns(self.t[index], self.x[index], self.y[index], self.p[index], self.sensor_size)

    @property
    def duration_us(self) -> int:
        """Microseconds from the first event to the last; 0 for fewer than two events."""
        return int(self.t[-1] - self.t[0]) if len(self) else 0

    def window(self, t_start_us: int, t_end_us: int) -> Events:
        """Events of the half-open interval `[t_start_us, t_end_us)`, timestamps unchanged, as a view."""
        first, last = np.searchsorted(self.t, (t_start_us, t_end_us))
        return self[first:last]

    def windows(
        self, t0_us: int, num_windows: int, window_us: int = WINDOW_US, stride_us: int | None = None
    ) -> Iterator[Events]:
        """Events of each absolute window `[t0 + k*stride, t0 + k*stride + window)`; a silent window comes out empty."""
        stride = window_us if stride_us is None else stride_us
        for k in range(num_windows):
            start = t0_us + k * stride
            yield self.window(start, start + window_us)

    def to_array(self) -> np.ndarray:
        """An `(N, 4)` int64 array with columns `t, x, y, p`."""
        return np.column_stack([c.astype(np.int64) for c in (self.t, self.x, self.y, self.p)])

    def to_structured(self) -> np.ndarray:
        """A structured array with fields `x, y, t, p`, as the tonic library uses."""
        out = np.empty(len(self), STRUCTURED_DTYPE)
        for name in ("x", "y", "t", "p"):
            out[name] = getattr(self, name)
        return out

    @classmethod
    def from_columns(
        cls,
        t: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        p: np.ndarray,
        sensor_size: SensorSize,
        *,
        polarity: PolarityRule = "strict",
    ) -> Events:
        """Events from columns of any numeric dtype; values that do not survive the conversion are an error."""
        return cls(
            convert_exactly(t, np.int64, "t"),
            convert_exactly(x, np.uint16, "x"),
            convert_exactly(y, np.uint16, "y"),
            normalise_polarity(p, polarity),
            sensor_size,
        )

    @classmethod
    def from_array(cls, array: np.ndarray, sensor_size: SensorSize, *, polarity: PolarityRule = "strict") -> Events:
        """Events from an `(N, 4)` array `[t, x, y, p]` or a structured array with fields `x, y, t, p`."""
        array = np.asarray(array)
        if array.dtype.names is not None:
            missing = {"t", "x", "y", "p"} - set(array.dtype.names)
            if missing:
                raise DeflareError(f"The structured array lacks {sorted(missing)}; it has {list(array.dtype.names)}.")
            t, x, y, p = (array[name] for name in "txyp")
            return cls.from_columns(t, x, y, p, sensor_size, polarity=polarity)
        if array.ndim != 2 or array.shape[1] != 4:
            raise DeflareError(f"Expected an (N, 4) array of [t, x, y, p]; received shape {array.shape}.")
        t, x, y, p = array.T
        return cls.from_columns(t, x, y, p, sensor_size, polarity=polarity)

    @classmethod
    def empty(cls, sensor_size: SensorSize) -> Events:
        """A recording without events."""
        return cls.from_array(np.empty((0, 4)), sensor_size)

    @classmethod
    def concatenate(cls, parts: list[Events]) -> Events:
        """One recording from consecutive stretches of the same sensor.

        Raises
        ------
        ValueError
            When `parts` is empty, the sensors differ, or a stretch starts before the one before it ended.
        """
        if not parts:
            raise ValueError("Nothing to concatenate: give at least one stretch of events.")
        sizes = {part.sensor_size for part in parts}
        if len(sizes) > 1:
            raise ValueError(f"Only events of one sensor can be joined; received sizes {sorted(sizes)}.")
        t, x, y, p = (np.concatenate([getattr(part, name) for part in parts]) for name in "txyp")
        return cls(t, x, y, p, sizes.pop())


def normalise_polarity(values: np.ndarray, rule: PolarityRule = "strict") -> np.ndarray:
    """Polarities of a whole recording as int8 in {-1, +1}: 1 (or True) is +1; 0, -1 and False are -1.

    The rule `lenient` is the project record's: anything that is not 1 counts as -1. A DeflareError lists the values
    where they follow no one convention (`is_one_convention`).
    """
    if not is_one_convention(found := find_polarities(values), rule):
        raise DeflareError(describe_polarities(found))
    return sign_polarities(values)


def sign_polarities(values: np.ndarray) -> np.ndarray:
    """Polarities `(N,)` as int8: +1 where they are 1, -1 elsewhere; `is_one_convention` says whether that is right."""
    return 2 * (np.asarray(values) == 1).view(np.int8) - 1


def find_polarities(values: np.ndarray) -> set[float | str]:
    """The distinct values of a column of polarities; of those that are none of -1, 0 and 1 at most eight."""
    values = np.asarray(values)
    usual = {number: values == number for number in (-1, 0, 1)}
    found: set[float | str] = {number for number, where in usual.items() if where.any()}
    others = values[~(usual[-1] | usual[0] | usual[1])]
    return found | set(np.unique(others)[:8].tolist())


def describe_polarities(found: set[float | str]) -> str:
    """What is wrong with the distinct polarities of a recording that follow no one convention."""
    listed = ", ".join(str(value) for value in sorted(found, key=str)[:8])
    return f"Polarity must be 0/1, -1/+1 or False/True; found the values {listed}."


def is_one_convention(found: set[float | str], rule: PolarityRule = "strict") -> bool:
    """Whether the distinct polarities of a recording are 0/1, -1/+1 or False/True.

    `lenient` takes any of which 1 is one, except 1/2, where 2 is the positive one in files of MATLAB.
    """
    return found <= {0, 1} or found <= {-1, 1} or (rule == "lenient" and 1 in found and found != {1, 2})


def check_sensor_size(sensor_size: SensorSize) -> SensorSize:
    """The size as two Python integers `(height, width)`, each from 1 to 65,536; a DeflareError if no sensor is so."""
    try:
        height, width = map(int, map(float, sensor_size))
        if [height, width] != [*map(float, sensor_size)]:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DeflareError(f"sensor_size must be (height, width); received {quote(sensor_size)}.") from None
    if not (1 <= height <= MOST_ROWS and 1 <= width <= MOST_ROWS and height * width <= MOST_PIXELS):
        raise DeflareError(
            f"sensor_size must be (height, width) from 1 to {MOST_ROWS} pixels each, at most {MOST_PIXELS:,} in all; "
            f"received {quote(sensor_size)}."
        )
    return height, width


def trust_columns(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray, sensor_size: SensorSize) -> Events:
    """Events whose columns are known to be valid, because they were cut from valid ones or just made so."""
    events = object.__new__(Events)
    for name, value in zip(("t", "x", "y", "p", "sensor_size"), (t, x, y, p, sensor_size), strict=True):
        object.__setattr__(events, name, value)
    return events


def digest_events(events: Events) -> str:
    """The SHA-256 of the columns t, x, y, p, in hexadecimal."""
    total = hashlib.sha256()
    for name in ("t", "x", "y", "p"):
        total.update(np.ascontiguousarray(getattr(events, name)).tobytes())
    return total.hexdigest()


def convert_exactly(values: np.ndarray, dtype: type[np.integer], name: str) -> np.ndarray:
    """The values of column `name` in `dtype`; a value that would change on the way is a DeflareError."""
    values = np.asarray(values)
    if values.dtype == dtype:
        return values
    if values.dtype.kind not in "iufb":
        raise DeflareError(f"Column {name} must be numeric; received dtype {values.dtype}.")
    info = np.iinfo(dtype)
    unfit = ~np.isfinite(values) | (values < info.min) | (values > info.max)
    if values.dtype.kind == "f":
        unfit |= values >= float(info.max) + 1  # As a float, the largest int64 is 2^63, which is no int64.
    unfit |= values != np.trunc(values)
    if unfit.any():
        where = int(unfit.argmax())
        unit = " (time is in whole microseconds)" if name == "t" else ""
        raise DeflareError(
            f"Column {name} must hold whole numbers that fit {np.dtype(dtype)}{unit}; "
            f"received {values[where]} at event {where}."
        )
    return values.astype(dtype)


def _check_layout(events: Events) -> None:
    expected = {"t": np.int64, "x": np.uint16, "y": np.uint16, "p": np.int8}
    for name, dtype in expected.items():
        column = getattr(events, name)
        if not isinstance(column, np.ndarray) or column.dtype != dtype or column.ndim != 1:
            array = isinstance(column, np.ndarray)
            found = f"{column.dtype} of shape {column.shape}" if array else type(column).__name__
            raise ValueError(
                f"Column {name} must be a one-dimensional {np.dtype(dtype)} array; received {found}. "
                "Events.from_columns converts other types."
            )
    lengths = {name: len(getattr(events, name)) for name in expected}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Columns must have one length; received {lengths}.")


def check_order(t: np.ndarray, start: int = 0) -> None:
    """Raise a DeflareError if times go backwards; the first of them belongs to event number `start`."""
    backwards = t[1:] < t[:-1]
    if backwards.any():
        i = int(backwards.argmax())
        raise DeflareError(
            f"Time must not go backwards: event {start + i + 1} is at {t[i + 1]} us, the one before it at {t[i]} us. "
            f"{BACKWARDS_ADVICE}"
        )


def _check_values(events: Events) -> None:
    check_order(events.t)
    height, width = events.sensor_size
    for name, limit in (("x", width), ("y", height)):
        column = getattr(events, name)
        largest = int(column.max(initial=0))
        if largest >= limit:
            i = int((column >= limit).argmax())
            raise DeflareError(
                f"{name} reaches {largest}, outside the sensor of height {height} and width {width}; the first such "
                f"event, number {i} of those read at once, is at x {events.x[i]}, y {events.y[i]}, {events.t[i]} us. "
                "Give the sensor size of the camera that made the recording; where the file states another, correct "
                "that statement or such events."
            )
    if not (np.abs(events.p) == 1).all():
        raise DeflareError(f"Column p must hold only -1 and +1; found {np.unique(events.p)[:8].tolist()}.")
