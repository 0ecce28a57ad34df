"""Metrics: every score in one row, and those on signed voxels of one absolute window, as published for E-Deflare.

A score is one row of `SCORES`; tables, figures and reports take its name, title, direction and meaning from there.
Every voxel metric takes estimate and truth `(bins, H, W)` of whole events, as arrays or as tensors on any device.
Scores of a recording are means over its windows, those of a data set means over its recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from deflare_core.streams.statistics import average_blocks

Voxel = np.ndarray | torch.Tensor
Metric = Callable[[Voxel, Voxel], float]
PEAK_EVENTS = 8
"""Events in a cell that the PSNR counts as its peak."""


def mse(estimate: Voxel, truth: Voxel) -> float:
    """The mean squared difference over all cells of `(bins, H, W)`, events squared."""
    return float(((_exact(estimate) - _exact(truth)) ** 2).mean())


def pmse(estimate: Voxel, truth: Voxel, k: int) -> float:
    """The mean squared difference of `(bins, H, W)` after k x k average pooling of each polarity, events squared.

    A pool that reaches over the edge does not count.
    """
    difference = average_blocks(split_polarities(estimate), k) - average_blocks(split_polarities(truth), k)
    return float((difference**2).mean())


def r_f1(estimate: Voxel, truth: Voxel) -> float:
    """The F1 score of the occupied cells of `(bins, H, W)`, by polarity, bin and pixel."""
    return _f1(split_polarities(estimate) > 0, split_polarities(truth) > 0)


def t_f1(estimate: Voxel, truth: Voxel) -> float:
    """The F1 score of the occupied pixels of `(bins, H, W)` by polarity, over the whole window."""
    return _f1(split_polarities(estimate).sum(1) > 0, split_polarities(truth).sum(1) > 0)


def tp_f1(estimate: Voxel, truth: Voxel) -> float:
    """The F1 score of the occupied pixels of `(bins, H, W)`, over the whole window and both polarities."""
    return _f1(split_polarities(estimate).sum((0, 1)) > 0, split_polarities(truth).sum((0, 1)) > 0)


def psnr(error: float, data_range: float) -> float:
    """The peak signal-to-noise ratio in dB of a mean squared error, 10 log10(range^2 / MSE); infinite where that is 0.

    `data_range` is what counts as the peak, in events per cell: a ratio is only as good as the range stated with it.
    """
    return float(10 * np.log10(data_range**2 / error)) if error else float("inf")


def score_voxels(estimate: Voxel, truth: Voxel) -> dict[str, float]:
    """Every voxel metric of one window, by name; both voxels are signed and of one shape `(bins, H, W)`."""
    if estimate.shape != truth.shape:
        raise ValueError(f"Estimate {estimate.shape} and truth {truth.shape} must have one shape.")
    return {score.name: score.of_voxels(estimate, truth) for score in SCORES["Voxels"] if score.of_voxels}


def split_polarities(voxel: Voxel) -> Any:
    """The positive part and the size of the negative part, `(2, bins, H, W)` float64."""
    stack: Any = torch.stack if isinstance(voxel, torch.Tensor) else np.stack
    exact = _exact(voxel)
    return stack([exact.clip(min=0), (-exact).clip(min=0)])


def _exact(voxel: Voxel) -> Any:
    """The voxel in float64."""
    return voxel.double() if isinstance(voxel, torch.Tensor) else voxel.astype(np.float64)


def _f1(estimate: Any, truth: Any) -> float:
    """2 TP / (2 TP + FP + FN); 1 when both are empty."""
    both, either = int((estimate & truth).sum()), int(estimate.sum()) + int(truth.sum())
    return 2 * both / either if either else 1.0


class Score(NamedTuple):
    """What there is to say of a score.

    Files and tables call it by its name, figures by its title. Without a unit it is a share, a ratio or a number.
    `of_voxels` computes it from estimate and truth; without it `distances` or `evaluation` does.
    """

    name: str
    title: str
    better: Literal["higher", "lower"] | None
    about: str
    unit: str = ""
    of_voxels: Metric | None = None

    @property
    def head(self) -> str:
        """Its name and an arrow in the direction that is better, for the heads of tables."""
        return self.name + {"higher": " ↑", "lower": " ↓", None: ""}[self.better]

    @property
    def label(self) -> str:
        """Its title and unit, and below these which way is better, for figures."""
        unit = f", {self.unit}" if self.unit else ""
        return self.title + unit + (f"\n{self.better} is better" if self.better else "")


SQUARE, PERCENT = "events²", "%"
SCORES = {
    "Voxels": (
        Score("mse", "MSE", "lower", "the mean squared difference over all cells", SQUARE, mse),
        Score("mse_least", "least MSE", None, "the least that removing events of the input can reach", SQUARE),
        Score("pmse_2", "PMSE-2", "lower", "that after 2 x 2 pooling of each polarity", SQUARE, partial(pmse, k=2)),
        Score("pmse_4", "PMSE-4", "lower", "that after 4 x 4 pooling", SQUARE, partial(pmse, k=4)),
        Score("psnr_db", "PSNR", "higher", f"that of the mean MSE, for a peak of {PEAK_EVENTS} events in a cell", "dB"),
        Score("r_f1", "R-F1", "higher", "the F1 score of occupied cells", "", r_f1),
        Score("t_f1", "T-F1", "higher", "that of each polarity's occupied pixels, over the whole window", "", t_f1),
        Score("tp_f1", "TP-F1", "higher", "that of occupied pixels, over the whole window", "", tp_f1),
        Score("loss", "loss", "lower", "a network's MSE before its output is rounded to events", SQUARE),
    ),
    "Distances": (
        Score("chamfer", "Chamfer", "lower", "the mean distance from the output's events to the target's", PERCENT),
        Score("chamfer_back", "Chamfer, back", "lower", "that from the target's to the output's", PERCENT),
        Score("chamfer_both", "Chamfer, both ways", "lower", "the mean of these two", PERCENT),
        Score("gauss", "Gaussian", "lower", "the mean of 1 - exp(-d² / 0.4) over the distances d of `chamfer`"),
        Score("gauss_back", "Gaussian, back", "lower", "that over the distances of `chamfer_back`"),
        Score("gauss_both", "Gaussian, both ways", "lower", "the mean of these two"),
    ),
    "Events": (
        Score("count_ratio", "events over target's", None, "the number of events over the target's"),
        Score("invented", "invented", "lower", "the share of the output's events that were not recorded"),
        Score("flare_removed", "flare removed", "higher", "the share of the input's events by flare that are removed"),
        Score("background_kept", "background kept", "higher", "the share of those by the background that are kept"),
        Score("near_kept", "kept near flare", "higher", "that of the background within 2 pixels of flare's events"),
        Score("light_kept", "light kept", "higher", "the share of those by the light sources"),
        Score("noise_kept", "noise kept", None, "that of noise"),
    ),
}
"""Every score, by the table of a report that it stands in."""
HEADLINES = ("mse", "r_f1", "chamfer_both", "count_ratio", "flare_removed", "background_kept", "light_kept")
"""The few scores that figures and breakdowns show."""
DECISIVE = ("mse", "r_f1", "chamfer_both")
"""Those that say how far from the target a method's events are; the first decides, the others should agree with it."""


_BY_NAME = {score.name: score for table in SCORES.values() for score in table}


def find_score(name: str) -> Score:
    """The score of that name; one whose name begins with `legacy_` is like that of the rest of its name."""
    return _BY_NAME[name.removeprefix("legacy_")]
