"""Pictures of a pair: what the two lenses show, what the sensor made of it, and what caused each event."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from data_simu.config import SimulationConfig
from data_simu.simulation import Pair, render, simulate
from deflare_core.events import Events

LABELS = ("background", "light source", "flare", "noise")
COLOURS = ("#4c78a8", "#f2cf5b", "#e45756", "#9a9a9a")
WINDOW_US = 20_000
FAINTEST, BRIGHTEST = -1.7, 2.3
"""Decimal logarithms of the intensities shown as black and as white."""


def pair_figure(
    config: SimulationConfig, seed: int, t_us: int = 40_000, window_us: int = WINDOW_US, pair: Pair | None = None
) -> Figure:
    """Six panels of one pair: ideal picture, real picture, what flare adds, input, target, and provenance.

    Parameters
    ----------
    config, seed : which pair.
    t_us : the moment of the pictures, and the start of the events shown.
    window_us : the length of the events shown.
    pair : the pair, where it has been simulated already.
    """
    pair = simulate(config, seed) if pair is None else pair
    ideal, real = render(config, seed, t_us)
    height, width = config.sensor_size
    figure = Figure(figsize=(13.5, 9 * height / width + 1.2), dpi=100, layout="constrained")
    grid = figure.subplots(2, 3)
    for axes, (title, picture) in zip(grid[0], (("Ideal lens", ideal), ("Real lens", real)), strict=False):
        show_intensity(axes, picture, title)
    show_intensity(grid[0, 2], real - ideal, "What the lens adds")
    show_events(grid[1, 0], pair.flare.window(t_us, t_us + window_us), "Input events")
    show_events(grid[1, 1], pair.clean.window(t_us, t_us + window_us), f"Target events ({pair.plan['target']})")
    inside = (pair.flare.t >= t_us) & (pair.flare.t < t_us + window_us)
    show_labels(grid[1, 2], pair.flare[inside], pair.flare_label[inside])
    scene = pair.plan["scene"]
    lamps = ", ".join(f"{lamp['kind']} {lamp['flicker']} {lamp['flicker_hz']:.0f} Hz" for lamp in scene["lamps"])
    figure.suptitle(f"Seed {seed}: {scene['family']}, {scene['speed_m_s']:.1f} m/s; {lamps}", fontsize=10)
    return figure


def show_intensity(axes: Axes, picture: NDArray[np.float32], title: str) -> None:
    """Draw linear intensity on a logarithmic scale of grey that is the same for every picture."""
    axes.imshow(np.log10(picture + 10**FAINTEST), cmap="gray", vmin=FAINTEST, vmax=BRIGHTEST, interpolation="nearest")
    _frame(axes, title)


def show_events(axes: Axes, events: Events, title: str) -> None:
    """Draw the sum of polarities at each pixel: red positive, blue negative."""
    counts = np.zeros(events.sensor_size, np.float32)
    np.add.at(counts, (events.y, events.x), events.p)
    axes.imshow(counts, cmap="RdBu_r", vmin=-3, vmax=3, interpolation="nearest")
    _frame(axes, f"{title}: {len(events):,}")


def show_labels(axes: Axes, events: Events, label: NDArray[np.uint8]) -> None:
    """Draw at each pixel the cause of its last event."""
    causes = np.full(events.sensor_size, np.nan, np.float32)
    causes[events.y, events.x] = label
    axes.imshow(causes, cmap=ListedColormap(COLOURS), vmin=-0.5, vmax=3.5, interpolation="nearest")
    axes.set_facecolor("white")
    shares = np.bincount(label, minlength=4) / max(1, len(label))
    handles = [
        Patch(color=colour, label=f"{name} {share:.0%}")
        for colour, name, share in zip(COLOURS, LABELS, shares, strict=True)
    ]
    axes.legend(handles=handles, fontsize=7, loc="upper right", framealpha=0.9)
    _frame(axes, "Cause of the input events")


def _frame(axes: Axes, title: str) -> None:
    axes.set(title=title, xticks=[], yticks=[])
