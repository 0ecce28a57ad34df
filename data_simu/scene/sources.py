"""Light sources of a scene: small lamps, headlights, signs and tubes, and the broad ones of `lamps`.

Sources of a group, such as the lamps along a street or a pair of headlights, share one waveform, and with it one
channel of the renderer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from data_simu.config import SourceConfig
from data_simu.scene.flicker import Waveform, draw_waveform
from data_simu.scene.lamps import draw_lamps
from data_simu.scene.source import Source, Vector
from data_simu.scene.sparkles import draw_sparkles

OF_CARS = ("headlights", "tail lights")


def draw_sources(
    config: SourceConfig, kinds: tuple[str, ...], ambient: float, planes_m: Vector, rng: np.random.Generator
) -> tuple[tuple[Source, ...], tuple[Waveform, ...]]:
    """The sources of a scene, and the waveform of each group.

    Parameters
    ----------
    config : ranges.
    kinds : kinds of sources that the scene may have.
    ambient : light on a white surface without lamps.
    planes_m : distances of floor, ceiling, left, right and end, `(5,)`; see `scene`.
    rng : generator.
    """
    num = int(rng.integers(config.num_sources[0], config.num_sources[1] + 1))
    mains_hz = float(rng.choice(config.mains_hz) * rng.uniform(0.999, 1.001))
    sources: list[Source] = []
    waveforms = []
    for group in range(num):
        radiance = ambient * 10 ** rng.uniform(*config.log10_radiance)
        kind = str(rng.choice(kinds))
        # Shares of 0 draw nothing, so that a seed's scene is what it was before there were broad lamps.
        chance = rng.random() if config.broad_share + config.sparkle_share else 1.0
        if chance < config.sparkle_share:
            found, waveform = draw_sparkles(group, radiance, planes_m, rng)
            sources += found
            waveforms.append(waveform)
            continue
        broad = chance < config.sparkle_share + config.broad_share
        found = (draw_lamps if broad else _KINDS[kind])(config, group, radiance, planes_m, rng)
        light = ambient * 10 ** rng.uniform(*config.log10_light) / len(found)
        sources += [replace(source, power_m2=float(light * source.position_m[2] ** 2)) for source in found]
        of_car = kind in OF_CARS and not broad
        waveforms.append(draw_waveform(_on_battery(config) if of_car else config, mains_hz, rng))
    return tuple(sources), tuple(waveforms)


def _on_battery(config: SourceConfig) -> SourceConfig:
    """The same ranges without the flicker that mains power makes; steady where no other flicker is left."""
    shares = {kind: config.flicker_shares.get(kind, 0.0) for kind in ("constant", "pwm")}
    return config.model_copy(update={"flicker_shares": shares if any(shares.values()) else {"constant": 1.0}})


def _place(planes_m: Vector, depth_m: float, height: tuple[float, float], rng: np.random.Generator) -> Vector:
    """A place at that depth, in the picture or just outside it, between the planes."""
    half_view = 0.56 * depth_m
    x = np.clip(rng.uniform(-1.1, 1.1) * half_view, -0.95 * planes_m[2], 0.95 * planes_m[3])
    y = np.clip(rng.uniform(*height) * half_view, -0.93 * planes_m[1], 0.9 * planes_m[0])
    return np.array([x, y, depth_m], np.float32)


def _sides(middle: Vector, offset_m: float, planes_m: Vector) -> list[Vector]:
    """The places left and right of the middle of a car, which stands so that neither is in a wall."""
    leftmost, rightmost = offset_m - 0.95 * planes_m[2], 0.95 * planes_m[3] - offset_m
    x = np.clip(middle[0], leftmost, rightmost)
    return [np.array([x + dx, *middle[1:]], np.float32) for dx in (-offset_m, offset_m)]


def _depth(planes_m: Vector, rng: np.random.Generator, farthest: float = 30.0) -> float:
    return float(rng.uniform(0.25, 0.92) * min(planes_m[4], farthest))


def _source(kind: str, group: int, radiance: float, place: Vector, size_m: float,
            half_axis: tuple[float, ...] = (0, 0, 0), velocity: tuple[float, ...] = (0, 0, 0)) -> Source:  # fmt: skip
    position, motion, axis = (np.array(v, np.float32) for v in (place, velocity, half_axis))
    return Source(kind, group, position, motion, axis, float(size_m), float(radiance))


def _bulb(
    config: SourceConfig, group: int, radiance: float, planes_m: Vector, rng: np.random.Generator
) -> list[Source]:
    """A single lamp anywhere, now and then carried about."""
    depth = _depth(planes_m, rng)
    velocity = tuple(rng.normal(0, 0.8, 3)) if rng.random() < 0.3 else (0.0, 0.0, 0.0)
    size = depth * rng.uniform(*config.radius_mrad) / 1e3
    place = _place(planes_m, depth, (-0.7, 0.4), rng)
    return [_source("bulb", group, radiance, place, size, velocity=velocity)]


def _street_lamps(
    config: SourceConfig, group: int, radiance: float, planes_m: Vector, rng: np.random.Generator
) -> list[Source]:
    """A row of lamps along one side of the street."""
    side = -0.7 * planes_m[2] if rng.random() < 0.5 else 0.7 * planes_m[3]
    spacing, first, height = rng.uniform(8, 16), rng.uniform(5, 14), -rng.uniform(2.5, 5.5)
    size = rng.uniform(0.06, 0.16)
    places = [np.array([side, height, first + k * spacing]) for k in range(int(rng.integers(1, 5)))]
    return [_source("street lamp", group, radiance, place, size) for place in places]


def _headlights(
    config: SourceConfig, group: int, radiance: float, planes_m: Vector, rng: np.random.Generator
) -> list[Source]:
    """A pair of headlights that comes nearer."""
    place = _place(planes_m, rng.uniform(7, 35), (0.0, 0.0), rng) + np.array([0, 0.45 * planes_m[0], 0], np.float32)
    velocity = (rng.normal(0, 0.3), 0.0, -rng.uniform(0, 16))
    size, bright = rng.uniform(0.05, 0.1), radiance * 3
    sides = _sides(place, 0.7, planes_m)
    return [_source("headlight", group, bright, side, size, velocity=velocity) for side in sides]


def _tail_lights(
    config: SourceConfig, group: int, radiance: float, planes_m: Vector, rng: np.random.Generator
) -> list[Source]:
    """A pair of tail lights ahead."""
    place = _place(planes_m, rng.uniform(5, 25), (0.0, 0.0), rng) + np.array([0, 0.4 * planes_m[0], 0], np.float32)
    velocity = (rng.normal(0, 0.2), 0.0, rng.uniform(-4, 8))
    sides = _sides(place, 0.65, planes_m)
    axis = (0.08, 0.0, 0.0)
    return [_source("tail light", group, radiance / 4, s, 0.05, axis, velocity) for s in sides]


def _sign(
    config: SourceConfig, group: int, radiance: float, planes_m: Vector, rng: np.random.Generator
) -> list[Source]:
    """A lit sign: broad, so not as bright."""
    depth = _depth(planes_m, rng)
    axis = (depth * rng.uniform(0.02, 0.07), 0.0, 0.0)
    place = _place(planes_m, depth, (-0.6, 0.1), rng)
    return [_source("sign", group, radiance / 8, place, depth * rng.uniform(0.008, 0.02), axis)]


def _tubes(
    config: SourceConfig, group: int, radiance: float, planes_m: Vector, rng: np.random.Generator
) -> list[Source]:
    """Tubes along or across a ceiling, in a row."""
    height = -0.95 * min(planes_m[1], 6.0)
    axis = (0.0, 0.0, 0.6) if rng.random() < 0.5 else (0.6, 0.0, 0.0)
    x, first, spacing = rng.uniform(-0.6, 0.6) * min(planes_m[2], planes_m[3]), rng.uniform(1.5, 4), rng.uniform(1.8, 6)
    depths = [first + k * spacing for k in range(int(rng.integers(1, 5))) if first + k * spacing < planes_m[4]]
    places = [np.array([x, height, depth]) for depth in depths or [0.6 * planes_m[4]]]
    return [_source("tube", group, radiance / 5, place, 0.025, axis) for place in places]


_Draw = Callable[[SourceConfig, int, float, Vector, np.random.Generator], list[Source]]
_KINDS: dict[str, _Draw] = {
    "bulb": _bulb,
    "street lamp": _street_lamps,
    "headlights": _headlights,
    "tail lights": _tail_lights,
    "sign": _sign,
    "tubes": _tubes,
}
