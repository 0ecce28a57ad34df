"""Metrics on signed voxels of one absolute window, and on provenance labels; definitions as published for E-Deflare.

Every voxel metric takes estimate and truth `(bins, H, W)` of whole events. Scores of a recording are means over its
windows, those of a data set means over its recordings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deflare_core.codec import AppliedVoxel

PROVENANCE = {0: "background", 1: "light", 2: "flare", 3: "noise"}


def mse(estimate: np.ndarray, truth: np.ndarray) -> float:
    """The mean squared difference over all cells."""
    return float(np.mean((estimate.astype(np.float64) - truth) ** 2))


def pmse(estimate: np.ndarray, truth: np.ndarray, k: int) -> float:
    """The mean squared difference after k x k average pooling of each polarity; an incomplete pool does not count."""
    difference = _pooled(polarities(estimate), k) - _pooled(polarities(truth), k)
    return float(np.mean(difference**2))


def r_f1(estimate: np.ndarray, truth: np.ndarray) -> float:
    """The F1 score of occupied cells, by polarity, bin and pixel."""
    return _f1(polarities(estimate) > 0, polarities(truth) > 0)


def t_f1(estimate: np.ndarray, truth: np.ndarray) -> float:
    """The F1 score of occupied pixels by polarity, over the whole window."""
    return _f1(polarities(estimate).sum(1) > 0, polarities(truth).sum(1) > 0)


def tp_f1(estimate: np.ndarray, truth: np.ndarray) -> float:
    """The F1 score of occupied pixels, over the whole window and both polarities."""
    return _f1(polarities(estimate).sum((0, 1)) > 0, polarities(truth).sum((0, 1)) > 0)


VOXEL_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mse": mse,
    "pmse_2": lambda estimate, truth: pmse(estimate, truth, 2),
    "pmse_4": lambda estimate, truth: pmse(estimate, truth, 4),
    "r_f1": r_f1,
    "t_f1": t_f1,
    "tp_f1": tp_f1,
}
HIGHER_IS_BETTER = ("r_f1", "t_f1", "tp_f1")


def voxel_scores(estimate: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Every voxel metric of one window, by name.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    if estimate.shape != truth.shape:
        raise ValueError(f"Estimate {estimate.shape} and truth {truth.shape} must have one shape.")
    return {name: metric(estimate, truth) for name, metric in VOXEL_METRICS.items()}


def kept_by_provenance(window: AppliedVoxel, labels: np.ndarray) -> dict[str, tuple[int, int]]:
    """For each provenance, how many of a window's input events were kept and how many there were."""
    return {
        name: (int(window.kept[labels == label].sum()), int((labels == label).sum()))
        for label, name in PROVENANCE.items()
    }


def polarities(voxel: np.ndarray) -> np.ndarray:
    """The positive part and the size of the negative part, `(2, bins, H, W)` float64."""
    return np.stack([np.maximum(voxel, 0), np.maximum(-voxel, 0)]).astype(np.float64)


def _pooled(stacks: np.ndarray, k: int) -> np.ndarray:
    height, width = (n // k for n in stacks.shape[-2:])
    whole = stacks[..., : height * k, : width * k]
    return whole.reshape(*stacks.shape[:-2], height, k, width, k).mean((-3, -1))


def _f1(estimate: np.ndarray, truth: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN); 1 when both are empty."""
    both, either = int((estimate & truth).sum()), int(estimate.sum()) + int(truth.sum())
    return 2 * both / either if either else 1.0
