"""Pairs: recordings of two folders that belong together by name, and the one clock that both share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deflare_core.events import SensorSize
from deflare_core.io.recordings import Recording, RecordingError, open_recording

RECORDING_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True, slots=True)
class RecordingPair:
    """The two files of a pair and the name that they share."""

    name: str
    noisy: Path
    clean: Path


def pair_clock_us(
    noisy: Recording, clean: Recording, window_us: int, num_windows: int | None = None
) -> tuple[int, int]:
    """Start and end of a pair's clock; its files must agree on the start, and their events must reach into it.

    Raises
    ------
    RecordingError
        When the two have no clock in common.
    """
    declared = [recording.clock_us for recording in (noisy, clean) if recording.declares_clock]
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


def _orphans(noisy: dict[str, Path], clean: dict[str, Path]) -> list[Path]:
    return [noisy.get(name) or clean[name] for name in sorted(noisy.keys() ^ clean.keys())]


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
