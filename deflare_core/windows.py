"""Windows: a recording cut into absolute ones, and what a method makes of a stream of them.

Every method is a generator from windows to `AppliedVoxel`, one for each, in order. A network looks at one window at a
time, or at overlapping ones whose outputs are blended; a baseline looks at half a second at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, pairwise

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
from deflare_core.events import Events
from deflare_core.hdf5_layouts import CLOCK_ATTRIBUTES
from deflare_core.metrics import matched
from deflare_core.model import VoxelNetwork, has_triton
from deflare_core.recordings import Recording

Window = tuple[int, Events, int]
"""Start of a window in absolute microseconds, its events, and the seed of what is random in its decode."""
Clock = tuple[int, int]
Baseline = Callable[[Events, Clock, int], Events]
"""From a whole recording, the start and end of its clock, and a seed, to a whole recording."""

STRETCH_US, LEAD_US = 500_000, 300_000
"""A baseline works on stretches of half a second, and sees some time before each, for filters with a memory."""


def window_starts(recording: Recording, window_us: int) -> range:
    """The absolute times at which the windows begin that cover the recording.

    They start at the recording's declared start, or on the grid of whole window lengths.
    """
    start_us, end_us = recording.clock_us
    if CLOCK_ATTRIBUTES[0] not in recording.attributes:
        start_us = start_us // window_us * window_us
    return range(start_us, end_us, window_us)


def window_seed(seed: int, t0_us: int) -> int:
    """A seed of the window's own, so that it comes out the same wherever the work begins."""
    return int(np.random.SeedSequence([seed, t0_us % 2**64]).generate_state(1, np.uint64)[0] >> 1)


@torch.inference_mode()
def run_network(model: VoxelNetwork, voxel: np.ndarray) -> np.ndarray:
    """The network's output for one voxel as `encoded` gives it, float32 of the same shape."""
    device = next(model.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(voxel)).reshape(1, model.channels, *voxel.shape[-3:]).to(device)
    return model.eval()(batch).reshape(voxel.shape).float().cpu().numpy()


def encoded(model: VoxelNetwork, events: Events, t0_us: int, window_us: int, num_bins: int) -> NDArray[np.float32]:
    """The voxel of a window as the network takes it: signed `(bins, H, W)`, or split by polarity `(2, bins, H, W)`."""
    if model.channels == 2:
        return polarity_voxel(events, num_bins, window_us, t0_us)
    return events_to_voxel(events, num_bins, None, window_us, t0_us=t0_us)


def applied(
    model: VoxelNetwork, window: Window, voxel_in: np.ndarray, voxel_out: np.ndarray, window_us: int
) -> AppliedVoxel:
    """The window's events after the network's output was applied to them, counted from the network's level on."""
    t0_us, events, seed = window
    apply = apply_polarity_voxel if model.channels == 2 else apply_voxel
    return apply(events, voxel_in, at_level(voxel_out, model.config.level), window_us, t0_us=t0_us, seed=seed)


def signed(voxel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The voxel `(bins, H, W)` of positive less negative events, of one that may be split by polarity."""
    return voxel if voxel.ndim == 3 else voxel[0] - voxel[1]


def deflare_windows(
    model: VoxelNetwork, windows: Iterable[Window], window_us: int, num_bins: int
) -> Iterator[AppliedVoxel]:
    """Every window after the network's output was applied to its events."""
    if model.is_half_on(next(model.parameters()).device) and has_triton():
        from deflare_core.gpu_inference import deflare_on_gpu

        yield from deflare_on_gpu(model, windows, window_us, num_bins)
        return
    for window in windows:
        voxel = encoded(model, window[1], window[0], window_us, num_bins)
        yield applied(model, window, voxel, run_network(model, voxel), window_us)


def deflare_overlapping(
    model: VoxelNetwork, windows: Iterable[Window], window_us: int, num_bins: int
) -> Iterator[AppliedVoxel]:
    """Every window after a blend of network outputs was applied to it, in which each bin has time before and after it.

    The network also looks at the windows half a length later. A bin's output is the mean of the two that cover it, the
    weights falling linearly from a window's middle to nothing at its borders: (2 k + 1) / num_bins for bin k of the
    first half, mirrored in the second. Beyond the recording there are no events. The work doubles.

    Raises
    ------
    ValueError
        When the number of bins is odd.
    """
    if num_bins % 2:
        raise ValueError(f"Overlapping windows share half of their bins; num_bins must be even, received {num_bins}.")
    half, later = num_bins // 2, None
    voxels = ((window, encoded(model, window[1], window[0], window_us, num_bins)) for window in windows)
    for current, following in pairwise(chain(voxels, [None])):
        assert current is not None, "Only the last of all is none."
        window, voxel = current
        silence = np.zeros_like(voxel)
        after = following[1] if following else silence
        if later is None:
            later = run_network(model, _joined(silence, voxel, half))
        earlier, later = later, run_network(model, _joined(voxel, after, half))
        yield applied(model, window, voxel, blended(run_network(model, voxel), earlier, later), window_us)


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
        kept, synthesised = matched(after, recorded), ~matched(recorded, after)
        for t0_us, _, _ in stretch:
            ours, theirs = (_span(events, t0_us, t0_us + window_us) for events in (after, recorded))
            yield AppliedVoxel(after[ours], synthesised[ours], kept[theirs])
        lead = recorded[_span(recorded, end_us - lead_us, end_us)]


def _span(events: Events, t_start_us: int, t_end_us: int) -> slice:
    first, end = np.searchsorted(events.t, [t_start_us, t_end_us])
    return slice(int(first), int(end))
