"""Flare over time: what the lens adds for each group of sources, rendered as often as the sources move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_simu.config import SimulationConfig
from data_simu.optics.lens import Lens
from data_simu.scene.poses import find_emitters
from data_simu.scene.row_bands import measure_source_flows
from data_simu.scene.scene import Scene
from deflare_core.events import SensorSize

MAX_MOTION_PIXELS = 1.2
MAX_STEP_US, MIN_STEP_US = 10_000, 1_000
Image = NDArray[np.float32]


def render_flare(scene: Scene, lens: Lens, sensor_size: SensorSize, t_us: float) -> Image:
    """The flare of each group of sources at mean brightness, `(groups, H, W)` float32."""
    emitters = find_emitters(scene, sensor_size, np.array([t_us]))[0]
    return render_flare_rows(lens, emitters, len(scene.waveforms), (0, sensor_size[0]), sensor_size[1])


def render_flare_rows(lens: Lens, emitters: Image, num_groups: int, rows: tuple[int, int], width: int) -> Image:
    """The flare of the emitters `(E, 5)` in rows from `rows[0]` to before `rows[1]`, `(groups, rows, W)` float32."""
    flare = np.zeros((num_groups, rows[1] - rows[0], width), np.float32)
    sprites = np.stack(lens.number_sprites(emitters[:, 4]), axis=1).tolist()
    for (x, y, flux, group, _), numbers in zip(emitters.tolist(), sprites, strict=True):
        if flux > 0:
            lens.add_flare(flare[int(group)], x, y, flux, rows[0], numbers)
    return flare


def plan_flare_times(config: SimulationConfig, scene: Scene) -> NDArray[np.float64]:
    """The times `(F,)` at which the flare is rendered, microseconds, float64; it is linear between them.

    The sources move by at most 1.2 pixels from one to the next.

    Rendering it at every key time of the scene would cost more than all the rest, and at the pixels' scale shows
    nothing more.
    """
    fastest = max([speed for _, _, speed in measure_source_flows(config, scene, only_flaring=True)], default=0.0)
    step_us = np.clip(1e6 * MAX_MOTION_PIXELS / max(fastest, 1e-3), MIN_STEP_US, MAX_STEP_US)
    num_steps = int(np.ceil((config.duration_us + config.warmup_us) / step_us))
    return np.linspace(-config.warmup_us, config.duration_us, num_steps + 1)


class MovingFlare:
    """The flare in some rows of the picture as time goes on.

    Parameters
    ----------
    lens : the lens.
    times_us : when to render it, `(F,)` float64, microseconds.
    emitters : the points that stand for the sources at these times, `(F, E, 5)`; see `poses.find_emitters`.
    num_groups : groups of sources.
    rows, width : first row, row after the last, and columns.
    """

    def __init__(
        self,
        lens: Lens,
        times_us: NDArray[np.float64],
        emitters: Image,
        num_groups: int,
        rows: tuple[int, int],
        width: int,
    ) -> None:
        self._times_us, self._emitters = times_us, emitters
        self._place = (num_groups, rows, width)
        self._lens, self._next = lens, 2
        self._ends = [self._render(0), self._render(1)]

    def show(self, t_us: float, out: Image) -> None:
        """Fill `out` `(groups, rows, W)` with the flare at a time, not before that of the last call."""
        while self._next < len(self._times_us) and self._times_us[self._next - 1] < t_us:
            self._ends = [self._ends[1], self._render(self._next)]
            self._next += 1
        start_us, end_us = self._times_us[self._next - 2 : self._next]
        along = np.float32((t_us - start_us) / (end_us - start_us))
        np.multiply(self._ends[0], 1 - along, out=out)
        out += along * self._ends[1]

    def _render(self, k: int) -> Image:
        return render_flare_rows(self._lens, self._emitters[k], *self._place)
