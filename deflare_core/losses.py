"""Losses: how far a network's output is from the target, for a batch of voxels `(N, C, bins, H, W)`.

mse, l1, smooth_l1   of the voxels, averaged over cells: most of them empty, so that few events weigh little.
kept                 of a gate: the surprise at how many of each cell's events are kept, per event of a window.
kept_dice            the same plus one minus Dice's overlap of what is kept and what should be.

All are averaged over the windows of a batch, which weigh alike as in all scores, however many events each has.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from deflare_core.model import VoxelNetwork

Loss = Callable[[VoxelNetwork, torch.Tensor, torch.Tensor], torch.Tensor]
"""From a network, its input and the target to a number."""


def kept(network: VoxelNetwork, raw: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The negative log-likelihood of how many events each cell keeps, per event of a window, in nats.

    With n events in, k of them in the target (at most n) and a chance s = sigmoid(u) to keep one, a cell gives
    -k log s - (n - k) log(1 - s) = n softplus(u) - k u: the binomial law without its constant.
    """
    count, target = counts(network.take_window(raw), label)
    return _surprise(network.keep_logits(raw), count, target)


def kept_dice(network: VoxelNetwork, raw: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """`kept`, plus 1 - 2 sum min(e, k) / sum (e + k) with the expected number e = n s of events kept."""
    count, target = counts(network.take_window(raw), label)
    logits = network.keep_logits(raw)
    expected = count * torch.sigmoid(logits)
    overlap = 2 * _by_window(torch.minimum(expected, target)) / _by_window(expected + target).clamp(min=1)
    return _surprise(logits, count, target) + 1 - overlap.mean()


def counts(raw: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many events each cell holds, and how many of them the target keeps; of a signed voxel, in net events."""
    return raw.abs(), torch.minimum((label * raw.sign()).clamp(min=0), raw.abs())


def _surprise(logits: torch.Tensor, count: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    surprise = _by_window(count * functional.softplus(logits) - target * logits)
    return (surprise / _by_window(count).clamp(min=1)).mean()


def _by_window(cells: torch.Tensor) -> torch.Tensor:
    """The sum over the cells of each window, `(N,)`."""
    return cells.flatten(1).sum(1)


LOSSES: dict[str, Loss] = {
    "mse": lambda network, raw, label: functional.mse_loss(network(raw), label),
    "l1": lambda network, raw, label: functional.l1_loss(network(raw), label),
    "smooth_l1": lambda network, raw, label: functional.smooth_l1_loss(network(raw), label),
    "kept": kept,
    "kept_dice": kept_dice,
}
"""Every loss by name."""
