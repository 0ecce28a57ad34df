"""The viewer on a browser's page: where its controls are, and which pixels it must show."""

import base64
import io

import numpy as np
from PIL import Image

from deflare_core.show.figures import make_palette
from support.chromium import Page


def control(name: str) -> str:
    return f".voxel-bin-viewer .{name}"


def choice(trait: str, value: str) -> str:
    return f".voxel-bin-viewer .choice[data-trait={trait}][value={value}]"


def panel_pixels(page: Page, title: str) -> np.ndarray:
    """The colours of a panel, two frames from now: what the page knows is drawn with the next one."""
    page.js("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn(null))))")
    url = page.js(f"document.querySelector('.voxel-bin-viewer canvas[data-panel={title}]').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def expected_pixels(cells: np.ndarray, size: tuple[int, int], limit=3.0, view=None) -> np.ndarray:
    """The colours of the strongest cell beneath each of (height, width) screen pixels."""
    height, width = cells.shape
    x0, y0, x1, y1 = view or (0, 0, width, height)
    rows, columns = (
        np.floor(start + np.arange(n + 1) * (end - start) / n).astype(int)
        for start, end, n in ((y0, y1, size[0]), (x0, x1, size[1]))
    )
    best = np.zeros(size, np.float32)
    for right in range(max(1, np.diff(columns).max())):
        for down in range(max(1, np.diff(rows).max())):
            y, x = rows[:-1] + down, columns[:-1] + right
            beneath = ((y < rows[1:]) | (down == 0))[:, None] & ((x < columns[1:]) | (right == 0))
            values = cells[np.minimum(y, height - 1)[:, None], np.minimum(x, width - 1)]
            best = np.where(beneath & (np.abs(values) > np.abs(best)), values, best)
    return make_palette(limit)[np.floor(127.5 + 127 * np.clip(best.astype(np.float64) / limit, -1, 1)).astype(int)]
