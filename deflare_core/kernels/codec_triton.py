# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
"""The event-faithful decode on a GPU: the same events kept as by `codec_loops.choose_kept`, from the same draws."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from deflare_core.kernels.codec_loops import MAX_COUNT
from deflare_core.kernels.event_tensors import EventTensors

LANES = 256


class Choice(NamedTuple):
    """Which of N events a GPU keeps, bool `(N,)`, and what they lack of the voxel to reach, int32 `(C, bins, H, W)`."""

    kept: torch.Tensor
    missing: torch.Tensor
    num_missing: torch.Tensor
    """int64 scalar: cells where something is missing."""
    num_unfit: torch.Tensor
    """int64 scalar: cells that cannot be rounded."""


def choose_kept_on_gpu(
    events: EventTensors, cells: torch.Tensor, before: torch.Tensor, after: torch.Tensor, seed: int
) -> Choice:
    """Which events of a window to keep so that each cell's sum moves towards `after`; nothing waits for the GPU.

    `before` is the events' encoding, float32 `(C, bins, H, W)`, of all in one channel or of each polarity in its own,
    and `cells`, int64 `(N,)`, where each event is in it. The seed is that of `apply_voxel` and `apply_polarity_voxel`.
    """
    unfit = ~(after.abs() <= MAX_COUNT)
    change = (torch.where(unfit, 0.0, after).round() - before).int().flatten()
    # Only events against whose sign a cell must change may go.
    candidate = events.p * change[cells] < 0
    key, order = torch.where(candidate, cells, change.numel()).int().sort(stable=True)
    kept = torch.ones(len(cells), dtype=torch.int8, device=cells.device)
    if len(cells):
        tensors = (key, order, number_draws(events, len(before)), change, kept)
        sizes = (len(cells), change.numel(), change.numel() // len(before))
        # Triton takes signed 64-bit numbers; the kernel reads the bits as unsigned.
        signed_seed = seed - 2**64 * (seed >= 2**63)
        thin_out_kernel[(triton.cdiv(len(cells), LANES),)](*tensors, signed_seed, *sizes, LANES=LANES)
    return Choice(kept.bool(), change.view(before.shape), change.count_nonzero(), unfit.sum())


def number_draws(events: EventTensors, num_channels: int) -> torch.Tensor:
    """The number that an event's draw goes by: among all events, or among those of its polarity; int64."""
    if num_channels == 1:
        return torch.arange(len(events.p), device=events.p.device)
    positive = events.p > 0
    return torch.where(positive, positive.cumsum(0), (~positive).cumsum(0)) - 1


@triton.jit
def random_below(seed, counter, limit):
    """As `codec_loops.random_below`, the same bits."""
    z = seed * 0xD1342543DE82EF95 + (counter + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return ((z >> 32) * limit.to(tl.uint64)) >> 32


@triton.jit(do_not_specialize=["seed"])
def thin_out_kernel(
    key_ptr, order_ptr, number_ptr, change_ptr, kept_ptr, seed, num, num_cells, cells_of_channel, LANES: tl.constexpr
):
    """Drop the excess of each cell's events, one lane for each cell, its events one after another (Knuth).

    The events that may go are sorted by cell, in their order within it; a lane looks at each, and the one where a cell
    begins works for the cell:

        key (cell)   3  3  3  7  9  9     num_cells: the events that stay anyway, sorted to the end
        begins       x        x  x
        removable    3        1  2        counted first, as far as the key is the same

    Then each lane walks along its events. Of those that are left it drops one with the chance excess / removable, so
    every choice of `excess` of them is equally likely. The loops run until the last lane of the program is done.
    """
    first = tl.program_id(0) * LANES + tl.arange(0, LANES)
    cell = tl.load(key_ptr + first, mask=first < num, other=num_cells)
    before = tl.load(key_ptr + first - 1, mask=(first > 0) & (first < num), other=-1)
    begins = (cell < num_cells) & (cell != before)
    removable = tl.zeros((LANES,), tl.int32)
    counting = begins
    while tl.max(counting.to(tl.int32)) > 0:
        removable += counting.to(tl.int32)
        following = first + removable
        key = tl.load(key_ptr + following, mask=counting & (following < num), other=num_cells)
        counting = counting & (key == cell)
    change = tl.load(change_ptr + cell, mask=begins, other=0)
    excess = tl.minimum(tl.abs(change), removable)
    tl.store(change_ptr + cell, tl.where(change > 0, change - excess, change + excess), mask=begins)
    # A polarity voxel has two channels, the second with the seed after next, as in `apply_polarity_voxel`.
    seed = seed.to(tl.uint64) + 2 * (cell // cells_of_channel).to(tl.uint64)
    place = first
    while tl.max(removable) > 0:
        event = tl.load(order_ptr + place, mask=removable > 0, other=0)
        number = tl.load(number_ptr + event, mask=removable > 0, other=0)
        drawn = random_below(seed, number, removable).to(tl.int32)
        drop = (removable > 0) & (drawn < excess)
        tl.store(kept_ptr + event, tl.zeros((LANES,), tl.int8), mask=drop)
        excess -= drop.to(tl.int32)
        removable -= (removable > 0).to(tl.int32)
        place += 1
