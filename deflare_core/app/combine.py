"""Making a checkpoint of two: networks that judge together, as `deflaring/committee.py` says."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree, ignore_patterns

from deflare_core.app.import_weights import check_place
from deflare_core.checkpoint import (
    CONFIG,
    PARTNER,
    TRAINING,
    CheckpointError,
    find_checkpoint,
    load_model,
    read_checkpoint,
)
from deflare_core.deflaring.committee import Committee
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.documents import read_json


def combine_checkpoints(first: Path, second: Path, shares: tuple[float, float], folder: Path) -> Path:
    """The checkpoint folder of two networks that judge together; its level and its training are the first one's.

    Parameters
    ----------
    first, second : checkpoint or run folders, of gates that see the same windows.
    shares : how much each one's judgement counts.
    folder : the folder to make.

    Raises
    ------
    DeflareError
        When the two cannot judge together, one is of two itself, or the folder holds a checkpoint.
    """
    check_place(folder)
    paths = find_checkpoint(first), find_checkpoint(second)
    for path in paths:
        if read_checkpoint(path).shares:
            raise CheckpointError(f"{path}: is of two networks already; name one of them, such as its {PARTNER}.")
    Committee([load_model(path, "cpu") for path in paths], shares)
    with complete_or_absent(folder) as temporary:
        for path, place in zip(paths, (temporary, temporary / PARTNER), strict=True):
            copytree(path, place, ignore=ignore_patterns(TRAINING))
        description = read_json(temporary / CONFIG, CheckpointError) | {"shares": shares}
        (temporary / CONFIG).write_text(json.dumps(description, indent=2) + "\n")
    return folder
