"""Evaluation: a checkpoint against the untouched input, over a whole data set, recording by recording."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deflare_core.codec import AppliedVoxel, apply_voxel, events_to_voxel
from deflare_core.dataset import EventVoxelDataset, RecordingPair
from deflare_core.inference import run_network, window_seed
from deflare_core.metrics import PROVENANCE, kept_by_provenance, mse, voxel_scores
from deflare_core.model import VoxelNetwork
from deflare_core.output import complete_or_absent

Scores = dict[str, float]
Network = Callable[[np.ndarray], np.ndarray]
METHODS = ("input", "network")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores by method and recording: `scores["network"]["composed_00003"]["mse"]`."""

    scores: dict[str, dict[str, Scores]]

    def mean(self, method: str) -> Scores:
        """The mean of every score over the recordings, by name; recordings without a score do not count in it."""
        rows = list(self.scores[method].values())
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}

    def summary(self) -> dict[str, Scores]:
        """The mean scores of every method."""
        return {method: self.mean(method) for method in self.scores}

    def to_markdown(self) -> str:
        """A table with one row per method."""
        summary = self.summary()
        names = list(dict.fromkeys(name for scores in summary.values() for name in scores))
        head = ["| method | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        rows = [[f"{scores[name]:.4f}" if name in scores else "" for name in names] for scores in summary.values()]
        return "\n".join(head + [f"| {m} | " + " | ".join(r) + " |" for m, r in zip(summary, rows, strict=True)]) + "\n"


def evaluate(model: VoxelNetwork, data: EventVoxelDataset, *, seed: int = 0, progress: bool = True) -> Evaluation:
    """Scores of the untouched input and of the network for every recording of the data set.

    `loss` is the mean squared error of the network's output before rounding; all other scores are of the deflared
    events. Where recordings carry provenance, `flare_removed` and the `_kept` shares count input events.
    """
    networks: dict[str, Network] = {"input": lambda voxel: voxel, "network": lambda voxel: run_network(model, voxel)}
    scores: dict[str, dict[str, Scores]] = {method: {} for method in METHODS}
    for pair in tqdm(data.pairs, unit="recording", disable=not progress):
        for method, network in networks.items():
            scores[method][pair.name] = score_recording(network, data, pair, seed)
    return Evaluation(scores)


def score_recording(network: Network, data: EventVoxelDataset, pair: RecordingPair, seed: int) -> Scores:
    """The scores of one recording: means over its windows, shares over all its events."""
    rows, kept = [], {name: np.zeros(2) for name in PROVENANCE.values()}
    num_out = num_clean = 0
    for t0_us, noisy, clean in data.events(pair):
        raw, truth = (
            events_to_voxel(events, data.num_bins, None, data.window_us, t0_us=t0_us) for events in (noisy, clean)
        )
        estimate = network(raw)
        window = apply_voxel(noisy, raw, estimate, data.window_us, t0_us=t0_us, seed=window_seed(seed, t0_us))
        rows.append({"loss": mse(estimate, truth)} | voxel_scores(np.rint(estimate), truth))
        num_out, num_clean = num_out + len(window.events), num_clean + len(clean)
        _count_kept(kept, window, data.provenance(pair, t0_us))
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return means | {"count_ratio": num_out / max(num_clean, 1)} | _shares(kept)


def write_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Write `recordings.csv`, `summary.json` and `summary.md` into the folder."""
    folder = Path(folder)
    with complete_or_absent(folder / "recordings.csv") as path, path.open("w", newline="") as file:
        rows = [
            {"method": m, "recording": r, **s} for m, by_name in evaluation.scores.items() for r, s in by_name.items()
        ]
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    _write_text(folder / "summary.json", json.dumps(evaluation.summary(), indent=2) + "\n")
    _write_text(folder / "summary.md", evaluation.to_markdown())


def _count_kept(kept: dict[str, np.ndarray], window: AppliedVoxel, labels: np.ndarray | None) -> None:
    if labels is not None:
        for name, counts in kept_by_provenance(window, labels).items():
            kept[name] += counts


def _shares(kept: dict[str, np.ndarray]) -> Scores:
    """The share of flare events removed and of the others kept; a provenance without events has no share."""
    shares = {name: part / whole for name, (part, whole) in kept.items() if whole}
    return {
        ("flare_removed" if name == "flare" else f"{name}_kept"): 1 - share if name == "flare" else share
        for name, share in shares.items()
    }


def _write_text(path: Path, text: str) -> None:
    with complete_or_absent(path) as temporary:
        temporary.write_text(text)
