"""Looking at windows: one by one, or at overlapping ones whose outputs are blended, without seams at their borders.

Overlapping, the network also looks at the windows half a length later, at twice the work. A bin's output is the mean
of the two that cover it, the weights falling linearly from a window's middle to nothing at its borders:

    window k-1 |        *********        |
    between          |  ............  ** | ** ............ |
    window k                             |        *********        |
                                          weights of window k in 8 bins: 1 3 5 7 7 5 3 1 eighths, the rest from between

Beyond the recording there are no events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise, tee
from typing import Any

import torch

from deflare_core.deflaring.silence import Run
from deflare_core.system.errors import DeflareError
from deflare_core.windows import find_neighbours


def look_once(run: Run, encoded: Iterable[Any], context: int, skip: int = 0) -> Iterator[tuple[Any, torch.Tensor]]:
    """Each window after the first `skip`, and the network's output `(C, bins, H, W)` for it."""
    for seen in islice(find_neighbours(encoded, context), skip, None):
        yield seen[0], run([each and each.voxel for each in seen])


def look_overlapping(
    run: Run, encoded: Iterable[Any], context: int, skip: int = 0
) -> Iterator[tuple[Any, torch.Tensor]]:
    """As `look_once`, with outputs in which each bin has time before and after it; the number of bins is even."""
    whole, parts = tee(encoded)
    between = find_neighbours(_join_halves(each.voxel for each in parts), context)
    outputs = map(run, islice(between, skip, None))
    seen_after_skip = islice(find_neighbours(whole, context), skip, None)
    of_silence: torch.Tensor | None = None
    for seen, (earlier, later) in zip(seen_after_skip, pairwise(outputs), strict=True):
        output = run([each and each.voxel for each in seen])
        if output is earlier is later:
            # One output for all three is that of silence, whose blend is the same every time.
            of_silence = blend(output, earlier, later) if of_silence is None else of_silence
            yield seen[0], of_silence
        else:
            yield seen[0], blend(output, earlier, later)


def blend(output: torch.Tensor, earlier: torch.Tensor, later: torch.Tensor) -> torch.Tensor:
    """A window's output, averaged bin by bin with those of the windows half a length earlier and later.

    With eight bins the weights are eighths, so whole numbers on which the outputs agree are given back exactly.

    Parameters
    ----------
    output, earlier, later : float32 `(C, bins, H, W)`.
    """
    num_bins = output.shape[-3]
    rising = (2 * torch.arange(num_bins // 2, device=output.device) + 1) / num_bins
    weights = torch.cat([rising, rising.flip(0)])[:, None, None]
    return weights * output + (1 - weights) * _join(earlier, later)


def _join_halves(voxels: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The voxels half a window before the first, between each two, and half a window after the last."""
    for first, second in pairwise(chain([None], voxels, [None])):
        if first is second and first is not None:
            # Only silence is the same voxel twice; half of it and half of it is silence.
            yield first
        elif first is not None:
            yield _join(first, torch.zeros_like(first) if second is None else second)
        elif second is not None:
            yield _join(torch.zeros_like(second), second)


def _join(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The voxel of the window that has its first half in the one and its second half in the other."""
    num_bins = first.shape[-3]
    if num_bins % 2:
        raise DeflareError(f"Overlapping windows share half of their bins; num_bins must be even, received {num_bins}.")
    half = num_bins // 2
    return torch.cat([first[..., half:, :, :], second[..., :half, :, :]], dim=-3)
