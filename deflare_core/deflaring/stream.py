"""Windows: a recording cut into absolute ones, and what a method makes of a stream of them.

Every method is a generator from windows to `AppliedVoxel`, one for each, in order. A network looks at one window at a
time and at as many of its neighbours as `model.context` says, or at overlapping ones whose outputs are blended; a
baseline looks at half a second at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise, tee
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from deflare_core.codec import (
    AppliedVoxel,
    apply_polarity_voxel,
    apply_voxel,
    at_level,
    events_to_voxel,
    polarity_voxel,
)
from deflare_core.deflaring.decision_level import level_for
from deflare_core.events import Events
from deflare_core.model import VoxelNetwork, has_triton
from deflare_core.streams.baselines import Baseline
from deflare_core.streams.matching import find_matched
from deflare_core.system.errors import DeflareError
from deflare_core.windows import Window, neighbour_offsets

Item = TypeVar("Item")

STRETCH_US, LEAD_US = 500_000, 300_000
"""A baseline works on stretches of half a second, and sees some time before each, for filters with a memory."""


@torch.inference_mode()
def run_network(model: VoxelNetwork, voxel: np.ndarray) -> np.ndarray:
    """The network's output for one voxel as `encoded` gives it, float32 of the shape of the window's own."""
    device = next(model.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(voxel)).reshape(1, model.inputs, *voxel.shape[-3:]).to(device)
    return model.eval()(batch).reshape(own(model, voxel).shape).float().cpu().numpy()


def encoded(model: VoxelNetwork, events: Events, t0_us: int, window_us: int, num_bins: int) -> NDArray[np.float32]:
    """What the network takes for a window: signed `(bins, H, W)`, or split by polarity `(2, bins, H, W)`.

    With context it is `(inputs, bins, H, W)`, the window's own voxel first, then those of its neighbours; `events` are
    then of these windows too. Of events outside them nothing is seen.
    """
    starts = [t0_us + k * window_us for k in neighbour_offsets(model.config.context)]
    return beside(
        [voxel_of(model, events.window(at_us, at_us + window_us), at_us, window_us, num_bins) for at_us in starts]
    )


def voxel_of(model: VoxelNetwork, events: Events, t0_us: int, window_us: int, num_bins: int) -> NDArray[np.float32]:
    """The voxel of one window by itself."""
    if model.channels == 2:
        return polarity_voxel(events, num_bins, window_us, t0_us)
    return events_to_voxel(events, num_bins, None, window_us, t0_us=t0_us)


def beside(voxels: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    """A window's voxel and its neighbours' as channels of one, silence where there is none; alone it stays as is."""
    mine = voxels[0]
    assert mine is not None, "A window has a voxel of its own."
    if len(voxels) == 1:
        return mine
    parts = [np.zeros_like(mine) if voxel is None else voxel for voxel in voxels]
    return np.concatenate(parts) if mine.ndim == 4 else np.stack(parts)


def own(model: VoxelNetwork, voxel: np.ndarray) -> np.ndarray:
    """The window's own voxel in what the network takes."""
    if not model.config.context:
        return voxel
    return voxel[: model.channels] if model.channels > 1 else voxel[0]


def neighbourhoods(items: Iterable[Item], context: int) -> Iterator[tuple[Item | None, ...]]:
    """Each item of a stream of windows, followed by those of its neighbours; None where there is no window."""
    silence, offsets = [None] * context, neighbour_offsets(context)
    seen: deque[Item | None] = deque(maxlen=2 * context + 1)
    for item in chain(silence, items, silence):
        seen.append(item)
        if len(seen) == seen.maxlen:
            yield tuple(seen[context + k] for k in offsets)


def applied(
    model: VoxelNetwork, window: Window, voxel_in: np.ndarray, voxel_out: np.ndarray, window_us: int
) -> AppliedVoxel:
    """The window's events after the network's output was applied to them, counted from its level on (`level.py`).

    Parameters
    ----------
    window : its events may be of more time, of which only its own are given back.
    voxel_in, voxel_out : what `encoded` and `run_network` gave.
    """
    t0_us, events, seed = window
    mine = events.window(t0_us, t0_us + window_us)
    apply = apply_polarity_voxel if model.channels == 2 else apply_voxel
    before = own(model, voxel_in)
    output = at_level(voxel_out, level_for(model.config.level, before, voxel_out))
    return apply(mine, before, output, window_us, t0_us=t0_us, seed=seed)


def signed(voxel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The voxel `(bins, H, W)` of positive less negative events, of one that may be split by polarity."""
    return voxel if voxel.ndim == 3 else voxel[0] - voxel[1]


def deflare_windows(
    model: VoxelNetwork, windows: Iterable[Window], window_us: int, num_bins: int
) -> Iterator[AppliedVoxel]:
    """Every window after the network's output was applied to its events."""
    if model.is_half_on(next(model.parameters()).device) and has_triton():
        from deflare_core.deflaring.gpu import deflare_on_gpu

        yield from deflare_on_gpu(model, windows, window_us, num_bins)
        return
    given, shown = tee(windows)
    voxels = (voxel_of(model, events, t0_us, window_us, num_bins) for t0_us, events, _ in shown)
    for window, voxel in zip(given, seen_voxels(model, voxels), strict=True):
        yield applied(model, window, voxel, run_network(model, voxel), window_us)


def seen_voxels(model: VoxelNetwork, voxels: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """What the network takes for each of a stream of voxels; it comes when the last of its neighbours has."""
    return (beside(seen) for seen in neighbourhoods(voxels, model.config.context))


def deflare_overlapping(
    model: VoxelNetwork, windows: Iterable[Window], window_us: int, num_bins: int
) -> Iterator[AppliedVoxel]:
    """Every window after a blend of network outputs was applied to it, in which each bin has time before and after it.

    The network also looks at the windows half a length later. A bin's output is the mean of the two that cover it, the
    weights falling linearly from a window's middle to nothing at its borders: (2 k + 1) / num_bins for bin k of the
    first half, mirrored in the second. Beyond the recording there are no events. The work doubles.

    Raises
    ------
    DeflareError
        When the number of bins is odd.
    """
    if num_bins % 2:
        raise DeflareError(f"Overlapping windows share half of their bins; num_bins must be even, received {num_bins}.")
    given, shown = tee(windows)
    whole, parts = tee(voxel_of(model, events, t0_us, window_us, num_bins) for t0_us, events, _ in shown)
    between = (run_network(model, voxel) for voxel in seen_voxels(model, _halfway(parts, num_bins // 2)))
    for window, voxel, (earlier, later) in zip(given, seen_voxels(model, whole), pairwise(between), strict=True):
        yield applied(model, window, voxel, blended(run_network(model, voxel), earlier, later), window_us)


def _halfway(voxels: Iterable[NDArray[np.float32]], half: int) -> Iterator[NDArray[np.float32]]:
    """The voxels half a window before the first, between each two, and half a window after the last."""
    for first, second in pairwise(chain([None], voxels, [None])):
        if first is not None or second is not None:
            silence = np.zeros_like(first if second is None else second)
            yield _joined(silence if first is None else first, silence if second is None else second, half)


def _joined(first: np.ndarray, second: np.ndarray, half: int) -> np.ndarray:
    """The voxel of the window that lies half in the one and half in the other."""
    return np.concatenate([first[..., half:, :, :], second[..., :half, :, :]], axis=-3)


def blended(output: np.ndarray, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """A window's output, averaged bin by bin with those of the windows half a length earlier and later.

    With eight bins the weights are eighths, so whole numbers on which the outputs agree are given back exactly.
    """
    num_bins = output.shape[-3]
    half = num_bins // 2
    rising = ((2 * np.arange(half) + 1) / num_bins).astype(np.float32)[:, None, None]
    parts = (output, _joined(earlier, later, half))
    weights = np.concatenate([rising, rising[::-1]])
    return weights * parts[0] + (1 - weights) * parts[1]


def baseline_windows(
    baseline: Baseline, windows: Iterable[Window], window_us: int, seed: int
) -> Iterator[AppliedVoxel]:
    """Every window after a baseline, which works on stretches of half a second, each with 0.3 s of lead.

    What a filter remembers for longer, and what it finds out about a recording (the frequency of the mains), it learns
    anew in each stretch.
    """
    lead_us, per_stretch = LEAD_US // window_us * window_us, max(1, STRETCH_US // window_us)
    windows, lead = iter(windows), None
    while stretch := list(islice(windows, per_stretch)):
        start_us, end_us = stretch[0][0], stretch[-1][0] + window_us
        new = [events for _, events, _ in stretch]
        recorded = Events.concatenate(new if lead is None else [lead, *new])
        after = baseline(recorded, (start_us if lead is None else start_us - lead_us, end_us), seed)
        kept, synthesised = find_matched(after, recorded), ~find_matched(recorded, after)
        for t0_us, _, _ in stretch:
            ours, theirs = (_span(events, t0_us, t0_us + window_us) for events in (after, recorded))
            yield AppliedVoxel(after[ours], synthesised[ours], kept[theirs])
        lead = recorded[_span(recorded, end_us - lead_us, end_us)]


def _span(events: Events, t_start_us: int, t_end_us: int) -> slice:
    first, end = np.searchsorted(events.t, [t_start_us, t_end_us])
    return slice(int(first), int(end))
