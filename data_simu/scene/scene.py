"""Scenes: a corridor of textured planes with moving boards and light sources, seen by a moving camera.

Every family is the same corridor with other measures and textures: a street is wide under a sky, a tunnel is narrow
under a roof, a room has an end, a wall is all end, `lights` is a wall of small lights, and in the `dark` there is
nothing but lamps. Pictures are linear intensity. Coordinates are metres: x right, y down, z forward; the camera is at
the origin at time 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_simu.config import SceneConfig, SourceConfig
from data_simu.scene.backdrop import draw_backdrop
from data_simu.scene.flicker import Waveform
from data_simu.scene.raycast import FAR_M, PYRAMID
from data_simu.scene.source import Source
from data_simu.scene.sources import draw_sources
from data_simu.scene.textures import build_pyramid, draw_textures
from deflare_core.events import SensorSize

Vector = NDArray[np.float32]
"""Arrays of the scene are float32."""
Times = float | NDArray[np.float64]
FOCAL_WIDTHS = 0.9
"""Focal length in sensor widths: a field of view of 58 degrees."""
NO_PLANE_M = 1e6
NEAREST_M = 0.2
END_TEXTURE = 3


class Family(NamedTuple):
    """A kind of scene.

    Parameters
    ----------
    distances_m : ranges of the distances of floor, ceiling, side walls and end.
    textures : of floor, ceiling, side walls, end.
    period_m : length after which the walls' texture repeats.
    sources : kinds of light sources.
    pace : camera speed as a share of the configured one.
    """

    distances_m: tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
    textures: tuple[str, str, str, str]
    period_m: float
    sources: tuple[str, ...]
    pace: float


FAMILIES = {
    "street": Family(
        ((1.2, 1.8), (30, 60), (4, 12), (60, 160)),
        ("road", "clouds", "facade", "facade"),
        16.0,
        ("street lamp", "street lamp", "headlights", "headlights", "tail lights", "sign"),
        1.0,
    ),
    "tunnel": Family(
        ((1.2, 1.8), (3, 5), (3, 6), (80, 200)),
        ("road", "panels", "panels", "panels"),
        10.0,
        ("tubes", "tubes", "headlights", "tail lights", "bulb"),
        1.0,
    ),
    "room": Family(
        ((1.2, 1.6), (1.0, 1.6), (1.5, 4), (4, 9)),
        ("panels", "ceiling", "interior", "interior"),
        6.0,
        ("tubes", "tubes", "bulb", "sign"),
        0.2,
    ),
    "wall": Family(
        ((NO_PLANE_M,) * 2, (NO_PLANE_M,) * 2, (NO_PLANE_M,) * 2, (2, 6)),
        ("posters", "posters", "posters", "posters"),
        5.0,
        ("bulb", "bulb", "sign"),
        0.15,
    ),
    "lights": Family(
        ((NO_PLANE_M,) * 2, (NO_PLANE_M,) * 2, (NO_PLANE_M,) * 2, (30, 60)),
        ("lights", "lights", "lights", "lights"),
        50.0,
        ("bulb", "street lamp", "headlights"),
        1.0,
    ),
    "dark": Family(
        ((NO_PLANE_M,) * 2, (NO_PLANE_M,) * 2, (NO_PLANE_M,) * 2, (30, 60)),
        ("night", "night", "night", "night"),
        50.0,
        ("bulb", "street lamp", "headlights"),
        0.5,
    ),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that the camera sees and how it moves.

    Parameters
    ----------
    family : kind of scene.
    ambient : light on a white surface without lamps.
    planes_m : distances of floor, ceiling, left, right and end from the camera at time 0, `(5,)`.
    mapping, textures : of the planes, then the boards, `(5 + boards, 4)` and `(texels,)`; see `rendering`.
    boards : place of the middle (m), half width, half height, and whether it is round, `(boards, 6)`.
    boards_m_s : the boards' own motion `(boards, 3)`.
    camera_m_s, camera_rad_s : the camera's velocity `(3,)`, and its rates of pitch, yaw and roll `(3,)`.
    sources : the light sources.
    waveforms : the flicker of each group of sources.
    backdrop : path of the picture on the end; none where its texture was drawn.
    roll_rad : how far the camera is rolled at time 0.
    """

    family: str
    ambient: float
    planes_m: Vector
    mapping: Vector
    textures: Vector
    boards: Vector
    boards_m_s: Vector
    camera_m_s: Vector
    camera_rad_s: Vector
    sources: tuple[Source, ...]
    waveforms: tuple[Waveform, ...]
    backdrop: str | None = None
    roll_rad: float = 0.0

    def camera_at(self, t_us: Times) -> NDArray[np.float64]:
        """Where the camera is, metres, `(..., 3)`."""
        return self.camera_m_s.astype(float) * to_seconds(t_us)

    def turn_at(self, t_us: Times) -> NDArray[np.float64]:
        """The camera's orientation `(..., 3, 3)`: it carries directions in the picture to directions in the scene."""
        moved = make_rotation(self.camera_rad_s.astype(float) * to_seconds(t_us))
        return moved @ make_rotation(np.array([0.0, 0.0, self.roll_rad]))

    def boards_at(self, t_us: Times) -> NDArray[np.float64]:
        """The boards as they stand at a time `(..., boards, 6)`."""
        moved = self.boards_m_s.astype(float) * to_seconds(t_us)[..., None]
        boards = np.broadcast_to(self.boards, (*moved.shape[:-1], 6)).astype(float)
        boards[..., :3] += moved
        return boards

    @staticmethod
    def focal_pixels(sensor_size: SensorSize) -> float:
        """The focal length in pixels."""
        return FOCAL_WIDTHS * sensor_size[1]

    def project(self, points_m: NDArray[Any], sensor_size: SensorSize, t_us: Times) -> NDArray[np.float64]:
        """Column, row and depth (m) in the picture of points of the scene `(..., 3)`."""
        height, width = sensor_size
        relative = points_m - self.camera_at(t_us)
        right, down, ahead = np.moveaxis(np.einsum("...ji,...j->...i", self.turn_at(t_us), relative), -1, 0)
        scale = self.focal_pixels(sensor_size) / np.maximum(ahead, 1e-3)
        return np.stack([(width - 1) / 2 + right * scale, (height - 1) / 2 + down * scale, ahead], axis=-1)

    def visible_share(self, source: Source, t_us: Times) -> NDArray[np.float64]:
        """The share of a source that no board hides, from 0 to 1, in the shape of the times."""
        return self.uncovered_share(source.middle_at(t_us), source.radius_m, t_us)

    def uncovered_share(self, places_m: NDArray[np.float64], radius_m: float, t_us: Times) -> NDArray[np.float64]:
        """The share of a disc around each place `(..., 3)` that no board hides, from 0 to 1; times are `(...)`."""
        camera, middle = self.camera_at(t_us)[..., None, :], places_m[..., None, :]
        place, size = np.split(self.boards_at(t_us)[..., :5], [3], axis=-1)
        ahead = place[..., 2] - camera[..., 2]
        along = ahead / np.maximum(middle[..., 2] - camera[..., 2], 1e-6)
        crossing = camera + (middle - camera) * along[..., None]
        rim = (size - np.abs(crossing - place)[..., :2]).min(axis=-1)
        hidden = np.clip(0.5 + rim / (2 * radius_m), 0, 1)
        return np.prod(np.where((ahead > 0) & (along < 1), 1 - hidden, 1.0), axis=-1)

    def picture_start(self, group: int) -> int:
        """The first texel of the picture that a group of broad lamps shares; those pictures end the textures."""
        groups = _groups_with_pictures(self.sources)
        return len(self.textures) - PYRAMID * (len(groups) - groups.index(group))

    def flow(self, sensor_size: SensorSize, t_us: float, spacing: int) -> NDArray[np.float64]:
        """The speed of what is seen at pixels about `spacing` apart, `(rows, columns)`, pixels per second."""
        height, width = sensor_size
        y, x = np.meshgrid(_grid(height, spacing), _grid(width, spacing), indexing="ij")
        focal = self.focal_pixels(sensor_size)
        rays = np.stack([(x - (width - 1) / 2) / focal, (y - (height - 1) / 2) / focal, np.ones(x.shape)])
        rays = np.tensordot(self.turn_at(t_us), rays, 1)
        camera = self.camera_at(t_us)
        floor, ceiling, left, right, end = self.planes_m + camera[[1, 1, 0, 0, 2]] * [-1, 1, 1, -1, -1]
        nearest = np.max([rays[0] / right, -rays[0] / left, rays[1] / floor, -rays[1] / ceiling, rays[2] / end], axis=0)
        points = camera[:, None, None] + rays / np.maximum(nearest, 1 / FAR_M)
        step_us = 1000.0
        later = self.turn_at(t_us + step_us).T.astype(float)
        moved = np.tensordot(later, points - self.camera_at(t_us + step_us)[:, None, None], 1)
        columns = (width - 1) / 2 + focal * moved[0] / moved[2]
        rows = (height - 1) / 2 + focal * moved[1] / moved[2]
        return np.hypot(columns - x, rows - y) * (1e6 / step_us)

    def measure_board_flows(self, sensor_size: SensorSize, t_us: float) -> list[tuple[float, float, float]]:
        """First row, last row and fastest motion (pixels per second) of each board in the picture."""
        found = []
        for now, later in zip(self.boards_at(t_us), self.boards_at(t_us + 1000), strict=True):
            corners = [np.array([dx, dy, 0]) for dx in (-now[3], now[3]) for dy in (-now[4], now[4])]
            a = np.array([self.project(now[:3] + c, sensor_size, t_us) for c in corners])
            b = np.array([self.project(later[:3] + c, sensor_size, t_us + 1000) for c in corners])
            if a[:, 2].min() > 0.3 and a[:, 0].max() > 0 and a[:, 0].min() < sensor_size[1]:
                speed = float(np.hypot(*(b - a)[:, :2].T).max()) * 1e3
                found.append((float(a[:, 1].min()), float(a[:, 1].max()), speed))
        return found

    def describe(self) -> dict[str, object]:
        """The scene in figures, for the record of a recording."""
        backdrop = {} if self.backdrop is None else {"backdrop": self.backdrop}
        return {
            "family": self.family,
            **backdrop,
            "ambient": round(self.ambient, 3),
            "speed_m_s": round(float(np.linalg.norm(self.camera_m_s)), 2),
            "turn_deg_s": round(float(np.rad2deg(np.linalg.norm(self.camera_rad_s))), 1),
            "boards": len(self.boards),
            "lamps": [{**s.describe(), **self.waveforms[s.group].describe()} for s in self.sources],
        }


def draw_scene(config: SceneConfig, sources: SourceConfig, rng: np.random.Generator) -> Scene:
    """A random scene."""
    name = "wall" if config.backdrops else str(rng.choice(config.families))
    family = FAMILIES[name]
    ambient = 10 ** rng.uniform(*config.log10_ambient)
    floor, ceiling, sides, end = family.distances_m
    planes = np.array([rng.uniform(*r) for r in (floor, ceiling, sides, sides, end)], np.float32)
    num_boards = int(rng.integers(config.num_objects[0], config.num_objects[1] + 1)) * (name != "dark")
    boards = np.array([_draw_board(planes, rng) for _ in range(num_boards)], np.float32).reshape(-1, 6)
    speed = rng.uniform(*config.speed_m_s) * family.pace
    heading = np.array([rng.normal(0, 0.15), rng.normal(0, 0.03), 1.0])
    lamps, waveforms = draw_sources(sources, family.sources, ambient, planes, rng)
    mapping = _draw_mapping(family, len(boards), rng)
    textures, backdrop = _draw_textures(config.backdrops, family, rng)
    pictures = {source.group: source.picture for source in lamps if source.picture is not None}
    boards_m_s = rng.normal(0, 1, (num_boards, 3)) * [1.2, 0, 2.5] * min(1.0, 2 * family.pace)
    camera_rad_s = np.deg2rad(rng.uniform(*config.turn_deg_s, 3)) * [0.4, 1.0, 0.4]
    moves = float(rng.random() >= config.still_share)
    rolled = config.roll_deg != (0, 0)
    return Scene(
        family=name,
        ambient=float(ambient),
        planes_m=planes,
        mapping=mapping,
        textures=np.concatenate([textures, *pictures.values()]),
        boards=boards,
        boards_m_s=boards_m_s.astype(np.float32),
        camera_m_s=(moves * speed * heading).astype(np.float32),
        camera_rad_s=(moves * camera_rad_s).astype(np.float32),
        sources=lamps,
        waveforms=waveforms,
        backdrop=backdrop,
        roll_rad=float(np.deg2rad(rng.uniform(*config.roll_deg))) if rolled else 0.0,
    )


def _groups_with_pictures(sources: tuple[Source, ...]) -> list[int]:
    return sorted({source.group for source in sources if source.picture is not None})


def _grid(size: int, spacing: int) -> NDArray[np.float64]:
    """Places from the first pixel to the last, about so far apart."""
    return np.linspace(0, size - 1, max(2, 1 + size // spacing))


def to_seconds(t_us: Times) -> NDArray[np.float64]:
    """Times in seconds with an axis for coordinates, `(..., 1)`."""
    return np.asarray(t_us, float)[..., None] / 1e6


def make_rotation(angles_rad: NDArray[np.floating]) -> NDArray[np.float64]:
    """The rotations `(..., 3, 3)` by angles `(..., 3)`: pitch (about x), yaw (about y) and roll (about z).

        x right, y down, z forward; with c = cos, s = sin of the angle, of each axis:

        pitch  1  0  0      yaw   c  0  s      roll  c -s  0
               0  c -s            0  1  0            s  c  0
               0  s  c           -s  0  c            0  0  1

    A direction is rolled first, then pitched, then turned by the yaw.
    """
    (cx, cy, cz), (sx, sy, sz) = (np.moveaxis(f(angles_rad), -1, 0) for f in (np.cos, np.sin))
    one, none = np.ones_like(cx), np.zeros_like(cx)
    pitch = _stack_matrix((one, none, none), (none, cx, -sx), (none, sx, cx))
    yaw = _stack_matrix((cy, none, sy), (none, one, none), (-sy, none, cy))
    roll = _stack_matrix((cz, -sz, none), (sz, cz, none), (none, none, one))
    return yaw @ pitch @ roll


def _stack_matrix(*rows: tuple[NDArray[np.floating], ...]) -> NDArray[np.float64]:
    """Matrices `(..., 3, 3)` of three rows of three entries `(...)` each, written as they stand on paper."""
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _draw_mapping(family: Family, num_boards: int, rng: np.random.Generator) -> Vector:
    """Texture, repeats per metre and shifts of floor, ceiling, left, right, end, then of each board."""
    wall = 1 / family.period_m
    repeats = [1 / 12, 1 / 12 if family.distances_m[1][1] < 20 else 1 / 150, wall, wall, wall]
    textures = [0, 1, 2, 2, END_TEXTURE]
    rows = [(t, r * rng.uniform(0.8, 1.2), *rng.random(2)) for t, r in zip(textures, repeats, strict=True)]
    rows[0] = (0, 1 / 12, 0.5, rng.random())
    rows += [(4, rng.uniform(0.2, 0.6), *rng.random(2)) for _ in range(num_boards)]
    mapping = np.array(rows, np.float32)
    mapping[:, 0] *= PYRAMID
    return mapping


def _draw_textures(backdrops: str | None, family: Family, rng: np.random.Generator) -> tuple[Vector, str | None]:
    """The textures of the family and the boards, and the path of the picture that stands in for the end's."""
    textures = draw_textures((*family.textures, "cloth"), rng)
    if not backdrops:
        return textures.ravel(), None
    albedo, path = draw_backdrop(backdrops, rng)
    textures[END_TEXTURE] = build_pyramid(albedo)
    return textures.ravel(), path


def _draw_board(planes_m: Vector, rng: np.random.Generator) -> tuple[float, ...]:
    """An upright board that stands on the floor, between the walls: a person, a pole, a sign, a car or a bush."""
    shapes = ((0.25, 0.85, 1), (0.06, 2.5, 0), (0.5, 0.4, 0), (0.9, 0.7, 0), (0.8, 0.6, 1))
    half_width, half_height, round_ = shapes[rng.integers(len(shapes))]
    z = rng.uniform(0.25, 0.9) * min(planes_m[4], 25.0)
    aside, foot = min(planes_m[2], planes_m[3]), min(planes_m[0], 1.6)
    x = np.clip(rng.uniform(-0.9, 0.9) * min(aside, 0.55 * z), half_width - aside, aside - half_width)
    half_height = min(half_height, (foot + planes_m[1]) / 2)
    return x, foot - half_height, z, half_width, half_height, round_
