"""Optics: what a real lens adds to the picture of a light source.

Scattering is wave optics: light of a point source spreads as the squared modulus of the Fourier transform of the
pupil (Goodman, Introduction to Fourier Optics, ch. 6), here an aperture with blades, dust, scratches and smears, and a
defocus phase; the spread grows with the wavelength, so nine scaled copies are averaged. The core is left out, since
the direct picture of the source is already there. Veiling glare falls with a power of the angle.

Ghosts are pairs of reflections inside the lens (paraxial ray matrices; Hullin et al., 2011): each lies on the line
through the source and the optical centre, at a magnification of its own, and moves along with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from data_simu.config import OpticsConfig
from deflare_core.events import SensorSize

REFERENCE_WIDTH = 640
WAVELENGTHS_NM = np.linspace(430, 680, 9)
Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ghost:
    """One reflected picture of a source.

    Parameters
    ----------
    magnification : its distance from the optical centre as a multiple of the source's; negative is opposite.
    energy : its share of the source's light.
    sprite : its picture `(n, n)`, which sums to 1.
    """

    magnification: float
    energy: float
    sprite: Image


@dataclass(frozen=True, slots=True)
class Lens:
    """A lens: the spread of a point source's light, and its ghosts.

    Parameters
    ----------
    kernel : light at each offset from the source, `(2r + 1, 2r + 1)`; it sums to the share of light that is spread.
    ghosts : the brightest ghosts.
    plan : what the lens was drawn as.
    """

    kernel: Image
    ghosts: tuple[Ghost, ...]
    plan: dict[str, float]

    def add_flare(self, picture: Image, x: float, y: float, flux: float) -> None:
        """Add the flare of a point source of that flux at `(x, y)`, pixels, to the picture, in place."""
        height, width = picture.shape
        add_shifted(picture, self.kernel, x, y, np.float32(flux))
        centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
        for ghost in self.ghosts:
            ghost_x = centre_x + ghost.magnification * (x - centre_x)
            ghost_y = centre_y + ghost.magnification * (y - centre_y)
            off_axis = np.hypot(ghost_x - centre_x, ghost_y - centre_y) / (0.81 * width)
            vignetting = max(0.0, 1 - off_axis**2)
            add_shifted(picture, ghost.sprite, ghost_x, ghost_y, np.float32(flux * ghost.energy * vignetting))


def draw_lens(config: OpticsConfig, sensor_size: SensorSize, rng: np.random.Generator) -> Lens:
    """A random lens for a sensor; all lengths scale with the sensor's width."""
    scatter, veil = (config.strength * 10 ** rng.uniform(*r) for r in (config.log10_scatter, config.log10_veil))
    blades = int(rng.choice([0, 5, 6, 7, 8, 9]))
    radius = max(sensor_size)
    kernel = flare_kernel(radius, blades, rng) * np.float32(scatter)
    kernel += veil_kernel(radius, rng.uniform(0.9, 1.35)) * np.float32(veil)
    num_ghosts = int(rng.integers(config.num_ghosts[0], config.num_ghosts[1] + 1)) if config.strength else 0
    ghosts = draw_ghosts(num_ghosts, blades, sensor_size[1], config.strength, rng)
    plan = {"blades": blades, "scatter": float(scatter), "veil": float(veil), "num_ghosts": len(ghosts)}
    return Lens(kernel, ghosts, plan)


def flare_kernel(radius: int, blades: int, rng: np.random.Generator) -> Image:
    """The spread of light by a dirty aperture, `(2 radius + 1)` square, summing to 1, without its core.

    Parameters
    ----------
    radius : reach of the kernel in pixels.
    blades : blades of the aperture; 0 is a circle.
    rng : generator of the dust, scratches, smears and defocus.
    """
    size = 2 * radius
    pupil = draw_pupil(size, blades, rng)
    spectrum = np.fft.fftshift(np.abs(np.fft.fft2(pupil)) ** 2).astype(np.float32)
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    for wavelength_nm in WAVELENGTHS_NM:
        _add_scaled(kernel, spectrum, np.float32(wavelength_nm / 550))
    kernel *= _window(radius, core=3 * radius / REFERENCE_WIDTH)
    return kernel / kernel.sum()


def veil_kernel(radius: int, power: float) -> Image:
    """Veiling glare, `(r^2 + r0^2)^-power`, `(2 radius + 1)` square, summing to 1."""
    core = 3 * radius / REFERENCE_WIDTH
    kernel = (_squared_distance(radius) + 4 * core**2) ** -power * _window(radius, core)
    return (kernel / kernel.sum()).astype(np.float32)


def draw_pupil(size: int, blades: int, rng: np.random.Generator) -> NDArray[np.complex64]:
    """A pupil `(size, size)`: aperture with dust, scratches and smears, and the phase of a slight defocus."""
    row, column = (np.indices((size, size), np.float32) - (size - 1) / 2) / (size / 2)
    r, angle = np.hypot(row, column), np.arctan2(row, column) + np.float32(rng.uniform(0, 2 * np.pi))
    edge = np.float32(rng.uniform(0.26, 0.48))
    if blades:
        sector = 2 * np.pi / blades
        edge = edge * np.cos(sector / 2) / np.cos(np.mod(angle, sector) - sector / 2)
    amplitude = np.clip((edge - r) * size / 4 + 0.5, 0, 1)
    for _ in range(rng.integers(20, 120)):
        _darken_disc(amplitude, rng.uniform(-0.48, 0.48, 2), 10 ** rng.uniform(-2.4, -1.5), rng.uniform(0.3, 1))
    smear = rng.uniform(0, np.pi)
    for k in range(rng.integers(6, 50)):
        direction = smear + rng.normal(0, 0.04) if k % 4 else rng.uniform(0, np.pi)
        _darken_line(amplitude, row, column, direction, rng.uniform(-0.45, 0.45), 10 ** rng.uniform(-3, -2.2), rng)
    phase = rng.normal(0, 2) * (r / 0.48) ** 2 + rng.normal(0, 0.7) * (r / 0.48) ** 4
    return (amplitude * np.exp(1j * phase)).astype(np.complex64)


def draw_ghosts(num: int, blades: int, width: int, strength: float, rng: np.random.Generator) -> tuple[Ghost, ...]:
    """The brightest `num` ghosts of a random lens, from the ray matrices of every pair of reflections."""
    found: list[tuple[float, float, float]] = []
    while num and len(found) < num:
        found += [g for g in ghosts_of(*_draw_surfaces(rng)) if 0.15 < abs(g[0]) < 4 and 3 < g[1] < 260]
    found = sorted(found, key=lambda g: -g[2] / g[1] ** 2)[:num]
    turn = rng.uniform(0, 2 * np.pi)
    scale = width / REFERENCE_WIDTH
    return tuple(Ghost(m, strength * e, _ghost_sprite(max(r * scale, 1.5), blades, turn)) for m, r, e in found)


def ghosts_of(
    curvatures: NDArray[np.float64], gaps: NDArray[np.float64], indices: NDArray[np.float64]
) -> list[tuple[float, float, float]]:
    """Magnification, radius in pixels of a 640-pixel sensor, and energy of the ghost of every pair of reflections.

    Light is refracted up to surface j, reflected there, reflected again at surface i < j, and refracted out. With the
    2x2 matrices of the two paths, the ghost's place is B / B_direct times the source's and its size |A| times the
    pupil's.

    Parameters
    ----------
    curvatures : of the n surfaces, per focal length.
    gaps : distances from each surface to the next, the last one to the sensor, in focal lengths.
    indices : refractive indices before, between and after the surfaces, `n + 1`.
    """
    count = len(curvatures)
    direct = _path(range(count), curvatures, gaps, indices)
    ghosts = []
    for j in range(1, count):
        for i in range(j):
            there = _path(range(j), curvatures, gaps, indices)
            back = _reflected_path(i, j, curvatures, gaps, indices)
            out = _path(range(i + 1, count), curvatures, gaps, indices)
            matrix = out @ back @ there
            energy = _reflectance(indices[i], indices[i + 1]) * _reflectance(indices[j], indices[j + 1])
            ghosts.append((matrix[0, 1] / direct[0, 1], abs(matrix[0, 0]) * 60.0, energy))
    return ghosts


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_shifted(picture: Image, sprite: Image, x: float, y: float, weight: np.float32) -> None:
    """Add the sprite, centred at `(x, y)` to a fraction of a pixel, times the weight, to the picture, in place."""
    height, width = picture.shape
    rows, columns = sprite.shape
    left, top = x - (columns - 1) / 2, y - (rows - 1) / 2
    first_x, first_y = int(np.floor(left)), int(np.floor(top))
    fx, fy = np.float32(left - first_x), np.float32(top - first_y)
    for row in range(max(0, first_y + 1), min(height, first_y + rows)):
        i = row - first_y
        for column in range(max(0, first_x + 1), min(width, first_x + columns)):
            j = column - first_x
            upper = sprite[i - 1, j - 1] * fx + sprite[i - 1, j] * (1 - fx)
            lower = sprite[i, j - 1] * fx + sprite[i, j] * (1 - fx)
            picture[row, column] += weight * (upper * fy + lower * (1 - fy))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_scaled(kernel, spectrum, scale):  # type: ignore[no-untyped-def]
    """Add the spectrum, stretched about its centre by `scale` with its energy kept, to the kernel."""
    size, centre = len(spectrum), len(spectrum) // 2
    radius = len(kernel) // 2
    for row in range(len(kernel)):
        v = (row - radius) / scale + centre
        i = int(np.floor(v))
        for column in range(len(kernel)):
            u = (column - radius) / scale + centre
            j = int(np.floor(u))
            if 0 <= i < size - 1 and 0 <= j < size - 1:
                fv, fu = v - i, u - j
                upper = spectrum[i, j] * (1 - fu) + spectrum[i, j + 1] * fu
                lower = spectrum[i + 1, j] * (1 - fu) + spectrum[i + 1, j + 1] * fu
                kernel[row, column] += (upper * (1 - fv) + lower * fv) / (scale * scale)


def _squared_distance(radius: int) -> NDArray[np.float64]:
    offset = np.arange(-radius, radius + 1.0) ** 2
    return offset[:, None] + offset


def _window(radius: int, core: float) -> NDArray[np.float32]:
    """0 in the core and at the rim, 1 between, with soft transitions, so that nothing pops in."""
    r = np.sqrt(_squared_distance(radius))
    inner = np.clip(r / max(core, 1.0) - 1, 0, 1)
    outer = np.clip((radius - r) / (0.15 * radius), 0, 1)
    return (inner * outer).astype(np.float32)


def _darken_disc(amplitude: Image, centre: NDArray[np.float64], radius: float, opacity: float) -> None:
    """Darken a disc of the pupil in place; lengths in half pupil planes."""
    size = len(amplitude)
    reach = max(1, round(radius * size / 2))
    row, column = np.round((centre + 1) * size / 2).astype(int)
    area = amplitude[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
    v, u = np.indices(area.shape)
    inside = np.hypot(v + max(row - reach, 0) - row, u + max(column - reach, 0) - column) <= reach
    area[inside] *= np.float32(1 - opacity)


def _darken_line(
    amplitude: Image, row: Image, column: Image, direction: float, offset: float, width: float, rng: np.random.Generator
) -> None:
    """Darken a line across the pupil in place."""
    distance = np.abs(row * np.float32(np.cos(direction)) + column * np.float32(np.sin(direction)) - np.float32(offset))
    amplitude[distance < max(width, 1 / len(amplitude))] *= np.float32(rng.uniform(0.2, 0.8))


def _draw_surfaces(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Curvatures, gaps and indices of a random lens of three to six elements."""
    elements = int(rng.integers(3, 7))
    curvatures = rng.normal(0, 0.8, 2 * elements)
    gaps = np.append(rng.uniform(0.02, 0.2, 2 * elements - 1), rng.uniform(0.4, 1.0))
    indices = np.ones(2 * elements + 1)
    indices[1::2] = rng.uniform(1.45, 1.85, elements)
    return curvatures, gaps, indices


def _path(
    surfaces: range, curvatures: NDArray[np.float64], gaps: NDArray[np.float64], indices: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The matrix of light refracted at each surface and carried over the gap behind it."""
    matrix = np.eye(2)
    for k in surfaces:
        before, after = indices[k], indices[k + 1]
        refract = np.array([[1, 0], [(before - after) * curvatures[k] / after, before / after]])
        matrix = np.array([[1, gaps[k]], [0, 1]]) @ refract @ matrix
    return matrix


def _reflected_path(
    i: int, j: int, curvatures: NDArray[np.float64], gaps: NDArray[np.float64], indices: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The matrix from arrival at surface j over its reflection there, the way back, and the reflection at i."""
    matrix = np.array([[1, 0], [2 * curvatures[j], 1]])
    for k in range(j - 1, i, -1):
        before, after = indices[k + 1], indices[k]
        refract = np.array([[1, 0], [(after - before) * curvatures[k] / after, before / after]])
        matrix = refract @ np.array([[1, gaps[k]], [0, 1]]) @ matrix
    matrix = np.array([[1, gaps[i]], [0, 1]]) @ matrix
    return np.array([[1, gaps[i]], [0, 1]]) @ np.array([[1, 0], [-2 * curvatures[i], 1]]) @ matrix


def _reflectance(before: float, after: float) -> float:
    """Fresnel reflectance at normal incidence, with a coating that lets a quarter through."""
    return 0.25 * ((before - after) / (before + after)) ** 2


def _ghost_sprite(radius: float, blades: int, turn: float) -> Image:
    """A polygon disc with a bright rim, summing to 1."""
    reach = int(np.ceil(radius)) + 2
    row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    r, edge = np.hypot(row, column), np.float64(radius)
    if blades:
        sector = 2 * np.pi / blades
        angle = np.mod(np.arctan2(row, column) + turn, sector) - sector / 2
        edge = radius * np.cos(sector / 2) / np.cos(angle)
    disc = np.clip(edge - r + 0.5, 0, 1) * (1 + 1.5 * np.exp(-(((edge - r) / (0.08 * radius + 0.7)) ** 2)))
    return (disc / disc.sum()).astype(np.float32)
