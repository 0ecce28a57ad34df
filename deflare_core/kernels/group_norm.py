"""GroupNorm that fills a GPU: its sums are taken in many pieces, not one for each group.

torch gives every group of every sample to one multiprocessor, so that a window in 8 groups keeps 8 of an H100's 132
busy, for two thirds of the whole network's time. On a CPU torch's own is used.
"""

from __future__ import annotations

import torch
from torch import nn

from deflare_core.kernels.compiler import compile_for_training, has_triton

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
        """The normalised feature maps of ones in 16 bits, in 16 bits."""
        trains = x.is_cuda and torch.is_grad_enabled() and has_triton()
        normalise = compile_for_training(normalise_by_channel) if trains else normalise_by_channel
        return normalise(x, self.weight, self.bias, self.num_groups, self.eps)

    def _scaled(self, x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        return scale_channels(x, self.weight, self.bias, mean, torch.rsqrt(variance + self.eps))


def normalise_by_channel(
    x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
) -> torch.Tensor:
    """GroupNorm of feature maps `(N, C, ...)`, of their dtype, by way of each channel's float32 sums.

    Where channels are the last in memory, those of a group do not lie together; such sums are read as they lie.
    """
    axes, count, wide = tuple(range(2, x.ndim)), x[0].numel() // groups, x.float()
    mean, square = (sums.view(len(x), groups, -1).sum(2) / count for sums in (wide.sum(axes), wide.square().sum(axes)))
    rate = torch.rsqrt((square - mean.square()).clamp(min=0) + eps)
    return scale_channels(wide, gain, bias, mean, rate).to(x.dtype)


def scale_channels(
    x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, rate: torch.Tensor
) -> torch.Tensor:
    """The feature maps `(N, C, ...)` less each group's mean, times its rate, both `(N, groups)`, and gain and bias."""
    channels, per_channel = len(gain) // mean.shape[1], (len(x), len(gain), *[1] * (x.ndim - 2))
    scale = gain * rate.repeat_interleave(channels, 1)
    shift = bias - scale * mean.repeat_interleave(channels, 1)
    return x * scale.view(per_channel) + shift.view(per_channel)


def speed_up_norms(network: nn.Module) -> None:
    """Replace every GroupNorm of a network that is not trained yet by a `PiecewiseGroupNorm` of the same names."""
    for module in network.modules():
        for name, child in module.named_children():
            if type(child) is nn.GroupNorm:
                setattr(module, name, PiecewiseGroupNorm(child.num_groups, child.num_channels, child.eps))
