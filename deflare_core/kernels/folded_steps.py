"""The steps of `folded_unet.py` as functions that autograd knows: kernels forwards, kernels backwards.

Each takes and gives feature maps `(D, H, W, C)`, contiguous, in float16 or bfloat16 (float32 in the interpreter), and
the float32 sums `(2, C)` of what it gives: over all pixels, of values and of squares. The sums are outputs like any
other, so a gradient `gsums` comes back for them, and y's whole gradient is gy + gsums[0] + 2 y gsums[1].
Taps are float32 `(27, C)`: what the norm's shift adds through each of the 27 taps, along D, H and W from -1 to 1.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional
from triton.tools.tensor_descriptor import TensorDescriptor

from deflare_core.kernels import folded_triton as kernels

STEM_PROGRAMS = 1056
"""Programs that share the gradient of the first convolution: eight for each of an H100's multiprocessors."""
CONVOLVE_ROWS, CONVOLVE_LINES, CONVOLVE_LINES_OF_ONE = 64, 20, 8
"""Pixels and lines that a program convolves; fewer lines of a single plane, so that there are programs enough."""
WEIGHT_GRADIENT_CHANNELS = 32
"""Of these, the weight gradient is taken by `weight_gradient_kernel`."""
WEIGHT_GRADIENT_ROWS, WEIGHT_GRADIENT_LINES, WEIGHT_GRADIENT_LINES_OF_ONE = 64, 48, 4


def taps_of(weight: torch.Tensor) -> torch.Tensor:
    """A kernel `(O, I, 3, 3, 3)`, or `(O, I, 3, 3)` of a single plane, as `(27, I, O)`."""
    whole = weight if weight.ndim == 5 else functional.pad(weight[:, :, None], (0, 0, 0, 0, 1, 1))
    return whole.flatten(2).permute(2, 1, 0)


def kernel_of(taps: torch.Tensor, flat: bool) -> torch.Tensor:
    """The kernel `(O, I, 3, 3, 3)` of taps `(27, I, O)`, or its middle `(O, I, 3, 3)`, channels last in memory."""
    whole = taps.permute(2, 1, 0).unflatten(2, (3, 3, 3))
    if flat:
        return whole[:, :, 1].contiguous(memory_format=torch.channels_last)
    return whole.contiguous(memory_format=torch.channels_last_3d)


def channels_first(x: torch.Tensor, flat: bool) -> torch.Tensor:
    """A view as torch's convolutions take it, channels last in memory: `(1, C, D, H, W)`, or `(1, C, H, W)` if flat."""
    return x.permute(0, 3, 1, 2) if flat else x[None].permute(0, 4, 1, 2, 3)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """The feature map `(D, H, W, C)` of `(1, C, D, H, W)` or `(1, C, H, W)`."""
    return x.permute(0, 2, 3, 1).contiguous() if x.ndim == 4 else x.squeeze(0).permute(1, 2, 3, 0).contiguous()


class Stem(Function):
    """relu(a 3x3x3 convolution of one channel + what the taps add) and its sums."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: torch.Tensor, taps: torch.Tensor, dtype: torch.dtype) -> Any:
        y = torch.empty((*x.shape, kernel.shape[1]), dtype=dtype, device=x.device)
        partial = kernels.partial_sums(y)
        kernels.launch(kernels.stem_kernel, y, x, kernel.contiguous(), _table(taps), y, partial, *x.shape)
        ctx.save_for_backward(x, y)
        return y, kernels.sum_partials(partial)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: torch.Tensor, gsums: torch.Tensor) -> Any:
        x, y = ctx.saved_tensors
        depth, height, _, channels = y.shape
        lines = torch.empty((depth, height, channels), device=x.device)
        programs, tile = min(STEM_PROGRAMS, depth * height), kernels.tile_of(y)
        gkernel = torch.empty((programs, 32, channels), device=x.device)
        tensors = (gy.contiguous(), y, gsums.contiguous(), x, gkernel, lines)
        kernels.stem_backward_kernel[(programs, channels // tile["CB"])](
            *tensors, *x.shape, depth * height, **tile | {"ROWS": min(tile["ROWS"], 64)}
        )
        first, last = (_masked_slope(gy[:, :, i], y[:, :, i], gsums) for i in (0, -1))
        return None, kernels.sum_partials(gkernel)[:27], _taps_gradient(lines, first, last), None


class Finish(Function):
    """y = relu(c + what the taps add + residual) and its sums; the residual is a map, or x times a factor, or none."""

    @staticmethod
    def forward(ctx: Any, c: torch.Tensor, taps: torch.Tensor, residual: Any, x: Any, factor: Any, relu: bool) -> Any:
        y, partial = torch.empty_like(c), kernels.partial_sums(c)
        tensors = (c, _table(taps), residual, x, factor, y, partial)
        kernels.launch(kernels.finish_kernel, y, *tensors, *y.shape[:3], RELU=relu)
        ctx.save_for_backward(y, x)
        ctx.relu = relu
        return y, kernels.sum_partials(partial)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: torch.Tensor, gsums: torch.Tensor) -> Any:
        y, x = ctx.saved_tensors
        g, gtaps, gfactor = _finish_backward(gy, gsums, y, x, ctx.relu)
        return g, gtaps, g if ctx.needs_input_grad[2] else None, None, gfactor, None


class Convolve(Function):
    """relu(a 3x3x3 convolution + what the taps add + residual) and its sums, in one kernel; see `Finish`."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, taps: torch.Tensor, residual: Any, x0: Any, factor: Any
    ) -> Any:
        weight = weight.contiguous()
        y, partial = _convolve(x, weight, _table(taps), residual, x0, factor)
        ctx.save_for_backward(x, weight, y, x0)
        return y, kernels.sum_partials(partial)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: torch.Tensor, gsums: torch.Tensor) -> Any:
        x, weight, y, x0 = ctx.saved_tensors
        g, gtaps, gfactor = _finish_backward(gy, gsums, y, x0, relu=True)
        gx, _ = _convolve(g, weight.flip(0).transpose(1, 2).contiguous())
        return gx, _weight_gradient(x, g), gtaps, g if ctx.needs_input_grad[3] else None, None, gfactor


class Join(Function):
    """skip + low and the sums; a smaller low is stretched by its first cell along each axis: nearest neighbour."""

    @staticmethod
    def forward(ctx: Any, skip: torch.Tensor, low: torch.Tensor) -> Any:
        y, partial = torch.empty_like(skip), kernels.partial_sums(skip)
        less = int(low.shape != skip.shape)
        kernels.launch(kernels.join_kernel, y, skip, low, y, partial, *y.shape[1:3], LESS=less)
        ctx.save_for_backward(y)
        ctx.low_shape = low.shape
        return y, kernels.sum_partials(partial)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: torch.Tensor, gsums: torch.Tensor) -> Any:
        (y,) = ctx.saved_tensors
        g, _ = _masked(gy, gsums, y, None, relu=False)
        if ctx.low_shape == y.shape:
            return g, g
        glow = torch.empty(ctx.low_shape, dtype=g.dtype, device=g.device)
        kernels.launch(kernels.join_backward_kernel, glow, g, glow, *y.shape[1:3], FLAT=int(len(y) == 1))
        return g, glow


class Split(Function):
    """A feature map for the skip, and the largest of each 2x2x2 of its cells, or of each 2x2 of a single plane."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor) -> Any:
        depth, height, width, channels = y.shape
        pooled = y.new_empty((max(depth // 2, 1), height // 2, width // 2, channels))
        ctx.corners = 4 if depth == 1 else 8
        kernels.launch(kernels.pool_kernel, pooled, y, pooled, *pooled.shape[1:3], CORNERS=ctx.corners)
        ctx.save_for_backward(y, pooled)
        return y.view_as(y), pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gskip: torch.Tensor, gpooled: torch.Tensor) -> Any:
        y, pooled = ctx.saved_tensors
        g = torch.empty_like(y)
        tensors = (y, pooled, gskip.contiguous(), gpooled.contiguous(), g)
        kernels.launch(kernels.pool_backward_kernel, pooled, *tensors, *pooled.shape[1:3], CORNERS=ctx.corners)
        return g


class Project(Function):
    """The weighted sum of the channels plus a bias, `(D, H, W)` float32."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        out = torch.empty(y.shape[:3], device=y.device)
        kernels.project_kernel[(y.shape[0] * y.shape[1],)](y, weight, bias, out, y.shape[2], **kernels.tile_of(y))
        ctx.save_for_backward(y, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gout: torch.Tensor) -> Any:
        y, weight = ctx.saved_tensors
        gy, partial = torch.empty_like(y), kernels.partial_sums(y)
        kernels.launch(kernels.project_backward_kernel, y, gout.contiguous(), y, weight, gy, partial, y.shape[2])
        gweight, gbias = kernels.sum_partials(partial)
        return gy, gweight, gbias[:1]


def _convolve(
    x: torch.Tensor, weight: torch.Tensor, table: Any = None, residual: Any = None, x0: Any = None, factor: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A convolution with weights `(27, I, O)`, with the epilogue if there is a table, and partial sums."""
    depth, height, width, channels = x.shape
    lines = CONVOLVE_LINES_OF_ONE if depth == 1 else CONVOLVE_LINES
    grid = (-(-width // CONVOLVE_ROWS), -(-height // lines), depth)
    y = torch.empty((depth, height, width, weight.shape[2]), dtype=x.dtype, device=x.device)
    partial = torch.empty((math.prod(grid), 2, weight.shape[2]), device=x.device)
    boxes = TensorDescriptor.from_tensor(x, [1, 1, CONVOLVE_ROWS, channels])
    tensors = (boxes, weight, table, residual, x0, factor, y, partial)
    sizes = {"CI": channels, "CO": weight.shape[2], "ROWS": CONVOLVE_ROWS, "LINES": lines, "PLANES": _planes(x)}
    kernels.convolve_kernel[grid](*tensors, depth, height, width, **sizes, num_warps=4, num_stages=3)
    return y, partial


def _weight_gradient(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """The gradient `(27, I, O)` of a convolution's weights."""
    if x.shape[3] == WEIGHT_GRADIENT_CHANNELS:
        return _weight_gradient_of_32(x, g)
    flat = len(x) == 1
    weight = kernel_of(torch.empty((27, x.shape[3], g.shape[3]), dtype=x.dtype, device=x.device), flat)
    ones, zeros = [1] * (weight.ndim - 2), [0] * (weight.ndim - 2)
    maps = (channels_first(g, flat), channels_first(x, flat))
    found = torch.ops.aten.convolution_backward(
        *maps, weight, None, ones, ones, ones, False, zeros, 1, [False, True, False]
    )
    return taps_of(found[1])


def _weight_gradient_of_32(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    depth, height, width, channels = x.shape
    lines, planes = WEIGHT_GRADIENT_LINES_OF_ONE if depth == 1 else WEIGHT_GRADIENT_LINES, _planes(x)
    stretches = -(-height // lines)
    partial = torch.empty((depth * stretches, planes, 3, 4 * channels, channels), device=x.device)
    sizes = {"C": channels, "ROWS": WEIGHT_GRADIENT_ROWS, "LINES": lines, "PLANES": planes}
    kernels.weight_gradient_kernel[(planes, stretches, depth)](
        x, g, partial, depth, height, width, **sizes, num_warps=8, num_stages=3
    )
    taps = kernels.sum_partials(partial).view(planes, 3, 4, channels, channels)[:, :, :3]
    margin = (3 - planes) // 2
    return functional.pad(taps.reshape(planes * 9, channels, channels), (0, 0, 0, 0, 9 * margin, 9 * margin))


def _planes(x: torch.Tensor) -> int:
    """Planes of a 3x3x3 kernel that meet a feature map: the middle one, if that has a single plane."""
    return 1 if len(x) == 1 else 3


def _finish_backward(
    gy: torch.Tensor, gsums: torch.Tensor, y: torch.Tensor, x: torch.Tensor | None, relu: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The gradients of what was added up, of the taps' parts, and of the factor of x if there is one."""
    g, partial = _masked(gy, gsums, y, x, relu)
    lines = partial[:, 0].view(*y.shape[:2], -1)
    gfactor = None if x is None else kernels.sum_partials(partial)[1]
    return g, _taps_gradient(lines, g[:, :, 0].float(), g[:, :, -1].float()), gfactor


def _masked(
    gy: torch.Tensor, gsums: torch.Tensor, y: torch.Tensor, x: torch.Tensor | None, relu: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient through sums and relu, and for each line its sum and its sum times x."""
    g, partial = torch.empty_like(y), kernels.partial_sums(y)
    tensors = (gy.contiguous(), y, gsums.contiguous(), x, g, partial)
    kernels.launch(kernels.finish_backward_kernel, y, *tensors, y.shape[2], RELU=relu)
    return g, partial


def _masked_slope(gy: torch.Tensor, y: torch.Tensor, gsums: torch.Tensor) -> torch.Tensor:
    """The gradient through sums and relu of a few pixels, in float32."""
    return torch.where(y > 0, gy.float() + gsums[0] + 2 * y.float() * gsums[1], 0.0)


def _table(taps: torch.Tensor) -> torch.Tensor:
    """What the taps add by the borders that a pixel touches: float32 `(64, C)` of `(27, C)`, see `folded_triton`."""
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


@functools.cache
def _matrix(name: str, device: torch.device) -> torch.Tensor:
    """A constant matrix, float32 `(64, 27)` or `(27, 27)`, made once for each device.

    Along one axis, "borders" says for each case of a pixel which of the taps -1, 0, 1 fall inside: at the first pixel
    tap -1 falls outside. "taps" says over which pixels a tap's gradient is summed, from three sums, over all pixels, of
    the first and of the last: tap -1 counts all but the first. The three axes are independent, so the whole matrix is
    the Kronecker product of three such ones, D slowest and W fastest.
    """
    rows = {
        "borders": [[1.0, 1, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0]],  # inside, first, last, both; taps -1, 0, 1
        "taps": [[1.0, -1, 0], [1, 0, 0], [1, 0, -1]],  # taps; sums over all, the first, the last
    }
    along = torch.tensor(rows[name])
    return torch.kron(torch.kron(along, along), along).to(device)
