"""What a file of events is: its format, sensor, events, clock and polarities, what is odd, and what would mend it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deflare_core.events import SensorSize, is_one_convention
from deflare_core.io.column_order import LARGEST_SIZE
from deflare_core.io.formats import HDF5, find_content, find_format
from deflare_core.io.hdf5_files import open_hdf5
from deflare_core.io.layouts import find_layout
from deflare_core.io.polarities import check_polarities
from deflare_core.io.reading import MICROSECONDS, Content, Reading, RecordingError, name_errors
from deflare_core.io.sorting import WRAP_US
from deflare_core.system.errors import DeflareError
from deflare_core.system.limits import HOUR_US, LONGEST_US

MOST_POLARITIES = 9
"""Distinct polarities that are counted; a column of more holds something else."""
LONG_SILENCE_US = 1_000_000
SORT = "--sort"
"""What only `deflare convert` takes; every command takes the other options that say what to make of a file."""


class Oddity(NamedTuple):
    """What is odd about a file, the option that says what to make of it, and whether nothing mends it."""

    what: str
    option: str = ""
    is_fatal: bool = False


@dataclass
class Tally:
    """What the events of a file are, as far as they have been added."""

    num_events: int = 0
    first_us: int = 0
    last_us: int = 0
    span_us: tuple[int, int] = (0, 0)
    reach: tuple[float, float] = (0, 0)
    """The largest y and x."""
    least: float = 0
    """The smallest x or y."""
    polarities: Counter[float] = field(default_factory=Counter)
    num_back: int = 0
    back_us: int = 0
    silence_us: int = 0
    num_whole_ms: int = 0
    num_between: int = 0
    """Values of x and y that are no whole numbers."""

    def add(self, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> None:
        """Count the events of a piece that follows those before it."""
        if not len(t):
            return
        for name, column in (("x", x), ("y", y)):
            if column.dtype.kind not in "iufb":
                raise DeflareError(f"Column {name} must be numeric; received dtype {column.dtype}.")
            self.num_between += int((column != np.trunc(column)).sum())
        start = int(t[0]) if not self.num_events else self.last_us
        steps = np.diff(t, prepend=start)
        low, high = self.span_us if self.num_events else (start, start)
        self.span_us = min(low, int(t.min())), max(high, int(t.max()))
        self.first_us = self.first_us if self.num_events else start
        self.last_us = int(t[-1])
        self.reach = max(self.reach[0], y.max()), max(self.reach[1], x.max())
        self.least = min(self.least, x.min(), y.min())
        self.num_back += int((steps < 0).sum())
        self.back_us = max(self.back_us, -int(steps.min()))
        self.silence_us = max(self.silence_us, int(steps.max()))
        self.num_whole_ms += int((t % 1000 == 0).sum())
        self.num_events += len(t)
        # Whole numbers are counted as such: 0.0 is told as 0.
        whole = p.astype(np.int64) if p.dtype.kind in "fb" and (p == np.trunc(p)).all() else p
        values, counts = np.unique(whole, return_counts=True)
        for value, count in zip(values[:MOST_POLARITIES].tolist(), counts.tolist(), strict=False):
            self.polarities[value] += count


@dataclass(frozen=True)
class Description:
    """What a file of events is; `str` gives it line by line."""

    path: Path
    format: str
    layout: str
    sensor_size: SensorSize | None
    tally: Tally
    oddities: list[Oddity]
    reading: Reading
    """As it was asked for."""

    def __str__(self) -> str:
        lines = [f"{name:<10}{value}" for name, value in self._facts()]
        lines += [f"{'odd':<10}{oddity.what}" for oddity in self.oddities] or [f"{'odd':<10}nothing"]
        options = [oddity.option for oddity in self.oddities if oddity.option]
        if options and not any(oddity.is_fatal for oddity in self.oddities):
            name, said = shlex.quote(str(self.path)), " ".join([*list_options(self.reading), *options])
            commands = {"mend": f"deflare infer -i {name} {said}", "or": f"deflare convert {name} NEW.h5 {said}"}
            if SORT in options:
                commands = {"mend": commands["or"]}
            lines += [f"{name:<10}{command}" for name, command in commands.items()]
        return "\n".join(lines)

    def _facts(self) -> Iterator[tuple[str, str]]:
        tally, (start_us, end_us) = self.tally, self.tally.span_us
        duration_us = end_us - start_us
        yield "file", f"{self.path}"
        yield "format", self.format + (f": {self.layout}" if self.layout else "")
        yield (
            "sensor",
            f"{self.sensor_size[0]} x {self.sensor_size[1]} (height, width)" if self.sensor_size else "not stated",
        )
        yield "events", f"{tally.num_events:,}"
        if tally.num_events:
            yield "reach", f"y up to {tally.reach[0]:g}, x up to {tally.reach[1]:g}"
            yield "clock", f"from {start_us:,} us to {end_us:,} us"
            yield "duration", f"{duration_us / 1e6:,.6f} s"
            yield "rate", f"{tally.num_events / max(duration_us, 1) * 1e6:,.0f} events a second"
            yield "polarity", ", ".join(f"{value}: {count:,}" for value, count in sorted(tally.polarities.items()))


def describe(path: str | Path, reading: Reading) -> Description:
    """What a file is, read once from its start to its end in bounded memory.

    What the file does not say, and `reading` does not either, is guessed where it must be, and named as odd. A file
    that cannot be read in any way is a RecordingError.
    """
    path = Path(path)
    first: DeflareError | None = None
    for guess in _guesses(reading):
        try:
            return _describe(path, guess, reading, first)
        except RecordingError as error:
            first = first or error
    assert first is not None, "There is always one guess."
    raise first


def _guesses(reading: Reading) -> Iterator[Reading]:
    """The reading itself, then with the unit of time or the sensor that the file may lack."""
    yield reading
    units = [reading.time_unit] if reading.time_unit else ["us", "s"]
    sizes = [reading.sensor_size] if reading.sensor_size else [None, LARGEST_SIZE]
    yield from (replace(reading, time_unit=unit, sensor_size=size) for size in sizes for unit in units)  # type: ignore[arg-type]


def _describe(path: Path, guess: Reading, said: Reading, refusal: DeflareError | None) -> Description:
    form, tally = find_format(path), Tally()
    with name_errors(path):
        if form is HDF5:
            with open_hdf5(path, guess) as file:
                layout = find_layout(file, guess)
                content = Content(layout.sensor_size, layout.pieces(), str(layout))
                clock_us = layout.clock_us
                _add_all(tally, content)
        else:
            content, clock_us = find_content(path, guess), None
            _add_all(tally, content)
    size = said.sensor_size or content.sensor_size
    oddities = [Oddity(line) for line in content.oddities.lines()] if content.oddities else []
    oddities += _find_oddities(tally, size, clock_us, said)
    if refusal and guess.time_unit != said.time_unit:
        oddities.insert(0, Oddity(_describe_units(tally, guess), "--time-unit UNIT"))
    return Description(path, form.name, content.layout, size, tally, oddities, said)


def list_options(reading: Reading) -> Iterator[str]:
    """The options of the command line that say what a reading does."""
    if reading.sensor_size:
        yield f"--sensor-size {reading.sensor_size[0]} {reading.sensor_size[1]}"
    if reading.polarity != "strict":
        yield f"--polarity {reading.polarity}"
    if reading.time_unit:
        yield f"--time-unit {reading.time_unit}"
    if reading.stream:
        yield f"--stream {reading.stream}"
    if reading.follow_links:
        yield "--follow-links"


def _add_all(tally: Tally, content: Content) -> None:
    for columns in content.pieces:
        tally.add(*columns)


def _describe_units(tally: Tally, guess: Reading) -> str:
    guessed = MICROSECONDS[guess.time_unit or "us"]
    span_us = tally.span_us[1] - tally.span_us[0]
    lengths = ", ".join(
        f"in {unit} {float(span_us * us / guessed / 1_000_000):g} s" for unit, us in MICROSECONDS.items()
    )
    return f"its unit of time is not stated ({guess.time_unit} is taken here): it would last {lengths}"


def _find_oddities(
    tally: Tally, size: SensorSize | None, clock_us: tuple[int, int] | None, reading: Reading
) -> Iterator[Oddity]:
    """What is odd about the events of a file."""
    if not tally.num_events:
        yield Oddity("it holds no events")
    if size is None:
        yield Oddity("its sensor is not stated", "--sensor-size HEIGHT WIDTH")
    elif tally.num_events and (tally.reach[0] >= size[0] or tally.reach[1] >= size[1] or tally.least < 0):
        yield Oddity(f"events lie outside the sensor of height {size[0]} and width {size[1]}", is_fatal=True)
    if tally.num_between:
        yield Oddity(f"{tally.num_between:,} values of x and y are no whole numbers", is_fatal=True)
    if tally.back_us > WRAP_US:
        yield Oddity(
            f"its clock goes back by {tally.back_us / 1e6:,.1f} s: it started again; divide the recording there"
        )
    elif tally.num_back:
        yield Oddity(f"time goes back {tally.num_back:,} times, by up to {tally.back_us:,} us", SORT)
    yield from _find_odd_polarities(tally, reading)
    yield from _find_odd_times(tally, clock_us)


def _find_odd_polarities(tally: Tally, reading: Reading) -> Iterator[Oddity]:
    found: set[float | str] = set(tally.polarities)
    try:
        check_polarities(found, reading.polarity)
    except DeflareError as error:
        is_mended = is_one_convention(found, "lenient") and 0 not in found
        yield Oddity(str(error), "--polarity lenient" if is_mended else "", not is_mended)
    if len(found) == 1:
        yield Oddity("all its events have one polarity")


def _find_odd_times(tally: Tally, clock_us: tuple[int, int] | None) -> Iterator[Oddity]:
    start_us, end_us = tally.span_us
    if tally.silence_us > LONG_SILENCE_US:
        yield Oddity(f"there is a silence of {tally.silence_us / 1e6:,.1f} s")
    if end_us - start_us > LONGEST_US:
        yield Oddity(
            "it is longer than the 24 hours that are written; check its unit of time, or divide it", is_fatal=True
        )
    if tally.num_events > 1 and tally.num_whole_ms == tally.num_events:
        yield Oddity("all times are whole milliseconds; a window of a few is coarse")
    if clock_us and not 0 <= clock_us[1] - clock_us[0] <= LONGEST_US:
        hours = (clock_us[1] - clock_us[0]) / HOUR_US
        yield Oddity(f"it declares a clock of {hours:,.0f} hours; at most 24 are read, correct it", is_fatal=True)
    if clock_us and tally.num_events and not clock_us[0] <= start_us <= end_us < clock_us[1]:
        yield Oddity(
            f"it declares the clock [{clock_us[0]}, {clock_us[1]}) us, and has events outside it", is_fatal=True
        )
