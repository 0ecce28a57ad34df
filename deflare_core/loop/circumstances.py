"""Circumstances: what a run's weights depend on besides its settings, kept in its checkpoints, and its folder's lock.

A resumed run says what has changed of them: the data themselves, and on a processor how many threads add its numbers.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from deflare_core.config import SimulatedDataConfig, TrainConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.loop.training_data import TrainingWindows
from deflare_core.system.atomic_files import explain_unwritable, remove_parts
from deflare_core.system.errors import DeflareError
from deflare_core.system.input_files import check_input
from deflare_core.system.settings import load_config

KEY = "circumstances"
"""Where they stand in what a checkpoint says of its training."""
WRITTEN = r"checkpoint_epoch_\d+_iter_\d+|best|last|metrics\.jsonl"
"""What a run writes into its folder; after a stop it may not write again what it was writing when it was killed."""
BLOCK_BYTES, MOST_BLOCKS = 1 << 16, 64
"""What is read of a file to know it again: all of 4 MB, and of larger ones as many blocks, the last one too."""


def list_circumstances(
    config: TrainConfig, device: torch.device, data: TrainingWindows, validation: TrainingWindows
) -> dict[str, Any]:
    """The threads of a processor, None on a GPU, and a digest of each pair of training and validation by its name."""
    threads = torch.get_num_threads() if device.type == "cpu" else None
    return {
        "threads": threads,
        "data": _digest_data(config.data, data),
        "validation": _digest_data(config.validation, validation),
    }


def describe_differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What has changed between two lists of circumstances, in one line; none: ''."""
    found = []
    if None not in (threads := (before["threads"], now["threads"])) and threads[0] != threads[1]:
        found.append(f"{threads[1]} threads, not {threads[0]}; OMP_NUM_THREADS={threads[0]} makes them equal")
    for part in ("data", "validation"):
        one, other = before[part], now[part]
        changed = sorted(name for name in one.keys() & other.keys() if one[name] != other[name])
        for names, word in (
            (sorted(other.keys() - one), "new"),
            (sorted(one.keys() - other), "gone"),
            (changed, "changed"),
        ):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                found.append(f"of {part} {', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'} {word}")
    return "; ".join(found)


@contextmanager
def hold_folder(folder: Path, writes: bool) -> Iterator[None]:
    """Keep a run's folder for the process that `writes` while the block runs; one that it made and left empty goes.

    Raises
    ------
    DeflareError
        When another run writes there.
    """
    if not writes:
        yield
        return
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise explain_unwritable(folder, error) from error
    try:
        _lock(descriptor, folder)
        remove_parts(folder, WRITTEN)
        yield
    finally:
        os.close(descriptor)
        with suppress(OSError):  # What holds something stays.
            for place in made:
                place.rmdir()


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DeflareError(
            f"{folder}: another run is training there; wait for it to end, or choose another trainer.output_dir."
        ) from None
    except OSError as error:  # Some disks of networks keep no locks of folders.
        logging.warning(f"{folder}: cannot be locked ({error.strerror}); let no other run train there.")


def _digest_data(config: object, windows: TrainingWindows) -> dict[str, str]:
    if isinstance(windows, EventVoxelDataset):
        return {pair.noisy.name: _digest(*map(_sample, (pair.noisy, pair.clean))) for pair in windows.pairs}
    from data_simu import SimulationConfig

    assert isinstance(config, SimulatedDataConfig), "Windows come from files or from the simulator."
    kinds = {str(kind): load_config(SimulationConfig, kind.simulation, kind.overrides) for kind in config.kinds}
    return {name: _digest(kind.model_dump_json().encode()) for name, kind in kinds.items()}


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _sample(path: Path) -> bytes:
    """The digest of a file's size and of blocks from its start to its end."""
    check_input(path)
    size = path.stat().st_size
    total = hashlib.sha256(str(size).encode())
    step = max(BLOCK_BYTES, (size - BLOCK_BYTES) // (MOST_BLOCKS - 1))
    with path.open("rb") as file:
        for at in range(0, size, step):
            file.seek(at)
            total.update(file.read(BLOCK_BYTES))
    return total.digest()
