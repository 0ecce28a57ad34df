"""How a recording is read: what the caller says of it, what its reader finds, and errors that name the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from deflare_core.events import PolarityRule, SensorSize, check_sensor_size
from deflare_core.system.errors import DeflareError

TimeUnit = Literal["s", "ms", "us"]
MICROSECONDS: Mapping[TimeUnit, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""t, x, y and p, one-dimensional, of one length and of any numeric dtype."""
Content = tuple[SensorSize | None, Iterator[Columns]]
"""What a reader finds in a file: the sensor (height, width) that it states, and its events, times in microseconds."""
HEAD_BYTES = 1 << 16
"""The part of a file that shows its format."""
PIECE_EVENTS = 1 << 18
"""Events that a reader hands on at once."""


class RecordingError(DeflareError):
    """A recording that cannot be read as asked; the message names the file, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the caller says of a recording, for what the file does not say itself.

    Parameters
    ----------
    sensor_size : (height, width); one that contradicts the file is an error.
    polarity : "strict", or "lenient" to read 1 as positive and anything else as negative.
    time_unit : unit of the times in text and arrays. Text must declare it, here or in the file; whole numbers in
        arrays are microseconds unless it is given. All other formats know theirs.
    stream : the name of one of several streams of events in a file, such as a camera of a stereo recording.
    """

    sensor_size: SensorSize | None = None
    polarity: PolarityRule = "strict"
    time_unit: TimeUnit | None = None
    stream: str | None = None

    def __post_init__(self) -> None:
        if self.polarity not in get_args(PolarityRule):
            raise DeflareError(f"polarity must be 'strict' or 'lenient'; received {self.polarity!r}.")
        if self.time_unit not in (None, *MICROSECONDS):
            raise DeflareError(f"time_unit must be 's', 'ms' or 'us'; received {self.time_unit!r}.")

    def agree_on_size(self, stated: SensorSize | None) -> SensorSize:
        """The one size (height, width) that the file states or the caller gives; two that differ are an error."""
        asked = stated if self.sensor_size is None else check_sensor_size(self.sensor_size)
        if asked is None:
            raise DeflareError(
                "the file does not state its sensor; give sensor_size=(height, width), as in --sensor-size 480 640, or "
                "write a file that does: deflare convert OLD NEW.h5 --sensor-size 480 640."
            )
        if stated not in (None, asked):
            raise DeflareError(
                f"the sensor is {stated} (height, width), but {asked} was asked for; the file states that size itself, "
                "so give none or the same, and if events lie outside it, correct them or that statement."
            )
        return asked

    def choose_stream(self, names: Collection[str]) -> str:
        """The one of the streams with these names that is asked for, or the only one.

        A name that none has is an error, as is no name where there are several; the message lists them.
        """
        if self.stream is None and len(names) == 1:
            return next(iter(names))
        listed = ", ".join(names)
        if self.stream is None:
            raise DeflareError(
                f"holds {len(names)} streams of events: {listed}; choose one, as in --stream {next(iter(names))}."
            )
        if self.stream not in names:
            raise DeflareError(f"holds no stream {self.stream!r}; it has {listed}.")
        return self.stream


AS_STATED = Reading()
"""The caller says nothing: all is as the file states it."""


def pick_columns(arrays: Mapping[str, np.ndarray]) -> Columns:
    """The arrays t, x, y and p by their names; one that is missing or does not fit the others is an error."""
    missing = [name for name in "txyp" if name not in arrays]
    if missing:
        raise DeflareError(f"lacks {missing}; it holds {sorted(arrays)}.")
    check_shapes({name: arrays[name].shape for name in "txyp"})
    t, x, y, p = (arrays[name] for name in "txyp")
    return t, x, y, p


def check_shapes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a DeflareError unless the shapes are of one axis and of one length."""
    if len(set(shapes.values())) > 1 or len(shapes["t"]) != 1:
        raise DeflareError(f"t, x, y and p must be one-dimensional and of one length; their shapes are {shapes}.")


def to_microseconds(t: np.ndarray, unit: TimeUnit) -> np.ndarray:
    """Times `(N,)` in microseconds: whole numbers stay exact, others are rounded to the nearest one."""
    if unit == "us" or t.dtype.kind not in "iuf":
        return t
    if t.dtype.kind != "f":
        return t.astype(np.int64) * MICROSECONDS[unit]
    return np.rint(t.astype(np.float64) * MICROSECONDS[unit])


@contextmanager
def name_errors(path: Path) -> Iterator[None]:
    """Turn an error of the user into a RecordingError that names the file; errors of the program pass as they are."""
    try:
        yield
    except RecordingError:
        raise
    except DeflareError as error:
        raise RecordingError(f"{path}: {error}") from error.__cause__ or error


@contextmanager
def explain_damage(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into a DeflareError that says what to do; only for calls of a library."""
    try:
        yield
    except DeflareError:
        raise
    except kinds as error:
        raise DeflareError(f"the file is damaged ({error}); copy or record it again.") from error
