"""Bands: stretches of rows that the simulation carries on their own, each as often as what it sees moves.

Near the horizon of a street little moves while the ground rushes by; one clock for the whole picture would render the
sky as often as the ground. All bands keep to multiples of one step, so that what they share is drawn once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_simu.config import SimulationConfig
from data_simu.scene import NEAREST_M, Scene

MAX_STEP_US, MIN_STEP_US = 4_000, 1_000
MAX_MOTION_PIXELS = 1.2
PIXELS_PER_BAND, MOST_BANDS = 16_384, 16
LARGEST_STRIDE = 4


@dataclass(frozen=True, slots=True)
class Band:
    """Rows from `first` to before `last`, rendered at every `stride`-th key time."""

    first: int
    last: int
    stride: int


def plan_bands(config: SimulationConfig, scene: Scene) -> tuple[NDArray[np.float64], list[Band]]:
    """The key times from the start of the warm-up to the end, microseconds, and the bands.

    What a band shows moves by no more than about a pixel from one of its key times to the next.
    """
    edges = _edges(*config.sensor_size)
    steps_us = np.clip(1e6 * MAX_MOTION_PIXELS / band_flows(config, scene, edges), MIN_STEP_US, MAX_STEP_US)
    span_us = config.duration_us + config.warmup_us
    num_steps = int(np.ceil(span_us / steps_us.min() / LARGEST_STRIDE)) * LARGEST_STRIDE
    times_us = np.linspace(-config.warmup_us, config.duration_us, num_steps + 1)
    strides = 2 ** np.floor(np.log2(np.clip(steps_us * num_steps / span_us, 1, LARGEST_STRIDE))).astype(int)
    return times_us, [Band(*edge, int(stride)) for edge, stride in zip(edges, strides, strict=True)]


def band_flows(config: SimulationConfig, scene: Scene, edges: list[tuple[int, int]]) -> NDArray[np.float64]:
    """The fastest motion in each band over the recording, pixels per second."""
    flows = np.full(len(edges), 1e-3)
    for t_us in np.linspace(-config.warmup_us, config.duration_us, 3):
        grid = scene.flow(config.sensor_size, t_us, max(2, config.sensor_size[0] // 32))
        rows = np.linspace(0, config.sensor_size[0] - 1, len(grid))
        for k, (first, last) in enumerate(edges):
            inside = (rows >= first - 1) & (rows <= last)
            boards = [b[2] for b in scene.board_flows(config.sensor_size, t_us) if b[0] < last and b[1] >= first]
            flows[k] = max(flows[k], grid[inside].max(initial=0), *boards)
    for top, bottom, speed in source_flows(config, scene):
        for k, (first, last) in enumerate(edges):
            if top < last and bottom >= first:
                flows[k] = max(flows[k], speed)
    return flows


def source_flows(config: SimulationConfig, scene: Scene) -> list[tuple[float, float, float]]:
    """First row, last row and fastest motion (pixels per second) of each source that comes near the picture."""
    times_us = np.linspace(-config.warmup_us, config.duration_us, 11)
    found = []
    for source in scene.sources:
        places = np.array([scene.projected(source.middle_at(t), config.sensor_size, t) for t in times_us])
        if places[:, 2].min() > NEAREST_M and np.abs(places[:, :2]).max() < 3 * max(config.sensor_size):
            steps = np.hypot(*np.diff(places[:, :2], axis=0).T) / np.diff(times_us)
            margin = scene.focal_pixels(config.sensor_size) * source.radius_m / places[:, 2].min() + 2
            found.append((places[:, 1].min() - margin, places[:, 1].max() + margin, float(steps.max()) * 1e6))
    return found


def _edges(height: int, width: int) -> list[tuple[int, int]]:
    num = int(np.clip(height * width // PIXELS_PER_BAND, 1, MOST_BANDS))
    edges = np.round(np.linspace(0, height, num + 1)).astype(int).tolist()
    return list(pairwise(edges))
