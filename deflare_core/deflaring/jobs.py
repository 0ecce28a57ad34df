"""Jobs: which recordings are to be deflared into which files, and which of these are done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deflare_core.deflaring.method import Method
from deflare_core.io.arrays import list_parts
from deflare_core.io.formats import HDF5_SUFFIXES, SUFFIX_FORMATS, TEXT
from deflare_core.io.reading import RecordingError
from deflare_core.io.recordings import Recording
from deflare_core.system.input_files import check_input
from deflare_core.system.revision import hash_sources

WORK_KEY = "work_key"
"""Attribute of a deflared recording: a digest of all that decided it."""


def is_deflared(method: Method, source: Path, target: Path, settings: Mapping[str, Any]) -> bool:
    """Whether `target` is what `deflare_recording` makes of the same recording, by its key; it is complete if there."""
    try:
        with Recording(target) as recording:
            return recording.attributes.get(WORK_KEY) == work_key(method, source, settings)
    except RecordingError:
        return False


def work_key(method: Method, source: str | Path, settings: Mapping[str, Any]) -> str:
    """A digest of all that decides what becomes of a recording: sources, method, file, and every setting by name."""
    # Path, size and time of change tell a recording from any other without reading it whole.
    check_input(source, RecordingError)
    path = Path(source).resolve()
    parts = [hash_sources(), method.key, (str(path), path.stat().st_size, path.stat().st_mtime_ns), settings]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=asdict).encode()).hexdigest()


def list_jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """The recording and the file to write; of a folder, each of its recordings and a file of its name in `target`.

    Text files are left out of a folder (`list_text_files`): most are not recordings.

    Raises
    ------
    RecordingError
        When the folder holds no recording, or two that would be written to one file, or the target is that folder or
        a file.
    """
    if not source.is_dir():
        return [(source, target)]
    if target.resolve() == source.resolve() or target.is_file():
        raise RecordingError(f"{target}: what is made of the recordings of a folder needs another folder; name one.")
    paths = [path for path in _files_of_formats(source) if SUFFIX_FORMATS[path.suffix.lower()] is not TEXT]
    if not paths:
        raise RecordingError(f"{source}: holds no recordings ({', '.join(SUFFIX_FORMATS)}, text aside).")
    jobs: dict[Path, Path] = {}
    for path in paths:
        output = target / (path.name if path.suffix.lower() in HDF5_SUFFIXES else f"{path.name}.h5")
        if output in jobs:
            raise RecordingError(
                f"{output}: {jobs[output].name} and {path.name} would both be written there; rename one."
            )
        jobs[output] = path
    return [(path, output) for output, path in jobs.items()]


def name_output(source: Path) -> Path:
    """Where to write what becomes of a recording or a folder of them if nobody says: next to it."""
    place = source if source.name not in ("", "..") else source.resolve()
    return place.parent / (f"{place.name}_deflared" if source.is_dir() else f"{place.stem}_deflared.h5")


def list_text_files(source: Path) -> list[Path]:
    """The text files of a folder, which may be recordings but are not deflared with it; none of a file."""
    files = _files_of_formats(source) if source.is_dir() else []
    return [path for path in files if SUFFIX_FORMATS[path.suffix.lower()] is TEXT]


def _files_of_formats(folder: Path) -> list[Path]:
    """The files of a folder whose names end as those of recordings do, in order; of three that are one the first."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIX_FORMATS and not p.name.startswith("."))
    threes = [parts for path in files if (parts := [*list_parts(path).values()]) and set(parts) <= set(files)]
    return [path for path in files if path not in {part for _, *others in threes for part in others}]
