"""How a recording is read: what the caller says of it, what its reader finds, and errors that name the file."""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import numpy as np

from deflare_core.events import PolarityRule, SensorSize, check_sensor_size, convert_exactly
from deflare_core.io.oddities import Oddities
from deflare_core.system.atomic_files import NO_ROOM, NOT_ALLOWED
from deflare_core.system.errors import DeflareError, quote, shorten

log = logging.getLogger(__name__)

TimeUnit = Literal["s", "ms", "us", "ns"]
MICROSECONDS: Mapping[TimeUnit, Fraction] = {
    "s": Fraction(1_000_000),
    "ms": Fraction(1_000),
    "us": Fraction(1),
    "ns": Fraction(1, 1_000),
}
_PREFIXES: Mapping[TimeUnit, tuple[str, ...]] = {
    "s": ("",),
    "ms": ("m", "milli"),
    "us": ("u", "micro"),
    "ns": ("n", "nano"),
}
UNIT_WORDS = {
    prefix + word: unit
    for unit, prefixes in _PREFIXES.items()
    for prefix in prefixes
    for word in ("s", "sec", "secs", "second", "seconds")
}
"""The units in all the words that files use for them."""
MICRO_SIGNS = dict.fromkeys(map(ord, "\u00b5\u03bc\udcb5"), "u")
"""The sign before s in Unicode, the Greek letter that looks the same, and its byte in Windows' and ISO's codes."""
LATEST_US = 1 << 62
"""Times are less than this, 146,000 years from 0 on, so that sums of two of them fit 64 bits."""
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""t, x, y and p, one-dimensional, of one length and of any numeric dtype."""
HEAD_BYTES = 1 << 16
"""The part of a file that shows its format."""
PIECE_EVENTS = 1 << 18
"""Events that a reader hands on at once."""


OF_THE_MACHINE = (*NO_ROOM, *NOT_ALLOWED, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
"""Numbers of errors of the operating system that say nothing of the file that is read."""


class Content(NamedTuple):
    """What a reader finds in a file.

    Parameters
    ----------
    sensor_size : (height, width), if the file states it.
    pieces : its events, times in microseconds.
    layout : how they are laid out, in a few words.
    oddities : of a camera's file, counted while its pieces are read: events may be a little late, or off the sensor.
    """

    sensor_size: SensorSize | None
    pieces: Iterator[Columns]
    layout: str = ""
    oddities: Oddities | None = None


class RecordingError(DeflareError):
    """A recording that cannot be read as asked; the message names the file, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the caller says of a recording, for what the file does not say itself.

    Parameters
    ----------
    sensor_size : (height, width); one that contradicts the file is an error.
    polarity : "strict", or "lenient" to read 1 as positive and anything else as negative.
    time_unit : unit of the times in text, arrays and HDF5. Text must declare it, here or in the file; whole numbers in
        arrays and HDF5 are microseconds unless it is given. Camera files know theirs, and take no other.
    stream : the name of one of several streams of events in a file, such as a camera of a stereo recording.
    follow_links : whether to read what an HDF5 file has in other files, which may be any of its reader's.
    """

    sensor_size: SensorSize | None = None
    polarity: PolarityRule = "strict"
    time_unit: TimeUnit | None = None
    stream: str | None = None
    follow_links: bool = False

    def __post_init__(self) -> None:
        if self.polarity not in get_args(PolarityRule):
            raise DeflareError(f"polarity must be 'strict' or 'lenient'; received {self.polarity!r}.")
        if self.time_unit not in (None, *MICROSECONDS):
            raise DeflareError(f"time_unit must be 's', 'ms', 'us' or 'ns'; received {self.time_unit!r}.")

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

    def turn_size(self, stated: SensorSize) -> SensorSize:
        """A size that a file states in an order of its own: turned round where the caller gives it so."""
        return stated[::-1] if self.sensor_size == stated[::-1] else stated

    def agree_on_unit(self, stated: Mapping[str, str]) -> TimeUnit | None:
        """The one unit of time that the file states or the caller gives, if any does; two that differ are an error.

        `stated` holds the units that the file states, by where it does; a word that is no unit counts only if the
        caller gives none.
        """
        units = {place: name_unit(word) for place, word in stated.items()}
        if self.time_unit:
            units = {place: unit for place, unit in units.items() if unit in MICROSECONDS} | {
                "time_unit": self.time_unit
            }
        if unknown := {place: unit for place, unit in units.items() if unit not in MICROSECONDS}:
            words = quote(sorted(unknown.values()))
            raise DeflareError(
                f"the unit of time must be one of 's', 'ms', 'us' and 'ns'; declared are {words}. "
                "Give the right one (--time-unit), or correct the file."
            )
        if len(set(units.values())) > 1:
            raise DeflareError(
                f"the unit of time must be one; declared are {sorted(set(units.values()))}: {quote(units)}. Give none, "
                "or correct the file."
            )
        return cast(TimeUnit | None, next(iter(units.values()), None))

    def choose_stream(self, names: Collection[str]) -> str:
        """The one of the streams with these names that is asked for, or the only one.

        A name that none has is an error, as is no name where there are several; the message lists them.
        """
        if self.stream is None and len(names) == 1:
            return next(iter(names))
        listed = shorten(", ".join(names))
        if self.stream is None:
            first = shorten(next(iter(names)))
            raise DeflareError(f"holds {len(names)} streams of events: {listed}; choose one, as in --stream {first}.")
        if self.stream not in names:
            raise DeflareError(f"holds no stream {quote(self.stream)}; it has {listed}.")
        return self.stream


AS_STATED = Reading()
"""The caller says nothing: all is as the file states it."""


def name_unit(word: str) -> str:
    """The short name of a unit of time, such as `us` for microseconds; of what is none, the word itself."""
    plain = word.strip().lower().translate(MICRO_SIGNS)
    return UNIT_WORDS.get(plain, plain)


def pick_columns(arrays: Mapping[str, np.ndarray]) -> Columns:
    """The arrays t, x, y and p; ones that do not fit each other are an error."""
    check_shapes({name: arrays[name].shape for name in "txyp"})
    t, x, y, p = (arrays[name] for name in "txyp")
    return t, x, y, p


def check_shapes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a DeflareError unless the shapes are of one axis and of one length."""
    if len(set(shapes.values())) > 1 or len(shapes["t"]) != 1:
        raise DeflareError(f"t, x, y and p must be one-dimensional and of one length; their shapes are {shapes}.")


def to_microseconds(t: np.ndarray, unit: TimeUnit | None) -> np.ndarray:
    """Times `(N,)` of any numeric dtype as int64 microseconds: whole numbers exactly, others to the nearest one.

    Microseconds, which are also meant where no unit is given, must be whole. Times that do not fit are an error.
    """
    t = np.asarray(t)
    if unit is None and t.dtype.kind == "f" and (np.isfinite(t) & (t != np.trunc(t))).any():
        where = int((t != np.trunc(t)).argmax())
        raise DeflareError(
            "the times are not whole microseconds; give time_unit='s', 'ms' or 'ns' (--time-unit), whichever it is: "
            f"whole numbers were expected, received {t[where]} at event {where}."
        )
    factor = MICROSECONDS[unit or "us"]
    if t.dtype.kind == "f":
        t = t.astype(np.float64)
        t = t if factor == 1 else np.rint(t * factor.numerator if factor > 1 else t / factor.denominator)
        check_times(t, 2.0**53, "as floating-point numbers")
        return convert_exactly(t, np.int64, "t")
    t = convert_exactly(t, np.int64, "t")
    check_times(t, LATEST_US // factor.numerator, f"in {unit or 'us'}")
    return t * factor.numerator if factor >= 1 else t // factor.denominator + (t % factor.denominator >= 500)


def warn_of_coarse_times(path: Path, t: np.ndarray, unit: TimeUnit | None) -> None:
    """Log a warning where the times `(N,)` are floats of a type that cannot tell microseconds apart."""
    if t.dtype.kind != "f" or not len(t) or not np.isfinite(t).all():
        return
    step_us = float(np.spacing(np.abs(t).max())) * float(MICROSECONDS[unit or "us"])
    if step_us > 1:
        log.warning(f"{path}: its times are {t.dtype} and can be {step_us:,.0f} us off; write them as float64.")


def check_times(t: np.ndarray, limit: float, kind: str) -> None:
    """Raise a DeflareError unless all times are less than a limit, on either side of 0; nan and infinity pass."""
    beyond = ((t >= limit) | (t <= -limit)) & np.isfinite(t)
    if beyond.any():
        where = int(beyond.argmax())
        raise DeflareError(
            f"the time {t[where]} at event {where} is too far from 0 to be exact {kind}; check the times and their "
            "unit, or subtract a constant from all of them."
        )


@contextmanager
def name_errors(path: Path) -> Iterator[None]:
    """Turn an error of the user into a RecordingError that names the file; errors of the program pass as they are."""
    try:
        yield
    except RecordingError:
        raise
    except DeflareError as error:
        raise RecordingError(f"{path}: {error}") from error.__cause__ or error
    except MemoryError as error:
        raise RecordingError(f"{path}: there is not enough memory ({shorten(error)}); close other programs.") from error
    except (OverflowError, RecursionError) as error:
        raise RecordingError(f"{path}: the file is damaged ({shorten(error)}); copy or record it again.") from error


@contextmanager
def explain_damage(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into a DeflareError that says what to do; only for calls of a library.

    What the machine lacks (memory, room on a disk, permission) is no damage of the file, and says so itself.
    """
    try:
        yield
    except DeflareError:
        raise
    except MemoryError as error:
        raise DeflareError(
            f"there is not enough memory to read it ({shorten(error)}); close other programs."
        ) from error
    except kinds as error:
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
            raise
        raise DeflareError(f"the file is damaged ({shorten(error)}); copy or record it again.") from error
