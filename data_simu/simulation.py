"""The simulation: one scene, one sensor, two lenses; a pair of recordings from a seed.

    I_clean(x, t) = B(x, t) + sum_s a_s(t) P_s(x, t)          background, and what the lamps show and light
    I_real(x, t)  = I_clean(x, t) + sum_s a_s(t) F_s(x, t)    and everything that the real lens adds

B, P and F move slowly and are rendered at key times, at most about a pixel of motion apart (see `row_bands`); the
flicker a is a waveform between them and needs no picture. Everything random follows from the seed, in streams of its
own for scene, lens, pixels and noise, so that a change in one leaves the others as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_simu.composition import compose_events
from data_simu.config import SimulationConfig
from data_simu.optics.flare import MovingFlare, plan_flare_times, render_flare
from data_simu.optics.lens import Lens, draw_lens
from data_simu.recorded import Recorded, draw_recorded, weigh
from data_simu.scene.poses import Poses, find_emitters, find_poses, find_width
from data_simu.scene.rendering import render_rows
from data_simu.scene.row_bands import Band, plan_bands
from data_simu.scene.scene import Scene, draw_scene
from data_simu.sensor.look_times import find_moments
from data_simu.sensor.sensor import LabelledEvents, PairedSensor, Pixels, View, draw_pixels, merge_recording
from data_simu.sensor.targets import make_target
from data_simu.sensor.tiles import CLEAN, REAL
from deflare_core.events import Events, SensorSize
from deflare_core.kernels.numba_cache import compiled_before

Image = NDArray[np.float32]
SCENE, LENS, PIXELS, RECORDED = range(4)
LOOKS = 3
"""Times of a pair at which it is looked how much light falls on a recorded background."""
EXPOSURES = 1_000
"""Moments of an exposure at which the lamps are looked at: 20 us apart in 20 ms."""
KEYS_AT_ONCE = 8
"""Steps from key time to key time that the sensor takes at once, a tile's state close at hand all the while."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair of recordings on one clock.

    Parameters
    ----------
    flare : the recording through the real lens, the network's input.
    clean : the target, of the configured kind.
    flare_label, clean_label : for each of their N events 0 background, 1 light source, 2 flare, 3 noise, `(N,)`.
    clock_us : start and end of both, microseconds.
    plan : everything that was drawn, as plain figures.
    """

    flare: Events
    clean: Events
    flare_label: NDArray[np.uint8]
    clean_label: NDArray[np.uint8]
    clock_us: tuple[int, int]
    plan: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a seed stands for: a scene, a lens, a sensor, and the recording that is the background, if there is one."""

    scene: Scene
    lens: Lens
    pixels: Pixels
    recorded: Recorded | None = None

    def describe(self, config: SimulationConfig, seed: int) -> dict[str, Any]:
        """Everything that was drawn, as plain figures."""
        drawn = {"scene": self.scene.describe(), "lens": self.lens.plan, "sensor": self.pixels.describe()}
        drawn |= {"background": self.recorded.plan} if self.recorded else {}
        return {"seed": seed, "target": config.target, **drawn}


def set_up(config: SimulationConfig, seed: int) -> Setup:
    """The scene, lens and sensor of a seed."""
    compiled_before("data_simu.tools.warm_up")
    parts = (np.random.default_rng([seed, part]) for part in (SCENE, LENS, PIXELS, RECORDED))
    of_scene, of_lens, of_pixels, of_recorded = parts
    scene = draw_scene(config.scene, config.sources, of_scene)
    lens = draw_lens(config.optics, config.sensor_size, of_lens)
    lens = lens.see_broad(find_width(scene, source, config.sensor_size) for source in scene.sources if source.flares)
    pixels = draw_pixels(config.sensor, config.sensor_size, of_pixels)
    recorded = draw_recorded(config, scene.ambient, of_recorded)
    if recorded is None:
        return Setup(scene, lens, pixels)
    return Setup(scene, lens, pixels.without_noise(), weigh_recorded(config, scene, lens, recorded))


def weigh_recorded(config: SimulationConfig, scene: Scene, lens: Lens, recorded: Recorded) -> Recorded:
    """The recording with its share of the light, on average over the pair."""
    times_us = np.linspace(0, config.duration_us, LOOKS)
    direct = [render_scene(scene, config.sensor_size, t_us)[1:].sum(0) for t_us in times_us]
    flare = [render_flare(scene, lens, config.sensor_size, t_us).sum(0) for t_us in times_us]
    return weigh(recorded, np.mean(direct, 0), np.mean(flare, 0), config.min_flare_share)


def simulate(config: SimulationConfig, seed: int, workers: int = 1) -> Pair:
    """The pair of recordings of a seed; the same configuration and seed give the same events.

    Parameters
    ----------
    config : ranges of everything that is drawn, and the kind of target.
    seed : the pair's own seed, not negative.
    workers : threads; the events do not depend on it.
    """
    setup = set_up(config, seed)
    parts = record(config, setup, workers)
    clean, real = (merge_recording(parts, view, config.sensor_size) for view in (CLEAN, REAL))
    if setup.recorded is not None:
        seen = ((CLEAN, clean), (REAL, real))
        clean, real = (put_over(setup.recorded, view, layer, setup.pixels) for view, layer in seen)
    target = make_target(config.target, clean, real)
    return Pair(
        real.events, target.events, real.label, target.label, (0, config.duration_us), setup.describe(config, seed)
    )


def put_over(recorded: Recorded, view: int, layer: LabelledEvents, pixels: Pixels) -> LabelledEvents:
    """What lamps and flare fire in a view, put over the recorded background."""
    y, x = (part.astype(np.uint16) for part in np.divmod(recorded.pixel, layer.events.sensor_size[1]))
    background = Events(recorded.t_us, x, y, recorded.p, layer.events.sensor_size)
    dead_us = float(pixels.constants.refractory_us)
    return compose_events(background, layer, recorded.weights[view], recorded.phase, dead_us)


def record(config: SimulationConfig, setup: Setup, workers: int = 1) -> list[PairedSensor]:
    """The sensor, band by band, after it has seen the scene from the start of the warm-up to the end.

    Bands do not depend on one another, so the number of threads makes no difference to the events.
    """
    bands = plan_bands(config, setup.scene)
    flare_us = plan_flare_times(config, setup.scene)
    emitters = find_emitters(setup.scene, config.sensor_size, flare_us)
    jobs = [(config, setup, band, flare_us, emitters) for band in bands]
    if workers == 1:
        return [record_band(*job) for job in jobs]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda job: record_band(*job), jobs))


def record_band(
    config: SimulationConfig, setup: Setup, band: Band, flare_us: NDArray[np.float64], emitters: Image
) -> PairedSensor:
    """The part of the sensor that a band is, after it has seen everything.

    `flare_us` `(F,)` are the times at which flare is rendered, and `emitters` `(F, E, 5)` what makes it then.
    """
    width = config.sensor_size[1]
    moments = find_moments(setup.scene.waveforms, band.times_us)
    pixels = setup.pixels.part(band.first * width, band.last * width)
    sensor = PairedSensor(pixels, config.min_flare_share, (0, config.duration_us))
    first = 0
    for view in render_views(config, setup, band, flare_us, emitters):
        last = first + len(view.direct) - 1
        sensor.advance(moments.between(first, last), view)
        first = last
    return sensor


def render_views(
    config: SimulationConfig, setup: Setup, band: Band, flare_us: NDArray[np.float64], emitters: Image
) -> Iterator[View]:
    """What a band shows at its key times, a few of them in each view, arguments as of `record_band`.

    A view begins with the key time that ended the last:

        key times   0 1 2 3 4 5 6 7 8 9 ...
        views       [---------------]
                                    [-- ...

    Views share their arrays: take what you need of one before the next.
    """
    scene, rows, width = setup.scene, (band.first, band.last), config.sensor_size[1]
    poses = find_poses(scene, config.sensor_size, band.times_us)
    moving = MovingFlare(setup.lens, flare_us, emitters, len(scene.waveforms), rows, width)
    shape = (KEYS_AT_ONCE + 1, len(scene.waveforms), band.last - band.first, width)
    direct, flare = np.empty((shape[0], 1 + shape[1], *shape[2:]), np.float32), np.empty(shape, np.float32)
    at = 0
    for k, t_us in enumerate(band.times_us):
        render_scene_rows(scene, poses, k, direct[at], band.first, config.sensor_size[0])
        if setup.recorded is not None:
            direct[at, 0] = setup.recorded.light
        moving.show(t_us, flare[at])
        if at == KEYS_AT_ONCE or k == len(band.times_us) - 1:
            yield View(direct[: at + 1], flare[: at + 1])
            direct[0], flare[0] = direct[at], flare[at]
            at = 0
        at += 1


def render(config: SimulationConfig, seed: int, t_us: float, exposure_us: float = 0.0) -> tuple[Image, Image]:
    """What a seed's scene looks like at a time, linear intensity `(H, W)` float32: through the ideal and the real lens.

    Everything stands where it is at `t_us`; the lamps shine as they do on average from then on for `exposure_us`.
    """
    setup = set_up(config, seed)
    direct = render_scene(setup.scene, config.sensor_size, t_us)
    if setup.recorded is not None:
        direct[0] = setup.recorded.light
    flare = render_flare(setup.scene, setup.lens, config.sensor_size, t_us)
    exposed_us = t_us + exposure_us * (np.arange(EXPOSURES) + 0.5) / EXPOSURES if exposure_us else np.array([t_us])
    brightness = np.array([waveform.at(exposed_us).mean() for waveform in setup.scene.waveforms], np.float32)
    ideal = direct[0] + np.tensordot(brightness, direct[1:], 1)
    return ideal, ideal + np.tensordot(brightness, flare, 1)


def render_scene(scene: Scene, sensor_size: SensorSize, t_us: float) -> Image:
    """The light of the scene, then that of each group of sources at mean brightness, `(1 + groups, H, W)` float32."""
    out = np.empty((1 + len(scene.waveforms), *sensor_size), np.float32)
    render_scene_rows(scene, find_poses(scene, sensor_size, np.array([t_us])), 0, out, 0, sensor_size[0])
    return out


def render_scene_rows(scene: Scene, poses: Poses, k: int, out: Image, first_row: int, height: int) -> None:
    """Fill `out` `(1 + groups, rows, W)` with rows of the scene's pictures at moment `k`, the first of that number."""
    render_rows(out, first_row, height, k, poses, scene.mapping, scene.textures, np.float32(scene.ambient))
