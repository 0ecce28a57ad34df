"""The data set: windows of paired recordings as voxels, and the verification of its folders.

A pair is two files of one name in two folders; the endings `_bg_flare` and `_bg_light` do not count, and tell the two
apart where both lie in one folder. Both files share one clock, the one that they declare, and are cut into the whole
windows that it holds. If neither declares one, it runs from the whole window in which the earlier of the two first
events lies to the border of windows nearest to the later of the two last ones. Nothing is filled with zeros: a missing
partner, an unreadable file or events outside the clock are an error with the file's name.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from deflare_core.codec import events_to_voxel, polarity_voxel
from deflare_core.columns import TimeUnit
from deflare_core.config import DataConfig
from deflare_core.event_tensors import side_by_side
from deflare_core.events import NUM_BINS, WINDOW_US, Events, PolarityRule, SensorSize, neighbour_offsets
from deflare_core.hdf5_layouts import CLOCK_ATTRIBUTES
from deflare_core.recordings import Recording, RecordingError, open_recording

RECORDING_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True, slots=True)
class RecordingPair:
    """The two files of a pair and the name that they share."""

    name: str
    noisy: Path
    clean: Path


class EventVoxelDataset(Dataset):
    """Windows of paired recordings: `dataset[i]` is `{"raw": (1, bins, H, W), "label": (1, bins, H, W)}`, float32.

    Samples are the windows of the first pair, then those of the second, pairs sorted by name. Files are opened for
    each sample, in the process that needs it, so that no handle is shared between workers; their clocks are read once,
    when the number of samples is first asked for.

    Parameters
    ----------
    noisy_events_dir : folder of recordings with flare.
    clean_events_dir : folder of the same recordings without.
    sensor_size : (height, width) that every file must have; none takes that of the first one that can be read.
    segment_duration_us : length of a window in microseconds.
    num_bins : time bins of a window.
    num_segments : windows taken from each pair's start, at most what its clock holds; none: all of them.
    ids : recordings to take, by the number in their name; none: all.
    split_polarity : give `(2, bins, H, W)` instead, the numbers of positive and of negative events.
    context : windows before and after each that its input also holds, as further channels (`neighbour_offsets`).

    Raises
    ------
    RecordingError
        When a folder is missing or empty, or a recording is missing or lacks its partner.
    """

    def __init__(
        self,
        noisy_events_dir: str | Path,
        clean_events_dir: str | Path,
        sensor_size: SensorSize | None = None,
        segment_duration_us: int = WINDOW_US,
        num_bins: int = NUM_BINS,
        num_segments: int | None = None,
        ids: tuple[int, ...] = (),
        split_polarity: bool = False,
        context: int = 0,
    ) -> None:
        self.split_polarity, self.context = split_polarity, context
        self.pairs = find_pairs(noisy_events_dir, clean_events_dir, ids)
        self.window_us = segment_duration_us
        self.num_bins = num_bins
        self.num_windows = num_segments
        self.sensor_size = sensor_size or _sensor_size_of(self.pairs)

    @classmethod
    def from_config(cls, config: DataConfig, split_polarity: bool = False, context: int = 0) -> EventVoxelDataset:
        """The data set that a configuration describes."""
        return cls(
            config.noisy_dir,
            config.clean_dir,
            config.sensor_size,
            config.window_us,
            config.num_bins,
            config.num_windows,
            config.ids,
            split_polarity,
            context,
        )

    def __len__(self) -> int:
        return self._first_samples[-1]

    def place(self, index: int) -> tuple[RecordingPair, int]:
        """The pair of a sample, and which of its windows the sample is."""
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index} of {len(self)}.")
        number = bisect_right(self._first_samples, index) - 1
        return self.pairs[number], index - self._first_samples[number]

    def window_name(self, index: int) -> str:
        """The file and window of a sample, for messages: `data/noisy/composed_00003_bg_flare.h5[2]`."""
        pair, k = self.place(index)
        return f"{pair.noisy}[{k}]"

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Input and target voxel of one window."""
        pair, k = self.place(index)
        with self._open(pair.noisy) as noisy, self._open(pair.clean) as clean:
            t0_us = self._starts_us(noisy, clean)[k]
            seen = [self._voxel(noisy, t0_us + k * self.window_us) for k in neighbour_offsets(self.context)]
            return {"raw": side_by_side(seen), "label": self._voxel(clean, t0_us)}

    def starts_us(self, pair: RecordingPair) -> range:
        """The start of each window of a pair: at least one, even where its clock is shorter than that.

        Raises
        ------
        RecordingError
            When a file cannot be read, or the two have no clock in common.
        """
        with self._open(pair.noisy) as noisy, self._open(pair.clean) as clean:
            return self._starts_us(noisy, clean)

    def events(self, pair: RecordingPair, context: int = 0) -> Iterator[tuple[int, Events, Events]]:
        """Start, input events and target events of each window of a pair; of the input also its neighbours' events."""
        beside_us = context * self.window_us
        with self._open(pair.noisy) as noisy, self._open(pair.clean) as clean:
            for t0_us in self._starts_us(noisy, clean):
                end_us = t0_us + self.window_us
                yield t0_us, noisy.window(t0_us - beside_us, end_us + beside_us), clean.window(t0_us, end_us)

    def provenance(self, pair: RecordingPair, t0_us: int) -> np.ndarray | None:
        """The provenance labels of a window's input events, or None where the recording carries none."""
        with self._open(pair.noisy) as noisy:
            if "label" not in noisy.extra_columns:
                return None
            return noisy.column("label", t0_us, t0_us + self.window_us)

    def _open(self, path: Path) -> Recording:
        return open_recording(path, self.sensor_size)

    def _voxel(self, recording: Recording, t0_us: int) -> torch.Tensor:
        events = recording.window(t0_us, t0_us + self.window_us)
        if self.split_polarity:
            return torch.from_numpy(polarity_voxel(events, self.num_bins, self.window_us, t0_us))
        voxel = events_to_voxel(events, self.num_bins, None, self.window_us, t0_us=t0_us)
        return torch.from_numpy(voxel).unsqueeze(0)

    @cached_property
    def _first_samples(self) -> list[int]:
        """The number of each pair's first sample, and at the end the number of all samples."""
        return [0, *accumulate(len(self.starts_us(pair)) for pair in self.pairs)]

    def _starts_us(self, noisy: Recording, clean: Recording) -> range:
        start_us, end_us = pair_clock_us(noisy, clean, self.window_us, self.num_windows)
        held = max(1, (end_us - start_us) // self.window_us)
        num_windows = min(held, self.num_windows or held)
        return range(start_us, start_us + num_windows * self.window_us, self.window_us)


def pair_clock_us(
    noisy: Recording, clean: Recording, window_us: int, num_windows: int | None = None
) -> tuple[int, int]:
    """Start and end of a pair's clock; its files must agree on the start, and their events must reach into it.

    Raises
    ------
    RecordingError
        When the two have no clock in common.
    """
    declared = [recording.clock_us for recording in (noisy, clean) if _declares_clock(recording)]
    starts = {start for start, _ in declared}
    if len(starts) > 1:
        raise RecordingError(
            f"{noisy.path} and {clean.path}: their clocks start at {sorted(starts)} us, not as one; pair files of one "
            "scene, and write both with one clock (attributes t_start_us and t_end_us)."
        )
    if not declared:
        return _undeclared_clock_us(noisy, clean, window_us, num_windows)
    start_us, end_us = starts.pop(), min(end for _, end in declared)
    for recording in (noisy, clean):
        _check_reach(recording, start_us, end_us)
    return start_us, end_us


def _undeclared_clock_us(
    noisy: Recording, clean: Recording, window_us: int, num_windows: int | None
) -> tuple[int, int]:
    """From the whole window of the earlier first event to the border of windows nearest to the later last one.

    It is one clock for both files: their first events differ, and a start for each would shift them against each
    other. Where a number of windows is asked for, and so many from 0 hold all events, it starts at 0.
    """
    _check_together(noisy, clean, window_us)
    spans = [recording.clock_us for recording in (noisy, clean) if len(recording)]
    first, end = min((s[0] for s in spans), default=0), max((s[1] for s in spans), default=0)
    whole_us = first // window_us * window_us
    nearest = max(1, round((end - whole_us) / window_us))
    from_zero = first >= 0 and end <= (num_windows or 0) * window_us
    return 0 if from_zero else whole_us, whole_us + nearest * window_us


def find_pairs(noisy_dir: str | Path, clean_dir: str | Path, ids: tuple[int, ...] = ()) -> list[RecordingPair]:
    """The pairs of two folders, sorted by name; of these only the ones with a number in `ids`, if it has any.

    Raises
    ------
    RecordingError
        When a folder is missing, holds no recordings, or a recording is missing or lacks its partner.
    """
    noisy, clean = (_with_ids(names, ids) for names in _both_by_name(noisy_dir, clean_dir))
    found = {_id_of(name) for name in noisy.keys() | clean.keys()}
    missing = [number for number in ids if number not in found]
    if missing:
        raise RecordingError(f"{noisy_dir}: holds no recordings with the ids {missing} in their names.")
    orphans = _orphans(noisy, clean)
    if orphans:
        raise RecordingError(f"{orphans[0]}: has no partner in the other folder ({len(orphans)} such files).")
    return [RecordingPair(name, noisy[name], clean[name]) for name in sorted(noisy)]


def recordings_of_kind(kind: str, folder: Path) -> list[Path]:
    """The recordings of a folder whose names end with `_bg_` and the kind, "flare" or "light", sorted."""
    return [path for path in _recordings(folder) if path.stem.endswith(f"_bg_{kind}")] if folder.is_dir() else []


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
    """What was found in the two folders of a data set.

    Parameters
    ----------
    num_pairs : recordings that have their partner.
    checks : one entry per file, readable or not.
    orphans : files without a partner.
    mismatches : a sentence for each pair whose files do not belong together.
    """

    num_pairs: int
    checks: list[RecordingCheck]
    orphans: list[Path] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """One sentence for everything that is wrong."""
        unreadable = [check.problem for check in self.checks if check.problem]
        sizes = {check.sensor_size for check in self.checks if check.sensor_size}
        mixed = [f"The recordings are of {len(sizes)} sensor sizes: {sorted(sizes)}."] if len(sizes) > 1 else []
        orphans = [f"{path}: has no partner in the other folder." for path in self.orphans]
        return unreadable + mixed + self.mismatches + orphans


def verify_folders(
    noisy_dir: str | Path,
    clean_dir: str | Path,
    sensor_size: SensorSize | None = None,
    polarity: PolarityRule = "strict",
    time_unit: TimeUnit | None = None,
) -> FolderReport:
    """What the two folders hold: counts, orphans, mismatched or unreadable files, sizes, durations; all files are read.

    Parameters
    ----------
    noisy_dir, clean_dir : folder of recordings with flare, and of the same without.
    sensor_size, polarity, time_unit : how they are read, as in `open_recording`.

    Raises
    ------
    RecordingError
        When a folder is missing or holds no recordings.
    """
    noisy, clean = _both_by_name(noisy_dir, clean_dir)
    checks = [_check(path, sensor_size, polarity, time_unit) for path in [*noisy.values(), *clean.values()]]
    shared = sorted(noisy.keys() & clean.keys())
    readable = {check.path for check in checks if not check.problem}
    pairs = [(noisy[name], clean[name]) for name in shared if {noisy[name], clean[name]} <= readable]
    found = [_mismatch(*pair, sensor_size, polarity, time_unit) for pair in pairs]
    return FolderReport(len(shared), checks, _orphans(noisy, clean), [text for text in found if text])


def _orphans(noisy: dict[str, Path], clean: dict[str, Path]) -> list[Path]:
    return [noisy.get(name) or clean[name] for name in sorted(noisy.keys() ^ clean.keys())]


def _check(
    path: Path, sensor_size: SensorSize | None, polarity: PolarityRule, time_unit: TimeUnit | None
) -> RecordingCheck:
    try:
        with open_recording(path, sensor_size, polarity, time_unit) as recording:
            events = recording.load()
            return RecordingCheck(path, None, len(events), events.sensor_size, recording.clock_us)
    except RecordingError as error:
        return RecordingCheck(path, str(error))


def _mismatch(
    noisy_path: Path,
    clean_path: Path,
    sensor_size: SensorSize | None,
    polarity: PolarityRule,
    time_unit: TimeUnit | None,
) -> str | None:
    """Why the two readable files of a pair do not belong together, or None if they do."""
    with (
        open_recording(noisy_path, sensor_size, polarity, time_unit) as noisy,
        open_recording(clean_path, sensor_size, polarity, time_unit) as clean,
    ):
        try:
            pair_clock_us(noisy, clean, WINDOW_US)
        except RecordingError as error:
            return str(error)
        seeds = [str(recording.attributes["seed"]) for recording in (noisy, clean) if "seed" in recording.attributes]
    if len(set(seeds)) < 2:
        return None
    return (
        f"{noisy_path} and {clean_path}: were simulated with the seeds {' and '.join(seeds)} (attribute seed), so they "
        "show two scenes; pair files of one seed."
    )


def _both_by_name(noisy_dir: str | Path, clean_dir: str | Path) -> tuple[dict[str, Path], dict[str, Path]]:
    return _recordings_by_name(Path(noisy_dir), "flare"), _recordings_by_name(Path(clean_dir), "light")


def _recordings_by_name(folder: Path, kind: str) -> dict[str, Path]:
    """The recordings of a folder by the name that their pair shares; of a folder with both kinds, those of one."""
    if not folder.is_dir():
        raise RecordingError(f"{folder}: no such folder of recordings; `deflare simulate` makes a data set.")
    both = all(recordings_of_kind(each, folder) for each in ("flare", "light"))
    paths = recordings_of_kind(kind, folder) if both else _recordings(folder)
    if not paths:
        endings = ", ".join(RECORDING_SUFFIXES)
        raise RecordingError(
            f"{folder}: holds no recordings ({endings}). Pairs must be HDF5; `deflare convert` makes it of others."
        )
    by_name: dict[str, Path] = {}
    for path in paths:
        name = re.sub(r"_bg_(flare|light)$", "", path.stem)
        if name in by_name:
            raise RecordingError(f"{path}: {by_name[name]} has the same name '{name}'; keep one of them.")
        by_name[name] = path
    return by_name


def _recordings(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in RECORDING_SUFFIXES and p.name[0] != ".")


def _with_ids(by_name: dict[str, Path], ids: tuple[int, ...]) -> dict[str, Path]:
    return {name: path for name, path in by_name.items() if not ids or _id_of(name) in ids}


def _id_of(name: str) -> int | None:
    """The last number in a recording's name: 470 of `composed_00470`."""
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else None


def _declares_clock(recording: Recording) -> bool:
    return all(name in recording.attributes for name in CLOCK_ATTRIBUTES)


def _check_reach(recording: Recording, start_us: int, end_us: int) -> None:
    first, last = recording.clock_us
    if len(recording) and (first >= end_us or last <= start_us):
        raise RecordingError(
            f"{recording.path}: its events lie in [{first}, {last}) us, outside its pair's clock "
            f"[{start_us}, {end_us}) us; pair files of one scene, and write both with one clock (attributes t_start_us "
            "and t_end_us)."
        )


def _check_together(noisy: Recording, clean: Recording, window_us: int) -> None:
    """Nothing, unless a whole window or more lies between the events of two files that declare no clock."""
    if len(noisy) and len(clean):
        start_us, end_us = noisy.clock_us
        _check_reach(clean, start_us - window_us, end_us + window_us)


def _sensor_size_of(pairs: list[RecordingPair]) -> SensorSize:
    """The sensor of the first input that can be read, so that a damaged one does not stop the others."""
    problems = []
    for pair in pairs:
        try:
            with open_recording(pair.noisy) as recording:
                return recording.sensor_size
        except RecordingError as error:
            problems.append(error)
    raise problems[0]
