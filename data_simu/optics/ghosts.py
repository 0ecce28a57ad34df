"""Ghosts: pictures of a source that light makes after two reflections inside the lens.

For every pair of surfaces of a paraxial lens the light's path is a product of 2x2 ray matrices, as in Hullin et al.,
"Physically-based real-time lens flare rendering", SIGGRAPH 2011. A ghost lies on the line through the source and the
optical centre, at a magnification of its own, and moves along with the source; its shape is that of the aperture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_simu.config import OpticsConfig

REFERENCE_WIDTH = 640
PUPIL_PIXELS = 60.0
"""Radius of the pupil in pixels of a sensor 640 wide, which a ghost of matrix element A = 1 would have."""
MAGNIFICATIONS, RADII_PIXELS = (0.15, 4.0), (3.0, 260.0)
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


def draw_ghosts(config: OpticsConfig, blades: int, width: int, rng: np.random.Generator) -> tuple[Ghost, ...]:
    """The brightest ghosts of a random lens on a sensor of that width, from every pair of reflections."""
    num = int(rng.integers(config.num_ghosts[0], config.num_ghosts[1] + 1))
    coating, turn = 10 ** rng.uniform(*config.log10_coating), rng.uniform(0, 2 * np.pi)
    found: list[tuple[float, float, float]] = []
    while len(found) < num:
        found += [g for g in find_ghosts(*_draw_surfaces(rng)) if _is_seen(*g[:2])]
    found = sorted(found, key=lambda g: -g[2] / g[1] ** 2)[:num]
    strength, scale = config.ghost_strength * coating**2, width / REFERENCE_WIDTH
    if not strength:
        return ()
    return tuple(Ghost(m, strength * e, draw_ghost_sprite(max(r * scale, 1.5), blades, turn)) for m, r, e in found)


def find_ghosts(
    curvatures: NDArray[np.float64], gaps: NDArray[np.float64], indices: NDArray[np.float64]
) -> list[tuple[float, float, float]]:
    """Magnification, radius in pixels of a 640-pixel sensor, and energy of the ghost of every pair of reflections.

            i           j
     light  |           |               there: refracted at every surface before j
        --->|---------->|
            |<----------|               back: reflected at j, refracted on the way, reflected at i
            |---------->|---> sensor    out: refracted at every surface after i

    Light is refracted up to surface j, reflected there, reflected again at surface i < j, and refracted out. With the
    2x2 matrices of the two paths, the ghost's place is B / B_direct times the source's and its size |A| times the
    pupil's.

    Parameters
    ----------
    curvatures : of the n surfaces, `(n,)`, per focal length.
    gaps : distances from each surface to the next, the last one to the sensor, `(n,)`, in focal lengths.
    indices : refractive indices before, between and after the surfaces, `(n + 1,)`.
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
            ghosts.append((matrix[0, 1] / direct[0, 1], abs(matrix[0, 0]) * PUPIL_PIXELS, energy))
    return ghosts


def draw_ghost_sprite(radius: float, blades: int, turn: float) -> Image:
    """A polygonal disc with a bright rim, `(n, n)` float32, that sums to 1.

    The radius is in pixels, the turn in radians; an aperture of 0 blades is a circle.
    """
    reach = int(np.ceil(radius)) + 2
    row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    r, edge = np.hypot(row, column), np.float64(radius)
    if blades:
        sector = 2 * np.pi / blades
        angle = np.mod(np.arctan2(row, column) + turn, sector) - sector / 2
        edge = radius * np.cos(sector / 2) / np.cos(angle)
    disc = np.clip(edge - r + 0.5, 0, 1) * (1 + 1.5 * np.exp(-(((edge - r) / (0.08 * radius + 0.7)) ** 2)))
    return (disc / disc.sum()).astype(np.float32)


def _is_seen(magnification: float, radius: float) -> bool:
    near, far = MAGNIFICATIONS
    return near < abs(magnification) < far and RADII_PIXELS[0] < radius < RADII_PIXELS[1]


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
    """Fresnel reflectance at normal incidence of a bare surface."""
    return ((before - after) / (before + after)) ** 2
