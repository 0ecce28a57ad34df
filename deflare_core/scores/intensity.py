"""Intensity: a picture made of events alone, and how like another one it is.

A pixel's events are steps of its log intensity, so their sum is how far it has come. The sum forgets, or noise would
fill it: that is a leaky integrator, which needs no weights (Scheerlinck et al., ACCV 2018, without frames).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from deflare_core.events import Events

Picture = NDArray[np.float64]
LEAK_US = 50_000
"""The time after which an event counts 1/e."""
SSIM_SIGMA = 1.5
"""Standard deviation of the window that structural similarity looks through, pixels (Wang et al., 2004)."""
SSIM_MEAN, SSIM_SPREAD = 0.01**2, 0.03**2
"""The constants that keep the quotients of similarity finite, for pictures between 0 and 1."""


def integrate_events(events: Events, t_us: int, leak_us: float = LEAK_US) -> Picture:
    """The leaky sum of the polarities at each pixel at a time, `(H, W)`: log intensity in steps of the threshold.

    Events at or after `t_us` do not count; of the others, each counts `exp(-age / leak_us)`.
    """
    height, width = events.sensor_size
    past = events[: np.searchsorted(events.t, t_us)]
    weights = past.p * np.exp((past.t - t_us) / leak_us)
    sums = np.bincount(past.y.astype(int) * width + past.x, weights, height * width)
    return sums.astype(np.float64).reshape(height, width)


def normalise_picture(picture: NDArray[np.floating]) -> Picture:
    """The picture `(H, W)` with its 1st and 99th percentiles at 0 and 1, and cut there; a flat one is 0.5."""
    low, high = np.percentile(picture, (1, 99))
    if low == high:
        low, high = picture.min(), picture.max()
    return np.clip((picture - low) / (high - low), 0, 1) if low < high else np.full(picture.shape, 0.5)


def measure_similarity(picture: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """The mean structural similarity of two pictures `(H, W)` with values between 0 and 1; of a picture with itself 1.

    Seen through a window of Gaussian weights (Wang et al., IEEE Trans. Image Processing 2004).
    """
    a, b = picture.astype(float), truth.astype(float)
    mean_a, mean_b = _blur(a), _blur(b)
    spread_a, spread_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    shared = _blur(a * b) - mean_a * mean_b
    means = (2 * mean_a * mean_b + SSIM_MEAN) / (mean_a**2 + mean_b**2 + SSIM_MEAN)
    return float((means * (2 * shared + SSIM_SPREAD) / (spread_a + spread_b + SSIM_SPREAD)).mean())


def _blur(picture: Picture) -> Picture:
    return gaussian_filter(picture, SSIM_SIGMA)
