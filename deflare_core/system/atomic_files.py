"""Output that is complete or absent: everything the package writes goes through `complete_or_absent`."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deflare_core.system.errors import DeflareError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


def check_output(target: str | Path, source: str | Path, suffixes: tuple[str, ...]) -> None:
    """Raise a DeflareError unless `target` ends in one of the suffixes, and is neither the source nor a folder."""
    target = Path(target)
    if target.suffix.lower() not in suffixes:
        raise DeflareError(f"{target}: the name must end in one of {', '.join(suffixes)}.")
    # Of a link that leads round in a circle `resolve` would make a RuntimeError.
    if os.path.realpath(target) == os.path.realpath(source):
        raise DeflareError(f"{target}: is the recording itself; name another file.")
    if target.is_dir():
        raise DeflareError(f"{target}: is a folder; name a file in it.")


@contextmanager
def complete_or_absent(path: str | Path) -> Iterator[Path]:
    """A hidden temporary path beside `path`, renamed to `path` when the block ends without an error.

    The block may create a file or a folder there. On any error, an interrupt included, it is removed and what
    stood at `path` before stays untouched.

    Raises
    ------
    FileNotFoundError
        When the block ended well but created nothing.
    OSError
        When nothing can be written there, or a folder stands where a file was made; it names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    make_folder_of(path)
    remove_leftovers(path)
    try:
        yield temporary
        _replace(temporary, path)
    except OSError as error:
        if not path.parent.exists():
            raise OSError(errno.ENOENT, f"{path}: its folder was removed meanwhile; run it again.") from error
        if error.errno in NO_ROOM or (error.errno in NOT_ALLOWED and str(error.filename) == str(temporary)):
            raise explain_unwritable(path, error) from error
        raise
    finally:
        _remove(temporary)


def make_folder_of(path: Path) -> None:
    """Make the folder that a file is to be written in, if it is not there; an OSError names the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_unwritable(path, error) from error


def explain_unwritable(path: Path, error: OSError) -> OSError:
    """The same error with the name of the file that was to be written and advice."""
    advice = "make room for it" if error.errno in NO_ROOM else "name a place where files can be written"
    return OSError(error.errno, f"{path}: cannot be written ({os.strerror(error.errno or 0)}); {advice}.")


def remove_leftovers(path: Path) -> None:
    """Remove what processes that no longer run left of `path`; files that others have named alike stay."""
    remove_parts(path.parent, re.escape(path.name))


def remove_parts(folder: Path, names: str) -> None:
    """Remove what processes that no longer run left of the files of a folder whose names a regular expression fits."""
    named = re.compile(rf"\.(?:{names})\.(\d+)\.part")
    for part in folder.glob(".*.part"):
        if (found := named.fullmatch(part.name)) and not _is_another(int(found[1])):
            _remove(part)


def _is_another(process: int) -> bool:
    """Whether a process of this number runs, of whichever user, that is not this one."""
    if process == os.getpid():  # In a container, every run may have the number of the one that was killed.
        return False
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


class EnduringFile(io.FileIO):
    """A new file that remembers its first failed write, such as on a full disk, and reports every write as done.

    HDF5 crashes the interpreter when it cannot write while it closes a file. With this file it never learns of that;
    its caller does, by `raise_error`, and throws the file away.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """The number of bytes given."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self._error = self._error or error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """The size asked for."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def raise_error(self, path: Path) -> None:
        """Raise what went wrong, if anything did, with the name of the file that was to be written."""
        if self._error is not None:
            raise explain_unwritable(path, self._error)


def _replace(source: Path, target: Path) -> None:
    if target.is_dir() and not source.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{target}: is a folder; name a file in it.")
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
