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
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from triton.tools.tensor_descriptor import TensorDescriptor

from deflare_core import folded_kernels as kernels

STEM_PROGRAMS = 1056
"""Programs that share the gradient of the first convolution: eight for each of an H100's multiprocessors."""
CONVOLVE_ROWS, CONVOLVE_LINES = 64, 20
WEIGHT_GRADIENT_CHANNELS = 32
"""Of these, the weight gradient is taken by `weight_gradient_kernel`."""
WEIGHT_GRADIENT_ROWS, WEIGHT_GRADIENT_LINES = 64, 48
CONVOLVED_CHANNELS = (16, 32)
"""Feature maps of so many channels are convolved by `convolve_kernel`; cuDNN is faster for more."""


class Measured(NamedTuple):
    """A feature map `(D, H, W, C)` and its channels' sums and sums of squares `(2, C)`."""

    values: torch.Tensor
    sums: torch.Tensor


def run_folded(backbone: nn.Module, voxel: torch.Tensor, dtype: torch.dtype, recompute: bool = False) -> torch.Tensor:
    """The output of a `ResidualUNet3D` for a voxel `(N, C, bins, H, W)` of whole pooling cells, float32.

    Parameters
    ----------
    backbone : the network, of layer order "gcr".
    voxel : float32, on a GPU.
    dtype : of feature maps and products, float16 or bfloat16.
    recompute : keep only each level's result for the backward pass.
    """
    return torch.stack([_run_sample(backbone, sample.contiguous(), dtype, recompute) for sample in voxel])


def _run_sample(backbone: Any, x: torch.Tensor, dtype: torch.dtype, recompute: bool) -> torch.Tensor:
    def run(level: Any, *inputs: Any) -> Any:
        return (
            checkpoint(level, *inputs, use_reentrant=False, preserve_rng_state=False) if recompute else level(*inputs)
        )

    first = backbone.encoders[0].basic_module
    if len(x) == 1:
        y = run(lambda x: _first_block(first, x, dtype), x[0])
    else:
        y = run(lambda x: _widening_block(first, x), _channels_last(x[None]).to(dtype))
    skips = []
    for encoder in backbone.encoders[1:]:
        skip, pooled = Split.apply(y)
        skips.append(skip)
        y = run(lambda pooled, block=encoder.basic_module: _widening_block(block, pooled), pooled)
    for decoder, skip in zip(backbone.decoders, reversed(skips), strict=True):
        y = run(lambda skip, y, decoder=decoder: _decode(decoder, skip, y), skip, y)
    final = backbone.final_conv
    rows = zip(final.weight.flatten(1), final.bias.split(1), strict=True)
    return torch.stack([Project.apply(y, weight, bias) for weight, bias in rows])


def _first_block(block: Any, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The first encoder's block, whose input has one channel."""
    factor, offset = block.conv1.weight.reshape(-1), block.conv1.bias
    sum_x, sum_xx, count = x.sum(), x.square().sum(), x.numel()
    total = factor * sum_x + offset * count
    squares = factor.square() * sum_xx + 2 * factor * offset * sum_x + offset.square() * count
    scale, shift = _affine(block.conv2.groupnorm, torch.stack([total, squares]), count)
    weight = _taps(block.conv2.conv.weight)
    kernel = torch.einsum("kio,i->ko", weight, scale * factor)
    y = Measured(*Stem.apply(x, kernel, torch.einsum("kio,i->ko", weight, scale * offset + shift), dtype))
    folded, taps = _folded(block.conv3, y)
    return _convolve_and_finish(y.values, folded, _with_bias(taps, offset), rank_one=(x, factor)).values


def _widening_block(block: Any, pooled: torch.Tensor) -> torch.Tensor:
    """An encoder's block that first takes the feature maps, or several input channels, to their number."""
    weight = block.conv1.weight.flatten(1).to(pooled.dtype)
    taps = _with_bias(torch.zeros(27, len(weight), device=pooled.device), block.conv1.bias)
    return _residual_block(
        block, Measured(*Finish.apply(functional.linear(pooled, weight), taps, None, None, None, False))
    )


def _decode(decoder: Any, skip: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """A decoder: the lower level stretched, plus the skip, through a residual block."""
    weight = decoder.upsampling.upsample.conv_transposed.weight.to(low.dtype, memory_format=torch.channels_last_3d)
    stretched = functional.conv_transpose3d(_channels_first(low), weight, stride=2, padding=1)
    return _residual_block(decoder.basic_module, Measured(*Join.apply(skip, _channels_last(stretched))))


def _residual_block(block: Any, x: Measured) -> torch.Tensor:
    """relu(conv(norm(relu(conv(norm(x))))) + x)."""
    y = _convolve_and_finish(x.values, *_folded(block.conv2, x))
    return _convolve_and_finish(y.values, *_folded(block.conv3, y), residual=x.values).values


def _folded(layer: Any, x: Measured) -> tuple[torch.Tensor, torch.Tensor]:
    """A norm and the convolution after it as one `(27, C, C)`, and the shift's part of each tap `(27, C)`."""
    scale, shift = _affine(layer.groupnorm, x.sums, x.values[..., 0].numel())
    weight = _taps(layer.conv.weight)
    return weight * scale[:, None], torch.einsum("kio,i->ko", weight, shift)


def _affine(norm: nn.GroupNorm, sums: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and shift of each channel by GroupNorm, from the channels' sums over `count` cells."""
    groups, size = norm.num_groups, norm.num_channels // norm.num_groups
    mean, square = sums.reshape(2, groups, size).sum(2) / (count * size)
    rate = torch.rsqrt((square - mean.square()).clamp(min=0) + norm.eps)
    scale = norm.weight * rate.repeat_interleave(size)
    return scale, norm.bias - scale * mean.repeat_interleave(size)


def _taps(weight: torch.Tensor) -> torch.Tensor:
    """A kernel `(O, I, 3, 3, 3)` as `(27, I, O)`."""
    return weight.flatten(2).permute(2, 1, 0)


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
        return Measured(*Convolve.apply(x, weight, taps, residual, *rank_one))
    size = x.shape[3]
    kernel = weight.permute(2, 1, 0).reshape(size, size, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d)
    convolved = _channels_last(functional.conv3d(_channels_first(x), kernel, padding=1))
    return Measured(*Finish.apply(convolved, taps, residual, *rank_one, True))


def _channels_first(x: torch.Tensor) -> torch.Tensor:
    """A view as torch's convolutions take it: `(1, C, D, H, W)`, channels last in memory."""
    return x[None].permute(0, 4, 1, 2, 3)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.squeeze(0).permute(1, 2, 3, 0).contiguous()


def _has_tensor_memory(device: torch.device) -> bool:
    """Whether the GPU loads boxes of tensors by itself, as Hopper and later do."""
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= (9, 0)


class Stem(Function):
    """relu(a 3x3x3 convolution of one channel + what the taps add) and its sums."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: torch.Tensor, taps: torch.Tensor, dtype: torch.dtype) -> Any:
        (depth, height, width), channels = x.shape, kernel.shape[1]
        y = torch.empty((*x.shape, channels), dtype=dtype, device=x.device)
        partial = kernels.partial_sums(depth * height, channels, x.device)
        tensors = (x, kernel.contiguous(), _table(taps), y, partial)
        kernels.launch(kernels.stem_kernel, depth * height, channels, width, *tensors, *x.shape)
        ctx.save_for_backward(x, y)
        return y, kernels.summed(partial)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: torch.Tensor, gsums: torch.Tensor) -> Any:
        x, y = ctx.saved_tensors
        (depth, height, width), channels = x.shape, y.shape[3]
        lines = torch.empty((depth, height, channels), device=x.device)
        programs = min(STEM_PROGRAMS, depth * height)
        gkernel = torch.empty((programs, 32, channels), device=x.device)
        tensors = (gy.contiguous(), y, gsums.contiguous(), x, gkernel, lines)
        sizes, rows = (*x.shape, depth * height), min(kernels.rows_for(channels, width), 64)
        kernels.launch(kernels.stem_backward_kernel, programs, channels, width, *tensors, *sizes, ROWS=rows)
        first, last = (_masked_slope(gy[:, :, i], y[:, :, i], gsums) for i in (0, -1))
        return None, kernels.summed(gkernel)[:27], _taps_gradient(lines, first, last), None


class Finish(Function):
    """y = relu(c + what the taps add + residual) and its sums; the residual is a map, or x times a factor, or none."""

    @staticmethod
    def forward(ctx: Any, c: torch.Tensor, taps: torch.Tensor, residual: Any, x: Any, factor: Any, relu: bool) -> Any:
        depth, height, width, channels = c.shape
        partial = kernels.partial_sums(depth * height, channels, c.device)
        y = torch.empty_like(c)
        tensors = (c, _table(taps), residual, x, factor, y, partial)
        flags = {"RESIDUAL": residual is not None, "RANK_ONE": x is not None, "RELU": relu}
        kernels.launch(kernels.finish_kernel, depth * height, channels, width, *tensors, depth, height, width, **flags)
        ctx.save_for_backward(y, x)
        ctx.relu, ctx.has_residual = relu, residual is not None
        return y, kernels.summed(partial)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: torch.Tensor, gsums: torch.Tensor) -> Any:
        y, x = ctx.saved_tensors
        g, gtaps, gfactor = _finish_backward(gy, gsums, y, x, ctx.relu)
        return g, gtaps, g if ctx.has_residual else None, None, gfactor, None


class Convolve(Function):
    """relu(a 3x3x3 convolution + what the taps add + residual) and its sums, in one kernel; see `Finish`."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, taps: torch.Tensor, residual: Any, x0: Any, factor: Any
    ) -> Any:
        weight = weight.contiguous()
        y, partial = _convolve(x, weight, _table(taps), residual, x0, factor)
        ctx.save_for_backward(x, weight, y, x0)
        ctx.has_residual = residual is not None
        return y, kernels.summed(partial)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: torch.Tensor, gsums: torch.Tensor) -> Any:
        x, weight, y, x0 = ctx.saved_tensors
        g, gtaps, gfactor = _finish_backward(gy, gsums, y, x0, relu=True)
        gx, _ = _convolve(g, weight.flip(0).transpose(1, 2).contiguous())
        return gx, _weight_gradient(x, g), gtaps, g if ctx.has_residual else None, None, gfactor


class Join(Function):
    """skip + low, stretched by its first cell along each axis as nearest neighbour does, and the sums."""

    @staticmethod
    def forward(ctx: Any, skip: torch.Tensor, low: torch.Tensor) -> Any:
        depth, height, width, channels = skip.shape
        y = torch.empty_like(skip)
        partial = kernels.partial_sums(depth * height, channels, skip.device)
        tensors = (skip, low, y, partial)
        kernels.launch(kernels.join_kernel, depth * height, channels, width, *tensors, depth, height, width)
        ctx.save_for_backward(y)
        return y, kernels.summed(partial)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: torch.Tensor, gsums: torch.Tensor) -> Any:
        (y,) = ctx.saved_tensors
        depth, height, width, channels = y.shape
        g, _ = _masked(gy, gsums, y, None, relu=False)
        glow = torch.empty((depth - 1, height - 1, width - 1, channels), dtype=g.dtype, device=g.device)
        lines = (depth - 1) * (height - 1)
        kernels.launch(kernels.join_backward_kernel, lines, channels, width, g, glow, depth, height, width)
        return g, glow


class Split(Function):
    """A feature map for the skip, and the largest of each 2x2x2 of its cells."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor) -> Any:
        depth, height, width, channels = (*(n // 2 for n in y.shape[:3]), y.shape[3])
        pooled = torch.empty((depth, height, width, channels), dtype=y.dtype, device=y.device)
        kernels.launch(kernels.pool_kernel, depth * height, channels, width, y, pooled, height, width)
        ctx.save_for_backward(y, pooled)
        return y.view_as(y), pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gskip: torch.Tensor, gpooled: torch.Tensor) -> Any:
        y, pooled = ctx.saved_tensors
        depth, height, width, channels = pooled.shape
        g = torch.empty_like(y)
        tensors = (y, pooled, gskip.contiguous(), gpooled.contiguous(), g)
        kernels.launch(kernels.pool_backward_kernel, depth * height, channels, width, *tensors, height, width)
        return g


class Project(Function):
    """The weighted sum of the channels plus a bias, `(D, H, W)` float32."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        depth, height, width, channels = y.shape
        out = torch.empty((depth, height, width), device=y.device)
        block, rows = kernels.block_of(channels), kernels.rows_for(channels, width)
        kernels.project_kernel[(depth * height,)](y, weight, bias, out, width, C=channels, CB=block, ROWS=rows)
        ctx.save_for_backward(y, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gout: torch.Tensor) -> Any:
        y, weight = ctx.saved_tensors
        depth, height, width, channels = y.shape
        gy = torch.empty_like(y)
        partial = kernels.partial_sums(depth * height, channels, y.device)
        tensors = (gout.contiguous(), y, weight, gy, partial)
        kernels.launch(kernels.project_backward_kernel, depth * height, channels, width, *tensors, width)
        gweight, gbias = kernels.summed(partial)
        return gy, gweight, gbias[:1]


def _convolve(
    x: torch.Tensor, weight: torch.Tensor, table: Any = None, residual: Any = None, x0: Any = None, factor: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A convolution with weights `(27, I, O)`, with the epilogue if there is a table, and partial sums."""
    depth, height, width, channels = x.shape
    grid = (-(-width // CONVOLVE_ROWS), -(-height // CONVOLVE_LINES), depth)
    y = torch.empty((depth, height, width, weight.shape[2]), dtype=x.dtype, device=x.device)
    partial = kernels.partial_sums(math.prod(grid), weight.shape[2], x.device)
    boxes = TensorDescriptor.from_tensor(x, [1, 1, CONVOLVE_ROWS, channels])
    tensors = (boxes, weight, table, residual, x0, factor, y, partial)
    sizes = {"CI": channels, "CO": weight.shape[2], "ROWS": CONVOLVE_ROWS, "LINES": CONVOLVE_LINES}
    flags = {"RESIDUAL": residual is not None, "RANK_ONE": x0 is not None, "EPILOGUE": table is not None}
    kernels.convolve_kernel[grid](*tensors, depth, height, width, **sizes, **flags, num_warps=4, num_stages=3)
    return y, partial


def _weight_gradient(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """The gradient `(27, I, O)` of a convolution's weights."""
    if x.shape[3] == WEIGHT_GRADIENT_CHANNELS:
        return _weight_gradient_of_32(x, g)
    size = (g.shape[3], x.shape[3], 3, 3, 3)
    weight = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    ones, zeros = [1, 1, 1], [0, 0, 0]
    found = torch.ops.aten.convolution_backward(
        _channels_first(g), _channels_first(x), weight, None, ones, ones, ones, False, zeros, 1, [False, True, False]
    )
    return _taps(found[1])


def _weight_gradient_of_32(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    depth, height, width, channels = x.shape
    stretches = -(-height // WEIGHT_GRADIENT_LINES)
    partial = torch.empty((depth * stretches, 3, 3, 4 * channels, channels), device=x.device)
    sizes = {"C": channels, "ROWS": WEIGHT_GRADIENT_ROWS, "LINES": WEIGHT_GRADIENT_LINES}
    kernels.weight_gradient_kernel[(3, stretches, depth)](
        x, g, partial, depth, height, width, **sizes, num_warps=8, num_stages=3
    )
    taps = kernels.summed(partial).view(3, 3, 4, channels, channels)
    return taps[:, :, :3].reshape(27, channels, channels)


def _finish_backward(
    gy: torch.Tensor, gsums: torch.Tensor, y: torch.Tensor, x: torch.Tensor | None, relu: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The gradients of what was added up, of the taps' parts, and of the factor of x if there is one."""
    g, partial = _masked(gy, gsums, y, x, relu)
    lines = partial[:, 0].view(*y.shape[:2], -1)
    gfactor = None if x is None else kernels.summed(partial)[1]
    return g, _taps_gradient(lines, g[:, :, 0].float(), g[:, :, -1].float()), gfactor


def _masked(
    gy: torch.Tensor, gsums: torch.Tensor, y: torch.Tensor, x: torch.Tensor | None, relu: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient through sums and relu, and for each line its sum and its sum times x."""
    depth, height, width, channels = y.shape
    g = torch.empty_like(y)
    partial = kernels.partial_sums(depth * height, channels, y.device)
    tensors, flags = (gy.contiguous(), y, gsums.contiguous(), x, g, partial), {"RANK_ONE": x is not None, "RELU": relu}
    kernels.launch(kernels.finish_backward_kernel, depth * height, channels, width, *tensors, width, **flags)
    return g, partial


def _masked_slope(gy: torch.Tensor, y: torch.Tensor, gsums: torch.Tensor) -> torch.Tensor:
    """The gradient through sums and relu of a few pixels, in float32."""
    return torch.where(y > 0, gy.float() + gsums[0] + 2 * y.float() * gsums[1], 0.0)


def _table(taps: torch.Tensor) -> torch.Tensor:
    """What the taps add by the borders that a pixel touches: `(64, C)`, see `folded_kernels`."""
    return _matrix("borders", taps.device) @ taps


def _taps_gradient(lines: torch.Tensor, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The gradient of the taps' parts: sums of g over the pixels where a tap is not outside.

    Parameters
    ----------
    lines, first, last : `(D, H, C)`, sums of g over W, and g at the first and the last pixel of each line.
    """
    along_w = torch.stack([lines, first, last])
    along_h = torch.stack([along_w.sum(2), along_w[:, :, 0], along_w[:, :, -1]])
    sums = torch.stack([along_h.sum(2), along_h[:, :, 0], along_h[:, :, -1]])
    return _matrix("taps", lines.device) @ sums.flatten(0, 2)


_matrices: dict[tuple[str, torch.device], torch.Tensor] = {}


def _matrix(name: str, device: torch.device) -> torch.Tensor:
    """Constants, made once for each device: which taps lie inside at which border, and sums over these pixels."""
    if (name, device) not in _matrices:
        rows = {
            "borders": [[1.0, 1, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0]],  # inside, first, last, both; taps -1, 0, 1
            "taps": [[1.0, -1, 0], [1, 0, 0], [1, 0, -1]],  # taps; sums over all, the first, the last
        }[name]
        along = torch.tensor(rows)
        _matrices[name, device] = torch.kron(torch.kron(along, along), along).to(device)
    return _matrices[name, device]
