"""Inference: a recording of any length in, a deflared recording out, one absolute window after another.

Events pass through the event-faithful decode, so what the network leaves alone keeps its exact timestamps. Reading, the
network and writing overlap; memory holds a few windows. A run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from deflare_core.checkpoint import check_cut, find_checkpoint, load_model, read_checkpoint
from deflare_core.codec import AppliedVoxel
from deflare_core.config import InferenceConfig, ModelConfig
from deflare_core.deflaring.jobs import WORK_KEY, work_key
from deflare_core.deflaring.journal import Journal
from deflare_core.deflaring.method import BaselineMethod, Method, NetworkMethod, OracleMethod
from deflare_core.deflaring.progress import Progress
from deflare_core.deflaring.strips import cut_in_strips
from deflare_core.deflaring.summary import InferenceSummary, Tally
from deflare_core.events import NUM_BINS, WINDOW_US, Events
from deflare_core.io.excerpt import WHOLE, Part
from deflare_core.io.formats import HDF5_SUFFIXES
from deflare_core.io.reading import AS_STATED, Reading
from deflare_core.io.recordings import Recording, open_recording, read_windows
from deflare_core.io.writer import RecordingWriter
from deflare_core.model import VoxelNetwork
from deflare_core.system.atomic_files import check_output
from deflare_core.system.places import PRETRAINED
from deflare_core.system.prefetch import prefetch
from deflare_core.system.settings import make_config
from deflare_core.windows import USUAL_CUT, Cut, Window, derive_seed

OF_NETWORKS = {"seed", "overlap", "level", "strip_rows"}
"""Settings of `InferenceConfig` that `load_method` takes too, by name."""
INPUT_KEPT = "input_kept"
"""Dataset of flagged recordings: for each event of the input, whether it is in the output."""


def load_method(
    name: str = "network",
    checkpoint: str | Path = PRETRAINED,
    *,
    device: str = "auto",
    cut: Cut = USUAL_CUT,
    seed: int = 0,
    overlap: bool = False,
    level: float | str | None = None,
    strip_rows: int | None = None,
) -> Method:
    """The way to deflare that a name stands for.

    Parameters
    ----------
    name : "network", a baseline such as "baf", "oracle", or NAME=PATH for the network of another checkpoint.
    checkpoint : checkpoint or run folder of "network".
    device : where a network computes; auto takes the first GPU, else the CPU.
    cut : how recordings will be cut; a network is of one cut.
    seed : seed of what is random in a baseline.
    overlap, level, strip_rows : of a network only; see `InferenceConfig`.

    Raises
    ------
    DeflareError
        When there is no method of that name, or the checkpoint cannot be used, or not on recordings cut so.
    """
    label, is_path, path = name.partition("=")
    if name == "oracle":
        return OracleMethod()
    if not is_path and name != "network":
        return BaselineMethod(name, seed)
    folder = find_checkpoint(path or checkpoint)
    check_cut(read_checkpoint(folder), *cut)
    model = load_model(folder, device)
    if level is not None:
        model.config = make_config(ModelConfig, model.config.model_dump() | {"level": level}, origin="load_method")
    # `best` and `last` are links; the report names the checkpoint itself.
    origin = str(folder.with_name(folder.resolve().name))
    return NetworkMethod(cut_in_strips(model, strip_rows) if strip_rows else model, overlap, label, origin)


def configure_method(config: InferenceConfig, device: str) -> Method:
    """The way to deflare that a configuration describes, on a device."""
    cut, settings = Cut(config.window_us, config.num_bins), config.model_dump(include=OF_NETWORKS)
    return load_method(config.method, config.checkpoint, device=device, cut=cut, **settings)


def deflare(
    events: Events, method: Method | VoxelNetwork | None = None, cut: Cut = USUAL_CUT, *, seed: int = 0
) -> Events:
    """A recording in memory without its flare, in windows on the grid of whole window lengths.

    Parameters
    ----------
    events : the recording.
    method : what `load_method` gives, or a network; none takes the pretrained one.
    cut : length and bins of a window.
    seed : seed of what is random in the event-faithful decode.
    """
    if not len(events):
        return events
    starts_us = range(int(events.t[0]) // cut.window_us * cut.window_us, int(events.t[-1]) + 1, cut.window_us)
    windows = (
        Window(t0_us, events.window(t0_us, t0_us + cut.window_us), derive_seed(seed, t0_us)) for t0_us in starts_us
    )
    return Events.concatenate([part.events for part in _as_method(method or load_method()).deflare(windows, cut)])


def _as_method(method: Method | VoxelNetwork) -> Method:
    return NetworkMethod(method) if isinstance(method, VoxelNetwork) else method


def deflare_recording(
    method: Method | VoxelNetwork,
    source: str | Path,
    target: str | Path,
    *,
    window_us: int = WINDOW_US,
    num_bins: int = NUM_BINS,
    seed: int = 0,
    flags: bool = False,
    reading: Reading = AS_STATED,
    part: Part = WHOLE,
    progress: bool | Progress = True,
) -> InferenceSummary:
    """A summary of the deflared recording that was written to `target`, complete or not at all.

    A run that was killed or interrupted leaves a small journal next to `target`; the same call goes on from there.

    Parameters
    ----------
    method : what `load_method` gives, or a network, on the device to use.
    source, target : the recording to read and the HDF5 file to write.
    window_us, num_bins : how the recording is cut; as in training.
    seed : seed of what is random in the event-faithful decode.
    flags : also write `events/synthesised`, 1 for events that were not recorded, and `input_kept`, for each event of
        the input whether it is in the output.
    reading : what the source does not say itself, such as `Reading(sensor_size=(480, 640))`.
    part : the part of the recording to take, such as `Part(crop=(0, 0, 240, 320))`.
    progress : show a progress bar, or how to.

    Raises
    ------
    DeflareError
        When the recording cannot be read or is too long to be written, another run writes its result, no such file can
        be made of the recording (`check_output`), or a GPU's memory does not suffice.
    """
    check_output(target, source, HDF5_SUFFIXES)
    method, started, cut = _as_method(method), time.perf_counter(), Cut(window_us, num_bins)
    shown = progress if isinstance(progress, Progress) else Progress(progress)
    settings = {**cut._asdict(), "seed": seed, "flags": flags, "reading": reading, "part": part}
    tally = Tally()
    with open_recording(source, reading, progress=shown.is_shown) as whole:
        recording, key = part.open(whole), work_key(method, source, settings)
        recording.check_length()
        with Journal(target, key) as journal:
            starts = recording.window_starts(window_us)
            deflared = deflare_or_recall(method, recording, starts, journal, cut, seed)
            clock_us = recording.clock_us if recording.declares_clock else None
            about: dict[str, Any] = {"source": f"deflared from {Path(source).name}", "attributes": {WORK_KEY: key}}
            writer = RecordingWriter(target, recording.sensor_size, clock_us=clock_us, **about)
            watched = shown.watch(tally.count(deflared), len(starts), journal.num_done)
            with closing(deflared), closing(watched) as windows, writer:
                write_windows(windows, writer, flags)
                recording.check_all_read(tally.num_in)
            journal.remove()
        recorded_s = (recording.clock_us[1] - recording.clock_us[0]) / 1e6
    return tally.summarise(starts, recorded_s, time.perf_counter() - started)


def deflare_or_recall(
    method: Method, recording: Recording, starts: range, journal: Journal, cut: Cut, seed: int
) -> Generator[AppliedVoxel, None, None]:
    """Every window of the recording: those that the journal knows as it has them, then those that it is to note."""

    def read(first: int, end: int | None = None) -> Generator[Window, None, None]:
        return prefetch(read_windows(recording, starts[first:end], cut.window_us, seed))

    if method.reach is None:
        # Baselines are quick, and remember what came before: they start again.
        yield from method.deflare(read(0), cut)
        return
    for window, decision in zip(read(0, journal.num_done), journal.decisions(), strict=True):
        yield decision.apply(window.events)
    seen_again = min(journal.num_done, method.reach)
    with closing(prefetch(method.deflare(read(journal.num_done - seen_again), cut, seen_again))) as deflared:
        for applied in deflared:
            journal.append(applied)
            yield applied


def write_windows(windows: Iterable[AppliedVoxel], writer: RecordingWriter, flags: bool) -> None:
    """Write the events of the windows, and with `flags` which were recorded, and what became of those recorded."""
    for window in windows:
        if flags:
            writer.append(window.events, synthesised=window.synthesised.astype(np.uint8))
            writer.extend(INPUT_KEPT, window.kept.astype(np.uint8))
        elif len(window.events):
            writer.append(window.events)
