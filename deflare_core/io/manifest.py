"""The manifest of a simulated data set: what was drawn for each recording, how many events, and their digests.

`deflare simulate` writes it beside the recordings. A data set made again on a like processor has the same digests;
configs/test_manifest.json fixes the held-out test set in this way. On another one the same draws give the same scenes,
but numpy and numba choose other instructions, which round otherwise: most events are the same, some come a microsecond
earlier or later, and of a million events a few more or fewer. Digests then differ, and numbers of events hardly.
Numpy's functions for AVX-512 alone do that: without them 16 of 16 small recordings had other digests, and equal counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from deflare_core.events import digest_events
from deflare_core.io.pairs import find_pairs
from deflare_core.io.reading import AS_STATED, Reading, RecordingError
from deflare_core.io.recordings import load_events
from deflare_core.system.documents import read_json
from deflare_core.system.errors import shorten

ROUNDED_SHARE = 1e-4
"""The share of a recording's events by which another processor's may differ; of 46 files 0.5e-4 was the most."""
Entry = dict[str, Any]
"""What a manifest says of one recording."""


def read_manifest(path: str | Path, split: str = "test") -> dict[str, Entry]:
    """What the manifest says of each recording of a split, by the name of the pair; a RecordingError if it is none."""
    content = read_json(Path(path), RecordingError)
    try:
        entries = [entry for entry in content["recordings"] if entry["split"] == split]
        return {Path(entry["files"][0]).stem.removesuffix("_bg_flare"): entry for entry in entries}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RecordingError(f"{path}: is no manifest of `deflare simulate` ({shorten(repr(error))}).") from error


class Differences(NamedTuple):
    """How folders differ from a manifest.

    Parameters
    ----------
    problems : one sentence for each recording that is another, or is not there.
    num_rounded : recordings with the manifest's numbers of events to `ROUNDED_SHARE`, but other digests.
    """

    problems: list[str]
    num_rounded: int


def find_differences(
    manifest: dict[str, Entry], noisy_dir: str | Path, clean_dir: str | Path, reading: Reading = AS_STATED
) -> Differences:
    """Which recordings of the manifest are others in the folders, or not there.

    What cannot be read, or lacks its partner, is a RecordingError.
    """
    pairs = {pair.name: pair for pair in find_pairs(noisy_dir, clean_dir)}
    problems, num_rounded = [], 0
    for name, entry in manifest.items():
        if name not in pairs:
            problems.append(f"{noisy_dir}: lacks {name}, which the manifest names.")
            continue
        paths = (pairs[name].noisy, pairs[name].clean)
        found = [load_events(path, reading) for path in paths]
        others = [
            f"{path}: holds {len(events):,} events, the manifest says {num:,}; simulate it again."
            for path, events, num in zip(
                (pairs[name].noisy, pairs[name].clean), found, entry["num_events"], strict=True
            )
            if abs(len(events) - num) > ROUNDED_SHARE * num
        ]
        problems += others
        num_rounded += not others and [digest_events(events) for events in found] != entry["digests"]
    return Differences(problems, num_rounded)
