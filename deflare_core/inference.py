"""Inference: a recording of any length in, a deflared recording out, one absolute window after another.

Windows start at the recording's declared start, or on the grid of whole window lengths. Events pass through the
event-faithful decode, so what the network leaves alone keeps its exact timestamps. Reading, the network and writing
overlap; memory holds a few windows.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from deflare_core.ahead import ahead
from deflare_core.codec import AppliedVoxel, apply_voxel, events_to_voxel
from deflare_core.dataset import RECORDING_SUFFIXES
from deflare_core.events import NUM_BINS, WINDOW_US, Events, PolarityRule, SensorSize
from deflare_core.model import VoxelNetwork
from deflare_core.recordings import CLOCK_ATTRIBUTES, Recording, RecordingError, RecordingWriter, open_recording

Window = tuple[int, Events, int]
"""Start of a window in absolute microseconds, its events, and the seed of what is random in its decode."""


@dataclass(frozen=True, slots=True)
class InferenceSummary:
    """What deflaring a recording did.

    Parameters
    ----------
    num_in, num_kept, num_removed, num_synthesised : events read, kept with their times, removed, and invented.
    num_windows : windows that the recording was cut into.
    recorded_s, elapsed_s : length of the recording and of the work, seconds.
    """

    num_in: int
    num_kept: int
    num_removed: int
    num_synthesised: int
    num_windows: int
    recorded_s: float
    elapsed_s: float

    @property
    def real_time_factor(self) -> float:
        """Seconds of recording deflared per second of work; above 1 is faster than the camera."""
        return self.recorded_s / self.elapsed_s if self.elapsed_s else float("inf")

    def to_dict(self) -> dict[str, float]:
        """The figures by name, with the real-time factor."""
        return {**asdict(self), "real_time_factor": self.real_time_factor}

    def __str__(self) -> str:
        share = self.num_removed / max(self.num_in, 1)
        return (
            f"{self.num_in:,} events in, {self.num_kept:,} kept, {self.num_removed:,} removed ({share:.1%}), "
            f"{self.num_synthesised:,} synthesised; {self.num_windows} windows, {self.recorded_s:.2f} s of recording "
            f"in {self.elapsed_s:.1f} s (real-time factor {self.real_time_factor:.2f})"
        )


def deflare_recording(
    model: VoxelNetwork,
    source: str | Path,
    target: str | Path,
    *,
    window_us: int = WINDOW_US,
    num_bins: int = NUM_BINS,
    seed: int = 0,
    sensor_size: SensorSize | None = None,
    polarity: PolarityRule = "strict",
    progress: bool = True,
) -> InferenceSummary:
    """A summary of the deflared recording that was written to `target`, complete or not at all.

    Parameters
    ----------
    model : a trained network, on the device to use.
    source, target : the recording to read and the HDF5 file to write.
    window_us, num_bins : how the recording is cut; as in training.
    seed : seed of what is random in the event-faithful decode.
    sensor_size : (height, width), needed only when the file does not say.
    polarity : "strict", or "lenient" to read 1 as positive and anything else as negative.
    progress : show a progress bar.

    Raises
    ------
    RecordingError
        When the recording cannot be read, or would be overwritten by its own result.
    """
    if Path(source).resolve() == Path(target).resolve():
        raise ValueError(f"{target}: is the recording itself; name another output file.")
    started = time.perf_counter()
    num_in = num_kept = num_out = 0
    with open_recording(source, sensor_size, polarity) as recording:
        starts = window_starts(recording, window_us)
        clock_us = recording.clock_us
        writer = RecordingWriter(
            target,
            recording.sensor_size,
            source=f"deflared from {Path(source).name}",
            clock_us=clock_us if CLOCK_ATTRIBUTES[0] in recording.attributes else None,
        )
        read = ahead((t0_us, recording.window(t0_us, t0_us + window_us), window_seed(seed, t0_us)) for t0_us in starts)
        deflared = ahead(deflare_windows(model, read, window_us, num_bins))
        with writer, closing(deflared):
            for window in tqdm(deflared, total=len(starts), unit="window", disable=not progress):
                writer.append(window.events)
                num_in, num_out = num_in + len(window.kept), num_out + len(window.events)
                num_kept += int(window.kept.sum())
    elapsed_s = time.perf_counter() - started
    recorded_s = (clock_us[1] - clock_us[0]) / 1e6
    return InferenceSummary(num_in, num_kept, num_in - num_kept, num_out - num_kept, len(starts), recorded_s, elapsed_s)


def recordings_to_deflare(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """The recording and the file to write; of a folder, each of its recordings and a file of its name in `target`.

    Raises
    ------
    RecordingError
        When the folder holds no recording.
    """
    if not source.is_dir():
        return [(source, target)]
    paths = sorted(path for path in source.iterdir() if path.suffix.lower() in RECORDING_SUFFIXES)
    if not paths:
        raise RecordingError(f"{source}: holds no recordings ({', '.join(RECORDING_SUFFIXES)}).")
    return [(path, target / path.name) for path in paths]


def deflare_windows(
    model: VoxelNetwork, windows: Iterable[Window], window_us: int, num_bins: int
) -> Iterator[AppliedVoxel]:
    """Every window `(t0_us, events, seed)` after the network's output was applied to its events."""
    if model.is_folded_on(next(model.parameters()).device):
        from deflare_core.gpu_inference import deflare_on_gpu

        yield from deflare_on_gpu(model, windows, window_us, num_bins)
        return
    for t0_us, events, seed in windows:
        voxel_in = events_to_voxel(events, num_bins, None, window_us, t0_us=t0_us)
        voxel_out = run_network(model, voxel_in)
        yield apply_voxel(events, voxel_in, voxel_out, window_us, t0_us=t0_us, seed=seed)


@torch.inference_mode()
def run_network(model: VoxelNetwork, voxel: np.ndarray) -> np.ndarray:
    """The network's output for one voxel `(bins, H, W)`, float32 of the same shape."""
    device = next(model.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(voxel))[None, None].to(device)
    return model.eval()(batch)[0, 0].float().cpu().numpy()


def window_starts(recording: Recording, window_us: int) -> range:
    """The absolute times at which the windows begin that cover the recording."""
    start_us, end_us = recording.clock_us
    if CLOCK_ATTRIBUTES[0] not in recording.attributes:
        start_us = start_us // window_us * window_us
    return range(start_us, end_us, window_us)


def window_seed(seed: int, t0_us: int) -> int:
    """A seed of the window's own, so that it comes out the same wherever the work begins."""
    return int(np.random.SeedSequence([seed, t0_us % 2**64]).generate_state(1, np.uint64)[0] >> 1)
