"""The simulation: one scene, one sensor, two lenses; a pair of recordings from a seed.

    I_clean(x, t) = B(x, t) + sum_s a_s(t) P_s(x, t)          background, and what the lamps show and light
    I_real(x, t)  = I_clean(x, t) + sum_s a_s(t) F_s(x, t)    and everything that the real lens adds

B, P and F move slowly and are rendered at key times, at most about a pixel of motion apart (see `bands`); the flicker
a is a waveform between them and needs no picture. Everything random follows from the seed, in streams of its own for
scene, lens, pixels and noise, so that a change in one leaves the others as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_simu.bands import Band, plan_bands
from data_simu.config import SimulationConfig
from data_simu.flare import MovingFlare, render_flare
from data_simu.noise import draw_candidates
from data_simu.optics import Lens, draw_lens
from data_simu.scene import Scene, Snapshot, draw_scene
from data_simu.sensor import Moments, PairedSensor, Pixels, View, draw_pixels, recording
from data_simu.targets import make_target
from data_simu.tiles import CLEAN, REAL
from deflare_core.events import Events

Image = NDArray[np.float32]
SCENE, LENS, PIXELS, NOISE = range(4)


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
    """What a seed stands for: a scene, a lens and a sensor."""

    scene: Scene
    lens: Lens
    pixels: Pixels


def set_up(config: SimulationConfig, seed: int) -> Setup:
    """The scene, lens and sensor of a seed."""
    scene, lens, pixels = (np.random.default_rng([seed, part]) for part in (SCENE, LENS, PIXELS))
    return Setup(
        draw_scene(config.scene, config.sources, scene),
        draw_lens(config.optics, config.sensor_size, lens),
        draw_pixels(config.sensor, config.sensor_size, pixels),
    )


def simulate(config: SimulationConfig, seed: int) -> Pair:
    """The pair of recordings of a seed; the same configuration and seed give the same events.

    Parameters
    ----------
    config : ranges of everything that is drawn, and the kind of target.
    seed : the pair's own seed, not negative.
    """
    setup = set_up(config, seed)
    parts = record(config, setup, seed)
    clean, real = (recording(parts, view, config.sensor_size, 0, config.duration_us) for view in (CLEAN, REAL))
    target = make_target(config.target, clean, real)
    plan = {
        "seed": seed,
        "target": config.target,
        "scene": setup.scene.describe(),
        "lens": setup.lens.plan,
        "sensor": setup.pixels.describe(),
    }
    return Pair(real.events, target.events, real.label, target.label, (0, config.duration_us), plan)


def record(config: SimulationConfig, setup: Setup, seed: int) -> list[PairedSensor]:
    """The sensor, band by band, after it has seen the scene from the start of the warm-up to the end."""
    times_us, bands = plan_bands(config, setup.scene)
    flare = MovingFlare(config, setup.scene, setup.lens)
    width = config.sensor_size[1]
    parts, seen = [], []
    snapshot = setup.scene.at(config.sensor_size, times_us[0])
    for k, band in enumerate(bands):
        pixels = setup.pixels.part(band.first * width, band.last * width)
        noise = draw_candidates(pixels.noise_hz, times_us[0], times_us[-1], np.random.default_rng([seed, NOISE, k]))
        parts.append(PairedSensor(pixels, config.min_flare_share, noise))
        seen.append(see_band(snapshot, flare, band, times_us[0]))
    for k in range(1, len(times_us)):
        due = [b for b, band in enumerate(bands) if k % band.stride == 0]
        snapshot = setup.scene.at(config.sensor_size, times_us[k])
        strides = {bands[b].stride for b in due}
        moments = {n: moments_between(setup.scene, times_us[k - n], times_us[k]) for n in strides}
        for b in due:
            after = see_band(snapshot, flare, bands[b], times_us[k])
            parts[b].advance(moments[bands[b].stride], seen[b], after)
            seen[b] = after
    return parts


def see_band(snapshot: Snapshot, flare: MovingFlare, band: Band, t_us: float) -> View:
    """What a band of the sensor sees at a time."""
    return View(snapshot.render(band.first, band.last), flare.at(t_us, band.first, band.last))


def render(config: SimulationConfig, seed: int, t_us: float) -> tuple[Image, Image]:
    """What a seed's scene looks like at a time, in linear intensity `(H, W)`: through the ideal and the real lens."""
    setup = set_up(config, seed)
    direct = setup.scene.render(config.sensor_size, t_us)
    flare = render_flare(setup.scene, setup.lens, config.sensor_size, t_us)
    brightness = np.array([waveform.at(np.array([t_us]))[0] for waveform in setup.scene.waveforms], np.float32)
    ideal = direct[0] + np.tensordot(brightness, direct[1:], 1)
    return ideal, ideal + np.tensordot(brightness, flare, 1)


def moments_between(scene: Scene, t_start_us: float, t_end_us: float) -> Moments:
    """The times at which any group's brightness bends, the ends included, and the brightness there."""
    bends = [waveform.bends_us(t_start_us, t_end_us) for waveform in scene.waveforms]
    t_us = np.unique(np.concatenate([[t_start_us, t_end_us], *bends]))
    brightness = np.empty((len(t_us), len(bends)), np.float32)
    bent = np.zeros(brightness.shape, np.bool_)
    for s, waveform in enumerate(scene.waveforms):
        brightness[:, s] = waveform.at(t_us)
        bent[:, s] = np.isin(t_us, bends[s])
    lowest, highest = (np.array([f(w.values) for w in scene.waveforms], np.float32) for f in (np.min, np.max))
    return Moments(t_us, brightness, bent, lowest, highest)
