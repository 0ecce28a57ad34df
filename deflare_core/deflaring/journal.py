"""The journal of a long run: what was decided about each window so far, in a file beside the output.

A killed run leaves no output, since output is complete or absent, but its journal stays. Started again, the run takes
what was decided from there and goes on. A window takes a bit for each recorded event and 13 bytes for each
synthesised one, a hundredth of what its events take. Every record carries its checksum, so one that was cut off is
noticed and made again. Only an input that can never be deflared takes the journal away; a failure of a disk or of a
GPU's memory may pass, and leaves it. One run at a time holds the journal of an output, and clears away what killed
ones left.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from deflare_core.codec import AppliedVoxel, merged
from deflare_core.events import Events
from deflare_core.io.recordings import RecordingError
from deflare_core.system.atomic_files import make_folder_of, remove_leftovers, unwritable

HEAD = struct.Struct("<QQI")
"""Recorded events of a window, synthesised ones, checksum of both and of what follows."""
KEY_BYTES = 32
COLUMNS: dict[str, np.dtype] = {
    name: np.dtype(code) for name, code in zip("txyp", ("<i8", "<u2", "<u2", "i1"), strict=True)
}
EVENT_BYTES = sum(dtype.itemsize for dtype in COLUMNS.values())
PASSING = (OSError, RuntimeError)
"""What a failure that may pass stems from: a disk that cannot be read now, a GPU's memory that others take up."""


class Decision(NamedTuple):
    """What was decided about a window: which recorded events stay, and those to add, as columns by name."""

    kept: NDArray[np.bool_]
    added: dict[str, np.ndarray]

    def applied(self, events: Events) -> AppliedVoxel:
        """The window's events after the decision."""
        added = Events(**self.added, sensor_size=events.sensor_size)
        return merged(events[self.kept], added, self.kept)


class Journal:
    """The journal of the run that writes `target`, open; used in a `with` block, which leaves the file on disk.

    Parameters
    ----------
    target : the output file.
    key : everything that decides the output; a journal of anything else is begun anew.

    Raises
    ------
    RecordingError
        When another run is writing the same output.
    """

    def __init__(self, target: str | Path, key: str) -> None:
        self.target, self._key = Path(target), hashlib.sha256(key.encode()).digest()
        self.path = self.target.with_name(f".{self.target.name}.journal")
        self.num_done = 0

    def __enter__(self) -> Self:
        make_folder_of(self.target)
        self._file = self._held()
        remove_leftovers(self.target)
        if self._file.read(KEY_BYTES) != self._key:
            self._begin()
        self.num_done = sum(1 for _ in self.decisions())
        self._file.truncate()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, ValueError) and not isinstance(error.__cause__, PASSING):
            self.remove()
        self._file.close()

    def decisions(self) -> Iterator[Decision]:
        """What was decided about the windows done, in their order; the file then stands behind the last one."""
        self._file.seek(KEY_BYTES)
        while (decision := self._read()) is not None:
            yield decision

    def append(self, window: AppliedVoxel) -> None:
        """Note what was decided about the next window."""
        added = window.events[window.synthesised]
        columns = (getattr(added, name).astype(dtype).tobytes() for name, dtype in COLUMNS.items())
        body = np.packbits(window.kept).tobytes() + b"".join(columns)
        counts = len(window.kept), len(added)
        self._write(HEAD.pack(*counts, _checksum(*counts, body)) + body)

    def remove(self) -> None:
        """Take the journal away: the output is complete, or can never be made of this input."""
        self.path.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._write(self._key)

    def _held(self) -> io.FileIO:
        """The file, open and held by this run alone."""
        while True:
            try:
                file = io.FileIO(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
            except OSError as error:
                raise unwritable(self.target, error) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise RecordingError(f"{self.target}: another run is writing this file; wait for it to end.") from None
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                return file
            # The run that held it ended in between and took it away.
            file.close()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _read(self) -> Decision | None:
        """The next record, or none, with the file where it was, if there is no whole one."""
        start = self._file.tell()
        head = self._file.read(HEAD.size)
        if len(head) == HEAD.size:
            num_events, num_added, checksum = HEAD.unpack(head)
            size = -(-num_events // 8) + num_added * EVENT_BYTES
            if size <= self._remaining():
                body = self._file.read(size)
                if _checksum(num_events, num_added, body) == checksum:
                    return _decision(body, num_events, num_added)
        self._file.seek(start)
        return None

    def _remaining(self) -> int:
        return os.fstat(self._file.fileno()).st_size - self._file.tell()


def _checksum(num_events: int, num_added: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(HEAD.pack(num_events, num_added, 0)))


def _decision(body: bytes, num_events: int, num_added: int) -> Decision:
    place = -(-num_events // 8)
    kept = np.unpackbits(np.frombuffer(body, np.uint8, place), count=num_events).astype(np.bool_)
    added = {}
    for name, dtype in COLUMNS.items():
        added[name] = np.frombuffer(body, dtype, num_added, place)
        place += num_added * dtype.itemsize
    return Decision(kept, added)
