"""Chunks of a growing HDF5 dataset, compressed by threads of our own and written ready.

HDF5 compresses on one thread, and holds its one lock meanwhile: whoever reads another file waits. So the chunks are
compressed here, by the code that HDF5's Blosc filter would call, and HDF5 only puts them into the file, each with the
checksum by which whoever reads it finds a changed bit. The codec of each column is the quickest of nine that makes
files at most a tenth larger than the smallest (`reports/speed`).
"""

from __future__ import annotations

import ctypes
import functools
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import h5py
import hdf5plugin
import numpy as np

CHUNK_EVENTS = 1 << 16
THREADS = 2
"""A window of 200,000 events is compressed in 2 ms by one thread, less than a GPU takes for it."""
AHEAD = 8
"""Chunks that may wait for their turn. What is in a file must not depend on the time that its compression took."""
AS_IT_IS = 1
"""The mask of a chunk that the compressor was not applied to: HDF5 writes so what does not get smaller."""


class Codec(NamedTuple):
    """How Blosc compresses a column: by which compressor, at which level, after which shuffle."""

    name: Literal["lz4", "zstd"]
    level: int
    shuffle: int

    @property
    def filters(self) -> Mapping[str, Any]:
        """What h5py makes a dataset with that HDF5 can read."""
        return {"fletcher32": True, **hdf5plugin.Blosc(cname=self.name, clevel=self.level, shuffle=self.shuffle)}


SHUFFLE, BIT_SHUFFLE = hdf5plugin.Blosc.SHUFFLE, hdf5plugin.Blosc.BITSHUFFLE
USUAL = Codec("lz4", 5, BIT_SHUFFLE)
CODECS = {"t": Codec("lz4", 5, SHUFFLE), "y": Codec("zstd", 1, BIT_SHUFFLE)}
"""By the names of columns. Times rise, so all their bytes but the last are alike; rows repeat more than columns do."""


class GrowingDataset:
    """A one-dimensional dataset of a file, which values are added to.

    Parameters
    ----------
    group, name, dtype : where it is made, and of what.
    compressor : open until after `finish`.
    """

    def __init__(self, group: h5py.Group, name: str, dtype: np.typing.DTypeLike, compressor: Compressor) -> None:
        self._codec, self._compressor = CODECS.get(name, USUAL), compressor
        # Of texts of any length a chunk only says where in the file they are; on such ones Blosc's filter crashes.
        self._is_plain = not np.dtype(dtype).hasobject
        filters = self._codec.filters if self._is_plain else {}
        self._dataset = group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(CHUNK_EVENTS,), **filters)
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0

    def append(self, values: np.ndarray) -> None:
        """Add values `(N,)`; those that fill chunks are on their way to the file."""
        self._waiting.append(values)
        self._num_waiting += len(values)
        if self._num_waiting >= CHUNK_EVENTS:
            values = np.concatenate(self._waiting)
            whole = len(values) // CHUNK_EVENTS * CHUNK_EVENTS
            for first in range(0, whole, CHUNK_EVENTS):
                self._submit(values[first : first + CHUNK_EVENTS])
            self._waiting, self._num_waiting = [values[whole:]], len(values) - whole

    def finish(self) -> None:
        """Send the last values on their way; nothing can be added after them."""
        if self._num_waiting:
            self._submit(np.concatenate(self._waiting))

    def _submit(self, values: np.ndarray) -> None:
        if not self._is_plain:
            self._dataset[self._extend(len(values)) :] = values
            return
        chunk = values.astype(self._dataset.dtype, copy=False)
        if len(values) < CHUNK_EVENTS:
            chunk = np.zeros(CHUNK_EVENTS, self._dataset.dtype)
            chunk[: len(values)] = values
        self._compressor.submit(chunk, self._codec, functools.partial(self._write, len(values)))

    def _write(self, num_values: int, data: bytes, mask: int) -> None:
        self._dataset.id.write_direct_chunk((self._extend(num_values),), data, mask)

    def _extend(self, num_values: int) -> int:
        """The length until now of the dataset, which is made longer."""
        first: int = self._dataset.shape[0]
        self._dataset.resize(first + num_values, axis=0)
        return first


class Compressor:
    """Threads that compress chunks, open in a `with` block; the chunks are written in the order in which they came."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS)
        self._under_way: deque[tuple[Future[tuple[bytes, int]], Callable[[bytes, int], None]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)

    def submit(self, chunk: np.ndarray, codec: Codec, write: Callable[[bytes, int], None]) -> None:
        """Compress a chunk; `write` is given the result and the mask of filters when its turn comes, in this thread."""
        self._under_way.append((self._threads.submit(compress, chunk, codec), write))
        self.write_all_but(AHEAD)

    def write_all_but(self, count: int) -> None:
        """Write the chunks that came first, until `count` are left."""
        while len(self._under_way) > count:
            compressed, write = self._under_way.popleft()
            write(*compressed.result())


def compress(chunk: np.ndarray, codec: Codec) -> tuple[bytes, int]:
    """A chunk as HDF5 stores it, and the mask of its filters."""
    target, size = np.empty(chunk.nbytes, np.uint8), chunk.nbytes
    source_and_target = size, chunk.ctypes.data, target.ctypes.data, size
    count = _load_blosc()(codec.level, codec.shuffle, chunk.itemsize, *source_and_target, codec.name.encode(), 0, 1)
    data, mask = (target[:count].tobytes(), 0) if count > 0 else (chunk.tobytes(), AS_IT_IS)
    return data + checksum(data), mask


def checksum(data: bytes) -> bytes:
    """The four bytes that HDF5's Fletcher-32 filter puts behind these: of 150 kB in 0.2 ms."""
    words = np.frombuffer(data + bytes(len(data) % 2), ">u2").astype(np.int64)
    sums = int(words.sum()), int(words @ np.arange(len(words), 0, -1))
    # HDF5 takes the rest of a division by 65535 as 65535 where it is 0, unless the sum itself is.
    first, second = (total and (total - 1) % 65_535 + 1 for total in sums)
    return (second << 16 | first).to_bytes(4, "little")


@functools.cache
def _load_blosc() -> Callable[..., int]:
    """Blosc's function that compresses, in the library of HDF5's filter; it waits for no other thread."""
    # level, shuffle, bytes of an item, bytes of all, source, target, bytes of the target, name, block size, threads
    number, size, pointer = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
    function = ctypes.CDLL(str(Path(hdf5plugin.PLUGIN_PATH) / "libh5blosc.so")).blosc_compress_ctx
    function.argtypes = [number, number, size, size, pointer, pointer, size, ctypes.c_char_p, size, number]
    function.restype = number
    return function
