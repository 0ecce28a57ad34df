"""Scenes: a corridor of textured planes with moving objects and lamps, seen by a moving camera, in linear intensity.

Every family is the same corridor with other measures: a street has no ceiling and no end, a tunnel has a ceiling, a
room has both, a wall is all end. For each pixel the viewing ray is cut with the planes (and with upright boards for
objects); the nearest hit gives the albedo from a mip-mapped texture and the light that each lamp throws there
(cosine over squared distance). Coordinates are metres: x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from data_simu.config import SceneConfig, SourceConfig
from data_simu.flicker import Waveform, draw_waveform
from deflare_core.events import SensorSize

Image = NDArray[np.float32]
TEXTURE = 512
FAR_M = 150.0
FOCAL_WIDTHS = 0.9
"""Focal length in sensor widths: a field of view of 58 degrees."""
NO_PLANE_M = 1e6


@dataclass(frozen=True, slots=True)
class Lamp:
    """A light source.

    Parameters
    ----------
    position_m : place at time 0, metres.
    velocity_m_s : its own motion.
    radius_m : its radius.
    radiance : its brightness, in units of the ambient light on a white surface.
    spill : share of its light that falls on the scene rather than towards the camera.
    waveform : its flicker.
    """

    position_m: NDArray[np.float64]
    velocity_m_s: NDArray[np.float64]
    radius_m: float
    radiance: float
    spill: float
    waveform: Waveform


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that the camera sees and how it moves.

    Parameters
    ----------
    family : kind of scene.
    ambient : light on a white surface without lamps.
    planes_m : floor below, ceiling above, left, right and end of the corridor.
    textures : albedo of floor, ceiling, walls, end and boards, `(5, pyramid)`.
    boards : per object x, y, z, half width, half height, speed in x and z, texture offset.
    camera_m_s, camera_rad_s : velocity of the camera and its rates of pitch, yaw and roll.
    lamps : the light sources.
    """

    family: str
    ambient: float
    planes_m: NDArray[np.float64]
    textures: NDArray[np.float32]
    boards: NDArray[np.float64]
    camera_m_s: NDArray[np.float64]
    camera_rad_s: NDArray[np.float64]
    lamps: tuple[Lamp, ...]

    def render(self, sensor_size: SensorSize, t_us: float) -> tuple[Image, NDArray[np.float32]]:
        """The light of the scene without lamps `(H, W)`, and that of each lamp at mean brightness `(lamps, H, W)`."""
        height, width = sensor_size
        background, lit = np.empty((height, width), np.float32), np.zeros((len(self.lamps), height, width), np.float32)
        t_s = t_us / 1e6
        boards = self.boards.copy()
        boards[:, 0] += boards[:, 5] * t_s
        boards[:, 2] += boards[:, 6] * t_s
        places = np.array([lamp.position_m + lamp.velocity_m_s * t_s for lamp in self.lamps]).reshape(-1, 3)
        powers = np.array([lamp.spill * lamp.radiance * lamp.radius_m**2 for lamp in self.lamps])
        camera, turn = self.camera_m_s * t_s, rotation(self.camera_rad_s * t_s)
        _cast(background, lit, camera, turn, self.planes_m, self.textures, boards, places, powers)
        background *= np.float32(self.ambient)
        for picture, lamp in zip(lit, self.lamps, strict=True):
            x, y, radius = self.lamp_image(lamp, sensor_size, t_us)
            if radius > 0:
                _draw_disc(picture, x, y, max(radius, 0.5), np.float32(lamp.radiance * min(1.0, (radius / 0.5) ** 2)))
        return background, lit

    def lamp_image(self, lamp: Lamp, sensor_size: SensorSize, t_us: float) -> tuple[float, float, float]:
        """Column, row and radius of a lamp's picture in pixels; radius 0 if it is behind the camera."""
        t_s = t_us / 1e6
        place = lamp.position_m + lamp.velocity_m_s * t_s - self.camera_m_s * t_s
        x, y, z = rotation(self.camera_rad_s * t_s).T @ place
        height, width = sensor_size
        if z < 0.2:
            return 0.0, 0.0, 0.0
        focal = FOCAL_WIDTHS * width
        return (width - 1) / 2 + focal * x / z, (height - 1) / 2 + focal * y / z, focal * lamp.radius_m / z

    def lamp_flux(self, lamp: Lamp, sensor_size: SensorSize, t_us: float) -> float:
        """The light of a lamp's picture, summed over its pixels, at mean brightness."""
        return float(np.pi * self.lamp_image(lamp, sensor_size, t_us)[2] ** 2 * lamp.radiance)

    def largest_flow(self, sensor_size: SensorSize) -> float:
        """About the fastest motion of the picture, pixels per second."""
        focal = FOCAL_WIDTHS * sensor_size[1]
        nearest_m = max(1.5, float(np.sort(np.abs(self.planes_m))[0]))
        return float(focal * (np.linalg.norm(self.camera_m_s) / (2 * nearest_m) + np.linalg.norm(self.camera_rad_s)))

    def describe(self) -> dict[str, object]:
        """The scene in figures, for the record of a recording."""
        lamps = [
            {
                "flicker": lamp.waveform.kind,
                "flicker_hz": round(lamp.waveform.flicker_hz, 3),
                "depth": round(lamp.waveform.depth, 3),
                "radiance": round(lamp.radiance, 1),
                "position_m": np.round(lamp.position_m, 2).tolist(),
            }
            for lamp in self.lamps
        ]
        speed = round(float(np.linalg.norm(self.camera_m_s)), 2)
        return {"family": self.family, "ambient": round(self.ambient, 3), "speed_m_s": speed, "lamps": lamps}


def draw_scene(config: SceneConfig, sources: SourceConfig, rng: np.random.Generator) -> Scene:
    """A random scene."""
    family = str(rng.choice(config.families))
    ambient = 10 ** rng.uniform(*config.log10_ambient)
    planes = _draw_planes(family, rng)
    speed = rng.uniform(*config.speed_m_s) * (0.25 if family in ("room", "wall") else 1.0)
    camera_m_s = np.array([rng.normal(0, 0.15), rng.normal(0, 0.05), 1.0]) * speed
    turns = np.deg2rad(rng.uniform(*config.turn_deg_s, 3)) * [0.4, 1.0, 0.4]
    num_boards = int(rng.integers(config.num_objects[0], config.num_objects[1] + 1))
    boards = np.array([_draw_board(planes, rng) for _ in range(num_boards)]).reshape(-1, 8)
    textures = np.stack([draw_texture(kind, rng) for kind in ("floor", "plain", family, family, "board")])
    num_lamps = int(rng.integers(sources.num_sources[0], sources.num_sources[1] + 1))
    lamps = tuple(_draw_lamp(sources, ambient, planes, rng) for _ in range(num_lamps))
    return Scene(family, float(ambient), planes, textures, boards, camera_m_s, turns, lamps)


def draw_texture(kind: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """A periodic texture of albedo as a flat mip pyramid: 512 x 512, then halves, down to 1 x 1."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(TEXTURE), np.fft.rfftfreq(TEXTURE), indexing="ij"))
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(TEXTURE, TEXTURE))) / frequency ** rng.uniform(0.9, 1.3)
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum)
    albedo = rng.uniform(0.1, 0.3) * np.exp(rng.uniform(0.25, 0.55) * noise / noise.std())
    if kind == "floor":
        lane = TEXTURE // 2 + np.arange(-6, 6)
        albedo[np.ix_(lane, np.arange(0, TEXTURE // 2))] = 0.6
    if kind in ("street", "room", "wall"):
        _add_windows(albedo, rng)
    levels = [np.clip(albedo, 0.02, 3.0)]
    while len(levels[-1]) > 1:
        finer = levels[-1]
        levels.append((finer[::2, ::2] + finer[1::2, ::2] + finer[::2, 1::2] + finer[1::2, 1::2]) / 4)
    return np.concatenate([level.ravel() for level in levels]).astype(np.float32)


def rotation(angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation by pitch (about x), yaw (about y) and roll (about z)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    pitch = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    roll = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return yaw @ pitch @ roll


def _draw_planes(family: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Distances to floor, ceiling, left wall, right wall and end."""
    floor = rng.uniform(1.2, 1.8)
    if family == "street":
        return np.array([floor, NO_PLANE_M, rng.uniform(4, 12), rng.uniform(4, 12), NO_PLANE_M])
    if family == "tunnel":
        return np.array([floor, rng.uniform(3, 5), rng.uniform(3, 6), rng.uniform(3, 6), NO_PLANE_M])
    if family == "room":
        return np.array([floor, rng.uniform(1.0, 1.6), rng.uniform(1.5, 4), rng.uniform(1.5, 4), rng.uniform(4, 9)])
    return np.array([NO_PLANE_M] * 4 + [rng.uniform(2, 6)])


def _draw_board(planes: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """An upright board that stands on the floor: a person, a pole, a sign or a car."""
    half_width, half_height = [(0.25, 0.85), (0.06, 2.5), (0.5, 0.4), (0.9, 0.7)][rng.integers(4)]
    z = rng.uniform(0.3, 0.9) * min(planes[4], 25.0)
    x = rng.uniform(-1, 1) * min(planes[2], planes[3], 0.5 * z) * 0.8
    y = min(planes[0], 1.6) - half_height
    return np.array([x, y, z, half_width, half_height, rng.normal(0, 1.2), rng.normal(0, 2.0), rng.uniform()])


def _draw_lamp(config: SourceConfig, ambient: float, planes: NDArray[np.float64], rng: np.random.Generator) -> Lamp:
    """A lamp in or just outside the field of view, standing or coming nearer like a headlight."""
    z = rng.uniform(0.3, 0.95) * min(planes[4], 22.0)
    half_view = 0.5 / FOCAL_WIDTHS * z
    x = rng.uniform(-1.1, 1.1) * half_view
    y = rng.uniform(-0.8, 0.3) * half_view
    x = np.clip(x, -0.95 * planes[2], 0.95 * planes[3])
    y = np.clip(y, -0.95 * planes[1], 0.9 * planes[0])
    velocity = np.array([rng.normal(0, 0.4), rng.normal(0, 0.1), rng.uniform(-12, 0) if rng.uniform() < 0.3 else 0.0])
    radiance = ambient * 10 ** rng.uniform(*config.log10_radiance)
    radius_m, spill = z * rng.uniform(*config.radius_mrad) / 1e3, rng.uniform(*config.spill)
    return Lamp(np.array([x, y, z]), velocity, radius_m, radiance, spill, draw_waveform(config, rng))


def _add_windows(albedo: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Panes on a grid, some dark, some lit from within, in place."""
    pitch = int(rng.choice([32, 64]))
    for row in range(pitch // 4, TEXTURE, pitch):
        for column in range(pitch // 4, TEXTURE, pitch):
            shade = rng.choice([0.04, 0.5, rng.uniform(1, 3)], p=[0.6, 0.25, 0.15])
            albedo[row : row + pitch // 2, column : column + pitch // 2] = shade


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sample(texture, u, v, texels_across):  # type: ignore[no-untyped-def]
    """The texture at `(u, v)`, in repeats, averaged over a pixel that covers `texels_across` texels."""
    level = min(max(np.log2(max(texels_across, 1e-6)), 0.0), 8.0)
    low = int(level)
    blend = np.float32(level - low)
    value = np.float32(0)
    offset, size = 0, TEXTURE
    for _ in range(low):
        offset += size * size
        size //= 2
    for k in range(2):
        a, b = u * size - 0.5, v * size - 0.5
        i, j = int(np.floor(a)), int(np.floor(b))
        fa, fb = np.float32(a - i), np.float32(b - j)
        i0, i1, j0, j1 = i % size, (i + 1) % size, j % size, (j + 1) % size
        upper = texture[offset + j0 * size + i0] * (1 - fa) + texture[offset + j0 * size + i1] * fa
        lower = texture[offset + j1 * size + i0] * (1 - fa) + texture[offset + j1 * size + i1] * fa
        value += (upper * (1 - fb) + lower * fb) * (blend if k else 1 - blend)
        offset += size * size
        size //= 2
    return value


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _hit(camera, ray, planes, boards):  # type: ignore[no-untyped-def]
    """Distance along the ray, and the surface: 0 floor, 1 ceiling, 2, 3 walls, 4 end, 5 + k board k, -1 none."""
    nearest, surface = FAR_M, -1
    axes = (1, 1, 0, 0, 2)
    signs = (1.0, -1.0, -1.0, 1.0, 1.0)
    for k in range(5):
        along = ray[axes[k]] * signs[k]
        if along > 1e-9:
            distance = (planes[k] - camera[axes[k]] * signs[k]) / along
            if 0 < distance < nearest:
                nearest, surface = distance, k
    for k in range(len(boards)):
        distance = (boards[k, 2] - camera[2]) / ray[2]
        if 0.3 < distance < nearest:
            x, y = camera[0] + distance * ray[0] - boards[k, 0], camera[1] + distance * ray[1] - boards[k, 1]
            if abs(x) < boards[k, 3] and abs(y) < boards[k, 4]:
                nearest, surface = distance, 5 + k
    return nearest, surface


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _albedo(surface, point, footprint_m, textures, boards):  # type: ignore[no-untyped-def]
    """The albedo of a surface at a point, averaged over a pixel's footprint."""
    if surface >= 5:
        board = boards[surface - 5]
        texels = footprint_m * TEXTURE / 2.0
        return _sample(textures[4], (point[0] - board[0]) / 2 + board[7], (point[1] - board[1]) / 2 + board[7], texels)
    texels = footprint_m * TEXTURE / 6.0
    if surface <= 1:
        return _sample(textures[surface], point[2] / 6, point[0] / 6 + 0.5, texels)
    across = point[2] if surface <= 3 else point[0]
    return _sample(textures[surface - 1 if surface == 4 else 2], across / 6, point[1] / 6, texels)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _cast(background, lit, camera, turn, planes, textures, boards, lamps, powers):  # type: ignore[no-untyped-def]
    """Fill the background and the light that each lamp throws on what is seen."""
    height, width = background.shape
    focal = FOCAL_WIDTHS * width
    ray, point = np.empty(3), np.empty(3)
    for row in range(height):
        for column in range(width):
            u, v = (column - (width - 1) / 2) / focal, (row - (height - 1) / 2) / focal
            for k in range(3):
                ray[k] = turn[k, 0] * u + turn[k, 1] * v + turn[k, 2]
            distance, surface = _hit(camera, ray, planes, boards)
            if surface < 0:
                background[row, column] = np.float32(0.03 + 0.05 * max(0.0, 0.4 + v))
                continue
            for k in range(3):
                point[k] = camera[k] + distance * ray[k]
            axis = 2 if surface >= 4 else (1 if surface <= 1 else 0)
            slant = max(abs(ray[axis]), 0.05)
            albedo = _albedo(surface, point, distance / focal / np.sqrt(slant), textures, boards)
            background[row, column] = albedo
            for s in range(len(lamps)):
                dx, dy, dz = lamps[s, 0] - point[0], lamps[s, 1] - point[1], lamps[s, 2] - point[2]
                squared = dx * dx + dy * dy + dz * dz + 0.05
                towards = abs(dz) if axis == 2 else (abs(dy) if axis == 1 else abs(dx))
                lit[s, row, column] = np.float32(min(albedo, 1) * powers[s] * towards / (squared * np.sqrt(squared)))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _draw_disc(picture, x, y, radius, radiance):  # type: ignore[no-untyped-def]
    """Add an anti-aliased disc."""
    height, width = picture.shape
    for row in range(max(0, int(y - radius - 2)), min(height, int(y + radius + 3))):
        for column in range(max(0, int(x - radius - 2)), min(width, int(x + radius + 3))):
            inside = radius + 0.5 - np.hypot(column - x, row - y)
            picture[row, column] += radiance * np.float32(min(max(inside, 0.0), 1.0))
