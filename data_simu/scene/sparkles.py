"""What sparkles without flare: sparks, fireworks, glitter on water, indicators and screens that blink.

They are light to keep. They flicker or move as flare does, but are too small or too dim for the lens to show any.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data_simu.scene.flicker import Waveform, make_flashes, make_pulses
from data_simu.scene.lamp_pictures import draw_lamp_picture
from data_simu.scene.source import Source, Vector
from data_simu.scene.textures import build_pyramid

FARTHEST_M = 30.0
_Found = tuple[list[Source], Waveform]


def draw_sparkles(
    group: int, radiance: float, planes_m: Vector, rng: np.random.Generator
) -> tuple[list[Source], Waveform]:
    """A group of sources without flare, and its waveform.

    Parameters
    ----------
    group : number of the group.
    radiance : of a lamp there, in units of a white surface under average light.
    planes_m : distances of floor, ceiling, left, right and end, `(5,)`; see `scene`.
    rng : generator.
    """
    depth = float(rng.uniform(0.2, 0.9) * min(planes_m[4], FARTHEST_M))
    return _KINDS[rng.integers(len(_KINDS))](group, radiance, depth, rng)


def _draw_sparks(group: int, radiance: float, depth: float, rng: np.random.Generator) -> _Found:
    """Points that fly apart from one place: a sparkler, a grinder, a firework."""
    origin = depth * np.array([rng.uniform(-0.4, 0.4), rng.uniform(-0.3, 0.3), 1])
    sources = []
    for _ in range(int(rng.integers(20, 80))):
        direction = rng.normal(0, 1, 3) * [1, 1, 0.3]
        velocity = depth * 10 ** rng.uniform(-0.8, 0.4) * direction / np.linalg.norm(direction)
        place = origin + velocity * rng.uniform(-0.06, 0.06)
        sources.append(_point("spark", group, place, velocity, depth, radiance / 3, rng))
    return sources, make_flashes(rng, (20, 60)) if rng.random() < 0.5 else Waveform(
        "constant", 0.0, 0.0, np.zeros(1), np.ones(1)
    )


def _draw_glitter(group: int, radiance: float, depth: float, rng: np.random.Generator) -> _Found:
    """Glints in a band, as of water that moves."""
    middle = depth * np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.1, 0.35), 1])
    spread = depth * np.array([rng.uniform(0.05, 0.3), rng.uniform(0.02, 0.1), 0])
    places = middle + spread * rng.normal(0, 1, (int(rng.integers(15, 60)), 3))
    drifts = depth * rng.normal(0, 0.04, places.shape)
    sources = [
        _point("glint", group, place, drift, depth, radiance / 10, rng)
        for place, drift in zip(places, drifts, strict=True)
    ]
    return sources, make_flashes(rng)


def _draw_indicators(group: int, radiance: float, depth: float, rng: np.random.Generator) -> _Found:
    """A few small lamps that blink together: a cursor, a beacon, a row of diodes."""
    middle = depth * np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.4), 1])
    step = depth * rng.normal(0, 0.02, 3) * [1, 1, 0]
    still = np.zeros(3)
    sources = [_point("indicator", group, middle + k * step, still, depth, radiance / 10, rng)
               for k in range(int(rng.integers(1, 6)))]  # fmt: skip
    hz = 10 ** rng.uniform(0.6, 1.9)
    return sources, make_pulses(hz, rng.uniform(0.1, 0.7), rng.uniform(50, 2_000), rng.uniform())


def _draw_screen(group: int, radiance: float, depth: float, rng: np.random.Generator) -> _Found:
    """A screen, dim and broad, whose backlight is dimmed by pulses or whose picture jumps."""
    half = depth * 10 ** rng.uniform(-1.6, -0.7)
    angle = rng.normal(0, 0.1) if rng.random() < 0.5 else rng.uniform(-np.pi, np.pi)
    across = half * np.array([np.cos(angle), np.sin(angle), 0], np.float32)
    down = half * np.array([-np.sin(angle), np.cos(angle), 0], np.float32)
    middle = depth * np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.35, 0.35), 1], np.float32)
    picture = build_pyramid(draw_lamp_picture(str(rng.choice(["window", "letters", "panel"])), rng), darkest=0.0)
    dim = radiance ** rng.uniform(0.05, 0.35)
    still = np.zeros(3, np.float32)
    source = Source("screen", group, middle, still, across.astype(np.float32), float(half), float(dim),
                    second_axis_m=down.astype(np.float32), picture=picture, flares=False)  # fmt: skip
    if rng.random() < 0.3:
        return [source], make_flashes(rng)
    hz = float(rng.choice([60, 75, 120, 144, 240, 480, 960]))
    return [source], make_pulses(hz, rng.uniform(0.2, 0.9), rng.uniform(50, 1_500), rng.uniform())


def _point(
    kind: str,
    group: int,
    place: NDArray[np.float64],
    velocity: NDArray[np.float64],
    depth: float,
    radiance: float,
    rng: np.random.Generator,
) -> Source:
    """A point of one or two pixels."""
    position, motion = place.astype(np.float32), velocity.astype(np.float32)
    size = float(depth * rng.uniform(0.4, 2.5) / 1e3)
    return Source(kind, group, position, motion, np.zeros(3, np.float32), size, float(radiance), flares=False)


_KINDS: tuple[Callable[[int, float, float, np.random.Generator], _Found], ...] = (
    _draw_sparks,
    _draw_glitter,
    _draw_indicators,
    _draw_screen,
)
