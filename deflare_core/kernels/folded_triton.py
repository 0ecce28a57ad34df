# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
"""GPU kernels (Triton) of the folded network: everything in it that cuDNN does not do.

Feature maps are contiguous `(D, H, W, C)`, those of a 2-D network of a single plane. A *line* is the `W` pixels of one
depth and row. What a 3x3x3 convolution's zero padding adds where the folded shift is missing depends only on which
borders a pixel touches: `table` holds, for each of 4 x 4 x 4 cases (0 inside, 1 first, 2 last, 3 both, along D, H and
W), what is added to every channel.
Sums over pixels leave each program as partial sums, so that they come out the same every time.
"""

import torch
import triton
import triton.language as tl
from triton.language import constexpr

VALUES_AT_ONCE = 4096
"""Values that a program holds of a line at once: pixels times channels."""


@triton.jit
def border(i, size):
    """0 inside, 1 at the first, 2 at the last, 3 where an axis has one cell only."""
    return (i == 0).to(tl.int32) + 2 * (i == size - 1).to(tl.int32)


@triton.jit
def saturate(y):
    """The values within what float16 holds: one hot pixel must not make the whole network infinite."""
    return tl.minimum(tl.maximum(y, -65504.0), 65504.0)


@triton.jit
def add_partial(values, squares, sums_ptr, program, channels, C: constexpr):
    """Write a program's sums of values and of squares."""
    tl.store(sums_ptr + program * 2 * C + channels, values)
    tl.store(sums_ptr + (program * 2 + 1) * C + channels, squares)


@triton.jit
def place_program(CB: constexpr):
    """The line and the block of channels that a program works on."""
    return tl.program_id(0).to(tl.int64), tl.program_id(1) * CB + tl.arange(0, CB)


@triton.jit
def find_pixels(line, first, W, channel, C: constexpr, ROWS: constexpr):
    """ROWS pixels of a line from `first` on, whether each is inside it, and where their channels are in a map."""
    w = first + tl.arange(0, ROWS)
    return w, (w < W)[:, None], (line * W + w)[:, None] * C + channel[None, :]


@triton.jit
def finish_kernel(
    c_ptr,
    table_ptr,
    residual_ptr,
    x_ptr,
    factor_ptr,
    y_ptr,
    sums_ptr,
    D,
    H,
    W,
    C: constexpr,
    CB: constexpr,
    ROWS: constexpr,
    RELU: constexpr,
):
    """One line of y = relu(c + table + residual), with its sums."""
    line, channel = place_program(CB)
    code = border(line // H, D) * 16 + border(line % H, H) * 4
    total = tl.zeros((ROWS, CB), tl.float32)
    squares = tl.zeros((ROWS, CB), tl.float32)
    for first in range(0, W, ROWS):
        w, inside, at = find_pixels(line, first, W, channel, C, ROWS)
        y = tl.load(c_ptr + at, mask=inside, other=0.0).to(tl.float32)
        y += tl.load(table_ptr + (code + border(w, W))[:, None] * C + channel[None, :])
        if residual_ptr is not None:
            y += tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
        if x_ptr is not None:
            x = tl.load(x_ptr + line * W + w, mask=w < W, other=0.0)
            y += x[:, None] * tl.load(factor_ptr + channel)[None, :]
        if RELU:
            y = tl.maximum(y, 0.0)
        y = tl.where(inside, saturate(y), 0.0)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)
        total += y
        squares += y * y
    add_partial(tl.sum(total, 0), tl.sum(squares, 0), sums_ptr, line, channel, C)


@triton.jit
def finish_backward_kernel(
    gy_ptr, y_ptr, gsums_ptr, x_ptr, g_ptr, sums_ptr, W, C: constexpr, CB: constexpr, ROWS: constexpr, RELU: constexpr
):
    """One line of g = (gy + gsums[0] + 2 y gsums[1]) where y > 0; its sum, and its sum times x."""
    line, channel = place_program(CB)
    shift = tl.load(gsums_ptr + channel)[None, :]
    slope = tl.load(gsums_ptr + C + channel)[None, :]
    total = tl.zeros((ROWS, CB), tl.float32)
    products = tl.zeros((ROWS, CB), tl.float32)
    for first in range(0, W, ROWS):
        w, inside, at = find_pixels(line, first, W, channel, C, ROWS)
        y = tl.load(y_ptr + at, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(gy_ptr + at, mask=inside, other=0.0).to(tl.float32) + shift + 2 * y * slope
        if RELU:
            g = tl.where(y > 0, g, 0.0)
        g = tl.where(inside, g, 0.0)
        tl.store(g_ptr + at, g.to(g_ptr.dtype.element_ty), mask=inside)
        total += g
        if x_ptr is not None:
            x = tl.load(x_ptr + line * W + w, mask=w < W, other=0.0)
            products += g * x[:, None]
    add_partial(tl.sum(total, 0), tl.sum(products, 0), sums_ptr, line, channel, C)


@triton.jit
def stem_kernel(x_ptr, kernel_ptr, table_ptr, y_ptr, sums_ptr, D, H, W, C: constexpr, CB: constexpr, ROWS: constexpr):
    """One line of y = relu(x * kernel + table) for an input of one channel, with its sums.

    x is float32 `(D, H, W)`, the kernel float32 `(27, C)`. The convolution is one product of matrices: a row for each
    pixel with its 27 neighbours, filled up with zeros to 32, times the kernel.
    """
    line, channel = place_program(CB)
    d = line // H
    h = line % H
    tap = tl.arange(0, 32)
    kernel = tl.load(kernel_ptr + tap[:, None] * C + channel[None, :], mask=(tap < 27)[:, None], other=0.0)
    code = border(d, D) * 16 + border(h, H) * 4
    total = tl.zeros((ROWS, CB), tl.float32)
    squares = tl.zeros((ROWS, CB), tl.float32)
    for first in range(0, W, ROWS):
        w, inside, at = find_pixels(line, first, W, channel, C, ROWS)
        dd = d + tap // 9 - 1
        hh = h + tap // 3 % 3 - 1
        ww = w[:, None] + (tap % 3 - 1)[None, :]
        there = ((tap < 27) & (dd >= 0) & (dd < D) & (hh >= 0) & (hh < H))[None, :] & (ww >= 0) & (ww < W)
        x = tl.load(x_ptr + ((dd * H + hh) * W)[None, :] + ww, mask=there, other=0.0)
        y = tl.load(table_ptr + (code + border(w, W))[:, None] * C + channel[None, :])
        y = tl.dot(x, kernel, y, input_precision="tf32")
        y = tl.where(inside, saturate(tl.maximum(y, 0.0)), 0.0)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)
        total += y
        squares += y * y
    add_partial(tl.sum(total, 0), tl.sum(squares, 0), sums_ptr, line, channel, C)


@triton.jit
def stem_backward_kernel(
    gy_ptr, y_ptr, gsums_ptr, x_ptr, gkernel_ptr, sums_ptr, D, H, W, LINES, C: constexpr, CB: constexpr, ROWS: constexpr
):
    """The gradient of the stem's kernel from some lines, and each line's sum of g as in `finish_backward_kernel`."""
    program = tl.program_id(0)
    channel = tl.program_id(1) * CB + tl.arange(0, CB)
    tap = tl.arange(0, 32)
    shift = tl.load(gsums_ptr + channel)[None, :]
    slope = tl.load(gsums_ptr + C + channel)[None, :]
    gkernel = tl.zeros((32, CB), tl.float32)
    for line in range(program, LINES, tl.num_programs(0)):
        d = line // H
        h = line % H
        dd = d + tap // 9 - 1
        hh = h + tap // 3 % 3 - 1
        there = (tap < 27) & (dd >= 0) & (dd < D) & (hh >= 0) & (hh < H)
        total = tl.zeros((ROWS, CB), tl.float32)
        for first in range(0, W, ROWS):
            w = first + tl.arange(0, ROWS)
            inside = (w < W)[:, None]
            at = (line * W + w.to(tl.int64))[:, None] * C + channel[None, :]
            y = tl.load(y_ptr + at, mask=inside, other=0.0).to(tl.float32)
            g = tl.load(gy_ptr + at, mask=inside, other=0.0).to(tl.float32) + shift + 2 * y * slope
            g = tl.where((y > 0) & inside, g, 0.0)
            total += g
            ww = w[None, :] + (tap % 3 - 1)[:, None]
            near = there[:, None] & (ww >= 0) & (ww < W)
            x = tl.load(x_ptr + ((dd * H + hh) * W)[:, None] + ww, mask=near, other=0.0)
            gkernel += tl.dot(x.to(gy_ptr.dtype.element_ty), g.to(gy_ptr.dtype.element_ty))
        tl.store(sums_ptr + line * C + channel, tl.sum(total, 0))
    tl.store(gkernel_ptr + program * 32 * C + tap[:, None] * C + channel[None, :], gkernel)


@triton.jit
def convolve_kernel(
    x_desc,
    weight_ptr,
    table_ptr,
    residual_ptr,
    x0_ptr,
    factor_ptr,
    y_ptr,
    sums_ptr,
    D,
    H,
    W,
    CI: constexpr,
    CO: constexpr,
    ROWS: constexpr,
    LINES: constexpr,
    PLANES: constexpr,
):
    """Some lines of a 3x3x3 convolution with zero padding; with an epilogue, of relu(that + table + residual).

    x is `(D, H, W, CI)`, the weights `(27, CI, CO)`, y `(D, H, W, CO)`. A program makes LINES lines of ROWS pixels. It
    goes down along H, and lets each input line add to the three output lines around it, so that the line is loaded 9
    times, not 27. Three sums wait for their lines:

        step   input line   adds to            by the taps along H
          s    h0 + s - 1   done:  h0 + s - 2  kh = 2, its last one: the line is stored
                            here:  h0 + s - 1  kh = 1
                            fresh: h0 + s      kh = 0, its first one
        s + 1  h0 + s       done = here, here = fresh, fresh = 0

    So LINES lines take LINES + 2 steps; what the first two store is masked out, since h < h0. Reading outside the
    feature map gives zeros, the padding; where there is one plane, PLANES is 1 and its neighbours are not read.
    """
    d = tl.program_id(2)
    h0 = tl.program_id(1) * LINES
    w0 = tl.program_id(0) * ROWS
    w = w0 + tl.arange(0, ROWS)
    channel_in = tl.arange(0, CI)
    channel = tl.arange(0, CO)
    weights = weight_ptr + channel_in[:, None] * CO + channel[None, :]
    done = tl.zeros((ROWS, CO), tl.float32)
    here = tl.zeros((ROWS, CO), tl.float32)
    total = tl.zeros((ROWS, CO), tl.float32)
    squares = tl.zeros((ROWS, CO), tl.float32)
    for step in range(LINES + 2):
        h = h0 + step - 2
        inside = (w < W)[:, None] & (h >= h0) & (h < H)
        at = ((d * H + h).to(tl.int64) * W + w)[:, None] * CO + channel[None, :]
        if residual_ptr is not None:
            done += tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
        fresh = tl.zeros((ROWS, CO), tl.float32)
        for tap in range(3 * PLANES):
            kd = tap // 3 + (3 - PLANES) // 2
            kw = tap % 3
            x = x_desc.load([d + kd - 1, h0 + step - 1, w0 + kw - 1, 0]).reshape(ROWS, CI)
            fresh = tl.dot(x, tl.load(weights + (kd * 9 + kw) * CI * CO), fresh)
            here = tl.dot(x, tl.load(weights + (kd * 9 + 3 + kw) * CI * CO), here)
            done = tl.dot(x, tl.load(weights + (kd * 9 + 6 + kw) * CI * CO), done)
        if table_ptr is not None:
            # The table has a row for each border that a pixel touches; along W only the first and the last differ.
            rows = table_ptr + (border(d, D) * 16 + border(h, H) * 4) * CO + channel
            middle = tl.load(rows)
            done += middle[None, :]
            done += tl.where((w == 0)[:, None], (tl.load(rows + CO) - middle)[None, :], 0.0)
            done += tl.where((w == W - 1)[:, None], (tl.load(rows + 2 * CO) - middle)[None, :], 0.0)
            if x0_ptr is not None:
                x0 = tl.load(x0_ptr + (d * H + h) * W + w, mask=(w < W) & (h >= h0) & (h < H), other=0.0)
                done += x0[:, None] * tl.load(factor_ptr + channel)[None, :]
            done = tl.where(inside, saturate(tl.maximum(done, 0.0)), 0.0)
            total += done
            squares += done * done
        tl.store(y_ptr + at, done.to(y_ptr.dtype.element_ty), mask=inside)
        done = here
        here = fresh
    if table_ptr is not None:
        program = (d * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
        add_partial(tl.sum(total, 0), tl.sum(squares, 0), sums_ptr, program, channel, CO)


@triton.jit
def weight_gradient_kernel(
    x_ptr, g_ptr, sums_ptr, D, H, W, C: constexpr, ROWS: constexpr, LINES: constexpr, PLANES: constexpr
):
    """Some lines' part of a convolution's weight gradient, for one tap along D: `(3 along H, 4 along W, C, C)`.

    The gradient of tap (kd, kh, kw) is the sum over pixels of x[d + kd - 1, h + kh - 1, w + kw - 1]^T g[d, h, w]. A
    line is contiguous, so 4 C values from pixel w - 1 on are the channels of 4 pixels side by side:

        x line   | w - 1 | w     | w + 1 | w + 2 |      near = 0 ... 4 C - 1
        tap kw       0       1       2     unused       the fourth fills the matrix up to a power of two

    One load of such rows, transposed to (4 C, ROWS), times g (ROWS, C) gives all taps along W. Each x line serves three
    g lines, one for each tap along H: `before`, `middle` and `after` are kh = 0, 1, 2.
    """
    kd = tl.program_id(0) + (3 - PLANES) // 2
    d = tl.program_id(2)
    h0 = tl.program_id(1) * LINES
    row = tl.arange(0, ROWS)
    channel = tl.arange(0, C)
    near = tl.arange(0, 4 * C)
    before = tl.zeros((4 * C, C), tl.float32)
    middle = tl.zeros((4 * C, C), tl.float32)
    after = tl.zeros((4 * C, C), tl.float32)
    dd = d + kd - 1
    if (dd >= 0) & (dd < D):
        for step in range(LINES + 2):
            hh = h0 + step - 1
            for first in range(0, W, ROWS):
                w = first + row
                ww = w[:, None] + near[None, :] // C - 1
                there = (hh >= 0) & (hh < H) & (ww >= 0) & (ww < W)
                at = x_ptr + ((dd * H + hh) * W + first - 1) * C + row[:, None] * C + near[None, :]
                x = tl.trans(tl.load(at, mask=there, other=0.0))
                at = g_ptr + (d * H * W + w[:, None]) * C + channel[None, :]
                inside = (w < W)[:, None]
                # The input line hh is what the tap before sees from line hh + 1, the tap after from line hh - 1.
                line = hh + 1
                g = tl.load(at + line * W * C, mask=inside & (line < h0 + LINES) & (line < H), other=0.0)
                before = tl.dot(x, g, before)
                line = hh
                g = tl.load(at + line * W * C, mask=inside & (line >= h0) & (line < h0 + LINES) & (line < H), other=0.0)
                middle = tl.dot(x, g, middle)
                line = hh - 1
                g = tl.load(at + line * W * C, mask=inside & (line >= h0) & (line < H), other=0.0)
                after = tl.dot(x, g, after)
    program = (d * tl.num_programs(1) + tl.program_id(1)) * PLANES + tl.program_id(0)
    at = sums_ptr + program * 12 * C * C + near[:, None] * C + channel[None, :]
    tl.store(at, before)
    tl.store(at + 4 * C * C, middle)
    tl.store(at + 8 * C * C, after)


@triton.jit
def sum_kernel(sums_ptr, sum_ptr, num, size, ROWS: constexpr, COLUMNS: constexpr):
    """Some columns of the sum over rows."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.arange(0, ROWS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, num, ROWS):
        inside = (first + row < num)[:, None] & (column < size)[None, :]
        total += tl.load(sums_ptr + (first + row)[:, None] * size + column[None, :], mask=inside, other=0.0)
    tl.store(sum_ptr + column, tl.sum(total, 0), mask=column < size)


@triton.jit
def join_kernel(
    skip_ptr, low_ptr, y_ptr, sums_ptr, H, W, C: constexpr, CB: constexpr, ROWS: constexpr, LESS: constexpr
):
    """One line of skip + low, with its sums; low may have one cell LESS along H and W, whose first then counts twice.

        skip   0   1   2   3       max(i - LESS, 0) is the cell of low that is added to cell i
        low    0   0   1   2

    It then has one plane less too, unless skip is a single plane: max(0 - 1, 0) is its plane 0 as well.
    """
    line, channel = place_program(CB)
    low_line = tl.maximum(line // H - LESS, 0) * (H - LESS) + tl.maximum(line % H - LESS, 0)
    total = tl.zeros((ROWS, CB), tl.float32)
    squares = tl.zeros((ROWS, CB), tl.float32)
    for first in range(0, W, ROWS):
        w, inside, at = find_pixels(line, first, W, channel, C, ROWS)
        low_at = (low_line * (W - LESS) + tl.maximum(w - LESS, 0))[:, None] * C + channel[None, :]
        y = tl.load(skip_ptr + at, mask=inside, other=0.0).to(tl.float32)
        y += tl.load(low_ptr + low_at, mask=inside, other=0.0).to(tl.float32)
        y = saturate(y)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)
        total += y
        squares += y * y
    add_partial(tl.sum(total, 0), tl.sum(squares, 0), sums_ptr, line, channel, C)


@triton.jit
def join_backward_kernel(g_ptr, glow_ptr, H, W, C: constexpr, CB: constexpr, ROWS: constexpr, FLAT: constexpr):
    """One line of the gradient of `low`, `(D - 1, H - 1, W - 1, C)`: the reverse of `join_kernel` with LESS = 1.

    Cell i of low was added to cell i + 1, and cell 0 to cells 0 and 1. `corner` counts the 8 ways to go back by one or
    not along each axis; going back is only for cell 0. Of a single plane (FLAT) there are 4, all in plane 0.
    """
    line, channel = place_program(CB)
    d = line // (H - 1)
    h = line % (H - 1)
    for first in range(0, W - 1, ROWS):
        w, inside, at = find_pixels(line, first, W - 1, channel, C, ROWS)
        total = tl.zeros((ROWS, CB), tl.float32)
        for corner in tl.static_range(8 - 4 * FLAT):
            back_d = corner // 4 + FLAT
            back_h = corner // 2 % 2
            back_w = corner % 2
            from_line = (d + 1 - back_d) * H + h + 1 - back_h
            there = ((back_d == 0) | (d == 0)) & ((back_h == 0) | (h == 0)) & ((back_w == 0) | (w == 0))
            source = (from_line * W + w + 1 - back_w)[:, None] * C + channel[None, :]
            total += tl.load(g_ptr + source, mask=inside & there[:, None], other=0.0).to(tl.float32)
        tl.store(glow_ptr + at, total.to(glow_ptr.dtype.element_ty), mask=inside)


@triton.jit
def pool_kernel(y_ptr, pooled_ptr, H, W, C: constexpr, CB: constexpr, ROWS: constexpr, CORNERS: constexpr):
    """One line of the largest of 8 cells, or of 4 of a single plane; H and W are the pooled sizes.

    The bits of `corner` say which of the two cells along D, H and W: 4, 2, 1.
    """
    line, channel = place_program(CB)
    d = line // H
    h = line % H
    for first in range(0, W, ROWS):
        w, inside, at = find_pixels(line, first, W, channel, C, ROWS)
        largest = tl.full((ROWS, CB), float("-inf"), tl.float32)
        for corner in tl.static_range(CORNERS):
            from_line = (2 * d + corner // 4) * (2 * H) + 2 * h + corner // 2 % 2
            source = (from_line * (2 * W) + 2 * w + corner % 2)[:, None] * C + channel[None, :]
            largest = tl.maximum(largest, tl.load(y_ptr + source, mask=inside, other=0.0).to(tl.float32))
        tl.store(pooled_ptr + at, largest.to(pooled_ptr.dtype.element_ty), mask=inside)


@triton.jit
def pool_backward_kernel(
    y_ptr,
    pooled_ptr,
    gskip_ptr,
    glow_ptr,
    g_ptr,
    H,
    W,
    C: constexpr,
    CB: constexpr,
    ROWS: constexpr,
    CORNERS: constexpr,
):
    """Two by two lines of the skip's gradient, plus the pooled one's at the first of the largest cells.

    `left` is what is left of the pooled gradient: the first corner that equals the largest takes it, as in torch.
    """
    line, channel = place_program(CB)
    d = line // H
    h = line % H
    for first in range(0, W, ROWS):
        w, inside, at = find_pixels(line, first, W, channel, C, ROWS)
        largest = tl.load(pooled_ptr + at, mask=inside, other=0.0)
        left = tl.load(glow_ptr + at, mask=inside, other=0.0).to(tl.float32)
        for corner in tl.static_range(CORNERS):
            from_line = (2 * d + corner // 4) * (2 * H) + 2 * h + corner // 2 % 2
            at = (from_line * (2 * W) + 2 * w + corner % 2)[:, None] * C + channel[None, :]
            chosen = tl.load(y_ptr + at, mask=inside, other=0.0) == largest
            g = tl.load(gskip_ptr + at, mask=inside, other=0.0).to(tl.float32) + tl.where(chosen, left, 0.0)
            left = tl.where(chosen, 0.0, left)
            tl.store(g_ptr + at, g.to(g_ptr.dtype.element_ty), mask=inside)


@triton.jit
def project_kernel(y_ptr, weight_ptr, bias_ptr, out_ptr, W, C: constexpr, CB: constexpr, ROWS: constexpr):
    """One line of the weighted sum of the channels plus a bias."""
    line = tl.program_id(0).to(tl.int64)
    for first in range(0, W, ROWS):
        w = first + tl.arange(0, ROWS)
        out = tl.zeros((ROWS,), tl.float32) + tl.load(bias_ptr)
        for block in range(0, C, CB):
            channel = block + tl.arange(0, CB)
            at = (line * W + w)[:, None] * C + channel[None, :]
            y = tl.load(y_ptr + at, mask=(w < W)[:, None], other=0.0).to(tl.float32)
            out += tl.sum(y * tl.load(weight_ptr + channel)[None, :], 1)
        tl.store(out_ptr + line * W + w, out, mask=w < W)


@triton.jit
def project_backward_kernel(
    gout_ptr, y_ptr, weight_ptr, gy_ptr, sums_ptr, W, C: constexpr, CB: constexpr, ROWS: constexpr
):
    """One line of the gradient of the channels, and the line's part of that of the weights and the bias."""
    line, channel = place_program(CB)
    weight = tl.load(weight_ptr + channel)[None, :]
    products = tl.zeros((ROWS, CB), tl.float32)
    total = tl.zeros((ROWS, CB), tl.float32)
    for first in range(0, W, ROWS):
        w, inside, at = find_pixels(line, first, W, channel, C, ROWS)
        gout = tl.load(gout_ptr + line * W + w, mask=w < W, other=0.0)[:, None]
        y = tl.load(y_ptr + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(gy_ptr + at, (gout * weight).to(gy_ptr.dtype.element_ty), mask=inside)
        products += gout * y
        total += gout + tl.zeros((ROWS, CB), tl.float32)
    add_partial(tl.sum(products, 0), tl.sum(total, 0), sums_ptr, line, channel, C)


def tile_of(like: torch.Tensor) -> dict[str, int]:
    """Channels, those that a program takes at once (a power of two, at most 128), and its pixels, of `(D, H, W, C)`."""
    width, channels = like.shape[2:]
    block = min(channels & -channels, 128)
    rows = min(max(VALUES_AT_ONCE // block, 16), triton.next_power_of_2(width))
    return {"C": channels, "CB": block, "ROWS": rows}


def launch(kernel, like: torch.Tensor, *arguments, **flags) -> None:
    """Run a kernel: a program for each line and each block of channels of a feature map `(D, H, W, C)`."""
    tile = tile_of(like)
    kernel[(like.shape[0] * like.shape[1], like.shape[3] // tile["CB"])](*arguments, **tile, **flags)


def partial_sums(like: torch.Tensor) -> torch.Tensor:
    """Room for two sums of each line of a feature map `(D, H, W, C)`: float32 `(D * H, 2, C)`, not initialised."""
    return torch.empty((like.shape[0] * like.shape[1], 2, like.shape[3]), device=like.device)


def sum_partials(partial: torch.Tensor) -> torch.Tensor:
    """The sum of float32 `(num, ...)` over the first axis, in an order that does not depend on the run."""
    size = partial[0].numel()
    total = torch.empty(partial.shape[1:], device=partial.device)
    columns = 8 if size < 1024 else 64
    sum_kernel[(-(-size // columns),)](partial, total, len(partial), size, 4096 // columns, columns, num_warps=8)
    return total
