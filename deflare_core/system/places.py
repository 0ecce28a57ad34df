"""Places: where the project and what comes with it stand on disk."""

from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
REPORTS = PROJECT_ROOT / "reports"
PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
"""The checkpoint that comes with the package; its README.md says what it was trained on and what it cannot do."""


def make_dated_folder(parent: Path, name: str) -> Path:
    """The new folder `<date>_<time>_<name>` in `parent`; further ones of the same second are numbered."""
    stem = f"{datetime.now():%Y-%m-%d_%H%M%S}_{name}"
    for number in count(1):
        folder = parent / (stem if number == 1 else f"{stem}_{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("There is always a next number.")
