"""The mask that every spread of light is cut with: no core, which the direct picture holds, and a soft rim."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


def square_distances(reach: int) -> Image:
    """Squared distances from the middle, pixels squared, `(2 reach + 1, 2 reach + 1)` float32."""
    offset = np.arange(-reach, reach + 1, dtype=np.float32) ** 2
    return offset[:, None] + offset


def make_soft_mask(reach: int, core: float) -> Image:
    r"""A mask `(2 reach + 1, 2 reach + 1)` float32 that lets no light jump in at its edges.

    1         ________
    0 ______/          \_
      0   core  2 core  reach      distance from the middle, pixels
    """
    r = np.sqrt(square_distances(reach))
    shares = np.clip(r / max(core, 1.0) - 1, 0, 1) * np.clip((reach - r) / (0.25 * reach), 0, 1)
    return shares.astype(np.float32, copy=False)
