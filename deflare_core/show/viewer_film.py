"""The film of what the viewer shows: its panels side by side through a window or stretch, as an animated GIF."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deflare_core.events import SensorSize
from deflare_core.show.figures import STEPS, make_palette
from deflare_core.show.video import FONT
from deflare_core.system.errors import DeflareError
from deflare_core.system.limits import LONGEST_GIF_SIDE, check_memory

FRAME_MS = 120
GAP, STRIP = 6, 24
"""Pixels between the panels, and of the lines above and below them."""
MIN_WIDTH = 320
"""Panels of fewer pixels are enlarged by a whole factor."""
WHITE, BLACK = STEPS, 2 * STEPS + 1
"""Entries of the palette: a GIF has room for one colour more than the 255 of the viewer."""


def check_film(num_frames: int, num_panels: int, shape: SensorSize) -> None:
    """Raise a DeflareError, with the figures, unless a film of so many panels `(H, W)` fits into memory and a GIF.

    Each pixel is a byte in the image that PIL keeps of every frame.
    """
    width, height = _lay_out(num_panels, shape)[1]
    what, advice = f"a film of {num_frames} frames of {height:,} x {width:,} pixels", "zoom in, or show one panel alone"
    if max(width, height) > LONGEST_GIF_SIDE:
        raise DeflareError(f"{what} is more than a GIF holds, {LONGEST_GIF_SIDE:,} each way; {advice}.")
    check_memory(num_frames * height * width, what, advice)


def write_gif(frames: Iterable[tuple[str, dict[str, NDArray[np.float32]]]], limit: float, power: float = 2) -> bytes:
    """An animated GIF that goes round, in the viewer's exact colours.

    Parameters
    ----------
    frames : for each the words below it, and the signed pictures `(H, W)` by the title above them.
    limit, power : of the colours, as `make_palette` takes them.
    """
    colours = np.concatenate([make_palette(limit, power), np.zeros((1, 3), np.uint8)])
    images = (_draw_frame(words, pictures, limit, colours) for words, pictures in frames)
    film = io.BytesIO()
    settings = {"save_all": True, "append_images": images, "duration": FRAME_MS, "loop": 0, "optimize": False}
    next(images).save(film, "GIF", disposal=1, **settings)
    return film.getvalue()


def _lay_out(num_panels: int, shape: tuple[int, ...]) -> tuple[int, tuple[int, int]]:
    """How many times as wide as its picture `(H, W)` a panel is, and the width and height of a frame."""
    height, width = shape
    scale = -(-MIN_WIDTH // width)
    return scale, (num_panels * (scale * width + GAP) - GAP, scale * height + 2 * STRIP)


def _draw_frame(
    words: str, pictures: dict[str, NDArray[np.float32]], limit: float, colours: NDArray[np.uint8]
) -> Image.Image:
    """One frame as entries of the palette."""
    height, width = next(iter(pictures.values())).shape
    scale, size = _lay_out(len(pictures), (height, width))
    entries = np.full(size[::-1], WHITE, np.uint8)
    lefts = [k * (scale * width + GAP) for k in range(len(pictures))]
    entries[STRIP:-STRIP, [left - GAP // 2 for left in lefts[1:]]] = BLACK
    for left, picture in zip(lefts, pictures.values(), strict=True):
        # The same rounding as in the viewer, so that a cell has the same colour.
        levels = np.floor(STEPS + 0.5 + STEPS * np.clip(picture / limit, -1, 1)).astype(np.uint8)
        place = slice(STRIP, STRIP + scale * height), slice(left, left + scale * width)
        entries[place] = levels.repeat(scale, 0).repeat(scale, 1)
    image = Image.fromarray(entries, "P")
    draw, font = ImageDraw.Draw(image), ImageFont.truetype(FONT, STRIP // 2)
    draw.fontmode = "1"  # Letters without shades: these would be colours of events.
    for left, title in zip(lefts, pictures, strict=True):
        draw.text((left + GAP, STRIP // 2), title, BLACK, font, anchor="lm")
    draw.text((GAP, size[1] - STRIP // 2), words, BLACK, font, anchor="lm")
    image.putpalette(colours.tobytes())
    return image
