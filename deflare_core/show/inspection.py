"""Inspection: what recordings and the folders of a data set are, before anything is computed from them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deflare_core.events import WINDOW_US, Events
from deflare_core.io.pairs import RecordingPair, find_pairs
from deflare_core.io.reading import AS_STATED, Reading
from deflare_core.io.recordings import open_recording
from deflare_core.io.verify import FolderReport
from deflare_core.streams.statistics import count_events, find_on_share
from deflare_core.system.errors import DeflareError
from deflare_core.system.markdown import as_text, markdown_table

SIDES = {"input": "noisy", "target": "clean"}
"""The sides of a `RecordingPair`, by what figures call them."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A recording as it is inspected: its events, and start and end of the recorded time."""

    events: Events
    clock_us: tuple[int, int]
    labels: NDArray[np.uint8] | None = None
    """The cause of each event (keys of `events.CAUSES`), `(N,)`, where the recording carries it."""

    @property
    def duration_us(self) -> int:
        """The recorded time."""
        return self.clock_us[1] - self.clock_us[0]


def read_inspected(path: str | Path, reading: Reading = AS_STATED) -> Inspected:
    """The recording of a file, with its causes if it has them."""
    with open_recording(path, reading) as recording:
        has_labels = "label" in recording.extra_columns
        labels = recording.column("label", *recording.clock_us) if has_labels else None
        return Inspected(recording.load(), recording.clock_us, labels)


def tabulate_facts(recordings: Mapping[str, Inspected]) -> str:
    """A Markdown table of the named recordings: sensor, times, number of events, rate and polarity."""
    head = ["", "sensor, pixels", "start, ms", "end, ms", "events", "Mev/s", "positive", "pixels with events"]
    return markdown_table(head, [[as_text(name), *_facts(recording)] for name, recording in recordings.items()])


def find_busiest_window_us(recording: Inspected, window_us: int = WINDOW_US, cause: int | None = None) -> int:
    """The start of the whole window with the most events, the first of such; windows count from the clock's start.

    With a cause (a key of `events.CAUSES`), that with the most events of it, if the recording tells causes.

    Raises
    ------
    DeflareError
        When the recording is shorter than a window.
    """
    if recording.duration_us < window_us:
        raise DeflareError(f"The recording's {recording.duration_us} us are shorter than a window of {window_us} us.")
    edges_us = np.arange(recording.clock_us[0], recording.clock_us[1] + 1, window_us)
    times_us = recording.events.t
    if cause is not None and recording.labels is not None:
        times_us = times_us[recording.labels == cause]
    counts = np.diff(np.searchsorted(times_us, edges_us))
    return int(edges_us[counts.argmax()])


def tabulate_integrity(reports: dict[str, FolderReport]) -> str:
    """A Markdown table with a row for each pair of folders that `verify_folders` checked, then all that is wrong."""
    head = ["", "pairs", "orphans", "unreadable", "sensor, pixels", "length, ms", "events a file", "problems"]
    table = markdown_table(head, [[name, *_integrity(report)] for name, report in reports.items()])
    found = [line for report in reports.values() for line in (*report.problems, *report.warnings)]
    problems = [f"- {as_text(line)}" for line in found]
    return "\n".join([table, "", *(problems or ["Nothing is wrong."])])


def find_folders(root: str | Path) -> dict[str, tuple[Path, Path]]:
    """The folders of inputs and of targets under a data set's root: "training", and "validation" and "test" if any."""
    pairs = {}
    for name, (below, suffix) in {
        "training": ("", ""),
        "validation": ("validation", ""),
        "test": ("", "_test"),
    }.items():
        noisy, clean = (Path(root, below, f"background_with_{kind}_events{suffix}") for kind in ("flare", "light"))
        if name == "training" or noisy.is_dir() or clean.is_dir():
            pairs[name] = (noisy, clean)
    return pairs


def choose_pair(folders: Mapping[str, tuple[Path, Path]], name: str | None = None) -> RecordingPair:
    """The pair of that name in any of a data set's folders; none takes the first.

    Raises
    ------
    DeflareError
        When there is no pair of that name; the message names the nearest.
    """
    pairs = {pair.name: pair for folder in [*folders.values()][::-1] for pair in find_pairs(*folder)}
    if name is None:
        return find_pairs(*next(iter(folders.values())))[0]
    if name not in pairs:
        near = difflib.get_close_matches(name, pairs, n=1) or list(pairs)[:1]
        raise DeflareError(f"The data set has no pair '{name}' among {len(pairs)}; did you mean '{near[0]}'?")
    return pairs[name]


def _facts(recording: Inspected) -> list[str]:
    events = recording.events
    height, width = events.sensor_size
    return [
        f"{width} x {height}",
        *(f"{edge_us / 1e3:,.1f}" for edge_us in recording.clock_us),
        f"{len(events):,}",
        f"{len(events) / max(recording.duration_us, 1):.3g}",
        f"{find_on_share(events):.1%}",
        f"{(count_events(events) > 0).mean():.1%}",
    ]


def _integrity(report: FolderReport) -> list[str]:
    readable = [check for check in report.checks if check.problem is None]
    sizes = sorted({check.sensor_size for check in readable if check.sensor_size})
    return [
        f"{report.num_pairs:,}",
        f"{len(report.orphans):,}",
        f"{len(report.checks) - len(readable):,}",
        ", ".join(f"{width} x {height}" for height, width in sizes) or "none",
        _range([(check.clock_us[1] - check.clock_us[0]) / 1e3 for check in readable], "{:,.1f}"),
        _range([check.num_events for check in readable], "{:,.0f}"),
        f"{len(report.problems):,}",
    ]


def _range(values: list[float], form: str) -> str:
    """The least and the greatest of the values, or the one that all have."""
    # A dictionary's keys: each text once, in order.
    ends = dict.fromkeys(form.format(end) for end in (min(values), max(values))) if values else ["none"]
    return " to ".join(ends)
