"""Verification: what the two folders of a data set hold, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deflare_core.events import WINDOW_US, SensorSize
from deflare_core.io.alignment import find_misalignment
from deflare_core.io.pairs import check_differ, check_spans, find_clock_us, find_orphans, name_recordings
from deflare_core.io.reading import AS_STATED, Reading, RecordingError
from deflare_core.io.recordings import open_recording

MORE_EVENTS = 1.1
"""Events of all clean recordings over those of all with flare from which on the folders seem exchanged.

Of 60 right pairs the most is 1.0003."""


@dataclass(frozen=True, slots=True)
class RecordingCheck:
    """What was found in one recording of a data set."""

    path: Path
    problem: str | None
    num_events: int = 0
    sensor_size: SensorSize | None = None
    clock_us: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class FolderReport:
    """What was found in two folders: every file, those without a partner, and sentences on pairs that do not fit.

    A mismatched pair cannot be trained on; of what stands in `warnings` somebody should know.
    """

    num_pairs: int
    checks: list[RecordingCheck]
    orphans: list[Path] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """One sentence for everything that is wrong."""
        unreadable = [check.problem for check in self.checks if check.problem]
        sizes = {check.sensor_size for check in self.checks if check.sensor_size}
        mixed = [f"The recordings are of {len(sizes)} sensor sizes: {sorted(sizes)}."] if len(sizes) > 1 else []
        orphans = [f"{path}: has no partner in the other folder." for path in self.orphans]
        return unreadable + mixed + self.mismatches + orphans


def verify_folders(noisy_dir: str | Path, clean_dir: str | Path, reading: Reading = AS_STATED) -> FolderReport:
    """What a folder of recordings with flare and one of the same without hold; all files are read.

    Raises
    ------
    RecordingError
        When a folder is missing or holds no recordings.
    """
    noisy, clean = name_recordings(noisy_dir, "flare"), name_recordings(clean_dir, "light")
    checks = [_check(path, reading) for path in [*noisy.values(), *clean.values()]]
    shared = sorted(noisy.keys() & clean.keys())
    readable = {check.path for check in checks if not check.problem}
    pairs = [(noisy[name], clean[name]) for name in shared if {noisy[name], clean[name]} <= readable]
    mismatches = {pair: text for pair in pairs if (text := _find_mismatch(*pair, reading))}
    warnings = [text for pair in pairs if pair not in mismatches for text in _find_oddities(*pair, reading)]
    counts = {check.path: check.num_events for check in checks}
    if pairs:
        warnings += _compare_counts(*(sum(counts[path] for path in side) for side in zip(*pairs, strict=True)))
    return FolderReport(len(shared), checks, find_orphans(noisy, clean), [*mismatches.values()], warnings)


def _check(path: Path, reading: Reading) -> RecordingCheck:
    try:
        with open_recording(path, reading) as recording:
            recording.check_order()
            num_events = sum(len(events) for events, _ in recording.pieces())
            return RecordingCheck(path, None, num_events, recording.sensor_size, recording.clock_us)
    except RecordingError as error:
        return RecordingCheck(path, str(error))


def _find_oddities(noisy_path: Path, clean_path: Path, reading: Reading) -> list[str]:
    """What tells that the two files of a pair, which can be read, do not show one scene in one place and time."""
    with open_recording(noisy_path, reading) as noisy, open_recording(clean_path, reading) as clean:
        return find_misalignment(noisy, clean)


def _compare_counts(num_noisy: int, num_clean: int) -> list[str]:
    """A sentence where the folder without flare holds so many more events that it may be the other one."""
    if num_clean < MORE_EVENTS * num_noisy:
        return []
    return [
        f"The second folder holds {num_clean:,} events, the first {num_noisy:,}; flare adds events, so name the folder "
        "with flare first."
    ]


def _find_mismatch(noisy_path: Path, clean_path: Path, reading: Reading) -> str | None:
    """Why the two readable files of a pair do not belong together, or None if they do."""
    try:
        with open_recording(noisy_path, reading) as noisy, open_recording(clean_path, reading) as clean:
            check_spans(noisy, clean)
            find_clock_us(noisy, clean, WINDOW_US)
            check_differ(noisy, clean)
            seeds = [str(each.attributes["seed"]) for each in (noisy, clean) if "seed" in each.attributes]
    except RecordingError as error:
        return str(error)
    if len(set(seeds)) < 2:
        return None
    return (
        f"{noisy_path} and {clean_path}: were simulated with the seeds {' and '.join(seeds)} (attribute seed), so they "
        "show two scenes; pair files of one seed."
    )
