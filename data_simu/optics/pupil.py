"""The pupil: the aperture of a lens with its blades and what soils it, as a complex transmission."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDEST = 0.48
"""Radius of the widest aperture as a share of half the pupil plane, so that its spread does not wrap around."""


def draw_pupil(size: int, blades: int, rng: np.random.Generator) -> NDArray[np.complex64]:
    """A random pupil `(size, size)`, at the middle of a plane twice as wide: aperture, dust, scratches, smears, phase.

    The phase is that of a slight defocus and spherical aberration, in radians at the widest aperture.

    Parameters
    ----------
    size : samples along a side, even; the half-width of the array is `WIDEST` and a little more.
    blades : blades of the aperture; 0 is a circle.
    rng : generator.
    """
    place = ((np.arange(size, dtype=np.float32) - (size - 1) / 2) / size).astype(np.float32)
    row, column = place[:, None], place[None, :]
    r = np.hypot(row, column)
    edge = np.float32(rng.uniform(0.26, WIDEST))
    if blades:
        sector = np.float32(2 * np.pi / blades)
        angle = np.mod(np.arctan2(row, column) + np.float32(rng.uniform(0, 2 * np.pi)), sector) - sector / 2
        edge = edge * np.cos(sector / 2) / np.cos(angle)
    amplitude = np.clip((edge - r) * (size / 2) + np.float32(0.5), 0, 1)
    _soil(amplitude, row, column, rng)
    defocus, spherical = np.float32(rng.normal(0, 2) / WIDEST**2), np.float32(rng.normal(0, 0.7) / WIDEST**4)
    squared = r * r
    phase = squared * (defocus + spherical * squared)
    return amplitude * (np.cos(phase) + 1j * np.sin(phase))


def _soil(
    amplitude: NDArray[np.float32], row: NDArray[np.float32], column: NDArray[np.float32], rng: np.random.Generator
) -> None:
    """Darken dust, scratches and the parallel smears of a wiped surface, in place."""
    for _ in range(rng.integers(20, 120)):
        _darken_disc(amplitude, rng.uniform(-WIDEST, WIDEST, 2), 10 ** rng.uniform(-2.4, -1.5), rng.uniform(0.3, 1))
    smear, smears = rng.uniform(0, np.pi), int(rng.integers(0, 40)) * int(rng.random() < 0.6)
    directions = [*rng.uniform(0, np.pi, rng.integers(0, 10)), *rng.normal(smear, 0.04, smears)]
    for direction in directions:
        width = max(10 ** rng.uniform(-3, -2.2), 1 / (2 * len(amplitude)))
        _darken_line(amplitude, row, column, direction, rng.uniform(-0.45, 0.45), width, rng.uniform(0.2, 0.8))


def _darken_disc(amplitude: NDArray[np.float32], centre: NDArray[np.float64], radius: float, opacity: float) -> None:
    """Darken a disc of the pupil in place."""
    size = len(amplitude)
    reach = max(1, round(radius * size))
    row, column = np.round((centre + 0.5) * size).astype(int)
    top, left = max(row - reach, 0), max(column - reach, 0)
    area = amplitude[top : row + reach + 1, left : column + reach + 1]
    v, u = np.ogrid[: area.shape[0], : area.shape[1]]
    area[np.hypot(v + top - row, u + left - column) <= reach] *= np.float32(1 - opacity)


def _darken_line(
    amplitude: NDArray[np.float32],
    row: NDArray[np.float32],
    column: NDArray[np.float32],
    direction: float,
    offset: float,
    width: float,
    kept: float,
) -> None:
    """Darken a line across the pupil in place."""
    distance = row * np.float32(np.cos(direction)) + column * np.float32(np.sin(direction))
    amplitude[np.abs(distance - np.float32(offset)) < width] *= np.float32(kept)
