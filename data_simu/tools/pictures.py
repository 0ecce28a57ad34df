"""Pictures of a pair: what the two lenses show, what the sensor made of it, and what caused each event.

    python -m data_simu.tools.pictures --config configs/simu_config.yaml --pairs 0 1 2 --output-dir reports/pairs

draws pairs of the data set that `deflare simulate` makes of that configuration, whether or not it stands on disk.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from data_simu.config import SimulationConfig
from data_simu.pairs import derive_seed
from data_simu.simulation import Pair, render, simulate
from deflare_core.events import Events
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.settings import load_config

LABELS = ("background", "light source", "flare", "noise")
COLOURS = ("#4c78a8", "#f2cf5b", "#e45756", "#9a9a9a")
WINDOW_US = 20_000
FAINTEST, BRIGHTEST = -1.7, 2.3
"""Decimal logarithms of the intensities shown as black and as white."""


def draw_pair(
    config: SimulationConfig, seed: int, t_us: int = 40_000, window_us: int = WINDOW_US, pair: Pair | None = None
) -> Figure:
    """Six panels of one pair: ideal picture, real picture, what flare adds, input, target, and causes.

    Parameters
    ----------
    config, seed : which pair.
    t_us : the moment of the pictures, and the start of the events shown.
    window_us : the length of the events shown, over which the pictures average the lamps' flicker: at one moment a
        lamp may be dark that fires all the time.
    pair : the pair, where it has been simulated already.
    """
    pair = simulate(config, seed) if pair is None else pair
    ideal, real = render(config, seed, t_us, window_us)
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
    figure.suptitle(f"Seed {seed}: {scene['family']}, {scene['speed_m_s']:.1f} m/s; {name_lamps(scene)}", fontsize=10)
    return figure


def name_lamps(scene: dict[str, Any]) -> str:
    """The lamps of a scene's plan in words, such as "2 x headlight, pwm 200 Hz; sign, constant"."""
    lamps = Counter(
        f"{lamp['kind']}, {lamp['flicker']}" + (f" {lamp['flicker_hz']:.0f} Hz" if lamp["flicker_hz"] else "")
        for lamp in scene["lamps"]
    )
    return "; ".join(f"{num} x {name}" if num > 1 else name for name, num in lamps.items())


def write_figures(output_dir: Path, config: SimulationConfig, split: str, pairs: Iterable[int]) -> None:
    """Write a picture with six panels of each named pair of a data set.

    Parameters
    ----------
    output_dir : folder for `train_00000.png`, `test_00000.png` and so on.
    config : the data set.
    split, pairs : "train" or "test", and numbers in it: 7 is `composed_00007_bg_flare.h5` and its partner.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    for number in pairs:
        figure = draw_pair(config, derive_seed(config.seed, split, number))
        with complete_or_absent(output_dir / f"{split}_{number:05d}.png") as path:
            figure.savefig(path, format="png")


def show_intensity(axes: Axes, picture: NDArray[np.float32], title: str) -> None:
    """Draw linear intensity `(H, W)` on a logarithmic scale of grey that is the same for every picture."""
    axes.imshow(np.log10(picture + 10**FAINTEST), cmap="gray", vmin=FAINTEST, vmax=BRIGHTEST, interpolation="nearest")
    _frame(axes, title)


def show_events(axes: Axes, events: Events, title: str) -> None:
    """Draw the sum of polarities at each pixel: red positive, blue negative."""
    counts = np.zeros(events.sensor_size, np.float32)
    np.add.at(counts, (events.y, events.x), events.p)
    axes.imshow(counts, cmap="RdBu_r", vmin=-3, vmax=3, interpolation="nearest")
    _frame(axes, f"{title}: {len(events):,}")


def show_labels(axes: Axes, events: Events, label: NDArray[np.uint8]) -> None:
    """Draw at each pixel the cause of its last event; the label of N events is `(N,)`."""
    causes = np.full(events.sensor_size, np.nan, np.float32)
    causes[events.y, events.x] = label
    axes.imshow(causes, cmap=ListedColormap(COLOURS), vmin=-0.5, vmax=3.5, interpolation="nearest")
    axes.set_facecolor("white")
    shares = np.bincount(label, minlength=4) / max(1, len(label))
    handles = [
        Patch(color=colour, label=f"{name} {share:.0%}")
        for colour, name, share in zip(COLOURS, LABELS, shares, strict=True)
    ]
    axes.legend(handles=handles, fontsize=8, columnspacing=1, handlelength=1, frameon=False, ncols=4,
                loc="upper center", bbox_to_anchor=(0.5, 0))  # fmt: skip
    _frame(axes, "Cause of the input events")


def _frame(axes: Axes, title: str) -> None:
    axes.set(title=title, xticks=[], yticks=[])


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw six panels of simulated pairs: ideal and real picture, difference, input, target, and causes."""
    parser = argparse.ArgumentParser(prog="python -m data_simu.tools.pictures", description=main.__doc__)
    parser.add_argument("--config", type=Path, default="configs/simu_config.yaml", help="default: %(default)s")
    parser.add_argument("--pairs", type=int, nargs="+", default=[0], metavar="N", help="numbers of pairs (default: 0)")
    parser.add_argument("--split", choices=("train", "test"), default="train", help="default: %(default)s")
    parser.add_argument("--output-dir", required=True, type=Path, help="folder for the pictures")
    given = parser.parse_args(arguments)
    write_figures(given.output_dir, load_config(SimulationConfig, given.config), given.split, given.pairs)


if __name__ == "__main__":
    main()
