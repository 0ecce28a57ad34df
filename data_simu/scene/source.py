"""A light source: where it is, how large and bright, and the points that stand for it.

A source is one of two things. A stripe with round ends: a bulb has no length, a tube has. Or a picture on a flat square
in space, for lamps that are broad enough to have a shape:

        +-----------+          A picture's square. From the middle m to the right side leads `half_axis_m` a, to the
        |   .---.   |          lower side `second_axis_m` b. The lamp fills the picture up to a margin, which is dark.
        |  ( m-->a  |
        |   '-|-'   |
        +-----b-----+
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_simu.scene.raycast import TEXTURE

Vector = NDArray[np.float32]
MOST_EMITTERS = 15
"""The most points that stand for a stripe with length when its flare is drawn."""
CELLS = 64
"""Rows and columns of the level of a picture that its points are found in."""
LEAST_SHARE = 0.003
"""Share of a source's light below which a point is not worth drawing."""
BROAD_M = 0.3
"""Half length from which a source lights the scene from three points."""


def _none() -> Vector:
    return np.zeros(3, np.float32)


@dataclass(frozen=True, slots=True)
class Source:
    """One light source.

    Parameters
    ----------
    kind : what it is.
    group : the group whose waveform it follows.
    position_m, velocity_m_s : place at time 0 and motion, `(3,)`.
    half_axis_m : of a stripe, from its middle to the middle of its round end, `(3,)`, 0 for a bulb; of a picture, from
        its middle to its right side.
    radius_m : of a stripe its radius, of a picture that of a disc with as much light.
    radiance : brightness, in units of a white surface under average light.
    power_m2 : light on a white surface that faces it, times the squared distance.
    second_axis_m : of a picture, from its middle to its lower side, `(3,)`.
    picture : mip pyramid of its brightness from 0 to 1, `(PYRAMID,)`; None for a stripe.
    num_cells : a picture is divided into so many rows and columns, and a point stands for each that is lit.
    flares : whether the lens makes flare of it; what sparkles or blinks is too faint.
    """

    kind: str
    group: int
    position_m: Vector
    velocity_m_s: Vector
    half_axis_m: Vector
    radius_m: float
    radiance: float
    power_m2: float = 0.0
    second_axis_m: Vector = field(default_factory=_none)
    picture: Vector | None = None
    num_cells: int = 1
    flares: bool = True

    def middle_at(self, t_us: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Where its middle is at a time, metres, `(..., 3)`."""
        return self.position_m + self.velocity_m_s.astype(float) * (np.asarray(t_us, float)[..., None] / 1e6)

    def emitters(self) -> tuple[Vector, Vector]:
        """Offsets `(n, 3)` of the points that stand for it, and `(n,)` what its light is divided by for each."""
        if self.picture is not None:
            places, shares = find_bright_cells(self.picture, self.num_cells)
            return places @ np.stack([self.half_axis_m, self.second_axis_m]), (1 / shares).astype(np.float32)
        num = 1
        if self.half_axis_m.any():
            num += 2 * int(np.ceil(np.linalg.norm(self.half_axis_m) / self.radius_m))
        num = min(num, MOST_EMITTERS)
        along = np.linspace(-1, 1, num, dtype=np.float32) if num > 1 else np.zeros(1, np.float32)
        return along[:, None] * self.half_axis_m, np.full(num, num, np.float32)

    def light_points(self) -> Vector:
        """Offsets `(n, 3)` from its middle of the points from which it lights the scene, each by an equal share."""
        if self.picture is None or np.linalg.norm(self.half_axis_m) < BROAD_M:
            return np.zeros((1, 3), np.float32)
        return np.array([-0.6, 0, 0.6], np.float32)[:, None] * self.half_axis_m

    @property
    def area_m2(self) -> float:
        """Its face as seen from the front, as large as if all of it had the radiance."""
        if self.picture is not None:
            return float(4 * np.linalg.norm(self.half_axis_m) * np.linalg.norm(self.second_axis_m) * self.picture[-1])
        return float(np.pi * self.radius_m**2 + 4 * self.radius_m * np.linalg.norm(self.half_axis_m))

    @property
    def reach_m(self) -> float:
        """How far from its middle it can light a pixel, across its length if it is a stripe."""
        if self.picture is None:
            return self.radius_m
        return float(np.linalg.norm(self.half_axis_m) + np.linalg.norm(self.second_axis_m))

    def describe(self) -> dict[str, object]:
        """The source in figures, for the record of a recording."""
        return {
            "kind": self.kind,
            "group": self.group,
            "position_m": np.round(self.position_m, 2).astype(float).round(2).tolist(),
            "radius_m": round(self.radius_m, 4),
            "radiance": round(self.radiance, 1),
        }


def find_bright_cells(picture: Vector, num_cells: int) -> tuple[Vector, Vector]:
    """Where the lit cells of a picture have their light, `(n, 2)` from -1 to 1, and each one's share of it `(n,)`.

    `picture` is a mip pyramid; it is divided into `num_cells` rows and columns, a power of two.
    """
    first = (4 * TEXTURE**2 - 4 * CELLS**2) // 3
    light = picture[first : first + CELLS**2].reshape(num_cells, CELLS // num_cells, num_cells, CELLS // num_cells)
    place = ((np.arange(CELLS, dtype=np.float32) + 0.5) / CELLS * 2 - 1).reshape(num_cells, -1)
    total = light.sum(axis=(1, 3))
    across = np.einsum("iajb,jb->ij", light, place) / np.maximum(total, 1e-9)
    down = np.einsum("iajb,ia->ij", light, place) / np.maximum(total, 1e-9)
    share = total / max(float(total.sum()), 1e-9)
    lit = share > LEAST_SHARE
    return np.stack([across[lit], down[lit]], axis=1), share[lit] / max(float(share[lit].sum()), 1e-9)
