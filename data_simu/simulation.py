"""The simulation: one scene, one sensor, two lenses; a pair of recordings from a seed.

    I_clean(x, t) = B(x, t) + sum_s a_s(t) P_s(x, t)          background, and what the lamps show and light
    I_real(x, t)  = I_clean(x, t) + sum_s a_s(t) F_s(x, t)    and everything that the real lens adds

B, P and F move slowly and are rendered at key times, at most about a pixel of motion apart; the flicker a is a
waveform between them and needs no picture. Everything random follows from the seed, in streams of its own for scene,
lens, pixels and noise, so that a change in one leaves the others as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_simu.config import SimulationConfig
from data_simu.optics import Lens, draw_lens
from data_simu.scene import Scene, draw_scene
from data_simu.sensor import PairedSensor, Pixels, draw_pixels
from data_simu.targets import make_target
from deflare_core.events import Events

Image = NDArray[np.float32]
MAX_STEP_US, MIN_STEP_US = 4_000, 1_000
MAX_MOTION_PIXELS = 1.2


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair of recordings on one clock.

    Parameters
    ----------
    flare : the recording through the real lens, the network's input.
    clean : the target, of the configured kind.
    flare_label, clean_label : for each of their events 0 background, 1 light source, 2 flare, 3 noise.
    clock_us : start and end of both.
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
    """What a seed stands for: a scene, a lens, a sensor, and the generator of its noise."""

    scene: Scene
    lens: Lens
    pixels: Pixels
    noise: np.random.Generator


def set_up(config: SimulationConfig, seed: int) -> Setup:
    """The scene, lens and sensor of a seed."""
    scene, lens, pixels, noise = (np.random.default_rng([seed, part]) for part in range(4))
    return Setup(
        draw_scene(config.scene, config.sources, scene),
        draw_lens(config.optics, config.sensor_size, lens),
        draw_pixels(config.sensor, config.sensor_size, pixels),
        noise,
    )


def simulate(config: SimulationConfig, seed: int) -> Pair:
    """The pair of recordings of a seed; the same configuration and seed give the same events.

    Parameters
    ----------
    config : ranges of everything that is drawn, and the kind of target.
    seed : the pair's own seed, not negative.
    """
    setup = set_up(config, seed)
    sensor = PairedSensor(setup.pixels, config.sensor_size, config.min_flare_share)
    times_us = key_times_us(config, setup.scene)
    before = render_parts(config, setup, times_us[0])
    for start_us, end_us in pairwise(times_us):
        after = render_parts(config, setup, end_us)
        views, lit, flare = zip(before, after, strict=True)
        sensor.advance(*flicker_between(setup.scene, start_us, end_us), views, lit, flare, setup.noise)
        before = after
    clean, real = sensor.recordings(0, config.duration_us)
    target = make_target(config.target, clean, real)
    plan = {
        "seed": seed,
        "target": config.target,
        "scene": setup.scene.describe(),
        "lens": setup.lens.plan,
        "sensor": setup.pixels.describe(),
    }
    return Pair(real.events, target.events, real.label, target.label, (0, config.duration_us), plan)


def render(config: SimulationConfig, seed: int, t_us: float) -> tuple[Image, Image]:
    """What a seed's scene looks like at a time, in linear intensity `(H, W)`: through the ideal and the real lens."""
    setup = set_up(config, seed)
    background, lit, flare = render_parts(config, setup, t_us)
    brightness = np.array([lamp.waveform.at(np.array([t_us]))[0] for lamp in setup.scene.lamps], np.float32)
    ideal = background + np.tensordot(brightness, lit, 1)
    return ideal, ideal + np.tensordot(brightness, flare, 1)


def render_parts(config: SimulationConfig, setup: Setup, t_us: float) -> tuple[Image, Image, Image]:
    """Background `(H, W)`, and each lamp's direct light and flare `(lamps, H, W)`, at mean brightness."""
    background, lit = setup.scene.render(config.sensor_size, t_us)
    flare = np.zeros_like(lit)
    for picture, lamp in zip(flare, setup.scene.lamps, strict=True):
        x, y, radius = setup.scene.lamp_image(lamp, config.sensor_size, t_us)
        if radius > 0:
            setup.lens.add_flare(picture, x, y, setup.scene.lamp_flux(lamp, config.sensor_size, t_us))
    return background, lit, flare


def key_times_us(config: SimulationConfig, scene: Scene) -> NDArray[np.float64]:
    """Times at which pictures are rendered: from the start of the warm-up to the end, evenly, about a pixel apart."""
    step_us = np.clip(1e6 * MAX_MOTION_PIXELS / scene.largest_flow(config.sensor_size), MIN_STEP_US, MAX_STEP_US)
    span_us = config.duration_us + config.warmup_us
    return np.linspace(-config.warmup_us, config.duration_us, int(np.ceil(span_us / step_us)) + 1)


def flicker_between(
    scene: Scene, t_start_us: float, t_end_us: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The times at which any lamp's brightness bends, the ends included, and the brightness there `(knots, lamps)`."""
    bends = [lamp.waveform.bends_us(t_start_us, t_end_us) for lamp in scene.lamps]
    knots_us = np.unique(np.concatenate([[t_start_us, t_end_us], *bends]))
    brightness = np.stack([lamp.waveform.at(knots_us) for lamp in scene.lamps], axis=1) if scene.lamps else None
    return knots_us, np.zeros((len(knots_us), 0)) if brightness is None else brightness
