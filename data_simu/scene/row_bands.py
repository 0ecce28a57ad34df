"""Bands: stretches of rows that the simulation carries on their own, each as often as what it sees moves.

Near the horizon of a street little moves while the ground rushes by; one clock for the whole picture would render the
sky as often as the ground. Bands share nothing, so processors can take one each.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_simu.config import SimulationConfig
from data_simu.scene.scene import NEAREST_M, Scene

MAX_STEP_US, MIN_STEP_US = 4_000, 1_000
MAX_MOTION_PIXELS = 1.2
PIXELS_PER_BAND, MOST_BANDS = 32_768, 16


@dataclass(frozen=True, slots=True)
class Band:
    """Rows from `first` to before `last`, and the key times `(K,)` at which they are rendered, microseconds."""

    first: int
    last: int
    times_us: NDArray[np.float64]


def plan_bands(config: SimulationConfig, scene: Scene) -> list[Band]:
    """The bands of the whole picture.

    What a band shows moves by no more than about a pixel from one of its key times to the next.
    """
    height, width = config.sensor_size
    num = int(np.clip(height * width // PIXELS_PER_BAND, 1, MOST_BANDS))
    edges = list(pairwise(np.round(np.linspace(0, height, num + 1)).astype(int).tolist()))
    flows = measure_band_flows(config, scene, edges)
    return [Band(*edge, plan_key_times(config, flow)) for edge, flow in zip(edges, flows, strict=True)]


def plan_key_times(config: SimulationConfig, flow: float) -> NDArray[np.float64]:
    """The key times `(K,)` from the start of the warm-up to the end, float64, microseconds.

    `flow` is how fast the picture moves, pixels per second.
    """
    step_us = np.clip(1e6 * MAX_MOTION_PIXELS / flow, MIN_STEP_US, MAX_STEP_US)
    num_steps = int(np.ceil((config.duration_us + config.warmup_us) / step_us))
    return np.linspace(-config.warmup_us, config.duration_us, num_steps + 1)


def measure_band_flows(config: SimulationConfig, scene: Scene, edges: list[tuple[int, int]]) -> NDArray[np.float64]:
    """The fastest motion in each band over the recording, `(bands,)`, pixels per second.

    An edge is the first row of a band and the row after its last.
    """
    flows = np.full(len(edges), 1e-3)
    for t_us in np.linspace(-config.warmup_us, config.duration_us, 3):
        grid = scene.flow(config.sensor_size, t_us, max(2, config.sensor_size[0] // 32))
        rows = np.linspace(0, config.sensor_size[0] - 1, len(grid))
        boards = scene.measure_board_flows(config.sensor_size, t_us)
        for k, (first, last) in enumerate(edges):
            inside = (rows >= first - 1) & (rows <= last)
            speeds = [b[2] for b in boards if b[0] < last and b[1] >= first]
            flows[k] = max(flows[k], grid[inside].max(initial=0), *speeds)
    for top, bottom, speed in measure_source_flows(config, scene):
        for k, (first, last) in enumerate(edges):
            if top < last and bottom >= first:
                flows[k] = max(flows[k], speed)
    return flows


def measure_source_flows(
    config: SimulationConfig, scene: Scene, only_flaring: bool = False
) -> list[tuple[float, float, float]]:
    """First row, last row and fastest motion (pixels per second) of each source that comes near the picture.

    `only_flaring` leaves out those of which the lens makes no flare.
    """
    times_us = np.linspace(-config.warmup_us, config.duration_us, 11)
    found = []
    for source in scene.sources:
        if only_flaring and not source.flares:
            continue
        places = scene.project(source.middle_at(times_us), config.sensor_size, times_us)
        if places[:, 2].min() > NEAREST_M and np.abs(places[:, :2]).max() < 3 * max(config.sensor_size):
            steps = np.hypot(*np.diff(places[:, :2], axis=0).T) / np.diff(times_us)
            margin = scene.focal_pixels(config.sensor_size) * source.reach_m / places[:, 2].min() + 2
            found.append((places[:, 1].min() - margin, places[:, 1].max() + margin, float(steps.max()) * 1e6))
    return found
