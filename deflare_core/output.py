"""Output that is complete or absent: everything the package writes goes through `complete_or_absent`."""

from __future__ import annotations

import errno
import glob
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    except OSError as error:
        if error.errno in NO_ROOM:
            raise unwritable(path, error) from error
        raise
    finally:
        _remove(temporary)


def unwritable(path: Path, error: OSError) -> OSError:
    """The same error with the name of the file that was to be written and advice."""
    return OSError(error.errno, f"{path}: cannot be written ({os.strerror(error.errno or 0)}); make room for it.")


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of `path`; only for a process that knows that no other is writing it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        _remove(part)


class EnduringFile(io.FileIO):
    """A new file that remembers its first failed write, such as on a full disk, and takes all others for done.

    HDF5 crashes the interpreter when it cannot write while it closes a file; so it is told afterwards, by
    `raise_error`, that nothing was written, and the file is thrown away.
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
            raise unwritable(path, self._error)


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
