"""Inspection of recordings: what one is before anything is computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deflare_core.events import WINDOW_US, Events
from deflare_core.io.recordings import open_recording
from deflare_core.streams.statistics import find_on_share
from deflare_core.system.markdown import markdown_table


@dataclass(frozen=True, slots=True)
class Inspected:
    """A recording as it is inspected.

    Parameters
    ----------
    events : its events.
    clock_us : start and end of the recorded time.
    labels : the cause of each event (keys of `metrics.CAUSES`), where the recording carries it.
    """

    events: Events
    clock_us: tuple[int, int]
    labels: NDArray[np.uint8] | None = None

    @property
    def duration_us(self) -> int:
        """The recorded time."""
        return self.clock_us[1] - self.clock_us[0]


def read_inspected(path: str | Path) -> Inspected:
    """The recording of a file, with its causes if it has them.

    Raises
    ------
    RecordingError
        When the file cannot be read.
    """
    with open_recording(path) as recording:
        has_labels = "label" in recording.extra_columns
        labels = recording.column("label", *recording.clock_us) if has_labels else None
        return Inspected(recording.load(), recording.clock_us, labels)


def tabulate_facts(recordings: Mapping[str, Inspected]) -> str:
    """A Markdown table of the named recordings: sensor, times, number of events, rate and polarity."""
    head = ["", "sensor, pixels", "start, ms", "end, ms", "events", "events per µs", "positive", "pixels with events"]
    return markdown_table(head, [[name, *_facts(recording)] for name, recording in recordings.items()])


def find_busiest_window_us(recording: Inspected, window_us: int = WINDOW_US) -> int:
    """The start of the whole window with the most events, the first of such; windows count from the clock's start.

    Raises
    ------
    ValueError
        When the recording is shorter than a window.
    """
    start_us, end_us = recording.clock_us
    edges_us = np.arange(start_us, end_us + 1, window_us)
    if len(edges_us) < 2:
        raise ValueError(f"The recording's {end_us - start_us} us are shorter than a window of {window_us} us.")
    counts = np.diff(np.searchsorted(recording.events.t, edges_us))
    return int(edges_us[counts.argmax()])


def _facts(recording: Inspected) -> list[str]:
    events = recording.events
    height, width = events.sensor_size
    num_active = len(np.unique(events.y.astype(np.int64) * width + events.x))
    return [
        f"{width} x {height}",
        *(f"{edge_us / 1e3:,.1f}" for edge_us in recording.clock_us),
        f"{len(events):,}",
        f"{len(events) / max(recording.duration_us, 1):.3g}",
        f"{find_on_share(events):.1%}",
        f"{num_active / (height * width):.1%}",
    ]
