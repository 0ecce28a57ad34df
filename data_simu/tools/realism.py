"""Realism: real recordings and simulated ones side by side, as a table that names what does not match and a figure.

    python -m data_simu.tools.realism RECORDING... --output-dir reports/realism

All recordings are cut into stretches as long as the shortest of them, because what counts as active, which intervals
fit in depend on the length; a figure is the mean over a recording's stretches. Only flicker is looked for in all of
the first two seconds: at a pixel that a lamp lights faintly a short stretch holds too few events to tell.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from data_simu.config import SimulationConfig
from data_simu.pairs import derive_seed
from data_simu.scene.scene import Scene
from data_simu.simulation import set_up, simulate
from deflare_core.events import Events
from deflare_core.io.recordings import load_events
from deflare_core.show.figures import ACCENT, NEGATIVE, NEUTRAL, POSITIVE
from deflare_core.streams.statistics import (
    INTERVAL_EDGES_US,
    LOCKED_BY_CHANCE,
    average_blocks,
    count_bursts,
    find_block_variation,
    find_flicker_share,
    find_intervals_us,
    find_isolated_rates_hz,
    find_isolated_share,
    find_on_share,
    find_rates_hz,
    find_spectrum,
    share_intervals,
)
from deflare_core.system.atomic_files import complete_or_absent

TOLERANCE = 2.0
"""The factor by which a real figure may be outside the range of the simulated ones."""
FLICKER_US = 2_000_000
"""Longer, and a mains frequency that is off by a thousandth would slip by a good part of a period."""
LAMP_HZ = 120.0
MOST_TRIES = 60
"""Scenes that are drawn, though not simulated, in search of one with such a lamp."""
SPECTRUM_HZ = np.arange(20.0, 501.0, 5.0)
REAL_COLOURS = (POSITIVE, NEGATIVE, ACCENT, "#d98a1f", "#7b4ea3", "#2a9db0")

Statistic = Callable[[Events, int], float]
Points = tuple[NDArray[np.float64], NDArray[np.float64]]
Curve = Callable[[Events, int], Points]

STATISTICS: dict[str, Statistic] = {
    "rate per pixel, Hz": lambda events, length_us: find_rates_hz(events, length_us).mean(),
    "active pixels' rate, median, Hz": lambda events, length_us: _active_rate(events, length_us, 50),
    "active pixels' rate, 95 %, Hz": lambda events, length_us: _active_rate(events, length_us, 95),
    "ON share": lambda events, length_us: find_on_share(events),
    "interval, median, us": lambda events, length_us: _mean_or_nan(np.median, find_intervals_us(events)),
    "intervals below 1 ms, share": lambda events, length_us: _mean_or_nan(np.mean, find_intervals_us(events) < 1000),
    "burst length, mean": lambda events, length_us: _mean_or_nan(np.mean, count_bursts(events)),
    "isolated events, share": lambda events, length_us: find_isolated_share(events),
    "isolated rate per pixel, Hz": lambda events, length_us: find_isolated_rates_hz(events, length_us).mean(),
    "isolated rate, variation over blocks": lambda events, length_us: find_block_variation(
        find_isolated_rates_hz(events, length_us)
    ),
}
FLICKER_HZ = {"locked to 100 Hz, share": 100.0, "locked to 120 Hz, share": LAMP_HZ}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one real recording, and the range of the simulated ones.

    Parameters
    ----------
    recording : the real recording's name.
    quantity : what the figure is, with its unit; a key of `STATISTICS` or `FLICKER_HZ`.
    value : the real recording's.
    smallest, largest : the range of the simulated recordings'.
    inside : whether the value is within that range, extended by the factor `TOLERANCE` at both ends.
    """

    recording: str
    quantity: str
    value: float
    smallest: float
    largest: float
    inside: bool


def compare_recordings(real: Mapping[str, Events], simulated: Mapping[str, Events]) -> list[Row]:
    """A row for each real recording and quantity; quantities that a recording does not have are left out.

    Parameters
    ----------
    real, simulated : recordings by name, each 50 ms or longer, so that five periods of a lamp fit in.

    Raises
    ------
    ValueError
        When either holds no recording, or one is too short.
    """
    length_us = find_shortest_us(real, simulated)
    measured = [measure_figures(events, length_us) for events in simulated.values()]
    rows = []
    for name, events in real.items():
        for quantity, value in measure_figures(events, length_us).items():
            known = [figures[quantity] for figures in measured if np.isfinite(figures[quantity])]
            if known and np.isfinite(value):
                rows.append(compare_figure(name, quantity, value, known))
    return rows


def compare_figure(recording: str, quantity: str, value: float, simulated: Sequence[float]) -> Row:
    """The row of a real figure and the simulated ones that it is compared with."""
    smallest, largest = min(simulated), max(simulated)
    inside = smallest / TOLERANCE <= value <= largest * TOLERANCE
    return Row(recording, quantity, value, smallest, largest, inside)


def measure_figures(events: Events, length_us: int) -> dict[str, float]:
    """Every quantity of a recording: the mean over its stretches of that length that have it, or nan; then flicker."""
    parts = list(cut_stretches(events, length_us))
    measured = {name: np.array([measure(part, length_us) for part in parts]) for name, measure in STATISTICS.items()}
    means = {name: _mean_or_nan(np.mean, values[np.isfinite(values)]) for name, values in measured.items()}
    start, lasting_us = cut_beginning(events)
    locked = {name: find_flicker_share(start, lasting_us, flicker_hz) for name, flicker_hz in FLICKER_HZ.items()}
    # Below what chance gives there is no flicker, and how far below says nothing.
    return means | {name: float(np.maximum(share, LOCKED_BY_CHANCE)) for name, share in locked.items()}


def cut_beginning(events: Events) -> tuple[Events, int]:
    """The recording's first two seconds, or all of it if shorter, and how long that is, microseconds."""
    lasting_us = min(FLICKER_US, events.duration_us + 1)
    return events.window(int(events.t[0]), int(events.t[0]) + lasting_us), lasting_us


def cut_stretches(events: Events, length_us: int) -> Iterator[Events]:
    """The recording's consecutive whole stretches of that length, from its first event on."""
    num = (events.duration_us + 1) // length_us
    return events.windows(int(events.t[0]), num, length_us) if num else iter(())


def find_shortest_us(real: Mapping[str, Events], simulated: Mapping[str, Events]) -> int:
    """The length of the shortest recording, microseconds, from its first event to its last.

    Raises
    ------
    ValueError
        When there is no recording of either kind, or the shortest is under 50 ms.
    """
    if not real or not simulated:
        raise ValueError(f"Give real and simulated recordings; received {len(real)} and {len(simulated)}.")
    lengths = {name: events.duration_us + 1 for name, events in [*real.items(), *simulated.items()]}
    name = min(lengths, key=lambda key: lengths[key])
    if lengths[name] < 50_000:
        raise ValueError(f"{name} lasts {lengths[name]} us; 50 ms are needed to tell a lamp's frequency.")
    return lengths[name]


def draw_realism(real: Mapping[str, Events], simulated: Mapping[str, Events]) -> Figure:
    """Six panels with the real recordings in colour over the simulated ones in grey.

    Parameters
    ----------
    real, simulated : recordings by name, as for `compare_recordings`.
    """
    length_us = find_shortest_us(real, simulated)
    figure = Figure(figsize=(13, 7.2), dpi=110, layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    curves: tuple[Curve, ...] = (_rate_curve, _interval_curve, _burst_curve, _isolated_curve)
    for panel, curve in zip(axes[[0, 1, 2, 5]], curves, strict=True):
        _draw_curves(panel, real, simulated, partial(_mean_curve, curve, length_us))
    _draw_curves(axes[3], real, simulated, _spectrum)
    _draw_balance(axes[4], real, simulated, length_us)
    _label(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(f"stretches of {length_us / 1e3:.1f} ms", fontsize=10)
    return figure


def write_realism(
    folder: str | Path,
    recordings: Sequence[Path],
    config: SimulationConfig,
    num_simulated: int,
    seed: int,
    workers: int,
) -> list[Row]:
    """The table's rows, after `realism.md`, `realism.csv` and `realism.png` were put into the folder.

    Parameters
    ----------
    folder : where the three files go.
    recordings : real recordings.
    config : what to simulate; the recordings through the real lens are compared.
    num_simulated : scenes; a last one with a lamp at 120 Hz in view comes on top where the configuration gives one.
    seed : the scenes' seeds follow from it as those of a data set's training pairs do.
    workers : threads.
    """
    folder = Path(folder)
    real = {path.stem: load_events(path) for path in recordings}
    simulated = simulate_scenes(config, num_simulated, seed, workers)
    rows = compare_recordings(real, simulated)
    with complete_or_absent(folder / "realism.png") as path:
        draw_realism(real, simulated).savefig(path, format="png")
    with complete_or_absent(folder / "realism.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    with complete_or_absent(folder / "realism.md") as path:
        path.write_text(format_report(rows, list(simulated)))
    return rows


def simulate_scenes(config: SimulationConfig, num_simulated: int, seed: int, workers: int) -> dict[str, Events]:
    """The recordings through the real lens of that many scenes, and of one with a lamp at 120 Hz, by name."""
    indices = {f"simulated {index}": index for index in range(num_simulated)}
    flickering = find_flickering(config, seed, num_simulated)
    if flickering is not None:
        indices[f"simulated, lamp at {LAMP_HZ:g} Hz"] = flickering
    return {name: simulate(config, derive_seed(seed, "train", index), workers).flare for name, index in indices.items()}


def find_flickering(config: SimulationConfig, seed: int, first: int) -> int | None:
    """The first number from `first` on of a training pair that shows a lamp at 120 Hz; none if there is none soon."""
    numbers = range(first, first + MOST_TRIES)
    scenes = ((index, set_up(config, derive_seed(seed, "train", index)).scene) for index in numbers)
    return next((index for index, scene in scenes if shows_lamp(scene, config)), None)


def shows_lamp(scene: Scene, config: SimulationConfig) -> bool:
    """Whether a lamp is in the picture at the start that flickers at 120 Hz by a fifth or more of its mean."""
    height, width = config.sensor_size
    for source in scene.sources:
        waveform = scene.waveforms[source.group]
        x, y, depth_m = scene.project(source.middle_at(0), config.sensor_size, 0)
        in_view = depth_m > 0 and 0 <= x < width and 0 <= y < height and scene.visible_share(source, 0) > 0
        if in_view and abs(waveform.flicker_hz - LAMP_HZ) < 1 and waveform.depth >= 0.2:
            return True
    return False


def format_report(rows: Sequence[Row], simulated: Sequence[str]) -> str:
    """The table in Markdown: a line for each quantity, a column for each recording, and what does not match by name."""
    recordings = list(dict.fromkeys(row.recording for row in rows))
    lines = [
        "# Realism",
        "",
        f"Real recordings beside {len(simulated)} simulated ones, through the real lens. A figure matches when it lies",
        f"in the simulated range, extended by the factor {TOLERANCE:g} at both ends; one that does not is bold.",
        f"Of pixels without flicker a share of {LOCKED_BY_CHANCE:g} is locked by chance; less counts as that.",
        "",
        "| quantity | simulated | " + " | ".join(recordings) + " |",
        "|---|---|" + "---|" * len(recordings),
    ]
    for quantity in dict.fromkeys(row.quantity for row in rows):
        found = {row.recording: row for row in rows if row.quantity == quantity}
        some = next(iter(found.values()))
        cells = [_cell(found[name]) if name in found else "" for name in recordings]
        lines.append(f"| {quantity} | {some.smallest:.3g} to {some.largest:.3g} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "## What does not match", "", *_mismatches(rows)]) + "\n"


def _mismatches(rows: Sequence[Row]) -> list[str]:
    outside = [row for row in rows if not row.inside]
    return [f"- {row.recording}: {row.quantity} is {row.value:.3g}, {_distance(row)}." for row in outside] or [
        "Nothing."
    ]


def _distance(row: Row) -> str:
    if row.value > row.largest:
        return f"{row.value / row.largest:.1f} times the largest simulated" if row.largest else "simulated always 0"
    if row.value == 0:
        return "simulated never 0"
    return f"the smallest simulated is {row.smallest / row.value:.1f} times that"


def _cell(row: Row) -> str:
    return f"{row.value:.3g}" if row.inside else f"**{row.value:.3g}**"


def _mean_or_nan(mean: Callable[..., np.floating], values: np.ndarray) -> float:
    return float(mean(values)) if len(values) else np.nan


def _active_rate(events: Events, length_us: int, percentile: float) -> float:
    rates = find_rates_hz(events, length_us)
    return float(np.percentile(rates[rates > 0], percentile)) if len(events) else np.nan


def _rate_curve(events: Events, length_us: int) -> Points:
    """The share of the pixels that fire at a rate or faster: counts in a short stretch would be a comb in bins."""
    levels_hz = np.geomspace(10, 1e4, 61)
    rates = np.sort(find_rates_hz(events, length_us), axis=None)
    return levels_hz, 1 - np.searchsorted(rates, levels_hz) / rates.size


def _interval_curve(events: Events, length_us: int) -> Points:
    return np.sqrt(INTERVAL_EDGES_US[1:] * INTERVAL_EDGES_US[:-1]), share_intervals(find_intervals_us(events))


def _burst_curve(events: Events, length_us: int) -> Points:
    lengths, num = np.arange(1.0, 31), max(1, len(count_bursts(events)))
    return lengths, np.bincount(np.minimum(count_bursts(events), 31), minlength=32)[1:31] / num


def _isolated_curve(events: Events, length_us: int) -> Points:
    """The rate that a share of the blocks of 16 x 16 pixels does not exceed, over that share."""
    shares = np.linspace(0, 1, 51)
    means = average_blocks(find_isolated_rates_hz(events, length_us))
    return shares, np.quantile(means, shares) if means.size else np.full(51, np.nan)


def _draw_curves(
    axes: Axes, real: Mapping[str, Events], simulated: Mapping[str, Events], curve_of: Callable[[Events], Points]
) -> None:
    for k, events in enumerate(simulated.values()):
        label = None if k else f"{len(simulated)} simulated"
        axes.plot(*curve_of(events), color=NEUTRAL, alpha=0.35, linewidth=0.8, label=label)
    for k, (name, events) in enumerate(real.items()):
        axes.plot(*curve_of(events), color=REAL_COLOURS[k % len(REAL_COLOURS)], linewidth=1.4, label=name)


def _spectrum(events: Events) -> Points:
    return SPECTRUM_HZ, find_spectrum(*cut_beginning(events), SPECTRUM_HZ)


def _mean_curve(curve: Curve, length_us: int, events: Events) -> Points:
    """A curve's places, and its mean over those of a recording's stretches that have one."""
    drawn = [curve(part, length_us) for part in cut_stretches(events, length_us)]
    known = [values for _, values in drawn if np.isfinite(values).all()]
    places = drawn[0][0]
    return places, np.mean(known, axis=0) if known else np.full(len(places), np.nan)


def _draw_balance(axes: Axes, real: Mapping[str, Events], simulated: Mapping[str, Events], length_us: int) -> None:
    """A point for each stretch: its share of positive events over its rate."""
    colours = [NEUTRAL] * len(simulated) + [REAL_COLOURS[k % len(REAL_COLOURS)] for k in range(len(real))]
    for events, colour in zip([*simulated.values(), *real.values()], colours, strict=True):
        points = [
            (find_rates_hz(part, length_us).mean(), find_on_share(part)) for part in cut_stretches(events, length_us)
        ]
        rates, shares = np.array(points).T
        axes.scatter(rates, shares, s=14, color=colour, alpha=0.7, linewidths=0)
    axes.axhline(0.5, color=NEUTRAL, linewidth=0.6)


def _label(axes: Sequence[Axes]) -> None:
    logarithmic = {"xscale": "log", "yscale": "log"}
    axes[0].set(xlabel="events per second", ylabel="share of the pixels at that or more", **logarithmic)
    axes[1].set(xlabel="interval between a pixel's events, µs", ylabel="share of the intervals", xscale="log")
    axes[2].set(xlabel="events of one polarity in a row", ylabel="share of the runs", **logarithmic)
    axes[3].set(xlabel="frequency, Hz", ylabel="power, 1 is chance", yscale="log")
    axes[4].set(xlabel="events per pixel and second", ylabel="share of positive events", xscale="log", ylim=(0, 1))
    axes[5].set(xlabel="share of the 16 x 16 blocks", ylabel="isolated events per pixel and second", yscale="log")
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the comparison of the recordings named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m data_simu.tools.realism", description=main.__doc__)
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING", help="a real recording")
    parser.add_argument("--output-dir", required=True, type=Path, help="folder for realism.md, .csv and .png")
    parser.add_argument("--num-simulated", type=int, default=12, help="scenes to simulate (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="threads (default: 2)")
    given = parser.parse_args(arguments)
    write_realism(
        given.output_dir, given.recordings, SimulationConfig(), given.num_simulated, given.seed, given.workers
    )


if __name__ == "__main__":
    main()
