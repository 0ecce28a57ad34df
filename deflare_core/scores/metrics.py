"""Metrics on signed voxels of one absolute window, and on the causes of events; definitions as published for E-Deflare.

Every voxel metric takes estimate and truth `(bins, H, W)` of whole events, as arrays or as tensors on any device.
Scores of a recording are means over its windows, those of a data set means over its recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Voxel = np.ndarray | torch.Tensor
BACKGROUND, LIGHT, FLARE, NOISE = range(4)
CAUSES = {BACKGROUND: "background", LIGHT: "light", FLARE: "flare", NOISE: "noise"}


def mse(estimate: Voxel, truth: Voxel) -> float:
    """The mean squared difference over all cells."""
    return float(((_exact(estimate) - _exact(truth)) ** 2).mean())


def pmse(estimate: Voxel, truth: Voxel, k: int) -> float:
    """The mean squared difference after k x k average pooling of each polarity; an incomplete pool does not count."""
    difference = _pooled(split_polarities(estimate), k) - _pooled(split_polarities(truth), k)
    return float((difference**2).mean())


def r_f1(estimate: Voxel, truth: Voxel) -> float:
    """The F1 score of occupied cells, by polarity, bin and pixel."""
    return _f1(split_polarities(estimate) > 0, split_polarities(truth) > 0)


def t_f1(estimate: Voxel, truth: Voxel) -> float:
    """The F1 score of occupied pixels by polarity, over the whole window."""
    return _f1(split_polarities(estimate).sum(1) > 0, split_polarities(truth).sum(1) > 0)


def tp_f1(estimate: Voxel, truth: Voxel) -> float:
    """The F1 score of occupied pixels, over the whole window and both polarities."""
    return _f1(split_polarities(estimate).sum((0, 1)) > 0, split_polarities(truth).sum((0, 1)) > 0)


def psnr(error: float, data_range: float) -> float:
    """The peak signal-to-noise ratio in dB of a mean squared error, 10 log10(range^2 / MSE); infinite without one.

    `data_range` is what counts as the peak, in events per cell: a ratio is only as good as the range stated with it.
    """
    return float(10 * np.log10(data_range**2 / error)) if error else float("inf")


VOXEL_METRICS: dict[str, Callable[[Voxel, Voxel], float]] = {
    "mse": mse,
    "pmse_2": lambda estimate, truth: pmse(estimate, truth, 2),
    "pmse_4": lambda estimate, truth: pmse(estimate, truth, 4),
    "r_f1": r_f1,
    "t_f1": t_f1,
    "tp_f1": tp_f1,
}
HIGHER_IS_BETTER = ("r_f1", "t_f1", "tp_f1")


def score_voxels(estimate: Voxel, truth: Voxel) -> dict[str, float]:
    """Every voxel metric of one window, by name.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    if estimate.shape != truth.shape:
        raise ValueError(f"Estimate {estimate.shape} and truth {truth.shape} must have one shape.")
    return {name: metric(estimate, truth) for name, metric in VOXEL_METRICS.items()}


def split_polarities(voxel: Voxel) -> Any:
    """The positive part and the size of the negative part, `(2, bins, H, W)` float64."""
    stack: Any = torch.stack if isinstance(voxel, torch.Tensor) else np.stack
    exact = _exact(voxel)
    return stack([exact.clip(min=0), (-exact).clip(min=0)])


def _exact(voxel: Voxel) -> Any:
    """The voxel in float64."""
    return voxel.double() if isinstance(voxel, torch.Tensor) else voxel.astype(np.float64)


def _pooled(stacks: Any, k: int) -> Any:
    height, width = (n // k for n in stacks.shape[-2:])
    whole = stacks[..., : height * k, : width * k]
    return whole.reshape(*stacks.shape[:-2], height, k, width, k).mean((-3, -1))


def _f1(estimate: Any, truth: Any) -> float:
    """2 TP / (2 TP + FP + FN); 1 when both are empty."""
    both, either = int((estimate & truth).sum()), int(estimate.sum()) + int(truth.sum())
    return 2 * both / either if either else 1.0
