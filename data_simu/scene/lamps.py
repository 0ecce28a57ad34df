"""Broad lamps: globes, tubes, panels, shop windows, letters and more, of every size and at every angle.

What a kind looks like is a row of `KINDS`, where its lamps hang an arrangement. Sizes are drawn evenly over their
logarithm. The larger a lamp, the dimmer: a light-emitting diode has a million times the radiance of a lit window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_simu.config import SourceConfig
from data_simu.scene.lamp_pictures import REACH, draw_lamp_picture
from data_simu.scene.source import Source, Vector
from data_simu.scene.textures import build_pyramid

DIMMING_MRAD = 6.0
"""Radius from which a lamp is dimmer the larger it is."""
HALF_VIEW, HALF_HEIGHT = 0.556, 0.417
"""Tangents of half the angle of view, across and down."""
FARTHEST_M, HIGHEST_M = 30.0, 6.0
MOST_TILT_RAD = np.deg2rad(55)
RIGHT = np.array([1.0, 0, 0])
MOVING = 0.25
"""Share of single lamps that move."""


class Kind(NamedTuple):
    """A kind of broad lamp.

    Parameters
    ----------
    shapes : shapes of its picture, each equally likely; see `lamp_pictures`.
    times : its greatest size as a multiple of that of a disc.
    arrangement : how its lamps hang; a name of `_ARRANGEMENTS`.
    """

    shapes: tuple[str, ...]
    times: float
    arrangement: str


KINDS = {
    "globe": Kind(("disc", "disc", "ellipse"), 1.0, "single"),
    "arc lamp": Kind(("arc",), 1.3, "single"),
    "lit tube": Kind(("tube",), 3.0, "single"),
    "panel": Kind(("panel", "square", "ellipse"), 1.7, "single"),
    "shop window": Kind(("window",), 2.5, "single"),
    "letters": Kind(("letters",), 2.5, "single"),
    "bollard": Kind(("bollard",), 1.2, "single"),
    "cluster": Kind(("cluster",), 1.8, "single"),
    "lamps in a row": Kind(("disc", "ellipse", "square", "panel"), 0.7, "row"),
    "lamps of a ceiling": Kind(("tube", "tube", "panel", "disc", "square"), 1.5, "ceiling"),
    "pair of lamps": Kind(("disc", "disc", "ellipse", "arc"), 0.5, "pair"),
}
_SHARES = {"globe": 3.0, "lit tube": 1.5, "lamps of a ceiling": 1.5}
"""How many times as likely as the other kinds these are."""


def draw_lamps(
    config: SourceConfig, group: int, radiance: float, planes_m: Vector, rng: np.random.Generator
) -> list[Source]:
    """A group of broad lamps of one kind, which share a picture.

    Parameters
    ----------
    config : ranges of size and dimming.
    group : number of the group.
    radiance : of a small lamp there, in units of a white surface under average light.
    planes_m : distances of floor, ceiling, left, right and end, `(5,)`; see `scene`.
    rng : generator.
    """
    names = list(KINDS)
    weights = np.array([_SHARES.get(name, 1.0) for name in names])
    name = names[rng.choice(len(names), p=weights / weights.sum())]
    kind = KINDS[name]
    picture = build_pyramid(draw_lamp_picture(str(rng.choice(kind.shapes)), rng), darkest=0.0)
    smallest, largest = config.broad_mrad
    half_rad = np.exp(rng.uniform(np.log(smallest), np.log(max(smallest, kind.times * largest)))) / 1e3
    depth = float(rng.uniform(0.2, 0.9) * min(planes_m[4], FARTHEST_M))
    half_m = depth * half_rad / REACH
    radius_m = float(2 * half_m * np.sqrt(picture[-1] / np.pi))
    dimming = max(1e3 * radius_m / depth / DIMMING_MRAD, 1.0) ** -rng.uniform(*config.size_power)
    middles, axes, velocity = _ARRANGEMENTS[kind.arrangement](config, depth, half_m, planes_m, rng)
    cells = _count_cells(1e3 * half_rad, len(middles))
    return [
        Source(name, group, middle.astype(np.float32), velocity, axes[0], radius_m, float(radiance * dimming),
               second_axis_m=axes[1], picture=picture, num_cells=cells)
        for middle in middles
    ]  # fmt: skip


def _count_cells(half_mrad: float, num_lamps: int) -> int:
    """Rows and columns of points that stand for a lamp: up to ten pixels apart, further where there are many lamps."""
    wanted = 1 + int(np.searchsorted([5, 14, 45], half_mrad))
    return int(2 ** (min(wanted, 4 if num_lamps == 1 else 3 if num_lamps < 4 else 2) - 1))


_Hung = tuple[list[Vector], tuple[Vector, Vector], Vector]
"""The middles of lamps, the two half axes of their squares, and their velocity."""


def _hang_single(
    config: SourceConfig, depth: float, half_m: float, planes_m: Vector, rng: np.random.Generator
) -> _Hung:
    """A lamp anywhere in the picture or just outside, turned and tilted, now and then carried about."""
    beyond = rng.uniform(1.05, 1.4) if rng.random() < config.outside_share else 0.0
    across, down = rng.uniform(-0.95, 0.95, 2)
    if beyond:
        # Beyond one of the four sides.
        side = rng.choice([-1, 1]) * beyond
        across, down = (side, down) if rng.random() < 0.6 else (across, side)
    middle = _keep_inside(np.array([across * HALF_VIEW * depth, down * HALF_HEIGHT * depth, depth]), planes_m)
    velocity = rng.normal(0, 0.12, 3) * depth if rng.random() < MOVING else np.zeros(3)
    return [middle], _make_axes(half_m, _draw_facing(rng)), velocity.astype(np.float32)


def _hang_row(config: SourceConfig, depth: float, half_m: float, planes_m: Vector, rng: np.random.Generator) -> _Hung:
    """Lamps along one side, one behind the other."""
    side = -1 if rng.random() < 0.5 else 1
    x = side * min(0.7 * planes_m[2 if side < 0 else 3], rng.uniform(0.4, 1.1) * HALF_VIEW * depth)
    y, spacing = -rng.uniform(-0.2, 0.9) * HALF_HEIGHT * depth, depth * rng.uniform(0.25, 0.8)
    depths = depth + spacing * np.arange(int(rng.integers(2, 5)))
    middles = [_keep_inside(np.array([x, y, z]), planes_m) for z in depths]
    return middles, _make_axes(half_m, _draw_facing(rng)), np.zeros(3, np.float32)


def _hang_pair(config: SourceConfig, depth: float, half_m: float, planes_m: Vector, rng: np.random.Generator) -> _Hung:
    """Two lamps side by side, as of a car, which may come nearer."""
    middle = np.array([rng.uniform(-0.8, 0.8) * HALF_VIEW, rng.uniform(-0.3, 0.9) * HALF_HEIGHT, 1.0]) * depth
    gap = half_m * rng.uniform(1.5, 8)
    middles = [_keep_inside(middle + side * gap * RIGHT, planes_m) for side in (-1, 1)]
    velocity = np.array([rng.normal(0, 0.03), 0, -rng.uniform(0, 0.8)]) * depth * (rng.random() < 0.6)
    return middles, _make_axes(half_m, _draw_facing(rng)), velocity.astype(np.float32)


def _hang_from_ceiling(
    config: SourceConfig, depth: float, half_m: float, planes_m: Vector, rng: np.random.Generator
) -> _Hung:
    """Rows and columns of lamps that look down, turned together."""
    height = -0.95 * min(planes_m[1], HIGHEST_M)
    # Under a sky they hang so low that they are seen.
    height = max(height, -rng.uniform(0.5, 1.0) * HALF_HEIGHT * depth)
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    pitch = half_m * rng.uniform(1.7, 4, 2)
    x0 = rng.uniform(-0.6, 0.6) * HALF_VIEW * depth
    middles = [
        np.array([x0 + (i - (columns - 1) / 2) * pitch[0], height, depth + j * pitch[1]])
        for i in range(columns) for j in range(rows)
    ]  # fmt: skip
    angle = rng.choice([0, np.pi / 2]) if rng.random() < 0.6 else rng.uniform(0, np.pi)
    flat = np.array([[np.cos(angle), 0, np.sin(angle)], [-np.sin(angle), 0, np.cos(angle)]])
    inside = [_keep_inside(middle, planes_m) for middle in middles]
    return inside, _make_axes(half_m, flat), np.zeros(3, np.float32)


def _draw_facing(rng: np.random.Generator) -> NDArray[np.float64]:
    """Directions of a square's two axes `(2, 3)`: half of them nearly upright, the others at any angle; some tilted."""
    turn = rng.normal(0, np.deg2rad(4)) if rng.random() < 0.45 else rng.uniform(-np.pi, np.pi)
    tilt, about = rng.uniform(0, MOST_TILT_RAD) * (rng.random() < 0.5), rng.uniform(0, 2 * np.pi)
    flat = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0]])
    axis = np.array([np.cos(about), np.sin(about), 0])
    # Rodrigues' rotation about an axis in the picture's plane.
    along = (flat @ axis)[:, None] * axis * (1 - np.cos(tilt))
    return flat * np.cos(tilt) + np.cross(axis, flat) * np.sin(tilt) + along


def _make_axes(half_m: float, directions: NDArray[np.float64]) -> tuple[Vector, Vector]:
    first, second = (half_m * directions).astype(np.float32)
    return first, second


def _keep_inside(place: NDArray[np.float64], planes_m: Vector) -> Vector:
    """The place, moved between the planes if it is beyond one."""
    x = np.clip(place[0], -0.95 * planes_m[2], 0.95 * planes_m[3])
    y = np.clip(place[1], -0.95 * planes_m[1], 0.9 * planes_m[0])
    return np.array([x, y, min(place[2], 0.97 * planes_m[4])])


_ARRANGEMENTS: dict[str, Callable[[SourceConfig, float, float, Vector, np.random.Generator], _Hung]] = {
    "single": _hang_single,
    "row": _hang_row,
    "pair": _hang_pair,
    "ceiling": _hang_from_ceiling,
}
