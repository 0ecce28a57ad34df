"""The film of what the viewer shows: its panels side by side through a window or stretch, as an animated GIF."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deflare_core.show.figures import STEPS, make_palette
from deflare_core.show.video import FONT

FRAME_MS = 120
GAP, STRIP = 6, 24
"""Pixels between the panels, and of the lines above and below them."""
MIN_WIDTH = 320
"""Panels of fewer pixels are enlarged by a whole factor."""
WHITE, BLACK = STEPS, 2 * STEPS + 1
"""Entries of the palette: a GIF has room for one colour more than the 255 of the viewer."""


def write_gif(frames: Sequence[tuple[str, dict[str, NDArray[np.float32]]]], limit: float, power: float = 2) -> bytes:
    """An animated GIF that goes round, in the viewer's exact colours.

    Parameters
    ----------
    frames : for each the words below it, and the signed pictures `(H, W)` by the title above them.
    limit, power : of the colours, as `make_palette` takes them.
    """
    colours = np.concatenate([make_palette(limit, power), np.zeros((1, 3), np.uint8)])
    images = [_draw_frame(words, pictures, limit) for words, pictures in frames]
    for image in images:
        image.putpalette(colours.tobytes())
    film = io.BytesIO()
    settings = {"save_all": True, "append_images": images[1:], "duration": FRAME_MS, "loop": 0, "optimize": False}
    images[0].save(film, "GIF", disposal=1, **settings)
    return film.getvalue()


def _draw_frame(words: str, pictures: dict[str, NDArray[np.float32]], limit: float) -> Image.Image:
    """One frame as entries of the palette."""
    height, width = next(iter(pictures.values())).shape
    scale = -(-MIN_WIDTH // width)
    size = len(pictures) * (scale * width + GAP) - GAP, scale * height + 2 * STRIP
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
    return image
