"""Pictures of lamps: the brightness of a broad lamp over its face, with its structure and its rim.

A picture is a square of 512 x 512 texels, from -1 to 1 across and down. The lamp stands within `REACH` of the middle;
beyond is a dark margin, so that soft edges end inside. A shape is a distance to the lamp's edge, in halves of the
square, positive inside; what stands before the lamp or within it multiplies its brightness.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from data_simu.scene.raycast import TEXTURE

Picture = NDArray[np.float32]
REACH = 0.8
_AXIS = ((np.arange(TEXTURE, dtype=np.float32) + 0.5) / TEXTURE * 2 - 1).astype(np.float32)
X, Y = (grid.astype(np.float32) for grid in np.meshgrid(_AXIS, _AXIS))
HARDEST, SOFTEST = 0.008, 0.2
"""Widths of the rise of an edge, in halves of the square."""
HOUSED, SOFT, STRUCTURED = 0.4, 0.35, 0.55
"""Shares of the lamps with a lit housing, with a soft edge, and with structure."""


def draw_lamp_picture(shape: str, rng: np.random.Generator) -> Picture:
    """The brightness `(512, 512)` from 0 to 1 of a lamp of a named shape, drawn from a generator."""
    inside = SHAPES[shape](rng)
    soft = 10 ** rng.uniform(np.log10(0.02), np.log10(SOFTEST)) if rng.random() < SOFT else HARDEST
    # A soft edge wider than a thin lamp would leave nothing of its full brightness.
    picture = _rise(inside, min(soft, float(inside.max())))
    structures = _STRUCTURES_OF.get(shape, _STRUCTURES)
    if structures and (shape in _STRUCTURES_OF or rng.random() < STRUCTURED):
        picture = picture * structures[rng.integers(len(structures))](rng)
    if rng.random() < HOUSED:
        rim, glow = rng.uniform(0.03, 0.16), 10 ** rng.uniform(-2.5, -1.0)
        picture = np.maximum(picture, np.float32(glow) * _rise(inside + np.float32(rim), HARDEST))
    return (picture * (np.hypot(X, Y) < 1.35)).astype(np.float32)


def _rise(distance: Picture, width: float) -> Picture:
    """0 outside, 1 inside, straight over the width of the edge."""
    return np.clip(np.float32(0.5) + distance / np.float32(width), 0, 1)


def _turned(angle: float) -> tuple[Picture, Picture]:
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * X + s * Y, c * Y - s * X


def _box(x: Picture, y: Picture, half_width: float, half_height: float, corner: float = 0.0) -> Picture:
    """Distance to the edge of a box around the middle, with round corners."""
    dx, dy = np.abs(x) - np.float32(half_width - corner), np.abs(y) - np.float32(half_height - corner)
    beyond = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return (np.float32(corner) - beyond - np.minimum(np.maximum(dx, dy), 0)).astype(np.float32)


def _disc(rng: np.random.Generator) -> Picture:
    return np.float32(REACH) - np.hypot(X, Y)


def _ellipse(rng: np.random.Generator) -> Picture:
    half_width, half_height = np.float32(REACH), np.float32(REACH * rng.uniform(0.3, 0.95))
    # The distance is near enough the value over its slope, where the value is 1 at the edge.
    value = np.hypot(X / half_width, Y / half_height)
    slope = np.hypot(X / half_width**2, Y / half_height**2) / np.maximum(value, np.float32(1e-6))
    return (1 - value) / np.maximum(slope, 1 / half_width)


def _arc(rng: np.random.Generator) -> Picture:
    """A ring, or a part of one."""
    thickness, span = rng.uniform(0.05, 0.18), rng.uniform(np.pi / 3, 2.3 * np.pi)
    radius = REACH - thickness
    angle = np.abs(np.arctan2(X, -Y))
    beyond = np.maximum(angle - np.float32(span / 2), 0) * np.float32(radius)
    return np.float32(thickness) - np.hypot(np.hypot(X, Y) - np.float32(radius), beyond)


def _tube(rng: np.random.Generator) -> Picture:
    """One tube, or up to three side by side."""
    num, radius = int(rng.choice([1, 1, 2, 3])), 10 ** rng.uniform(-1.5, -0.85)
    pitch = radius * rng.uniform(2.3, 4)
    places = (np.arange(num) - (num - 1) / 2) * pitch
    tubes = [np.float32(radius) - np.hypot(np.maximum(np.abs(X) - np.float32(REACH - radius), 0), Y - np.float32(p))
             for p in places]  # fmt: skip
    return np.maximum.reduce(tubes).astype(np.float32)


def _panel(rng: np.random.Generator) -> Picture:
    half_height = REACH * rng.uniform(0.2, 1)
    return _box(X, Y, REACH, half_height, half_height * rng.uniform(0.02, 0.5))


def _square(rng: np.random.Generator) -> Picture:
    return _box(X, Y, 0.75 * REACH, 0.75 * REACH, rng.uniform(0.01, 0.3))


def _bollard(rng: np.random.Generator) -> Picture:
    """Lit bands, one above the other, on a post."""
    num, half_width = int(rng.integers(2, 6)), REACH * rng.uniform(0.25, 0.6)
    pitch = 2 * REACH / num
    middles = (np.arange(num) + 0.5) * pitch - REACH
    share = rng.uniform(0.3, 0.8)
    return np.maximum.reduce([_box(X, Y - np.float32(m), half_width, share * pitch / 2, 0.01) for m in middles])


def _letters(rng: np.random.Generator) -> Picture:
    """Lines of letters made of straight strokes, as of a lit sign."""
    columns, lines = int(rng.integers(2, 9)), int(rng.choice([1, 1, 2, 3]))
    width = 2 * REACH / columns
    height = min(width * rng.uniform(1.1, 1.8), 2 * REACH / lines)
    stroke = width * rng.uniform(0.05, 0.13)
    inside = np.full((TEXTURE, TEXTURE), -1, np.float32)
    for line in range(lines):
        for column in range(columns):
            x = X - np.float32((column + 0.5) * width - REACH)
            y = Y - np.float32((line + 0.5 - lines / 2) * height)
            inside = np.maximum(inside, _letter(x, y, 0.36 * width, 0.4 * height, stroke, rng))
    return inside


def _letter(
    x: Picture, y: Picture, half_width: float, half_height: float, stroke: float, rng: np.random.Generator
) -> Picture:
    """Distance to the edge of some of seven strokes, as of a display."""
    upright = [(sx * half_width, sy * half_height / 2, stroke, half_height / 2 + stroke) for sx in (-1, 1)
               for sy in (-1, 1)]  # fmt: skip
    level = [(0.0, sy * half_height, half_width + stroke, stroke) for sy in (-1, 0, 1)]
    strokes = [*upright, *level]
    chosen = rng.permutation(len(strokes))[: rng.integers(3, 7)]
    boxes = [_box(x - np.float32(strokes[k][0]), y - np.float32(strokes[k][1]), *strokes[k][2:]) for k in chosen]
    return np.maximum.reduce(boxes)


def _cluster(rng: np.random.Generator) -> Picture:
    """Small lamps next to each other: in rows, or anywhere."""
    if rng.random() < 0.5:
        columns, rows = int(rng.integers(2, 9)), int(rng.integers(1, 6))
        pitch = 2 * REACH / columns
        half_height = min(rows, columns) * pitch / 2
        x, y = (
            (grid + np.float32(edge)) % np.float32(pitch) - np.float32(pitch / 2)
            for grid, edge in ((X, REACH), (Y, half_height))
        )
        dots = np.float32(pitch * rng.uniform(0.15, 0.45)) - np.hypot(x, y)
        return np.minimum(dots, _box(X, Y, REACH, half_height))
    places = rng.uniform(-0.65, 0.65, (int(rng.integers(3, 16)), 2)).astype(np.float32)
    radii = np.exp(rng.uniform(np.log(0.03), np.log(0.14), len(places))).astype(np.float32)
    return np.maximum.reduce([r - np.hypot(X - p[0], Y - p[1]) for p, r in zip(places, radii, strict=True)])


def _dome(rng: np.random.Generator) -> Picture:
    """Brighter in the middle, as a globe with a bulb in it."""
    width = rng.uniform(0.15, 0.7)
    floor = np.float32(rng.uniform(0.1, 0.6))
    return floor + (1 - floor) * np.exp(-(X**2 + Y**2) / np.float32(width**2))


def _bars(rng: np.random.Generator) -> Picture:
    """Bars before the lamp, at any angle, or two sets of them as the bars of a window."""
    pitch, gap, angle = rng.uniform(0.08, 0.5), rng.uniform(0.55, 0.92), rng.uniform(0, np.pi)
    x, y = _turned(angle)
    bars = _rise(np.float32(gap * pitch / 2) - np.abs(x % np.float32(pitch) - np.float32(pitch / 2)), HARDEST)
    if rng.random() < 0.4:
        crossing = np.float32(gap * pitch / 2) - np.abs(y % np.float32(pitch) - np.float32(pitch / 2))
        bars = bars * _rise(crossing, HARDEST)
    return np.maximum(bars, np.float32(rng.uniform(0, 0.15)))


def _leaves(rng: np.random.Generator) -> Picture:
    """Leaves and twigs before the lamp."""
    return _rise(_noise(rng, rng.uniform(1.2, 1.9)) + np.float32(rng.uniform(-0.3, 0.8)), 0.15)


def _glass(rng: np.random.Generator) -> Picture:
    """Uneven glass."""
    glass = np.exp(np.float32(rng.uniform(0.2, 0.6)) * _noise(rng, rng.uniform(1.0, 1.6)))
    return np.minimum(glass / np.float32(2), 1)


def _shelves(rng: np.random.Generator) -> Picture:
    """What stands in a shop window: shades of everything, with the frames of the panes."""
    picture = np.full((TEXTURE, TEXTURE), rng.uniform(0.3, 0.8), np.float32)
    for _ in range(int(rng.integers(10, 50))):
        height, width = np.exp(rng.uniform(np.log(12), np.log(160), 2)).astype(int)
        row, column = rng.integers(0, TEXTURE - height), rng.integers(0, TEXTURE - width)
        picture[row : row + height, column : column + width] *= np.exp(rng.uniform(-1.8, 1.0))
    for axis in (0, 1):
        pitch = TEXTURE // int(rng.integers(1, 6))
        for start in range(pitch // 2, TEXTURE, pitch):
            np.moveaxis(picture, axis, 0)[start : start + int(rng.integers(4, 14))] = 0.02
    return np.minimum(picture, 1)


def _noise(rng: np.random.Generator, power: float) -> Picture:
    """Noise `(512, 512)` of mean 0 and deviation 1 whose amplitude falls with a power of frequency."""
    spectrum = scipy.fft.rfft2(rng.standard_normal((TEXTURE, TEXTURE), np.float32))
    frequency = np.hypot(scipy.fft.fftfreq(TEXTURE)[:, None], scipy.fft.rfftfreq(TEXTURE)).astype(np.float32)
    frequency[0, 0] = np.inf
    # Nothing below four waves to the picture: leaves are smaller than the lamp.
    noise = scipy.fft.irfft2(spectrum * np.maximum(frequency, np.float32(4 / TEXTURE)) ** np.float32(-power))
    return (noise / noise.std()).astype(np.float32)


_STRUCTURES: tuple[Callable[[np.random.Generator], Picture], ...] = (_dome, _dome, _bars, _leaves, _glass, _shelves)
_STRUCTURES_OF: dict[str, tuple[Callable[[np.random.Generator], Picture], ...]] = {
    "letters": (),
    "cluster": (),
    "bollard": (),
    "window": (_shelves,),
}
"""What always stands before or within lamps of a shape, where that is not up to chance."""
SHAPES: dict[str, Callable[[np.random.Generator], Picture]] = {
    "disc": _disc,
    "ellipse": _ellipse,
    "arc": _arc,
    "tube": _tube,
    "panel": _panel,
    "square": _square,
    "window": _panel,
    "bollard": _bollard,
    "letters": _letters,
    "cluster": _cluster,
}
