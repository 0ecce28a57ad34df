"""Losses: how far a network's output is from the target, for a batch of voxels `(N, C, bins, H, W)`.

`config.LOSSES` says what each is, and which need a gate; `FUNCTIONS` holds the functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from deflare_core.model import VoxelNetwork

Loss = Callable[[VoxelNetwork, torch.Tensor, torch.Tensor], torch.Tensor]
"""From a network, its input float32 `(N, inputs, bins, H, W)` and the target `(N, C, bins, H, W)` to float32 `()`."""


def measure_surprise(network: VoxelNetwork, raw: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The negative log-likelihood of how many events each cell keeps, per event of a window, in nats.

    With n events in, k of them in the target (at most n) and a chance s = sigmoid(u) to keep one, a cell gives
    -k log s - (n - k) log(1 - s) = n softplus(u) - k u: the binomial law without its constant.
    """
    count, target = count_kept(network.take_window(raw), label)
    return _surprise(network.keep_logits(raw), count, target)


def measure_surprise_and_overlap(network: VoxelNetwork, raw: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """`measure_surprise`, plus 1 - 2 sum min(e, k) / sum (e + k) with the expected number e = n s of events kept."""
    count, target = count_kept(network.take_window(raw), label)
    logits = network.keep_logits(raw)
    expected = count * torch.sigmoid(logits)
    overlap = 2 * _by_window(torch.minimum(expected, target)) / _by_window(expected + target).clamp(min=1)
    return _surprise(logits, count, target) + 1 - overlap.mean()


def count_kept(raw: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many events each cell holds, and how many of them the target keeps; of a signed voxel, in net events.

    All four voxels are float32 `(N, C, bins, H, W)`.
    """
    return raw.abs(), torch.minimum((label * raw.sign()).clamp(min=0), raw.abs())


def _surprise(logits: torch.Tensor, count: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """N softplus(u) - k u per event of a window, averaged over windows; one without events weighs 0."""
    surprise = _by_window(count * functional.softplus(logits) - target * logits)
    return (surprise / _by_window(count).clamp(min=1)).mean()


def _by_window(cells: torch.Tensor) -> torch.Tensor:
    """The sum over the cells of each window, `(N,)`."""
    return cells.flatten(1).sum(1)


FUNCTIONS: dict[str, Loss] = {
    "mse": lambda network, raw, label: functional.mse_loss(network(raw), label),
    "l1": lambda network, raw, label: functional.l1_loss(network(raw), label),
    "smooth_l1": lambda network, raw, label: functional.smooth_l1_loss(network(raw), label),
    "kept": measure_surprise,
    "kept_dice": measure_surprise_and_overlap,
}
"""The functions of `config.LOSSES`, by name."""
