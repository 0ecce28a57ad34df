"""Recordings of one scene opened together, such as the one before and the one after deflaring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deflare_core.events import PolarityRule, SensorSize
from deflare_core.io.columns import TimeUnit
from deflare_core.io.recordings import Recording, open_recording
from deflare_core.system.errors import DeflareError


@contextmanager
def opened_together(
    recordings: Mapping[str, Path | Recording],
    sensor_size: SensorSize | None = None,
    polarity: PolarityRule = "strict",
    time_unit: TimeUnit | None = None,
) -> Iterator[dict[str, Recording]]:
    """The named recordings, open and of one sensor size; those given by path are closed when the block ends.

    Parameters
    ----------
    recordings : open recordings or paths by name.
    sensor_size, polarity, time_unit : how those given by path are read, as in `open_recording`.

    Raises
    ------
    DeflareError
        When there is none, or when their sensors differ.
    RecordingError
        When one cannot be read.
    """
    if not recordings:
        raise DeflareError("Expected at least one recording by name; received none.")
    with ExitStack() as stack:
        opened = {
            name: item
            if isinstance(item, Recording)
            else stack.enter_context(open_recording(item, sensor_size, polarity, time_unit))
            for name, item in recordings.items()
        }
        sizes = {name: recording.sensor_size for name, recording in opened.items()}
        if len(set(sizes.values())) > 1:
            raise DeflareError(f"The recordings must be of one sensor size (height, width); received {sizes}.")
        yield opened


def shared_span_us(
    recordings: Mapping[str, Recording], t_start_us: int | None = None, t_end_us: int | None = None
) -> tuple[int, int]:
    """Start and end as given; what is None comes from the clocks of all recordings, first start and last end.

    Raises
    ------
    DeflareError
        When nothing lies between them.
    """
    starts, ends = zip(*(recording.clock_us for recording in recordings.values()), strict=True)
    start = min(starts) if t_start_us is None else t_start_us
    end = max(ends) if t_end_us is None else t_end_us
    if end <= start:
        raise DeflareError(f"The span must end after it starts; received [{start}, {end}) us.")
    return start, end
