"""The manifest of a simulated data set: what was drawn for each recording, how many events, and their digests.

`deflare simulate` writes it beside the recordings. A data set made again elsewhere is the same if its events have the
digests of the manifest; configs/test_manifest.json fixes the held-out test set in this way. Its digests are those of a
processor with AVX-512: numpy rounds otherwise without it, which moves some of the events by a microsecond.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deflare_core.events import digest_events
from deflare_core.io.pairs import find_pairs
from deflare_core.io.reading import AS_STATED, Reading, RecordingError
from deflare_core.io.recordings import load_events
from deflare_core.system.input_files import check_input

Entry = dict[str, Any]
"""What a manifest says of one recording."""


def read_manifest(path: str | Path, split: str = "test") -> dict[str, Entry]:
    """What the manifest says of each recording of a split, by the name of the pair; a RecordingError if it is none."""
    check_input(path, RecordingError)
    try:
        entries = [entry for entry in json.loads(Path(path).read_text())["recordings"] if entry["split"] == split]
        return {Path(entry["files"][0]).stem.removesuffix("_bg_flare"): entry for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordingError(f"{path}: is no manifest of `deflare simulate` ({error!r}).") from error


def find_differences(
    manifest: dict[str, Entry], noisy_dir: str | Path, clean_dir: str | Path, reading: Reading = AS_STATED
) -> list[str]:
    """One sentence for every recording of the manifest whose events are others in the folders, or that is not there.

    What cannot be read, or lacks its partner, is a RecordingError.
    """
    pairs = {pair.name: pair for pair in find_pairs(noisy_dir, clean_dir)}
    found = []
    for name, entry in manifest.items():
        if name not in pairs:
            found.append(f"{noisy_dir}: lacks {name}, which the manifest names.")
            continue
        files = (pairs[name].noisy, pairs[name].clean)
        for path, num, digest in zip(files, entry["num_events"], entry["digests"], strict=True):
            events = load_events(path, reading)
            if digest_events(events) != digest:
                found.append(f"{path}: {_difference(len(events), num)}")
    return found


def _difference(num_found: int, num_expected: int) -> str:
    if num_found != num_expected:
        return f"holds {num_found:,} events, the manifest says {num_expected:,}; simulate it again."
    return (
        f"holds {num_found:,} events as the manifest says, but others. Without AVX-512 some are a microsecond off, "
        "which hardly moves a score; otherwise simulate it again."
    )
