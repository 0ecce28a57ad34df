"""Voxel files: the windows of a recording as one array `(windows, bins, H, W)` in `.npy` or `.pt`, and back."""

from __future__ import annotations

import io
import math
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from deflare_core.codec import events_to_voxel, voxel_to_events
from deflare_core.events import NUM_BINS, WINDOW_US, Events, check_sensor_size
from deflare_core.io.arrays import DAMAGED_ARRAY, write_npy_header
from deflare_core.io.formats import HDF5_SUFFIXES
from deflare_core.io.reading import AS_STATED, Reading
from deflare_core.io.recordings import Recording, open_recording, read_windows
from deflare_core.io.writer import RecordingWriter
from deflare_core.system.atomic_files import check_output, complete_or_absent
from deflare_core.system.errors import DeflareError, shorten
from deflare_core.system.input_files import check_input
from deflare_core.system.limits import LONGEST_US, check_memory
from deflare_core.system.tensors import find_oddity
from deflare_core.windows import derive_seed

ShowWindow = Callable[[Events, np.ndarray, int], object]
"""Is given the events of a window, its voxel `(bins, H, W)`, and its start in microseconds."""


class VoxelFileError(DeflareError):
    """A voxel file that cannot be read or written; the message names it."""


def encode_file(
    source: str | Path, target: str | Path, *, reading: Reading = AS_STATED, show_first: ShowWindow | None = None
) -> tuple[int, tuple[int, ...]]:
    """Start of the first window in microseconds, and the shape `(windows, bins, H, W)` of the float32 array written.

    Parameters
    ----------
    source : a recording, which is cut into windows of the usual length and bins.
    target : the voxel file to make, `.npy` or `.pt`; it is written complete or not at all.
    show_first : is given the first window.

    Raises
    ------
    DeflareError
        When the recording cannot be read, or no such file can be made of it (`check_output`).
    """
    target = Path(target)
    check_output(target, source, SUFFIXES)
    with open_recording(source, reading) as recording, complete_or_absent(target) as temporary:
        starts = recording.window_starts(WINDOW_US)
        shape = (len(starts), NUM_BINS, *recording.sensor_size)
        if 0 in shape:
            raise VoxelFileError(f"{source}: is empty and declares no duration, so there is no window to encode.")
        _check_room(target, shape)
        writer = WRITERS[target.suffix.lower()]
        num_held = writer.count_held(len(starts))
        check_memory(4 * num_held * math.prod(shape[1:]), f"{source}: {writer.holds}", "encode a part, or as .npy")
        writer.write(temporary, shape, _encode_windows(recording, starts, show_first))
        return starts.start, shape


def _check_room(target: Path, shape: tuple[int, ...]) -> None:
    """Raise a VoxelFileError unless a float32 array of this shape fits on the target's disk."""
    size, free = 4 * math.prod(shape), shutil.disk_usage(target.parent).free
    if size > free:
        raise VoxelFileError(
            f"{target}: the voxels of {shape[0]:,} windows would take {size / 1e9:,.1f} GB, and its disk has "
            f"{free / 1e9:,.1f} GB free; encode a shorter recording."
        )


def _encode_windows(recording: Recording, starts: range, show_first: ShowWindow | None) -> Iterator[np.ndarray]:
    """The voxel of each window, float32 `(bins, H, W)`: one array that each next window overwrites."""
    voxel, num_events = np.empty((NUM_BINS, *recording.sensor_size), np.float32), 0
    for t0_us, events, _, _ in read_windows(recording, starts, WINDOW_US, seed=0):
        num_events += len(events)
        events_to_voxel(events, t0_us=t0_us, out=voxel)
        if show_first and t0_us == starts.start:
            show_first(events, voxel, t0_us)
        yield voxel
    recording.check_all_read(num_events)


def _write_npy(path: Path, shape: tuple[int, ...], voxels: Iterable[np.ndarray]) -> None:
    # Written, not mapped: a full disk is an error of a write, but kills a process that writes to a map.
    with path.open("wb") as file:
        write_npy_header(file, np.dtype(np.float32), shape)
        for voxel in voxels:
            file.write(voxel.data)


def _write_pt(path: Path, shape: tuple[int, ...], voxels: Iterable[np.ndarray]) -> None:
    array = np.empty(shape, np.float32)
    for window, voxel in zip(array, voxels, strict=True):
        window[:] = voxel
    # On a full disk torch.save raises an error of its own kind, and Python's file the one of the system.
    content = io.BytesIO()
    torch.save(torch.from_numpy(array), content)
    path.write_bytes(content.getbuffer())


class Writer(NamedTuple):
    """What writes voxels to a file, how many of so many windows it holds in memory at once, and these in words."""

    write: Callable[[Path, tuple[int, ...], Iterable[np.ndarray]], None]
    count_held: Callable[[int], int]
    holds: str


WRITERS = {
    ".npy": Writer(_write_npy, lambda num_windows: 1, "a window"),
    ".pt": Writer(_write_pt, lambda num_windows: 2 * num_windows, "all windows, which .pt holds twice at once,"),
}
"""By the endings of voxel files."""
SUFFIXES = tuple(WRITERS)


def decode_file(
    source: str | Path,
    target: str | Path,
    *,
    t0_us: int = 0,
    seed: int = 0,
    show_first: ShowWindow | None = None,
) -> int:
    """The number of events written to the recording `target`, drawn window by window from a voxel file.

    Parameters
    ----------
    source : a `.npy` or `.pt` file of numbers `(windows, bins, H, W)`, or `(bins, H, W)` for one window.
    target : the HDF5 recording to make; it is written complete or not at all.
    t0_us : start of the first window, microseconds.
    seed : decides where the events of a cell are within their bin.
    show_first : is given the first window.

    Raises
    ------
    DeflareError
        When the file is missing, is no array of numbers of such a shape, or no such recording can be made of it.
    """
    check_output(target, source, HDF5_SUFFIXES)
    windows = _read_windows(Path(source))
    starts_us = range(t0_us, t0_us + len(windows) * WINDOW_US, WINDOW_US)
    clock_us, name = (t0_us, starts_us.stop), f"decoded from {Path(source).name}"
    with RecordingWriter(target, windows.shape[2:], source=name, clock_us=clock_us) as writer:
        for k, (start_us, voxel) in enumerate(zip(starts_us, windows, strict=True)):
            try:
                events = voxel_to_events(voxel, t0_us=start_us, seed=derive_seed(seed, start_us))
            except DeflareError as error:
                raise VoxelFileError(f"{source}, window {k}: {error}") from error
            writer.append(events)
            if show_first and k == 0:
                show_first(events, voxel, start_us)
        return writer.num_events


def _read_windows(path: Path) -> np.ndarray:
    """The file's array as `(windows, bins, H, W)`, of any dtype of numbers."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise VoxelFileError(f"{path}: voxel files end in {' or '.join(SUFFIXES)}.")
    check_input(path, VoxelFileError)
    try:
        array = _map_npy(path) if suffix == ".npy" else _load_pt(path)
    except pickle.UnpicklingError as error:
        raise VoxelFileError(f"{path}: is not a plain array, but needs code to be read, which is never run.") from error
    except (OSError, RuntimeError, AttributeError, OverflowError, *DAMAGED_ARRAY) as error:
        reason = shorten((str(error).splitlines() or [type(error).__name__])[0])
        raise VoxelFileError(f"{path}: is not a plain array ({reason}).") from error
    if array.dtype.kind not in "iuf" or array.ndim < 3:
        raise VoxelFileError(
            f"{path}: must hold (bins, H, W) or (windows, bins, H, W); found {array.dtype} {array.shape}."
        )
    if 0 in array.shape[-3:]:
        raise VoxelFileError(f"{path}: holds no cells; its shape is {array.shape}, of which only the first may be 0.")
    windows = array.reshape(-1, *array.shape[-3:])
    if len(windows) * WINDOW_US > LONGEST_US:
        raise VoxelFileError(f"{path}: holds {len(windows):,} windows, more than 24 hours; divide it.")
    try:
        check_sensor_size(windows.shape[2:])
    except DeflareError as error:
        raise VoxelFileError(f"{path}: {error}") from error
    return windows


def _map_npy(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
    return np.load(path, mmap_mode="r")


def _load_pt(path: Path) -> np.ndarray:
    tensor = torch.load(path, weights_only=True, map_location="cpu")
    if odd := find_oddity(tensor):
        raise ValueError(f"it is {odd}")
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
