"""Unfinished folders: marked while a process fills them, and taken away by the next run if that process was killed.

The mark is a file in the folder, and the folder is locked while its process runs. So a folder with a mark but without
a lock is one that nobody will ever finish, whatever number its process had.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from deflare_core.system.places import make_dated_folder
from deflare_core.system.signals import Terminated, hold_signals

MARK = ".unfinished"
TEMPORARY = "deflare-"
"""How the names of all temporary folders begin."""


def mark_unfinished(folder: Path) -> int | None:
    """The descriptor that locks a new folder while it is open, or None where a disk knows no such locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / MARK).touch()
    except OSError:  # Without a lock a mark would say that the process was killed.
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def dated_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder of `make_dated_folder` for the block to fill: a signal takes it away, since half of it misleads.

    Those that killed processes have left in `parent` go before.
    """
    remove_abandoned(parent)
    with ExitStack() as stack:
        with hold_signals():
            folder = make_dated_folder(parent, name)
            stack.enter_context(_unfinished(folder))
        yield folder


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A temporary folder (TMPDIR moves it) that goes when the block ends; those of killed processes go before."""
    remove_abandoned(parent or Path(gettempdir()), f"{TEMPORARY}*")
    # On a network's disk the name of an open file cannot be taken, and its folder stays.
    with TemporaryDirectory(prefix=TEMPORARY, dir=parent, ignore_cleanup_errors=True) as name:
        descriptor = mark_unfinished(Path(name))
        try:
            yield Path(name)
        finally:
            with suppress(FileNotFoundError):  # At its end Python takes it away before it closes generators.
                _empty(Path(name))
            if descriptor is not None:
                os.close(descriptor)


@contextmanager
def _unfinished(folder: Path) -> Iterator[None]:
    descriptor = mark_unfinished(folder)
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        _remove(folder)
        raise
    finally:
        (folder / MARK).unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def remove_abandoned(parent: Path, pattern: str = "*") -> None:
    """Remove the folders in another one that processes of this user were filling when they were killed."""
    for mark in parent.glob(f"{pattern}/{MARK}"):
        with suppress(OSError):  # Another run may take it away at the same time.
            _remove_if_abandoned(mark.parent)


def _remove_if_abandoned(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have finished it in between.
        if os.fstat(descriptor).st_uid == os.getuid() and (folder / MARK).exists():
            _remove(folder)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    _empty(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    """Remove all but the mark, which goes last: a process that is killed meanwhile leaves what the next run finds."""
    for path in (path for path in folder.iterdir() if path.name != MARK):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
