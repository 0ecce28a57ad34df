"""Levels: what each factor of a network's decision level trades, and the factors of the three words.

    python -m data_simu.tools.levels --checkpoint runs/lamps/checkpoints/best [--config CONFIG] [--pairs 8]

simulates pairs of every kind of the configuration's validation, lets the network see each window once, and counts for a
row of factors what would stay of flare, light and background. A word is a price: how many points of flare removed one
gives up for a point of what is no flare. The last line it prints is what `deflaring/decision_level.py` holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from data_simu.config import SimulationConfig
from data_simu.pairs import derive_seed
from data_simu.simulation import Pair, simulate
from deflare_core.codec import encode_window
from deflare_core.config import SimulatedDataConfig, TrainConfig
from deflare_core.deflaring.decision_level import LEAST, find_certainty
from deflare_core.deflaring.method import NetworkMethod
from deflare_core.events import BACKGROUND, FLARE, LIGHT, WINDOW_US
from deflare_core.inference import load_method
from deflare_core.kernels.event_tensors import EventTensors, find_cells
from deflare_core.scores.evaluation import mark_near_flare
from deflare_core.system.places import PRETRAINED, PROJECT_ROOT
from deflare_core.system.settings import load_config
from deflare_core.windows import USUAL_CUT, Window

TRIED = (0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.85)
"""Factors that are tried."""
PRICES = {"careful": 3.0, "balanced": 1.0, "thorough": 1 / 3}
"""Points of flare removed that a point of light or background is worth, the worse kept of the two."""
FEWEST = 100
"""A recording with fewer events of a cause says nothing about it."""
COLUMNS = ("flare removed", "light kept", "background kept", "near flare")


class Trade(NamedTuple):
    """What factors keep of a recording: the shares of flare, light, background and background near flare.

    Parameters
    ----------
    kind : the kind of pairs.
    kept : `(len(TRIED), 4)`, not a number where there are too few events.
    """

    kind: str
    kept: NDArray[np.float64]


def measure_trades(
    method: NetworkMethod, data: SimulatedDataConfig, most: int, overrides: Sequence[str] = ()
) -> Iterator[Trade]:
    """What the factors keep of each simulated pair, at most so many of each kind, one after the other."""
    for simulation, own, num_pairs in data.kinds:
        config = load_config(SimulationConfig, simulation, (*own, *overrides))
        kind = f"{Path(simulation).stem} {' '.join(own[len(data.overrides) :])}".strip()
        for number in range(min(num_pairs, most)):
            pair = simulate(config, derive_seed(config.seed, data.split, number))
            yield Trade(kind, measure_kept(method, pair))


def measure_kept(method: NetworkMethod, pair: Pair) -> NDArray[np.float64]:
    """What each factor keeps of a pair's input: shares of flare, light, background, background near flare."""
    starts = range(0, pair.clock_us[1] - WINDOW_US + 1, WINDOW_US)
    windows = [Window(t0_us, pair.flare.window(t0_us, t0_us + WINDOW_US), 0) for t0_us in starts]
    edges = np.searchsorted(pair.flare.t, [*starts, starts[-1] + WINDOW_US])
    kept, total = np.zeros((len(TRIED), 4)), np.zeros(4)
    for k, part in enumerate(method.deflare(windows, USUAL_CUT)):
        assert part.output is not None, "A network has an output."
        label = pair.flare_label[edges[k] : edges[k + 1]]
        near = (label == BACKGROUND) & mark_near_flare(windows[k].events, label)
        groups = (label == FLARE, label == LIGHT, label == BACKGROUND, near)
        marks = mark_kept(windows[k], part.output.cpu())
        kept += [[mark[group].sum() for group in groups] for mark in marks]
        total += [group.sum() for group in groups]
    return np.where(total >= FEWEST, kept / np.maximum(total, 1), np.nan)


def mark_kept(window: Window, after: torch.Tensor) -> NDArray[np.bool_]:
    """For each factor whether each of a window's N events stays, as its cell does, `(len(TRIED), N)`."""
    tensors = EventTensors.from_events(window.events)
    before = encode_window(tensors, window.t0_us, USUAL_CUT, len(after))
    cells = find_cells(tensors, USUAL_CUT.num_bins, WINDOW_US, window.t0_us, split_polarity=len(after) == 2)
    had, has = (voxel.flatten()[cells].abs().double().numpy() for voxel in (before, after))
    levels = np.maximum(np.array(TRIED)[:, None] * float(find_certainty(before, after)), LEAST)
    # Where a signed cell's events cancel, the decode leaves them.
    return (had == 0) | (has >= levels * had)


def average(trades: Iterable[Trade]) -> dict[str, NDArray[np.float64]]:
    """For each kind, and for all as the mean of the kinds, the table `(len(TRIED), 4)` in the order of `COLUMNS`."""
    rows: dict[str, list[NDArray[np.float64]]] = {}
    for trade in trades:
        rows.setdefault(trade.kind, []).append(trade.kept)
    found = {kind: _mean(np.stack(kept)) for kind, kept in rows.items()}
    found = {kind: np.column_stack([1 - table[:, 0], table[:, 1:]]) for kind, table in found.items()}
    return found | {"all kinds": _mean(np.stack(list(found.values())))}


def choose_factors(table: NDArray[np.float64]) -> dict[str, float]:
    """The factor of each word: the greatest gain of flare removed less the price of what is lost beside it."""
    lost = 1 - np.nanmin(table[:, 1:3], axis=1)
    return {word: TRIED[int(np.argmax(table[:, 0] - price * lost))] for word, price in PRICES.items()}


def write_tables(tables: dict[str, NDArray[np.float64]]) -> None:
    """Write what each factor trades to the standard output, then the factors of the words."""
    factors = choose_factors(tables["all kinds"])
    for kind, table in tables.items():
        sys.stdout.write(f"{kind}\n{'factor':>8}" + "".join(f"{name:>17}" for name in COLUMNS) + "\n")
        for factor, row in zip(TRIED, table, strict=True):
            words = ", ".join(word for word, chosen in factors.items() if chosen == factor)
            sys.stdout.write(f"{factor:8}" + "".join(f"{value:17.1%}" for value in row) + f"  {words}".rstrip() + "\n")
    sys.stdout.write(f"FACTORS = {factors}\n".replace("'", '"'))


def _mean(stack: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the first axis of what is a number; not a number where nothing is."""
    known = np.isfinite(stack)
    total = np.where(known, stack, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def main(arguments: Sequence[str] | None = None) -> None:
    """Show what the factors of a network's level trade, and choose those of the words."""
    parser = argparse.ArgumentParser(prog="python -m data_simu.tools.levels", description=main.__doc__)
    usual = PROJECT_ROOT / "configs" / "lamps_train_config.yaml"
    parser.add_argument("--checkpoint", type=Path, default=PRETRAINED, help="default: the network that comes along")
    parser.add_argument("--config", type=Path, default=usual, help="whose validation is simulated (%(default)s)")
    parser.add_argument("--pairs", type=int, default=8, help="of each kind at most (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="where the network computes (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", help="settings of all pairs, such as sensor_size=[240,320]")
    given = parser.parse_args(arguments)
    data = load_config(TrainConfig, given.config).validation
    if not isinstance(data, SimulatedDataConfig):
        parser.error(f"{given.config}: its validation is not simulated; name a configuration whose is")
    method = load_method(checkpoint=given.checkpoint, device=given.device, level="balanced")
    if not isinstance(method, NetworkMethod):
        parser.error(f"{given.checkpoint}: is no network")
    write_tables(average(measure_trades(method, data, given.pairs, given.overrides)))


if __name__ == "__main__":
    main()
