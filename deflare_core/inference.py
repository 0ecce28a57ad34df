"""Inference: a recording of any length in, a deflared recording out, one absolute window after another.

Events pass through the event-faithful decode, so what the network leaves alone keeps its exact timestamps. Reading, the
network and writing overlap; memory holds a few windows. A run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deflare_core.codec import AppliedVoxel
from deflare_core.deflaring.jobs import WORK_KEY, work_key
from deflare_core.deflaring.journal import Journal
from deflare_core.deflaring.stream import baseline_windows, deflare_overlapping, deflare_windows
from deflare_core.events import NUM_BINS, WINDOW_US, PolarityRule, SensorSize
from deflare_core.io.formats import HDF5_SUFFIXES
from deflare_core.io.reading import TimeUnit
from deflare_core.io.recordings import Recording, open_recording
from deflare_core.io.writer import RecordingWriter
from deflare_core.model import VoxelNetwork
from deflare_core.streams.baselines import baseline_named
from deflare_core.system.atomic_files import check_output
from deflare_core.system.devices import explain_out_of_memory
from deflare_core.system.prefetch import prefetch
from deflare_core.windows import Window, window_seed

INPUT_KEPT = "input_kept"
"""Dataset of flagged recordings: for each event of the input, whether it is in the output."""


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

    def __str__(self) -> str:
        share = self.num_removed / max(self.num_in, 1)
        return (
            f"{self.num_in:,} events in, {self.num_kept:,} kept, {self.num_removed:,} removed ({share:.1%}), "
            f"{self.num_synthesised:,} synthesised; {self.num_windows} windows, {self.recorded_s:.2f} s of recording "
            f"in {self.elapsed_s:.1f} s (real-time factor {self.real_time_factor:.2f})"
        )


def deflare_recording(
    method: VoxelNetwork | str,
    source: str | Path,
    target: str | Path,
    *,
    window_us: int = WINDOW_US,
    num_bins: int = NUM_BINS,
    seed: int = 0,
    overlap: bool = False,
    flags: bool = False,
    sensor_size: SensorSize | None = None,
    polarity: PolarityRule = "strict",
    time_unit: TimeUnit | None = None,
    progress: bool = True,
) -> InferenceSummary:
    """A summary of the deflared recording that was written to `target`, complete or not at all.

    A run that was killed or interrupted leaves a small journal beside `target`; the same call goes on from there.

    Parameters
    ----------
    method : a trained network, on the device to use, or the name of a baseline (see `baselines`).
    source, target : the recording to read and the HDF5 file to write.
    window_us, num_bins : how the recording is cut; as in training.
    seed : seed of what is random in the event-faithful decode.
    overlap : blend the network's outputs of overlapping windows; see `windows.deflare_overlapping`.
    flags : also write `events/synthesised`, 1 for events that were not recorded, and `input_kept`, for each event of
        the input whether it is in the output.
    sensor_size : (height, width), needed only when the file does not say.
    polarity : "strict", or "lenient" to read 1 as positive and anything else as negative.
    time_unit : "s", "ms" or "us", for text that does not declare its unit.
    progress : show a progress bar.

    Raises
    ------
    RecordingError
        When the recording cannot be read or is too long to be written, or another run writes its result.
    ValueError
        When no such file can be made of the recording (`check_output`), or a GPU's memory does not suffice.
    """
    check_output(target, source, HDF5_SUFFIXES)
    started = time.perf_counter()
    settings = {"window_us": window_us, "num_bins": num_bins, "seed": seed, "overlap": overlap, "flags": flags}
    reading = {"sensor_size": sensor_size, "polarity": polarity, "time_unit": time_unit}
    with open_recording(source, sensor_size, polarity, time_unit) as recording:
        recording.check_length()
        key = work_key(method, source, {**settings, **reading})
        with Journal(target, key) as journal:
            starts = recording.window_starts(window_us)
            deflared = all_deflared(method, recording, starts, journal, window_us, num_bins, seed, overlap)
            writer = deflared_writer(recording, source, target, key)
            with (
                closing(deflared) as windows,
                explain_out_of_memory(lambda: advise_on_memory(method, recording.sensor_size)),
                tqdm(windows, total=len(starts), unit="window", disable=not progress) as bar,
            ):
                counts = write_windows(bar, recording, writer, flags)
            journal.remove()
        recorded_s = (recording.clock_us[1] - recording.clock_us[0]) / 1e6
    return InferenceSummary(*counts, len(starts), recorded_s, time.perf_counter() - started)


def all_deflared(
    method: VoxelNetwork | str,
    recording: Recording,
    starts: range,
    journal: Journal,
    window_us: int,
    num_bins: int,
    seed: int,
    overlap: bool,
) -> Generator[AppliedVoxel, None, None]:
    """Every window of the recording: those that the journal knows as it has them, then those that it is to note.

    Baselines are quick, and remember what came before: they begin anew.
    """

    def read(first: int, end: int | None = None) -> Generator[Window, None, None]:
        windows = ((t0_us, recording.window(t0_us, t0_us + window_us)) for t0_us in starts[first:end])
        return prefetch((t0_us, events, window_seed(seed, t0_us)) for t0_us, events in windows)

    if isinstance(method, str):
        yield from baseline_windows(baseline_named(method), read(0), window_us, seed)
        return
    done = zip(read(0, journal.num_done), journal.decisions(), strict=True)
    for (_, events, _), decision in done:
        yield decision.applied(events)
    # A blend needs the window before, and a network those it also sees; what is made of them again is dropped.
    repeated = min(journal.num_done, method.config.context + overlap)
    deflare = deflare_overlapping if overlap else deflare_windows
    with closing(prefetch(deflare(method, read(journal.num_done - repeated), window_us, num_bins))) as deflared:
        for window in islice(deflared, repeated, None):
            journal.append(window)
            yield window


def write_windows(
    windows: Iterable[AppliedVoxel], recording: Recording, writer: RecordingWriter, flags: bool
) -> tuple[int, int, int, int]:
    """How many events there were, were kept, removed and synthesised in the windows, which are then written.

    Raises
    ------
    RecordingError
        When the windows do not hold all of the recording's events, because these are not in order.
    """
    num_in = num_kept = num_out = 0
    with writer:
        for window in windows:
            if flags:
                writer.append(window.events, synthesised=window.synthesised.astype(np.uint8))
                writer.extend(INPUT_KEPT, window.kept.astype(np.uint8))
            else:
                writer.append(window.events)
            num_in, num_out = num_in + len(window.kept), num_out + len(window.events)
            num_kept += int(window.kept.sum())
        recording.check_all_read(num_in)
    return num_in, num_kept, num_in - num_kept, num_out - num_kept


def advise_on_memory(method: VoxelNetwork | str, sensor_size: SensorSize) -> tuple[str, str]:
    """What needs too much of a GPU's memory, and what needs less: strips of the frame are of 3-D networks only."""
    height, width = sensor_size
    in_strips = not isinstance(method, str) and not method.is_flat
    strips = f"Let it work on strips of them with strip_rows={max(8, height // 8)}, or use" if in_strips else "Use"
    return f"for frames of {height} x {width}", f"{strips} device=cpu."


def deflared_writer(recording: Recording, source: str | Path, target: str | Path, key: str) -> RecordingWriter:
    """A writer of what becomes of a recording, on the same sensor and declared clock, with the key of the work."""
    clock_us = recording.clock_us if recording.declares_clock else None
    return RecordingWriter(
        target,
        recording.sensor_size,
        source=f"deflared from {Path(source).name}",
        clock_us=clock_us,
        attributes={WORK_KEY: key},
    )
