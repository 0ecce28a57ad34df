"""Drawn flares: pictures of flare by formulas in polar coordinates, none of them optics, in Flare7K's folder layout.

A network trained on the flare of drawn apertures (see `optics`) is tested on these, whose shapes no aperture made:

    python -m data_simu.tools.drawn_flares --output-dir data_simu/physics_method/drawn_flares
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_simu.optics.flare_images import FOLDERS, GAMMA
from deflare_core.system.atomic_files import complete_or_absent

SIDE, NUM_PICTURES = 513, 24
HARMONICS = 40
"""Waves of brightness around the light that make its rays."""


def draw_flare(rng: np.random.Generator) -> NDArray[np.float32]:
    """A flare with its light in the middle, linear, `(SIDE, SIDE)` from 0 to 1: glow, rays, streaks, perhaps a ring."""
    across = (np.arange(SIDE) - SIDE // 2) / (SIDE / 2)
    radius = np.hypot(across[:, None], across[None, :])
    angle = np.arctan2(across[:, None], across[None, :])
    light = rng.uniform(0.012, 0.03)
    falling = (1 + radius / light) ** -rng.uniform(1.6, 2.6)
    flare = falling * (0.3 + draw_rays(angle, rng))
    for _ in range(rng.integers(0, 5)):
        flare += draw_streak(radius, angle - rng.uniform(0, np.pi), rng)
    if rng.random() < 0.4:
        flare += rng.uniform(0.002, 0.01) * np.exp(-(((radius - rng.uniform(0.2, 0.7)) / 0.03) ** 2))
    return np.where(radius < light, 1, np.minimum(rng.uniform(0.1, 0.5) * flare, 1)).astype(np.float32)


def draw_rays(angle: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Random brightness around the light at angles of any shape (rad), about 1 on average, never below 0.

    It is a sum of waves whose height falls with their number.
    """
    total = np.zeros_like(angle)
    for wave in range(1, HARMONICS + 1):
        total += rng.standard_normal() * wave**-0.5 * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return np.clip(1 + total, 0, None)


def draw_streak(
    radius: NDArray[np.float64], angle: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """A streak through the light along angle 0, brightest at radius 0; radius and angle (rad) have one shape."""
    width, length = rng.uniform(0.003, 0.015), rng.uniform(0.1, 0.6)
    return rng.uniform(0.05, 0.6) * np.exp(-((radius * np.sin(angle) / width) ** 2) - radius / length)


def write_flares(folder: Path, num: int = NUM_PICTURES, seed: int = 0) -> list[Path]:
    """The files of `num` flares, encoded with a gamma of 2.2 in 8 bits; the same seed draws the same."""
    paths = [folder / FOLDERS[0] / f"{k:06d}.png" for k in range(num)]
    for k, path in enumerate(paths):
        flare = draw_flare(np.random.default_rng([seed, k]))
        with complete_or_absent(path) as temporary:
            Image.fromarray(np.rint(255 * flare ** (1 / GAMMA)).astype(np.uint8)).save(temporary, format="png")
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw pictures of flare by formulas, in the folder layout of Flare7K."""
    parser = argparse.ArgumentParser(prog="python -m data_simu.tools.drawn_flares", description=main.__doc__)
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--num", type=int, default=NUM_PICTURES, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args(arguments)
    write_flares(options.output_dir, options.num, options.seed)


if __name__ == "__main__":
    main()
