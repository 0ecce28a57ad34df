"""Flare over time: what the lens adds for each group of sources, rendered as often as the sources move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_simu.bands import source_flows
from data_simu.config import SimulationConfig
from data_simu.optics import Lens
from data_simu.scene import NEAREST_M, Scene
from deflare_core.events import SensorSize

MAX_MOTION_PIXELS = 0.8
MAX_STEP_US, MIN_STEP_US = 10_000, 1_000


def render_flare(scene: Scene, lens: Lens, sensor_size: SensorSize, t_us: float) -> NDArray[np.float32]:
    """The flare of each group of sources at mean brightness, `(groups, H, W)`."""
    flare = np.zeros((len(scene.waveforms), *sensor_size), np.float32)
    for source in scene.sources:
        visible, emitters = scene.visible_share(source, t_us), source.emitters()
        for offset in emitters:
            x, y, depth = scene.projected(source.middle_at(t_us) + offset, sensor_size, t_us)
            if depth > NEAREST_M:
                pixels = (scene.focal_pixels(sensor_size) / depth) ** 2 * source.area_m2 / len(emitters)
                lens.add_flare(flare[source.group], x, y, source.radiance * pixels * visible)
    return flare


class MovingFlare:
    """The flare of a scene as time goes on: straight between moments at most 0.8 pixels of the sources' motion apart.

    Rendering it at every key time of the scene would cost more than all the rest, and at the pixels' scale shows
    nothing more.
    """

    def __init__(self, config: SimulationConfig, scene: Scene, lens: Lens) -> None:
        self.scene, self.lens, self.sensor_size = scene, lens, config.sensor_size
        fastest = max([speed for _, _, speed in source_flows(config, scene)], default=0.0)
        step_us = np.clip(1e6 * MAX_MOTION_PIXELS / max(fastest, 1e-3), MIN_STEP_US, MAX_STEP_US)
        num_steps = int(np.ceil((config.duration_us + config.warmup_us) / step_us))
        self._times_us = np.linspace(-config.warmup_us, config.duration_us, num_steps + 1)
        self._next = 2
        self._ends = [render_flare(scene, lens, self.sensor_size, t) for t in self._times_us[:2]]

    def at(self, t_us: float, first_row: int, last_row: int) -> NDArray[np.float32]:
        """The flare in a band of rows `(groups, rows, W)` at a time, not before that of the last call."""
        while self._next < len(self._times_us) and self._times_us[self._next - 1] < t_us:
            later = render_flare(self.scene, self.lens, self.sensor_size, self._times_us[self._next])
            self._ends = [self._ends[1], later]
            self._next += 1
        start_us, end_us = self._times_us[self._next - 2 : self._next]
        along = np.float32((t_us - start_us) / (end_us - start_us))
        before, after = (end[:, first_row:last_row] for end in self._ends)
        return before * (1 - along) + after * along
