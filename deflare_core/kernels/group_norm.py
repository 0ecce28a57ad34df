"""GroupNorm that fills a GPU: its sums are taken in many pieces, not one for each group.

torch gives every group of every sample to one multiprocessor, so that a window in 8 groups keeps 8 of an H100's 132
busy, for two thirds of the whole network's time. On a CPU torch's own is used.
"""

from __future__ import annotations

import torch
from torch import nn

PIECES = 256
"""Pieces that each group's cells are cut into."""


class PiecewiseGroupNorm(nn.GroupNorm):
    """What `nn.GroupNorm` gives, with the same parameters."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The normalised feature maps, of the shape of x: `(N, C, ...)`."""
        if x.device.type == "cpu":
            return super().forward(x)
        if x.dtype in (torch.float16, torch.bfloat16):
            return self.by_channel(x)
        size = x[0].numel() // self.num_groups
        return super().forward(x) if size % PIECES else self.in_pieces(x)

    def in_pieces(self, x: torch.Tensor) -> torch.Tensor:
        """The normalised feature maps, by way of each piece's mean and variance."""
        pieces = x.reshape(len(x), self.num_groups, PIECES, -1)
        variances, means = torch.var_mean(pieces, dim=3, correction=0)
        mean = means.mean(2)
        variance = (variances + (means - mean[..., None]).square()).mean(2)
        return self._scaled(x, mean, variance)

    def by_channel(self, x: torch.Tensor) -> torch.Tensor:
        """The normalised feature maps in float32 of ones in 16 bits, by way of each channel's float32 sums.

        Where channels are the last in memory, those of a group do not lie together; such sums are read as they lie.
        """
        axes = tuple(range(2, x.ndim))
        total = x.sum(axes, dtype=torch.float32)
        squares = torch.linalg.vector_norm(x, 2, axes, dtype=torch.float32).square()
        count = x[0].numel() // self.num_groups
        mean, square = (sums.view(len(x), self.num_groups, -1).sum(2) / count for sums in (total, squares))
        return self._scaled(x, mean, (square - mean.square()).clamp(min=0))

    def _scaled(self, x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        """The feature maps normalised by each group's mean and variance, `(N, groups)`."""
        rate, per_channel = torch.rsqrt(variance + self.eps), (len(x), self.num_channels, *[1] * (x.ndim - 2))
        channels = self.num_channels // self.num_groups
        scale = self.weight * rate.repeat_interleave(channels, 1)
        shift = self.bias - scale * mean.repeat_interleave(channels, 1)
        return x * scale.view(per_channel) + shift.view(per_channel)


def speed_up_norms(network: nn.Module) -> None:
    """Replace every GroupNorm of a network that is not trained yet by a `PiecewiseGroupNorm` of the same names."""
    for module in network.modules():
        for name, child in module.named_children():
            if type(child) is nn.GroupNorm:
                setattr(module, name, PiecewiseGroupNorm(child.num_groups, child.num_channels, child.eps))
