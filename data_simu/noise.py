"""Background activity: events that no change of light caused.

Shot noise and junction leakage fire pixels at random, less often where there is light (Hu, Liu and Delbruck, v2e,
CVPRW 2021). One list of candidates serves both views of a scene; each keeps those that its light lets through.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Candidates(NamedTuple):
    """Noise events that may happen, by time: time (us), pixel, polarity in {-1, 1}, a draw in [0, 1) that decides."""

    t_us: NDArray[np.float64]
    pixel: NDArray[np.int64]
    p: NDArray[np.int8]
    draw: NDArray[np.float32]

    def kept(self, light: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which of them happen, given the light at each one's pixel: a share of 1 / sqrt(1 + light)."""
        return self.draw * np.sqrt(1 + light) < 1

    def between(self, t_start_us: float, t_end_us: float) -> Candidates:
        """Those of `[t_start, t_end)`."""
        first, last = np.searchsorted(self.t_us, (t_start_us, t_end_us))
        part = slice(first, last)
        return Candidates(self.t_us[part], self.pixel[part], self.p[part], self.draw[part])


def draw_candidates(
    noise_hz: NDArray[np.float32], t_start_us: float, t_end_us: float, rng: np.random.Generator
) -> Candidates:
    """The candidates of a stretch of time in the order of time: a Poisson process at every pixel.

    Parameters
    ----------
    noise_hz : the pixels' rates in the dark, hertz.
    t_start_us, t_end_us : the stretch.
    rng : generator.
    """
    cumulative_hz = np.cumsum(noise_hz, dtype=np.float64)
    num = rng.poisson(cumulative_hz[-1] * (t_end_us - t_start_us) / 1e6)
    pixel = np.searchsorted(cumulative_hz, rng.uniform(0, cumulative_hz[-1], num), side="right")
    p = np.where(rng.uniform(size=num) < 0.5, np.int8(1), np.int8(-1))
    return Candidates(np.sort(rng.uniform(t_start_us, t_end_us, num)), pixel, p, rng.random(num, np.float32))
