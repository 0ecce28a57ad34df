"""Pairs: recordings of two folders that belong together by name, and the one clock that both share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deflare_core.events import FLARE, SensorSize, digest_events
from deflare_core.io.formats import HDF5_SUFFIXES
from deflare_core.io.reading import AS_STATED, Reading, RecordingError
from deflare_core.io.recordings import Recording, open_recording

FEW_EVENTS = 10
"""Fewer than these may lie close together by chance."""
LEAST_SHARE, LEAST_DECLARED_SHARE = 1 / 2, 1 / 100
"""The shorter span of events over the longer one, from which on they may be of one scene; less if both files declare
their clock, and so that nothing happened in the rest."""
ADVICE = "pair files of one scene, and write both with one clock (attributes t_start_us and t_end_us)."


@dataclass(frozen=True, slots=True)
class RecordingPair:
    """The two files of a pair and the name that they share."""

    name: str
    noisy: Path
    clean: Path


def find_clock_us(
    noisy: Recording, clean: Recording, window_us: int, num_windows: int | None = None
) -> tuple[int, int]:
    """Start and end of a pair's clock; a RecordingError if the starts differ or the events of a file are outside."""
    declared = [recording.clock_us for recording in (noisy, clean) if recording.declares_clock]
    starts = {start for start, _ in declared}
    if len(starts) > 1:
        raise RecordingError(
            f"{noisy.path} and {clean.path}: their clocks start at {sorted(starts)} us, not as one; {ADVICE}"
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
    other. Where a number of windows is asked for, and as many from 0 on hold all events, it starts at 0. Files with a
    whole window or more between their events are refused.
    """
    if len(noisy) and len(clean):
        start_us, end_us = noisy.clock_us
        _check_reach(clean, start_us - window_us, end_us + window_us)
    spans = [recording.clock_us for recording in (noisy, clean) if len(recording)]
    first, end = min((s[0] for s in spans), default=0), max((s[1] for s in spans), default=0)
    whole_us = first // window_us * window_us
    nearest = max(1, round((end - whole_us) / window_us))
    from_zero = first >= 0 and end <= (num_windows or 0) * window_us
    return 0 if from_zero else whole_us, whole_us + nearest * window_us


def check_spans(noisy: Recording, clean: Recording) -> None:
    """Raise a RecordingError if a file of a pair is empty, or its events span much less time than its partner's."""
    spans_ms = {recording: (recording.span_us[1] - recording.span_us[0]) / 1e3 for recording in (noisy, clean)}
    short, long = sorted((noisy, clean), key=lambda recording: (spans_ms[recording], len(recording)))
    if not len(short):
        raise RecordingError(
            f"{short.path}: holds no events, its partner {long.path} {len(long):,}; pair files of one scene."
        )
    least = LEAST_DECLARED_SHARE if noisy.declares_clock and clean.declares_clock else LEAST_SHARE
    if len(short) >= FEW_EVENTS and spans_ms[short] < least * spans_ms[long]:
        raise RecordingError(
            f"{short.path}: its {len(short):,} events span {spans_ms[short]:g} ms, those of its partner {long.path} "
            f"{spans_ms[long]:g} ms; write both in one unit of time; where the silence is real, write both with one "
            "clock (attributes t_start_us and t_end_us)."
        )


def check_differ(noisy: Recording, clean: Recording) -> None:
    """Raise a RecordingError if the two files of a pair hold the same events, unless its causes say that none is flare.

    A simulated pair is such a one where the lens is perfect, or flare too weak to reach a pixel.
    """
    is_same = len(noisy) == len(clean) and all(
        digest_events(one) == digest_events(other)
        for (one, _), (other, _) in zip(noisy.pieces(), clean.pieces(), strict=True)
    )
    if is_same and count_flare(noisy) != 0:
        raise RecordingError(
            f"{noisy.path} and {clean.path}: hold the same {len(noisy):,} events; pair a recording with flare with the "
            "same scene without."
        )


def count_flare(recording: Recording) -> int | None:
    """The number of a recording's events that flare caused, or None if it carries no causes."""
    if "label" not in recording.extra_columns:
        return None
    return sum(int((extra["label"] == FLARE).sum()) for _, extra in recording.pieces())


def find_pairs(noisy_dir: str | Path, clean_dir: str | Path, ids: tuple[int, ...] = ()) -> list[RecordingPair]:
    """The pairs of two folders, sorted by name; of these only the ones with a number in `ids`, if it has any.

    Raises
    ------
    RecordingError
        When a folder is missing, holds no recordings, or a recording is missing or lacks its partner.
    """
    noisy, clean = (
        {name: path for name, path in name_recordings(folder, kind).items() if not ids or _id_of(name) in ids}
        for folder, kind in ((noisy_dir, "flare"), (clean_dir, "light"))
    )
    missing = sorted(set(ids) - {_id_of(name) for name in noisy.keys() | clean.keys()})
    if missing:
        raise RecordingError(f"{noisy_dir}: holds no recordings with the ids {missing} in their names.")
    if orphans := find_orphans(noisy, clean):
        raise RecordingError(f"{orphans[0]}: has no partner in the other folder ({len(orphans)} such files).")
    return [RecordingPair(name, noisy[name], clean[name]) for name in sorted(noisy)]


def find_orphans(noisy: dict[str, Path], clean: dict[str, Path]) -> list[Path]:
    """The recordings of two folders, by name, that have no partner in the other one."""
    return [noisy.get(name) or clean[name] for name in sorted(noisy.keys() ^ clean.keys())]


def find_sensor_size(pairs: list[RecordingPair], reading: Reading = AS_STATED) -> SensorSize:
    """The sensor (height, width) of the first input that can be read; a RecordingError only if there is none."""
    problems = []
    for pair in pairs:
        try:
            with open_recording(pair.noisy, reading) as recording:
                return recording.sensor_size
        except RecordingError as error:
            problems.append(error)
    raise problems[0]


def name_recordings(folder: str | Path, kind: str) -> dict[str, Path]:
    """The recordings of a folder by the name that a pair shares; where "flare" and "light" are mixed, those of a kind.

    A folder that is missing, holds no recordings, or two of one name, is a RecordingError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordingError(f"{folder}: no such folder of recordings; `deflare simulate` makes a data set.")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in HDF5_SUFFIXES and p.name[0] != ".")
    if not paths:
        raise RecordingError(
            f"{folder}: holds no recordings ({', '.join(HDF5_SUFFIXES)}). Pairs must be HDF5; `deflare convert` makes "
            "it of others."
        )
    kinds = {each: [path for path in paths if path.stem.endswith(f"_bg_{each}")] for each in ("flare", "light")}
    by_name: dict[str, Path] = {}
    for path in kinds[kind] if all(kinds.values()) else paths:
        name = re.sub(r"_bg_(flare|light)$", "", path.stem)
        if name in by_name:
            raise RecordingError(f"{path}: {by_name[name]} has the same name '{name}'; keep one of them.")
        by_name[name] = path
    return by_name


def _id_of(name: str) -> int | None:
    """The last number in a recording's name: 470 of `composed_00470`."""
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else None


def _check_reach(recording: Recording, start_us: int, end_us: int) -> None:
    first, last = recording.clock_us
    if len(recording) and (first >= end_us or last <= start_us):
        raise RecordingError(
            f"{recording.path}: its events lie in [{first}, {last}) us, outside its pair's clock "
            f"[{start_us}, {end_us}) us; {ADVICE}"
        )
