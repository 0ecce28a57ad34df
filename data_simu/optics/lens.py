"""Optics: what a real lens adds to the picture of a light source.

Scattering is wave optics: light of a point source spreads as the squared modulus of the Fourier transform of the
pupil (Goodman, Introduction to Fourier Optics, ch. 6), here an aperture with blades, dust, scratches and smears, and a
defocus phase; the spread grows with the wavelength, so nine scaled copies are averaged. The core is left out, since
the direct picture of the source is already there. Veiling glare falls with a power of the distance. For the ghosts see
`ghosts`. Reach, core and ghosts scale with the width of the sensor, so that a small picture is one of the same flare.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from data_simu.config import OpticsConfig
from data_simu.optics.flare_images import draw_kernel
from data_simu.optics.ghosts import REFERENCE_WIDTH, Ghost, draw_ghosts
from data_simu.optics.pupil import draw_pupil
from data_simu.optics.soft_mask import make_soft_mask, square_distances
from data_simu.scene.rendering import add_sprite
from deflare_core.events import SensorSize
from deflare_core.kernels.numba_cache import compiled

WAVELENGTHS_NM = np.linspace(430, 680, 9)
REFERENCE_NM = 550.0
REACH_WIDTHS = 0.75
"""Reach of the scattered light in widths of the sensor."""
CORE_PIXELS = 3.0
"""Radius of the core that belongs to the direct picture, in pixels of a sensor 640 wide."""
Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Lens:
    """A lens: the spread of a point source's light, and its ghosts.

    Parameters
    ----------
    sensor_size : (height, width) of the sensor behind it, whose middle lies on its axis.
    kernel : light at each offset from the source, `(2r + 1, 2r + 1)` float32; its sum is the share that is spread.
    ghosts : the brightest ghosts.
    plan : what the lens was drawn as.
    broad_kernels : the kernels of square sources, by their width in pixels.
    """

    sensor_size: SensorSize
    kernel: Image
    ghosts: tuple[Ghost, ...]
    plan: dict[str, float]
    broad_kernels: tuple[tuple[int, Image], ...] = ()

    def add_flare(
        self, picture: Image, x: float, y: float, flux: float, first_row: int = 0, sprites: Iterable[int] = ()
    ) -> None:
        """Add the flare of a source at column x and row y to a picture `(rows, W)` float32, in place.

        The flux is intensity times pixels. The picture may be a stretch of the sensor's rows, `first_row` the first.
        The source is a point where no `sprites` are named; see `number_sprites`.
        """
        known, spots = self.sprites, self.find_spots(x, y, flux)
        for number, (column, row, weight) in zip(sprites or range(len(spots)), spots, strict=True):
            if weight:
                add_sprite(picture, known[int(number)], column, row - first_row, float(weight))

    @property
    def sprites(self) -> list[Image]:
        """The pictures that the lens makes of a point: what is spread, then each ghost; then broad sources' kernels."""
        broad = (kernel for _, kernel in self.broad_kernels)
        return [self.kernel, *(ghost.sprite for ghost in self.ghosts), *broad]

    def number_sprites(self, width: NDArray[Any]) -> list[NDArray[Any]]:
        """Which of the `sprites` stands for each of the spots of `find_spots`, of sources `width` pixels wide.

        A ghost is the same for all, and the kernel that of a point where there is none for the width.
        """
        first = 1 + len(self.ghosts)
        kernel = np.zeros_like(width)
        for number, (known, _) in enumerate(self.broad_kernels):
            kernel[width == known] = first + number
        return [kernel, *(np.full_like(width, ghost) for ghost in range(1, first))]

    def see_broad(self, widths: Iterable[float]) -> Lens:
        """The lens with kernels for square sources of these widths in pixels, odd numbers.

        A broad lamp is a mosaic of squares. As points they would make a streak for each instead of a broad one.
        """
        found = sorted({int(width) for width in widths} - {1})
        if not self.kernel.any():
            return self
        return replace(self, broad_kernels=tuple((w, uniform_filter(self.kernel, w, mode="constant")) for w in found))

    def find_spots(self, x: Any, y: Any, flux: Any) -> list[tuple[Any, Any, Any]]:
        """Column, row and weight of each of the `sprites` of point sources: numbers, or arrays of one shape."""
        height, width = self.sensor_size
        centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
        spots = [(x, y, flux * float(self.plan["scatter"] + self.plan["veil"] > 0))]
        for ghost in self.ghosts:
            dx, dy = ghost.magnification * (x - centre_x), ghost.magnification * (y - centre_y)
            spots.append((centre_x + dx, centre_y + dy, flux * ghost.energy * self.vignetting(dx, dy)))
        return spots

    def vignetting(self, dx: Any, dy: Any) -> Any:
        """The share of a ghost's light that passes the lens, that far from the axis (pixels)."""
        return np.maximum(0.0, 1 - (np.hypot(dx, dy) / (0.81 * self.sensor_size[1])) ** 2)


def draw_lens(config: OpticsConfig, sensor_size: SensorSize, rng: np.random.Generator) -> Lens:
    """A random lens for a sensor of size (height, width)."""
    scatter, veil = (config.scatter_strength * 10 ** rng.uniform(*r) for r in (config.log10_scatter, config.log10_veil))
    blades = int(rng.choice(config.blades))
    width = sensor_size[1]
    core = CORE_PIXELS * width / REFERENCE_WIDTH
    reach = round(REACH_WIDTHS * width)
    if config.flare_images:
        spread = draw_kernel(config.flare_images, reach, core, rng)
    else:
        spread = draw_flare_kernel(reach, core, blades, rng)
    halo = make_veil_kernel(reach, core, rng.uniform(0.9, 1.35))
    ghosts = draw_ghosts(config, blades, width, rng)
    flaws = draw_flaws(config, rng)
    scatter, veil, ghosts = scatter * flaws[0], veil * flaws[1], ghosts if flaws[2] else ()
    kernel = np.zeros((1, 1), np.float32)
    if scatter or veil:
        kernel = spread * np.float32(scatter) + halo * np.float32(veil)
    energy = float(sum(ghost.energy for ghost in ghosts))
    plan = {"blades": blades, "scatter": scatter, "veil": veil, "num_ghosts": len(ghosts), "ghost_energy": energy}
    return Lens(sensor_size, kernel, ghosts, {name: float(f"{value:.4g}") for name, value in plan.items()})


def draw_flaws(config: OpticsConfig, rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Whether a lens makes streaks, whether a veil, and whether ghosts; a share of 0 draws nothing."""
    if config.perfect_share and rng.random() < config.perfect_share:
        return False, False, False
    if config.partial_share and rng.random() < config.partial_share:
        number = int(rng.integers(1, 7))  # The bits of 1 to 6 are the choices of one or two of three.
        return bool(number & 1), bool(number & 2), bool(number & 4)
    return True, True, True


def draw_flare_kernel(reach: int, core: float, blades: int, rng: np.random.Generator) -> Image:
    """The spread of light by a soiled aperture, `(2 reach + 1)` square, summing to 1, without its core.

    Parameters
    ----------
    reach : how far the light is followed, pixels.
    core : radius within which it belongs to the direct picture, pixels.
    blades : blades of the aperture; 0 is a circle.
    rng : generator of the aperture's size, dust, scratches, smears and defocus.
    """
    plane = np.zeros((2 * reach, 2 * reach), np.complex64)
    start = reach - reach // 2
    plane[start : start + reach, start : start + reach] = draw_pupil(reach, blades, rng)
    field = scipy.fft.fft2(plane, overwrite_x=True)
    spectrum = scipy.fft.fftshift(field.real**2 + field.imag**2)
    kernel = _sum_scaled(spectrum, (WAVELENGTHS_NM / REFERENCE_NM).astype(np.float32))
    kernel *= make_soft_mask(reach, core)
    return kernel / kernel.sum()


def make_veil_kernel(reach: int, core: float, power: float) -> Image:
    """Veiling glare, `(r^2 + (2 core)^2)^-power`, `(2 reach + 1)` square, summing to 1, without its core."""
    kernel = (square_distances(reach) + np.float32(4 * core**2)) ** np.float32(-power) * make_soft_mask(reach, core)
    return kernel / kernel.sum()


@compiled(fastmath=True)
def _sum_scaled(spectrum, scales):  # type: ignore[no-untyped-def]
    """The sum of the spectrum `(2r, 2r)` stretched about its centre by each scale, energy kept, `(2r + 1, 2r + 1)`.

    spectrum            kernel, at scale 2
    . . . .            . . . . .        A place of the kernel is looked up nearer to the centre c by the scale,
    . a b .            . a . b .        between the four values around it. A spread that is s times as wide
    . d c .            . . . . .        is s^2 times as faint.
    . . . .            . d . c .
    """
    size, centre = len(spectrum), len(spectrum) // 2
    kernel = np.zeros((size + 1, size + 1), np.float32)
    for scale in scales:
        shrink, weight = np.float32(1) / scale, np.float32(1) / (scale * scale)
        for row in range(size + 1):
            v = np.float32(row - centre) * shrink + np.float32(centre)
            i = int(v)
            if v < 0 or i >= size - 1:
                continue
            fv = v - np.float32(i)
            for column in range(size + 1):
                u = np.float32(column - centre) * shrink + np.float32(centre)
                j = int(u)
                if u >= 0 and j < size - 1:
                    fu = u - np.float32(j)
                    upper = spectrum[i, j] + fu * (spectrum[i, j + 1] - spectrum[i, j])
                    lower = spectrum[i + 1, j] + fu * (spectrum[i + 1, j + 1] - spectrum[i + 1, j])
                    kernel[row, column] += weight * (upper + fv * (lower - upper))
    return kernel
