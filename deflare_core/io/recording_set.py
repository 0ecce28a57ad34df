"""Recordings of one scene opened together, such as the one before and the one after deflaring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deflare_core.io.reading import AS_STATED, Reading
from deflare_core.io.recordings import Recording, open_as
from deflare_core.system.errors import DeflareError


@contextmanager
def open_together(
    recordings: Mapping[str, Path | Recording], reading: Reading = AS_STATED
) -> Iterator[dict[str, Recording]]:
    """The named recordings, open and of one sensor size; those given by path are closed when the block ends.

    Parameters
    ----------
    recordings : open recordings or paths by name.
    reading : what the caller says of those given by path.

    Raises
    ------
    DeflareError
        When there is none, when one cannot be read, or when their sensors differ.
    """
    if not recordings:
        raise DeflareError("Expected at least one recording by name; received none.")
    with ExitStack() as stack:
        opened = {
            name: item if isinstance(item, Recording) else stack.enter_context(open_as(item, reading))
            for name, item in recordings.items()
        }
        sizes = {name: recording.sensor_size for name, recording in opened.items()}
        if len(set(sizes.values())) > 1:
            raise DeflareError(f"The recordings must be of one sensor size (height, width); received {sizes}.")
        yield opened


def find_span_us(
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
