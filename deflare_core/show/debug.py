"""Debug pictures: what a stage of the pipeline took in and gave out, as PNG files in one folder.

Training and evaluation show each window in a folder: events and voxels of input, target, output and residual, and
`debug_summary.txt`. The residual is the one that the network added, taken where it arises.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deflare_core.codec import encode_window, merge_polarities, voxel_to_events
from deflare_core.config import TrainConfig
from deflare_core.dataset import EventVoxelDataset, PairedWindow
from deflare_core.deflaring.host import HostPath
from deflare_core.deflaring.method import Method, NetworkMethod
from deflare_core.deflaring.stream import deflare_windows
from deflare_core.events import WINDOW_US, Events
from deflare_core.io.pairs import RecordingPair
from deflare_core.loop.run import Run, TrainingError, start_run
from deflare_core.loop.sampling import sample_indices
from deflare_core.model import TrueResidualUNet3D, VoxelNetwork
from deflare_core.scores.predictions import load_or_predict
from deflare_core.show.figures import draw_event_cloud, draw_event_series, draw_voxels, find_limit, save_figure
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.processes import join_processes
from deflare_core.training import keep_randomness, train_step, training_batches
from deflare_core.windows import USUAL_CUT, Cut, Window, neighbour_offsets

DEBUG_OUTPUT = Path("reports/debug_output")
DEBUG_STEPS = 2
"""Steps after which training in debug mode ends."""
SAMPLED_WINDOWS = 5
"""In evaluation every fifth window of a recording is pictured."""
EVENT_FOLDERS = {"input": 1, "target": 4, "output": 7, "residual": 8}
VOXEL_FOLDERS = {"input": 3, "target": 6, "residual": 8, "output": 9}


@dataclass(frozen=True, slots=True)
class DebugWindow:
    """What there is to show of one window, named by its file and number."""

    name: str
    t0_us: int
    window_us: int
    events: dict[str, Events]
    """Input, target and output by name."""
    voxels: dict[str, NDArray[np.float32]]
    """Signed voxels `(bins, H, W)` of the same, and of what a true residual network added ("residual")."""


def write_window_pictures(folder: Path, name: str, events: Events, voxel: np.ndarray, t0_us: int) -> list[Path]:
    """The pictures written of one 20 ms window: its events as a cloud and as a series, and its voxel `(bins, H, W)`."""
    figures = {
        "events_3d": draw_event_cloud(events, seed=0),
        "events_2d": draw_event_series({name: events}, t0_us, t0_us + WINDOW_US),
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
        batches = training_batches(run)
        folders: list[Path] = []
        with keep_randomness(run.device):
            while run.step < config.trainer.max_steps and len(folders) < DEBUG_STEPS:
                folders.append(folder / f"epoch_{run.epoch:03d}_iter_{run.step:03d}")
                if processes.is_first:
                    index = sample_indices(config.trainer, run.supply, run.step)[0]
                    write_debug_window(folders[-1], show_training_window(run, index))
                train_step(run, batches)
        return folders


def show_training_window(run: Run, index: int) -> DebugWindow:
    """A window of the training data and what the network makes of it; in-memory windows have their events decoded."""
    data, name = run.data, run.data.window_name(index)
    if isinstance(data, EventVoxelDataset):
        pair, k = data.place(index)
        clean = next(islice(data.windows(pair), k, None)).clean
        return show_network_window(run.model, name, _read_seen(data, pair, k, data.context), clean, data.cut)
    raw, label = (data[index][key].cpu().numpy() for key in ("raw", "label"))
    (target,) = decode_windows(label, run.model.channels)
    return show_network_window(run.model, name, decode_windows(raw, run.model.channels), target.events, USUAL_CUT)


def _read_seen(data: EventVoxelDataset, pair: RecordingPair, k: int, context: int) -> list[Window]:
    """Window k of a pair's input between as many neighbours before and after it as a network sees."""
    return list(data.read_input(pair, context, part=slice(k, k + 1)))


def decode_windows(voxels: NDArray[np.float32], num_channels: int) -> list[Window]:
    """The window that starts at 0 us between its neighbours, in order, with events drawn from their voxels.

    Voxels are float32 `(inputs, bins, H, W)`: the channels of the window and its neighbours, as networks take them.
    """
    parts = voxels.reshape(-1, num_channels, *voxels.shape[1:])
    by_offset = dict(zip(neighbour_offsets(len(parts) // 2), parts, strict=True))
    starts_us = {offset * WINDOW_US: merge_polarities(by_offset[offset]) for offset in sorted(by_offset)}
    return [Window(t0, voxel_to_events(voxel, WINDOW_US, t0_us=t0, seed=0), seed=0) for t0, voxel in starts_us.items()]


def show_network_window(model: VoxelNetwork, name: str, seen: Sequence[Window], clean: Events, cut: Cut) -> DebugWindow:
    """What a network makes of a window, and what it added to its voxel if it is a true residual network.

    `seen` is the window between as many neighbours before and after it as the network sees; `clean` is the target.
    """
    middle = len(seen) // 2
    shown, t0_us = seen[middle], seen[middle].t0_us
    with note_residuals(model) as noted:
        # A GPU replays a recorded graph, in which nobody could note anything.
        applied = next(deflare_windows(model, seen, cut, skip=middle, path=HostPath(model, cut)))
    assert applied.output is not None, "A network has an output."
    before = encode_window(shown.events, t0_us, cut, model.channels)
    voxels = {"input": before, "target": encode_window(clean, t0_us, cut)}
    if noted:
        voxels["residual"] = noted[0][0].float().cpu().numpy()
    voxels["output"] = applied.output.cpu().numpy()
    events = {"input": shown.events, "target": clean, "output": applied.events}
    signed = {key: merge_polarities(voxel) for key, voxel in voxels.items()}
    return DebugWindow(name, t0_us, cut.window_us, events, signed)


@contextmanager
def note_residuals(model: VoxelNetwork) -> Iterator[list[torch.Tensor]]:
    """A list that gets every residual `(N, C, bins, H, W)` that the network computes meanwhile; none of a plain one."""
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
    folders = []
    for pair in (pair for pair in data.pairs if pair.name in names):
        for k, shown in _show_pair(data, method, pair, cache):
            folders.append(folder / f"{pair.name}_window_{k}")
            write_debug_window(folders[-1], shown)
    return folders


def _show_pair(
    data: EventVoxelDataset, method: Method, pair: RecordingPair, cache: Path | None
) -> Iterator[tuple[int, DebugWindow]]:
    """The number of every fifth window of a pair, and what a method made of it."""
    windows = islice(enumerate(data.windows(pair)), 0, None, SAMPLED_WINDOWS)
    if isinstance(method, NetworkMethod):
        for k, window in windows:
            seen = _read_seen(data, pair, k, method.model.config.context)
            yield k, show_network_window(method.model, f"{pair.noisy}[{k}]", seen, window.clean, data.cut)
        return
    predicted = load_or_predict(method, data, pair, cache).events
    for k, window in windows:
        output = predicted.window(window.t0_us, window.t0_us + data.cut.window_us)
        yield k, show_filtered_window(f"{pair.noisy}[{k}]", window, output, data.cut)


def show_filtered_window(name: str, window: PairedWindow, output: Events, cut: Cut) -> DebugWindow:
    """What a method that is no network made of a window."""
    events = {"input": window.noisy, "target": window.clean, "output": output}
    voxels = {key: encode_window(each, window.t0_us, cut)[0] for key, each in events.items()}
    return DebugWindow(name, window.t0_us, cut.window_us, events, voxels)


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
    lines = [f"{shown.name}, {shown.t0_us / 1e3:.1f} to {(shown.t0_us + shown.window_us) / 1e3:.1f} ms"]
    lines += [f"{name}: {len(events):,} events" for name, events in shown.events.items()]
    wanted = {"wanted residual (target - input)": shown.voxels["target"] - shown.voxels["input"]}
    for name, voxel in {**shown.voxels, **wanted}.items():
        lines.append(f"{name} voxel: mean {voxel.mean():+.5f}, standard deviation {voxel.std():.5f} events per cell")
    if "residual" in shown.voxels:
        gap = np.abs(shown.voxels["input"] + shown.voxels["residual"] - shown.voxels["output"]).max()
        lines.append(f"identity check: output = input + residual is {gap < 1e-3}, largest difference {gap:.3g}")
    return "\n".join(lines) + "\n"
