"""Pairs on disk: a data set of simulated recordings that can be stopped, continued and checked.

    root/background_with_flare_events/composed_00000_bg_flare.h5     input
    root/background_with_light_events/composed_00000_bg_light.h5     target
    root/background_with_flare_events_test/...                       and the same for the test set
    root/manifest.json                                               configuration, seeds, counts, digests

Every recording follows from its own seed alone, so any one can be made again and the number of processes does not
matter. Seeds of the training and test set never meet.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_simu.config import SimulationConfig
from data_simu.recorded import check_backgrounds
from data_simu.simulation import Pair, simulate
from deflare_core.events import digest_events
from deflare_core.io.recordings import RecordingError, open_recording, save_events
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.documents import read_json
from deflare_core.system.errors import shorten
from deflare_core.system.workers import delay_items, worker_processes

LATER = {
    "scene": ("roll_deg",),
    "sources": ("broad_share", "broad_mrad", "size_power", "outside_share", "sparkle_share"),
    "optics": ("perfect_share",),
    "sensor": ("brownian_share", "brownian_floor", "brownian_leak_hz"),
}
"""Settings that came after data sets had been made: at their defaults they change nothing, nor a set's digest."""
LATER_ABOVE = ("backgrounds", "background_share")
"""And those above the sections."""
FLARE_FOLDER, CLEAN_FOLDER = "background_with_flare_events", "background_with_light_events"


@dataclass(frozen=True, slots=True)
class PairFile:
    """One pair of a data set: which split, its number, its seed, and its two files."""

    split: str
    index: int
    seed: int
    flare: Path
    clean: Path


def write_dataset(
    config: SimulationConfig, root: str | Path, *, workers: int | None = None, progress: bool = True
) -> Path:
    """The manifest of the data set that now stands under `root`; pairs already there are kept, and stay in it.

    Parameters
    ----------
    config : what to simulate, and how many pairs.
    root : folder of the data set.
    workers : processes that simulate, one per processor by default; 1 simulates in this process.
    progress : show a progress bar with the remaining time.

    Raises
    ------
    RecordingError
        When pairs of another configuration stand there, or a recorded background does not fit.
    """
    root = Path(root)
    check_backgrounds(config)
    standing = _standing_entries(config, root)
    files = list(list_pair_files(config, root))
    entries = list(tqdm(_write_pairs(config, files, workers), total=len(files), unit="pair", disable=not progress))
    if missing := [root / file for entry in entries for file in entry["files"] if not (root / file).exists()]:
        raise RecordingError(f"{missing[0]}: was removed meanwhile; run it again to make it anew.")
    by_file = {entry["files"][0]: entry for entry in [*standing, *entries]}
    recordings = sorted(by_file.values(), key=lambda entry: (entry["split"] == "test", entry["files"]))
    counts = {f"num_{split}": sum(entry["split"] == split for entry in recordings) for split in ("train", "test")}
    manifest = {"config": config.model_dump(mode="json") | counts, "recordings": recordings}
    with complete_or_absent(root / "manifest.json") as path:
        path.write_text(json.dumps(manifest, indent=1) + "\n")
    return root / "manifest.json"


def _write_pairs(config: SimulationConfig, files: Sequence[PairFile], workers: int | None) -> Iterator[dict[str, Any]]:
    """The manifest's entries of pairs in their order, each as soon as its files are complete."""
    # The first pair is made here, so that the other processes find the compiled loops on disk.
    yield from (write_pair(config, file) for file in files[:1])
    workers = workers or os.cpu_count() or 1
    num_processes = workers if workers > 1 else 0
    with worker_processes(num_processes) as submit:
        written = (submit(write_pair, config, file) for file in files[1:])
        for entry in delay_items(written, 2 * num_processes):
            yield entry.result()


def list_pair_files(config: SimulationConfig, root: Path) -> Iterator[PairFile]:
    """Every pair of the data set; training seeds are even, test seeds odd."""
    for split, count, suffix in (("train", config.num_train, ""), ("test", config.num_test, "_test")):
        for index in range(count):
            name = f"composed_{index:05d}_bg"
            yield PairFile(
                split,
                index,
                derive_seed(config.seed, split, index),
                root / (FLARE_FOLDER + suffix) / f"{name}_flare.h5",
                root / (CLEAN_FOLDER + suffix) / f"{name}_light.h5",
            )


def derive_seed(seed: int, split: str, index: int) -> int:
    """The seed of one recording: different for every data set seed, split and number."""
    drawn = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> 2
    return int(drawn) * 2 + (split == "test")


def write_pair(config: SimulationConfig, file: PairFile) -> dict[str, Any]:
    """The manifest's entry for a pair, which is simulated unless its files are complete already."""
    key = digest_config(config)
    entry = _finished_entry(file, key)
    if entry is not None:
        return entry
    pair = simulate(config, file.seed)
    entry = describe_pair(file, pair)
    common = {"seed": str(file.seed), "config_key": key, "entry": json.dumps(entry)}
    for path, events, label in ((file.clean, pair.clean, pair.clean_label), (file.flare, pair.flare, pair.flare_label)):
        source = f"simulated, seed {file.seed}"
        columns = {"label": label}
        save_events(path, events, source=source, clock_us=pair.clock_us, attributes=common, columns=columns)
    return entry


def describe_pair(file: PairFile, pair: Pair) -> dict[str, Any]:
    """What the manifest says of a pair: where it came from, counts, shares by cause, digests."""
    names = ("background", "light", "flare", "noise")
    counts = np.bincount(pair.flare_label, minlength=4)
    return {
        "split": file.split,
        "files": [f"{path.parent.name}/{path.name}" for path in (file.flare, file.clean)],
        "num_events": [len(pair.flare), len(pair.clean)],
        "input_events": {name: int(count) for name, count in zip(names, counts, strict=True)},
        "digests": [digest_events(pair.flare), digest_events(pair.clean)],
        "plan": pair.plan,
    }


def digest_config(config: SimulationConfig) -> str:
    """A digest of everything in the configuration that decides one pair's events, names and sizes of files included."""
    settings = config.model_dump_json(exclude={"num_train": True, "num_test": True, "seed": True} | _unused(config))
    for source in (config.scene.backdrops, config.optics.flare_images, config.backgrounds):
        if source is not None:
            settings += json.dumps(_listing(Path(source)))
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _unused(config: SimulationConfig) -> dict[str, Any]:
    """The later settings of each section that stand at their defaults, as pydantic excludes them."""
    sections = {name: getattr(config, name) for name in LATER}
    usual = SimulationConfig()
    above = {name: True for name in LATER_ABOVE if getattr(config, name) == getattr(usual, name)}
    return above | {
        name: {key for key in LATER[name] if getattr(section, key) == type(section).model_fields[key].default}
        for name, section in sections.items()
    }


def _add_later(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a manifest, with the later ones that it lacks at their defaults."""
    defaults = SimulationConfig().model_dump(mode="json")
    added = {name: {key: defaults[name][key] for key in keys} | settings[name] for name, keys in LATER.items()}
    return {name: defaults[name] for name in LATER_ABOVE} | settings | added


def _listing(source: Path) -> list[tuple[str, int]]:
    """The files that a path stands for, by name, and their sizes."""
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    return [(str(path.relative_to(source)), path.stat().st_size) for path in files if path.is_file()]


def _standing_entries(config: SimulationConfig, root: Path) -> list[dict[str, Any]]:
    """What a manifest already there says of the pairs whose files still stand.

    Raises
    ------
    RecordingError
        When they were made with another configuration or seed: a manifest holds one.
    """
    path = root / "manifest.json"
    if not path.exists():
        return []
    manifest, asked = read_json(path, RecordingError), config.model_dump(mode="json")
    counts = {name: asked[name] for name in ("num_train", "num_test")}
    try:
        standing = [entry for entry in manifest["recordings"] if all((root / file).exists() for file in entry["files"])]
        is_other = bool(standing) and _add_later(manifest["config"]) | counts != asked
    except (KeyError, TypeError) as error:
        raise RecordingError(f"{path}: is no manifest of `deflare simulate` ({shorten(repr(error))}).") from error
    if is_other:
        raise RecordingError(f"{path}: its pairs were made with another configuration or seed; choose another folder.")
    return standing


def _finished_entry(file: PairFile, key: str) -> dict[str, Any] | None:
    """The entry of a pair whose two files are complete, or None."""
    if not (file.flare.exists() and file.clean.exists()):
        return None
    with open_recording(file.flare) as flare, open_recording(file.clean) as clean:
        found = {(r.attributes.get("config_key"), r.attributes.get("seed")) for r in (flare, clean)}
        if found != {(key, str(file.seed))}:
            raise RecordingError(f"{file.flare}: was made with another configuration or seed; choose another folder.")
        return json.loads(str(flare.attributes["entry"]))
