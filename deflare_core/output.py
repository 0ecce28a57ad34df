"""Output that is complete or absent: everything the package writes goes through `complete_or_absent`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete_or_absent(path: str | Path) -> Iterator[Path]:
    """A hidden temporary path beside `path`, renamed to `path` when the block ends without an error.

    The block may create a file or a folder there. On any error, an interrupt included, it is removed and what
    stood at `path` before stays untouched.

    Raises
    ------
    FileNotFoundError
        When the block ended well but created nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    _remove(temporary)
    try:
        yield temporary
        _replace(temporary, path)
    finally:
        _remove(temporary)


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
