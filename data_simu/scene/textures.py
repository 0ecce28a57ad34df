"""Textures: periodic pictures of albedo with detail at every scale, drawn from a seed, as mip pyramids.

Ground is noise with a power spectrum that falls with frequency, as in natural images (Field, JOSA A 4, 1987); on it
stand what people build: windows, lanes, panels, posters, script. Values above 1 shine by themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from data_simu.scene.raycast import TEXTURE

Albedo = NDArray[np.float32]
DARKEST, BRIGHTEST = 0.02, 25.0


def draw_textures(kinds: tuple[str, ...], rng: np.random.Generator) -> Albedo:
    """Mip pyramids `(kinds, texels)` of the named kinds: 512 x 512, then halves, down to 1 x 1."""
    spectrum = _white_spectrum(rng)
    return np.stack([build_pyramid(draw_albedo(kind, spectrum, rng)) for kind in kinds])


def draw_albedo(kind: str, spectrum: NDArray[np.complex64], rng: np.random.Generator) -> Albedo:
    """One texture `(512, 512)` of a kind, rows downwards."""
    albedo = rng.uniform(0.08, 0.3) * np.exp(rng.uniform(0.2, 0.5) * draw_noise(spectrum, rng))
    _DETAILS[kind](albedo, rng)
    return albedo


def draw_noise(spectrum: NDArray[np.complex64], rng: np.random.Generator) -> Albedo:
    """Noise `(512, 512)` of mean 0 and deviation 1 whose amplitude falls with about the first power of frequency."""
    rows, columns = rng.integers(0, TEXTURE, 2)
    frequency = np.hypot(scipy.fft.fftfreq(TEXTURE)[:, None], scipy.fft.rfftfreq(TEXTURE)).astype(np.float32)
    frequency[0, 0] = np.inf
    noise = scipy.fft.irfft2(spectrum * frequency ** -np.float32(rng.uniform(0.8, 1.3)), overwrite_x=True)
    return np.roll(noise / noise.std(), (rows, columns), (0, 1))


def build_pyramid(albedo: Albedo, darkest: float = DARKEST) -> Albedo:
    """The texture `(512, 512)`, at least as bright as the darkest, and its halves, one after the other, `(PYRAMID,)`.

    512 x 512 texels | 256 x 256 | 128 x 128 | ... | 1        A texel is the mean of the four that it covers.
    """
    levels = [np.clip(albedo, darkest, BRIGHTEST).astype(np.float32)]
    while len(levels[-1]) > 1:
        finer = levels[-1]
        levels.append((finer[::2, ::2] + finer[1::2, ::2] + finer[::2, 1::2] + finer[1::2, 1::2]) / np.float32(4))
    return np.concatenate([level.ravel() for level in levels])


def _white_spectrum(rng: np.random.Generator) -> NDArray[np.complex64]:
    return scipy.fft.rfft2(rng.standard_normal((TEXTURE, TEXTURE), np.float32))


def _road(albedo: Albedo, rng: np.random.Generator) -> None:
    """A road upwards: solid lines at the sides, a broken one in the middle, patches and covers."""
    _blocks(albedo, rng, 25, (4, 60), (0.5, 1.4))
    paint = rng.uniform(0.4, 0.8)
    lane = int(rng.integers(100, 160))
    middle = TEXTURE // 2
    for column in (middle - lane, middle + lane):
        albedo[:, column - 3 : column + 3] = paint
    for start in range(0, TEXTURE, TEXTURE // 4):
        albedo[start : start + TEXTURE // 8, middle - 3 : middle + 3] = paint


def _facade(albedo: Albedo, rng: np.random.Generator) -> None:
    """Storeys of windows, most of them dark, some lit from within, with ledges."""
    pitch, storey = int(rng.choice([32, 64])), 64
    lit = rng.uniform(0.1, 0.4)
    width, height = int(pitch * rng.uniform(0.4, 0.7)), int(storey * rng.uniform(0.4, 0.7))
    for row in range(0, TEXTURE, storey):
        albedo[row : row + 3] *= rng.uniform(0.4, 2.0)
        for column in range(pitch // 4, TEXTURE, pitch):
            shade = 10 ** rng.uniform(0.0, 1.2) if rng.random() < lit else rng.uniform(0.03, 0.1)
            pane = albedo[row + 8 : row + 8 + height, column : column + width]
            pane[:] = shade
            pane[:, width // 2 : width // 2 + 2] = 0.15
            pane[: rng.integers(0, height), :] *= rng.uniform(0.3, 1.0)


def _panels(albedo: Albedo, rng: np.random.Generator) -> None:
    """Concrete panels with joints, bands along the wall, and small fittings."""
    pitch = int(rng.choice([64, 128]))
    for column in range(0, TEXTURE, pitch):
        albedo[:, column : column + 3] *= 0.35
    for row in rng.integers(0, TEXTURE, 3):
        albedo[row : row + rng.integers(4, 40)] *= rng.uniform(0.4, 2.5)
    _blocks(albedo, rng, 40, (3, 24), (0.3, 3.0))


def _interior(albedo: Albedo, rng: np.random.Generator) -> None:
    """Paint, with pictures, shelves and doors."""
    albedo *= rng.uniform(1.0, 2.0)
    _blocks(albedo, rng, 14, (30, 130), (0.25, 2.0))
    _script(albedo, rng, 6)


def _posters(albedo: Albedo, rng: np.random.Generator) -> None:
    """Posters with script: strong contrast at every scale."""
    _blocks(albedo, rng, 60, (8, 90), (0.2, 3.5))
    _script(albedo, rng, 12)


def _lights(albedo: Albedo, rng: np.random.Generator) -> None:
    """A dark wall of small lights, such as a town by night or a field of stars."""
    albedo *= 0.25
    for row, column in rng.integers(1, TEXTURE - 1, (int(rng.integers(100, 500)), 2)):
        glow = 10 ** rng.uniform(-0.5, 1.4)
        albedo[row, column] += glow
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            albedo[row + dy, column + dx] += 0.4 * glow


def _night(albedo: Albedo, rng: np.random.Generator) -> None:
    """Nothing to see."""
    albedo[:] = 0


def _cloth(albedo: Albedo, rng: np.random.Generator) -> None:
    """Clothes, paint and glass: patches of every shade."""
    _blocks(albedo, rng, 30, (20, 160), (0.3, 2.5))


def _clouds(albedo: Albedo, rng: np.random.Generator) -> None:
    """A faint sky."""
    albedo *= rng.uniform(0.1, 0.6)


def _ceiling(albedo: Albedo, rng: np.random.Generator) -> None:
    """Tiles."""
    for start in range(0, TEXTURE, 64):
        albedo[start : start + 2] *= 0.5
        albedo[:, start : start + 2] *= 0.5


def _blocks(
    albedo: Albedo, rng: np.random.Generator, num: int, size: tuple[int, int], shades: tuple[float, float]
) -> None:
    """Rectangles that lighten or darken what is there, in place."""
    for _ in range(num):
        height, width = (int(n) for n in np.exp(rng.uniform(np.log(size[0]), np.log(size[1]), 2)))
        row, column = rng.integers(0, TEXTURE - height), rng.integers(0, TEXTURE - width)
        albedo[row : row + height, column : column + width] *= np.exp(rng.uniform(np.log(shades[0]), np.log(shades[1])))


def _script(albedo: Albedo, rng: np.random.Generator, lines: int) -> None:
    """Lines of small dark strokes, in place."""
    for _ in range(lines):
        row, column = rng.integers(0, TEXTURE - 16), int(rng.integers(0, TEXTURE - 100))
        height = int(rng.integers(5, 14))
        for start in range(column, min(column + int(rng.integers(60, 300)), TEXTURE - 6), 6):
            if rng.random() < 0.75:
                albedo[row : row + height, start : start + int(rng.integers(2, 5))] *= 0.3


_DETAILS: dict[str, Callable[[Albedo, np.random.Generator], None]] = {
    "road": _road,
    "facade": _facade,
    "panels": _panels,
    "interior": _interior,
    "posters": _posters,
    "lights": _lights,
    "night": _night,
    "cloth": _cloth,
    "clouds": _clouds,
    "ceiling": _ceiling,
}
