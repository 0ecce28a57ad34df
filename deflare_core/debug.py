"""Debug pictures: what a stage of the pipeline took in and gave out, as PNG files in one folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from deflare_core.events import WINDOW_US, Events
from deflare_core.figures import event_cloud_figure, event_series_figure, voxel_figure

DEBUG_OUTPUT = Path("reports/debug_output")


def write_window_pictures(folder: Path, name: str, events: Events, voxel: np.ndarray, t0_us: int) -> list[Path]:
    """The pictures of one 20 ms window: its events as a cloud and as a series, and the bins of its voxel."""
    t_end_us = t0_us + WINDOW_US
    figures = {
        "events_3d": event_cloud_figure(events, seed=0),
        "events_2d": event_series_figure({name: events}, t0_us, t_end_us),
        "voxel_bins": voxel_figure({name: voxel}, t0_us, WINDOW_US),
    }
    return [save_figure(figure, folder / f"{name}_{kind}.png") for kind, figure in figures.items()]


def save_figure(figure: Figure, path: Path) -> Path:
    """The path at which the figure was written as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
