"""Debug pictures: what a stage of the pipeline took in and gave out, as PNG files in one folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from deflare_core.codec import events_to_voxel, voxel_to_events
from deflare_core.dataset import EventVoxelDataset
from deflare_core.events import NUM_BINS, WINDOW_US, Events
from deflare_core.figures import event_cloud_figure, event_series_figure, symmetric_limit, voxel_figure
from deflare_core.output import complete_or_absent
from deflare_core.predictions import Method, predicted

DEBUG_OUTPUT = Path("reports/debug_output")
SAMPLED_WINDOWS = 5
"""One window in so many has its pictures written."""


def write_window_pictures(folder: Path, name: str, events: Events, voxel: np.ndarray, t0_us: int) -> list[Path]:
    """The pictures of one 20 ms window: its events as a cloud and as a series, and the bins of its voxel."""
    t_end_us = t0_us + WINDOW_US
    figures = {
        "events_3d": event_cloud_figure(events, seed=0),
        "events_2d": event_series_figure({name: events}, t0_us, t_end_us),
        "voxel_bins": voxel_figure({name: voxel}, t0_us, WINDOW_US),
    }
    return [save_figure(figure, folder / f"{name}_{kind}.png") for kind, figure in figures.items()]


def write_debug_windows(
    data: EventVoxelDataset, method: Method, cache: Path | None, folder: Path, names: Collection[str]
) -> list[Path]:
    """The folders of pictures written, one for every fifth window of the recordings of these names, each file in it.

    Each holds input, target and output of a method, as events and as voxels, their residual, and `debug_summary.txt`.
    """
    folders = []
    for pair in (pair for pair in data.pairs if pair.name in names):
        output = predicted(method, data, pair, cache).events
        for k, (t0_us, noisy, clean) in enumerate(data.events(pair)):
            if k % SAMPLED_WINDOWS == 0:
                events = {"input": noisy, "target": clean, "output": output.window(t0_us, t0_us + data.window_us)}
                folders.append(folder / f"{pair.name}_window_{k}")
                write_debug_window(folders[-1], events, t0_us, data.num_bins, data.window_us)
    return folders


def write_debug_window(
    folder: Path, events: Mapping[str, Events], t0_us: int, num_bins: int = NUM_BINS, window_us: int = WINDOW_US
) -> None:
    """Write the pictures of one window's input, target and output, and what its residual is, in figures."""
    voxels = {name: events_to_voxel(e, num_bins, None, window_us, t0_us=t0_us) for name, e in events.items()}
    residual = voxels["output"] - voxels["input"]
    shown = {**voxels, "residual": residual}
    for number, name in ((1, "input"), (4, "target"), (7, "output")):
        part = folder / f"{number}_{name}_events"
        save_figure(event_cloud_figure(events[name], seed=0), part / "events_3d.png")
        save_figure(event_series_figure({name: events[name]}, t0_us, t0_us + window_us), part / "events_2d.png")
    for number, name in ((3, "input"), (6, "target"), (8, "residual"), (9, "output")):
        picture = voxel_figure({name: shown[name]}, t0_us, window_us, symmetric_limit(list(shown.values())))
        save_figure(picture, folder / f"{number}_{name}_voxel" / "voxel_bins.png")
    changed = voxel_to_events(residual, window_us, t0_us=t0_us, seed=0)
    save_figure(event_cloud_figure(changed, seed=0), folder / "8_residual_events" / "events_3d.png")
    lines = [f"{name}: {len(e):,} events" for name, e in events.items()]
    lines += [f"{name} voxel: mean {v.mean():+.5f}, standard deviation {v.std():.5f}" for name, v in shown.items()]
    (folder / "debug_summary.txt").write_text("\n".join(lines) + "\n")


def save_figure(figure: Figure, path: Path) -> Path:
    """The path at which the figure was written, in the format of its suffix."""
    with complete_or_absent(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
    return path
