"""The residual backbone on a GPU with its group normalisations folded into the convolutions that follow them.

GroupNorm scales and shifts each channel, `a_c x + b_c`, and a convolution comes next, which is linear. So

    conv(a x + b; W) = conv(x; W a) + table,

where `table` is what the shift alone gives: the same everywhere but at the borders, whose zero padding is not shifted.
Nothing is ever normalised in memory. `a` and `b` come from each channel's sum and sum of squares, which whatever
writes a feature map counts on the way. Seen from the gradient the sums are outputs like any other: the small tensors
between sums and weights are plain torch, so that autograd differentiates GroupNorm by itself.

The first level's 1x1x1 convolution of the single input channel and its norm are affine too, so the first 3x3x3
convolution of 32 channels becomes one of a single channel.

Feature maps are contiguous `(D, H, W, C)`, of one sample at a time, in half precision; parameters and sums are float32.
A 2-D backbone's are of a single plane, D = 1, beyond which all is padding: its 3x3 kernels are the middle of 3x3x3
ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from deflare_core.kernels import folded_steps as steps
from deflare_core.kernels.compiler import compile_for_training

PROJECTED_CHANNELS = 2
"""So many channels of output are summed up by `project_kernel`; cuBLAS is faster for more."""
CONVOLVED_CHANNELS = (16, 32)
"""Up to this number of channels `convolve_kernel` convolves; for more, cuDNN is faster."""


class Measured(NamedTuple):
    """A feature map `(D, H, W, C)` and its channels' sums and sums of squares `(2, C)`."""

    values: torch.Tensor
    sums: torch.Tensor


def run_folded(backbone: nn.Module, voxel: torch.Tensor, dtype: torch.dtype, recompute: bool = False) -> torch.Tensor:
    """The output of a residual backbone for a voxel of whole pooling cells, float32 of as many bins, rows and columns.

    Parameters
    ----------
    backbone : a `ResidualUNet3D` or `ResidualUNet2D` of layer order "gcr".
    voxel : float32 `(N, C, bins, H, W)`, of a 2-D backbone `(N, C, H, W)`, on a GPU.
    dtype : of feature maps and products, float16 or bfloat16.
    recompute : keep only each level's result for the backward pass.
    """
    return torch.stack(_abreast(lambda sample: _run_sample(backbone, sample.contiguous(), dtype, recompute), voxel))


def _abreast(run: Callable[[torch.Tensor], torch.Tensor], samples: torch.Tensor) -> list[torch.Tensor]:
    """What `run` makes of each sample; in a recorded graph side by side, since a sample's small kernels fill no card.

    Outside of one Python starts kernels no faster than they run one after another.
    """
    if len(samples) == 1 or not (samples.is_cuda and torch.cuda.is_current_stream_capturing()):
        return [run(sample) for sample in samples]
    here, outputs = torch.cuda.current_stream(samples.device), []
    streams = [torch.cuda.Stream(samples.device) for _ in samples]
    for sample, stream in zip(samples, streams, strict=True):
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            outputs.append(run(sample))
    for stream in streams:
        here.wait_stream(stream)
    return outputs


def _run_sample(backbone: Any, x: torch.Tensor, dtype: torch.dtype, recompute: bool) -> torch.Tensor:
    def run(level: Any, *inputs: Any) -> Any:
        if not recompute:
            return level(*inputs)
        return checkpoint(level, *inputs, use_reentrant=False, preserve_rng_state=False)

    first = backbone.encoders[0].basic_module
    if x.ndim == 4 and len(x) == 1:
        y = run(lambda x: _first_block(first, x, dtype), x[0])
    else:
        y = run(lambda x: _widening_block(first, x), steps.channels_last(x[None]).to(dtype))
    skips = []
    for encoder in backbone.encoders[1:]:
        skip, pooled = steps.Split.apply(y)
        skips.append(skip)
        y = run(lambda pooled, block=encoder.basic_module: _widening_block(block, pooled), pooled)
    for decoder, skip in zip(backbone.decoders, reversed(skips), strict=True):
        y = run(lambda skip, y, decoder=decoder: _decode(decoder, skip, y), skip, y)
    return _project(backbone.final_conv, y).view(-1, *x.shape[1:])


def _first_block(block: Any, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The first encoder's block, whose input has one channel."""
    factor, offset = block.conv1.weight.reshape(-1), block.conv1.bias
    sum_x, sum_xx, count = x.sum(), x.square().sum(), x.numel()
    total = factor * sum_x + offset * count
    squares = factor.square() * sum_xx + 2 * factor * offset * sum_x + offset.square() * count
    norm, means = block.conv2.groupnorm, torch.stack([total, squares]) / count
    scale, shift = _affine(norm.weight, norm.bias, means, norm.num_groups, norm.eps)
    weight = steps.taps_of(block.conv2.conv.weight)
    kernel = torch.einsum("kio,i->ko", weight, scale * factor)
    y = Measured(*steps.Stem.apply(x, kernel, torch.einsum("kio,i->ko", weight, scale * offset + shift), dtype))
    folded, taps = _folded(block.conv3, y)
    return _convolve_and_finish(y.values, folded, _with_bias(taps, offset), rank_one=(x, factor)).values


def _widening_block(block: Any, pooled: torch.Tensor) -> torch.Tensor:
    """An encoder's block that first takes the feature maps, or several input channels, to their number."""
    taps = torch.zeros(27, block.conv2.conv.in_channels, device=pooled.device)
    if not isinstance(block.conv1, nn.Identity):
        taps = _with_bias(taps, block.conv1.bias)
        pooled = functional.linear(pooled, block.conv1.weight.flatten(1).to(pooled.dtype))
    return _residual_block(block, Measured(*steps.Finish.apply(pooled, taps, None, None, None, False)))


def _project(final: Any, y: torch.Tensor) -> torch.Tensor:
    """The last 1x1x1 convolution, `(channels, D, H, W)` float32."""
    weight = final.weight.flatten(1)
    if len(weight) <= PROJECTED_CHANNELS:
        return torch.stack(
            [steps.Project.apply(y, *of_one) for of_one in zip(weight, final.bias.split(1), strict=True)]
        )
    projected = functional.linear(y, weight.to(y.dtype)).float() + final.bias
    return projected.permute(3, 0, 1, 2).contiguous()


def _decode(decoder: Any, skip: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """A decoder: the lower level stretched, plus the skip, through a residual block."""
    transposed = decoder.upsampling.upsample.conv_transposed
    flat = transposed.weight.ndim == 4
    stretch = functional.conv_transpose2d if flat else functional.conv_transpose3d
    weight = transposed.weight.to(low.dtype, memory_format=torch.channels_last if flat else torch.channels_last_3d)
    stretched = stretch(steps.channels_first(low, flat), weight, None, 2, 1, transposed.output_padding)
    return _residual_block(decoder.basic_module, Measured(*steps.Join.apply(skip, steps.channels_last(stretched))))


def _residual_block(block: Any, x: Measured) -> torch.Tensor:
    """relu(conv(norm(relu(conv(norm(x))))) + x)."""
    y = _convolve_and_finish(x.values, *_folded(block.conv2, x))
    return _convolve_and_finish(y.values, *_folded(block.conv3, y), residual=x.values).values


def _folded(layer: Any, x: Measured) -> tuple[torch.Tensor, torch.Tensor]:
    """A norm and the convolution after it as one `(27, C, C)`, and the shift's part of each tap `(27, C)`."""
    norm, means = layer.groupnorm, x.sums / x.values[..., 0].numel()
    fold = compile_for_training(_fold) if means.is_cuda and torch.is_grad_enabled() else _fold
    return fold(layer.conv.weight, norm.weight, norm.bias, means, norm.num_groups, norm.eps)


def _fold(
    weight: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, means: torch.Tensor, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The convolution of weights `weight` after a norm, from the channels' means and mean squares `(2, C)`."""
    scale, shift = _affine(gain, bias, means, groups, eps)
    taps = steps.taps_of(weight)
    return taps * scale[:, None], (taps * shift[:, None]).sum(1)


def _affine(
    gain: torch.Tensor, bias: torch.Tensor, means: torch.Tensor, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and shift of each channel by GroupNorm, from the channels' means and mean squares `(2, C)`."""
    size = len(gain) // groups
    mean, square = means.view(2, groups, size).mean(2)
    rate = torch.rsqrt((square - mean.square()).clamp(min=0) + eps)
    scale = gain * rate.repeat_interleave(size)
    return scale, bias - scale * mean.repeat_interleave(size)


def _with_bias(taps: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The taps' parts with a bias, which the middle tap, never outside, adds everywhere."""
    return torch.cat([taps[:13], taps[13:14] + bias, taps[14:]])


def _convolve_and_finish(
    x: torch.Tensor,
    weight: torch.Tensor,
    taps: torch.Tensor,
    residual: torch.Tensor | None = None,
    rank_one: tuple[torch.Tensor, torch.Tensor] = (None, None),  # type: ignore[assignment]
) -> Measured:
    """relu(conv(x) + what the taps add + residual), with its sums."""
    weight = weight.to(x.dtype)
    if x.shape[3] in CONVOLVED_CHANNELS and _has_tensor_memory(x.device):
        return Measured(*steps.Convolve.apply(x, weight, taps, residual, *rank_one))
    flat = len(x) == 1
    convolve = functional.conv2d if flat else functional.conv3d
    convolved = steps.channels_last(convolve(steps.channels_first(x, flat), steps.kernel_of(weight, flat), padding=1))
    return Measured(*steps.Finish.apply(convolved, taps, residual, *rank_one, True))


def _has_tensor_memory(device: torch.device) -> bool:
    """Whether the GPU loads boxes of tensors by itself, as Hopper and later do."""
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= (9, 0)
