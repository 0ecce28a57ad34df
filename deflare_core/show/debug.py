"""Debug pictures: what a stage of the pipeline took in and gave out, as PNG files in one folder.

Training and evaluation show one window in a folder: events and voxels of input, target, output and residual, and
`debug_summary.txt`. The residual is the very one that the network added, taken where it arises; data sets and networks
know nothing of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deflare_core.codec import events_to_voxel, voxel_to_events
from deflare_core.config import TrainConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.stream import applied, encoded, own, run_network, signed
from deflare_core.events import NUM_BINS, WINDOW_US, Events
from deflare_core.loop.augmentation import Batch
from deflare_core.loop.run import Run, TrainingError, start_run
from deflare_core.loop.sampling import sample_indices
from deflare_core.model import TrueResidualUNet3D, VoxelNetwork
from deflare_core.scores.predictions import Method, predicted
from deflare_core.show.figures import (
    draw_event_cloud,
    draw_event_series,
    draw_voxels,
    find_limit,
    save_figure,
)
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.processes import join_processes
from deflare_core.training import keep_randomness, train_step, training_batches
from deflare_core.windows import Window, neighbour_offsets, window_seed

DEBUG_OUTPUT = Path("reports/debug_output")
DEBUG_STEPS = 2
"""Training in debug mode ends after so many steps."""
SAMPLED_WINDOWS = 5
"""In evaluation, one window in so many of each recording has its pictures written."""
EVENT_FOLDERS = {"input": 1, "target": 4, "output": 7, "residual": 8}
VOXEL_FOLDERS = {"input": 3, "target": 6, "residual": 8, "output": 9}


@dataclass(frozen=True, slots=True)
class DebugWindow:
    """What there is to show of one window.

    Parameters
    ----------
    name : the file and window, for the summary.
    t0_us, window_us : its start and length.
    events, voxels : input, target and output by name; of voxels also what a true residual network added.
    """

    name: str
    t0_us: int
    window_us: int
    events: dict[str, Events]
    voxels: dict[str, NDArray[np.float32]]


def write_window_pictures(folder: Path, name: str, events: Events, voxel: np.ndarray, t0_us: int) -> list[Path]:
    """The pictures of one 20 ms window: its events as a cloud and as a series, and the bins of its voxel."""
    t_end_us = t0_us + WINDOW_US
    figures = {
        "events_3d": draw_event_cloud(events, seed=0),
        "events_2d": draw_event_series({name: events}, t0_us, t_end_us),
        "voxel_bins": draw_voxels({name: voxel}, t0_us, WINDOW_US),
    }
    return [save_figure(figure, folder / f"{name}_{kind}.png") for kind, figure in figures.items()]


def debug_training(config: TrainConfig, folder: Path = DEBUG_OUTPUT, *, resume: bool = False) -> list[Path]:
    """The folders of pictures written, one for each of the first two steps of a run: `epoch_000_iter_000` and so on.

    They show the first window of the step as the network sees it before the step. The run's own folder is not touched.

    Raises
    ------
    TrainingError
        When the run cannot be started, or has taken its last step.
    """
    with join_processes(config.trainer.device) as processes:
        run = start_run(config, resume, processes)
        if run.step >= config.trainer.max_steps:
            raise TrainingError(f"{config.trainer.output_dir}: has taken all its steps; raise trainer.max_steps.")
        batches, last = training_batches(run), min(run.step + DEBUG_STEPS, config.trainer.max_steps)
        with keep_randomness(run.device):
            return [_debug_step(run, batches, folder) for _ in range(run.step, last)]


def _debug_step(run: Run, batches: Iterator[Batch], folder: Path) -> Path:
    """The folder in which a step's first window was pictured; then the step is taken."""
    target = folder / f"epoch_{run.epoch:03d}_iter_{run.step:03d}"
    if run.processes.is_first:
        write_debug_window(target, training_window(run, sample_indices(run.config.trainer, len(run.data), run.step)[0]))
    train_step(run, batches)
    return target


def training_window(run: Run, index: int) -> DebugWindow:
    """A window of the training data and what the network makes of it; in-memory windows have their events decoded."""
    data, name = run.data, run.data.window_name(index)
    if isinstance(data, EventVoxelDataset):
        pair, k = data.place(index)
        t0_us, noisy, clean = next(islice(data.events(pair, data.context), k, None))
        window = (t0_us, noisy, window_seed(0, t0_us))
        return network_window(run.model, name, window, clean, data.window_us, data.num_bins)
    noisy, clean = (decoded_windows(data[index][key].cpu().numpy(), run.model.channels) for key in ("raw", "label"))
    return network_window(run.model, name, (0, noisy, 0), clean, WINDOW_US)


def decoded_windows(voxels: NDArray[np.float32], num_channels: int) -> Events:
    """Events of the window from 0 us on and of its neighbours, of whose voxels these are the channels."""
    parts = voxels.reshape(-1, num_channels, *voxels.shape[1:])
    offsets = neighbour_offsets(len(parts) // 2)
    spans = {k: signed(part.squeeze(0) if num_channels == 1 else part) for k, part in zip(offsets, parts, strict=True)}
    return Events.concatenate(
        [voxel_to_events(spans[k], WINDOW_US, t0_us=k * WINDOW_US, seed=0) for k in sorted(spans)]
    )


def network_window(
    model: VoxelNetwork, name: str, window: Window, clean: Events, window_us: int, num_bins: int = NUM_BINS
) -> DebugWindow:
    """What a network makes of a window, and what it added to its voxel if it is a true residual network."""
    t0_us, seen, _ = window
    raw = encoded(model, seen, t0_us, window_us, num_bins)
    with residuals_noted(model) as noted:
        output = run_network(model, raw)
    voxels = {
        "input": signed(own(model, raw)),
        "target": events_to_voxel(clean, num_bins, None, window_us, t0_us=t0_us),
    }
    for residual in noted:
        voxels["residual"] = signed(residual.float().cpu().numpy().reshape(output.shape))
    voxels["output"] = signed(output)
    noisy = seen.window(t0_us, t0_us + window_us)
    events = {"input": noisy, "target": clean, "output": applied(model, window, raw, output, window_us).events}
    return DebugWindow(name, t0_us, window_us, events, voxels)


@contextmanager
def residuals_noted(model: VoxelNetwork) -> Iterator[list[torch.Tensor]]:
    """A list to which every residual is added that the network computes meanwhile; none for a plain network."""
    noted: list[torch.Tensor] = []
    if not isinstance(model, TrueResidualUNet3D):
        yield noted
        return
    compute = model.residual

    def note(voxel: torch.Tensor) -> torch.Tensor:
        noted.append(compute(voxel))
        return noted[-1]

    model.residual = note  # type: ignore[method-assign]
    try:
        yield noted
    finally:
        del model.residual


def write_debug_windows(
    data: EventVoxelDataset, method: Method, cache: Path | None, folder: Path, names: Collection[str]
) -> list[Path]:
    """The folders of pictures written, one for every fifth window of the recordings of these names, each file in it."""
    folders, context = [], method.model.config.context if method.model else 0
    for pair in (pair for pair in data.pairs if pair.name in names):
        for k, (t0_us, noisy, clean) in islice(enumerate(data.events(pair, context)), 0, None, SAMPLED_WINDOWS):
            name, settings = f"{pair.noisy}[{k}]", (clean, data.window_us, data.num_bins)
            if method.model is not None:
                shown = network_window(method.model, name, (t0_us, noisy, window_seed(0, t0_us)), *settings)
            else:
                output = predicted(method, data, pair, cache).events.window(t0_us, t0_us + data.window_us)
                shown = show_filtered_window(name, t0_us, noisy, output, *settings)
            folders.append(folder / f"{pair.name}_window_{k}")
            write_debug_window(folders[-1], shown)
    return folders


def show_filtered_window(
    name: str, t0_us: int, noisy: Events, output: Events, clean: Events, window_us: int, num_bins: int
) -> DebugWindow:
    """What a method that is no network made of a window."""
    events = {"input": noisy, "target": clean, "output": output}
    voxels = {key: events_to_voxel(each, num_bins, None, window_us, t0_us=t0_us) for key, each in events.items()}
    return DebugWindow(name, t0_us, window_us, events, voxels)


def write_debug_window(folder: Path, shown: DebugWindow) -> None:
    """Write the pictures of one window, all voxels on one colour scale, and the figures about it."""
    t_end_us, limit = shown.t0_us + shown.window_us, find_limit(list(shown.voxels.values()))
    events = dict(shown.events)
    if "residual" in shown.voxels:
        events["residual"] = voxel_to_events(shown.voxels["residual"], shown.window_us, t0_us=shown.t0_us, seed=0)
    for name, found in events.items():
        part = folder / f"{EVENT_FOLDERS[name]}_{name}_events"
        save_figure(draw_event_cloud(found, seed=0), part / "events_3d.png")
        save_figure(draw_event_series({name: found}, shown.t0_us, t_end_us), part / "events_2d.png")
    for name, voxel in shown.voxels.items():
        picture = draw_voxels({name: voxel}, shown.t0_us, shown.window_us, limit)
        save_figure(picture, folder / f"{VOXEL_FOLDERS[name]}_{name}_voxel" / "voxel_bins.png")
    with complete_or_absent(folder / "debug_summary.txt") as path:
        path.write_text(summarise_window(shown))


def summarise_window(shown: DebugWindow) -> str:
    """Counts, means and deviations of a window, and whether its output is the input plus the residual."""
    span_ms = [t_us / 1e3 for t_us in (shown.t0_us, shown.t0_us + shown.window_us)]
    lines = [f"{shown.name}, {span_ms[0]:.1f} to {span_ms[1]:.1f} ms"]
    lines += [f"{name}: {len(events):,} events" for name, events in shown.events.items()]
    wanted = {"wanted residual (target - input)": shown.voxels["target"] - shown.voxels["input"]}
    for name, voxel in {**shown.voxels, **wanted}.items():
        lines.append(f"{name} voxel: mean {voxel.mean():+.5f}, standard deviation {voxel.std():.5f} events per cell")
    if "residual" in shown.voxels:
        gap = np.abs(shown.voxels["input"] + shown.voxels["residual"] - shown.voxels["output"]).max()
        lines.append(f"identity check: output = input + residual is {gap < 1e-3}, largest difference {gap:.3g}")
    return "\n".join(lines) + "\n"
