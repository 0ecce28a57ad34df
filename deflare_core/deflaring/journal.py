"""The journal of a long run: what was decided about each window until now, in a file next to the output.

A killed run leaves no output, but its journal stays. Started again, the run takes what was decided from there and
goes on. One run at a time holds the journal of an output, and clears away what killed ones left. Only an input that
can never be deflared takes the journal away; a failure of a disk or of a GPU's memory may pass, and leaves it.

The file is a line that says what it is, a digest of the run's key, then for each window a hundredth of what its events
take:

    crc32 of what follows | recorded events, synthesised ones | a bit per recorded event | the synthesised events
    4 bytes               | 2 x 8 bytes                       | ceil(n / 8) bytes        | 13 bytes each

A record that was cut off or damaged does not fit its checksum; it and all after it are made again. SQLite was tried:
it takes up to three times as long, leaves a second file when it is killed, and needs a checksum of ours too.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import mmap
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from deflare_core.codec import AppliedVoxel, merge_events
from deflare_core.events import STRUCTURED_DTYPE, Events
from deflare_core.io.reading import RecordingError
from deflare_core.system.atomic_files import explain_unwritable, make_folder_of, remove_leftovers
from deflare_core.system.errors import DeflareError

FIRST_LINE = b"deflare journal\n"
KEY_BYTES, CHECKSUM_BYTES = len(FIRST_LINE) + 32, 4
COUNTS = struct.Struct("<QQ")
OF_SILENCE = zlib.crc32(COUNTS.pack(0, 0)).to_bytes(CHECKSUM_BYTES) + COUNTS.pack(0, 0)
"""The record of a window without events, in and out."""
WAITING_BYTES = 1 << 16
"""Records of silence that wait to be written: a killed run makes 3,000 such windows again, in no time."""
PASSING = (OSError, RuntimeError)
"""What a failure that may pass stems from: a disk that cannot be read now, a GPU's memory that others take up."""


class Decision(NamedTuple):
    """What was decided about a window: for each recorded event whether it stays, and the events to add, structured."""

    kept: NDArray[np.bool_]
    added: np.ndarray

    def apply(self, events: Events) -> AppliedVoxel:
        """The window's events after the decision."""
        return merge_events(events[self.kept], Events.from_array(self.added, events.sensor_size), self.kept)


class Journal:
    """The journal of the run that writes `target`, open in a `with` block, which leaves the file on disk.

    The key is everything that decides the output: a journal of another key is begun again. While another run writes
    the same output, or where something else has the journal's name, the block raises a RecordingError.
    """

    def __init__(self, target: str | Path, key: str) -> None:
        self.target, self._key = Path(target), FIRST_LINE + hashlib.sha256(key.encode()).digest()
        self.path = self.target.with_name(f".{self.target.name}.journal")
        self.num_done = 0
        self._waiting = b""

    def __enter__(self) -> Self:
        make_folder_of(self.target)
        self._file = self._hold()
        remove_leftovers(self.target)
        head = self._file.read(KEY_BYTES)
        if not head.startswith(FIRST_LINE[: len(head)]):
            self._file.close()
            raise self._refuse("another file")
        if head != self._key:
            self._file.seek(0)
            self._file.truncate()
            self._write(self._key)
        self.num_done = sum(1 for _ in self.decisions())
        self._file.truncate()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, DeflareError) and not _may_pass(error.__cause__):
            self.remove()
        else:
            # What cannot be written now is made again; the error that ended the run says more.
            with suppress(DeflareError, OSError):
                self._write_waiting()
        self._file.close()

    def decisions(self) -> Iterator[Decision]:
        """What was decided about the windows done, in their order; the file then stands behind the last one."""
        place = KEY_BYTES
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            while (found := _read_record(data, place)) is not None:
                decision, place = found
                yield decision
        self._file.seek(place)

    def append(self, window: AppliedVoxel) -> None:
        """Note what was decided about the next window; many in which nothing was are written at once."""
        is_silent = not len(window.kept) and not len(window.events)
        self._waiting += OF_SILENCE if is_silent else _make_record(window)
        if not is_silent or len(self._waiting) >= WAITING_BYTES:
            self._write_waiting()

    def remove(self) -> None:
        """Take the journal away: the output is complete, or can never be made of this input."""
        self.path.unlink(missing_ok=True)
        self._waiting = b""

    def _hold(self) -> io.FileIO:
        """The file, open and held by this run alone."""
        while True:
            try:
                file = io.FileIO(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise self._refuse("a link") from None
                raise explain_unwritable(self.target, error) from error
            state = os.fstat(file.fileno())
            if state.st_nlink > 1 or not stat.S_ISREG(state.st_mode):
                file.close()
                raise self._refuse("a file of another name too" if state.st_nlink > 1 else "no file")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise RecordingError(f"{self.target}: another run is writing this file; wait for it to end.") from None
            if os.fstat(file.fileno()).st_nlink:
                return file
            # The run that held it has ended in between and taken it away: this file has no name that others could find.
            file.close()

    def _refuse(self, found: str) -> RecordingError:
        return RecordingError(
            f"{self.path}: is {found}, where the journal of {self.target.name} belongs; move it, or name another "
            "output."
        )

    def _write_waiting(self) -> None:
        waiting, self._waiting = self._waiting, b""
        self._write(waiting)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise explain_unwritable(self.path, error) from error


def remove_journal(target: Path) -> None:
    """Take away what a run left that was killed when its output was complete; another run's journal stays."""
    journal = Journal(target, "of no run")
    if journal.path.exists():
        with suppress(RecordingError, OSError), journal:
            journal.remove()


def _may_pass(cause: BaseException | None) -> bool:
    """Whether a failure may not be there the next time; of a damaged file HDF5 makes an OSError without a number."""
    return isinstance(cause, PASSING) and not (isinstance(cause, OSError) and cause.errno is None)


def _make_record(window: AppliedVoxel) -> bytes:
    added = window.events[window.synthesised].to_structured()
    record = COUNTS.pack(len(window.kept), len(added)) + np.packbits(window.kept).tobytes() + added.tobytes()
    return zlib.crc32(record).to_bytes(CHECKSUM_BYTES) + record


def _read_record(data: mmap.mmap, place: int) -> tuple[Decision, int] | None:
    """The record at a place and where it ends, or None if no whole and undamaged one is there."""
    first = place + CHECKSUM_BYTES + COUNTS.size
    if first > len(data):
        return None
    num_events, num_added = COUNTS.unpack(data[first - COUNTS.size : first])
    middle = first + -(-num_events // 8)
    end = middle + num_added * STRUCTURED_DTYPE.itemsize
    checksum, record = data[place : place + CHECKSUM_BYTES], data[place + CHECKSUM_BYTES : end]
    if end > len(data) or zlib.crc32(record).to_bytes(CHECKSUM_BYTES) != checksum:
        return None
    kept = np.unpackbits(np.frombuffer(data[first:middle], np.uint8), count=num_events).astype(np.bool_)
    return Decision(kept, np.frombuffer(data[middle:end], STRUCTURED_DTYPE)), end
