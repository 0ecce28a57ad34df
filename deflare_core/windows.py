"""Windows: a recording cut into absolute ones, and what a method makes of a stream of them.

Every method is a generator from windows to `AppliedVoxel`, one for each, in order. A network looks at one window at a
time, or at overlapping ones whose outputs are blended; a baseline looks at half a second at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, pairwise

import numpy as np
import torch

from deflare_core.codec import AppliedVoxel, apply_voxel, events_to_voxel
from deflare_core.events import Events
from deflare_core.metrics import matched
from deflare_core.model import VoxelNetwork
from deflare_core.recordings import CLOCK_ATTRIBUTES, Recording

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
    """The network's output for one voxel `(bins, H, W)`, float32 of the same shape."""
    device = next(model.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(voxel))[None, None].to(device)
    return model.eval()(batch)[0, 0].float().cpu().numpy()


def deflare_windows(
    model: VoxelNetwork, windows: Iterable[Window], window_us: int, num_bins: int
) -> Iterator[AppliedVoxel]:
    """Every window after the network's output was applied to its events."""
    if model.is_folded_on(next(model.parameters()).device):
        from deflare_core.gpu_inference import deflare_on_gpu

        yield from deflare_on_gpu(model, windows, window_us, num_bins)
        return
    for t0_us, events, seed in windows:
        voxel_in = events_to_voxel(events, num_bins, None, window_us, t0_us=t0_us)
        voxel_out = run_network(model, voxel_in)
        yield apply_voxel(events, voxel_in, voxel_out, window_us, t0_us=t0_us, seed=seed)


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
    encoded = ((w, events_to_voxel(w[1], num_bins, None, window_us, t0_us=w[0])) for w in windows)
    for current, following in pairwise(chain(encoded, [None])):
        assert current is not None, "Only the last of all is none."
        (t0_us, events, seed), voxel = current
        silence = np.zeros_like(voxel)
        after = following[1] if following else silence
        if later is None:
            later = run_network(model, np.concatenate([silence[half:], voxel[:half]]))
        earlier, later = later, run_network(model, np.concatenate([voxel[half:], after[:half]]))
        output = blended(run_network(model, voxel), earlier, later)
        yield apply_voxel(events, voxel, output, window_us, t0_us=t0_us, seed=seed)


def blended(output: np.ndarray, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """A window's output, averaged bin by bin with those of the windows half a length earlier and later.

    With eight bins the weights are eighths, so whole numbers on which the outputs agree are given back exactly.
    """
    num_bins, half = len(output), len(output) // 2
    rising = ((2 * np.arange(half) + 1) / num_bins).astype(np.float32)[:, None, None]
    first = rising * output[:half] + (1 - rising) * earlier[half:]
    second = rising[::-1] * output[half:] + (1 - rising[::-1]) * later[:half]
    return np.concatenate([first, second])


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
