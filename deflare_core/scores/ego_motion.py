"""Ego-motion: how fast a turning camera turned, by contrast maximisation.

Every event is carried along the motion that is tried to the middle of its stretch of time. Of the right motion, the
events of an edge fall on one line, and the picture of their sums has the greatest contrast (Gallego et al., CVPR 2018).
A lamp that flickers counts as something that does not move; its ups and downs are summed with their signs, or it would
outweigh all that moves.

Rates are radians per second about x (right), y (down) and z (forward), as `data_simu` has them: a direction r in the
picture moves by dr/dt = -rate x r.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from deflare_core.events import Events

Rate = NDArray[np.float64]
Places = NDArray[np.float64]
SPAN_US = 50_000
"""The length of a stretch in which the rate is taken for constant."""
STEPS_RAD_S = np.deg2rad(np.arange(-36, 37, 12))
"""The rates about x and y from which the search begins."""
SIMPLEX_RAD_S = np.deg2rad(6.0)
NEAR_RAD_S = np.deg2rad(0.05)
"""The search ends where its simplex is that small."""
BLUR_PIXELS = 1.0
MOST_EVENTS = 20_000
"""Of more events, every second, third and so on is looked at."""


def estimate_rate(events: Events, focal_pixels: float, span_us: tuple[int, int]) -> Rate:
    """The rate of turning of highest contrast in a span of time, radians per second `(3,)`; 0 without events."""
    events = events.window(*span_us)
    events = events[:: 1 + len(events) // MOST_EVENTS]
    if not len(events):
        return np.zeros(3)
    middle_us = sum(span_us) / 2

    def miss(rate: Rate) -> float:
        return -measure_contrast(stack_events(events, rate, focal_pixels, middle_us))

    start = min((np.array([x, y, 0.0]) for x, y in product(STEPS_RAD_S, STEPS_RAD_S)), key=miss)
    simplex = start + SIMPLEX_RAD_S * np.vstack([np.zeros(3), np.eye(3)])
    options = {"initial_simplex": simplex, "xatol": NEAR_RAD_S, "fatol": np.inf}
    return minimize(miss, start, method="Nelder-Mead", options=options).x


def stack_events(events: Events, rate: Rate, focal_pixels: float, t_us: float) -> NDArray[np.float64]:
    """The sum of polarities at each pixel when all events are carried to a time, `(H, W)`.

    An event that ends between four pixels gives each a share; one that is carried out of the picture is left out.
    """
    height, width = events.sensor_size
    x, y = carry_events(events, rate, focal_pixels, t_us)
    inside = (x >= 0) & (x < width - 1) & (y >= 0) & (y < height - 1)
    x, y, p = x[inside], y[inside], events.p[inside]
    column, row = x.astype(int), y.astype(int)
    right, down, first = x - column, y - row, row * width + column
    total = np.zeros(height * width)
    for step, share in ((0, (1 - right) * (1 - down)), (1, right * (1 - down)), (width, (1 - right) * down),
                        (width + 1, right * down)):  # fmt: skip
        total += np.bincount(first + step, p * share, height * width)
    return total.reshape(height, width)


def carry_events(events: Events, rate: Rate, focal_pixels: float, t_us: float) -> tuple[Places, Places]:
    """Columns and rows `(N,)` at which the events' edges are at a time, if the camera turns at that rate."""
    height, width = events.sensor_size
    u = (events.x - (width - 1) / 2) / focal_pixels
    v = (events.y - (height - 1) / 2) / focal_pixels
    later = (t_us - events.t) * (focal_pixels / 1e6)
    about_x, about_y, about_z = rate
    x = events.x + later * (about_x * u * v - about_y * (1 + u * u) + about_z * v)
    y = events.y + later * (about_x * (1 + v * v) - about_y * u * v - about_z * u)
    return x, y


def measure_contrast(sums: NDArray[np.float64]) -> float:
    """The variance of a picture of sums `(H, W)`, after a blur that spares the search false peaks."""
    return float(gaussian_filter(sums, BLUR_PIXELS).var())


def list_edges_us(clock_us: tuple[int, int]) -> NDArray[np.int64]:
    """Where the spans of a recording begin and end, `(S + 1,)`; they are about `SPAN_US` long, and one at least."""
    start_us, end_us = clock_us
    return np.linspace(start_us, end_us, 1 + max(1, round((end_us - start_us) / SPAN_US))).astype(np.int64)


def find_rates(turns: NDArray[np.floating], edges_us: NDArray[np.int64]) -> Rate:
    """The rates of turning `(S, 3)`, radians per second, that lead through orientations `(S + 1, 3, 3)` at times."""
    between = np.swapaxes(turns[:-1], 1, 2) @ turns[1:]
    return Rotation.from_matrix(between).as_rotvec() / (np.diff(edges_us) / 1e6)[:, None]
