"""The stream written down once more, window by window and without any of its machinery, for comparison."""

from collections.abc import Sequence

import numpy as np
import torch

from deflare_core.codec import AppliedVoxel, apply_voxel, encode_window
from deflare_core.deflaring.decision_level import round_at_level
from deflare_core.events import WINDOW_US, Events
from deflare_core.model import VoxelNetwork
from deflare_core.windows import USUAL_CUT, Cut, Window, neighbour_offsets


def cut_windows(events: Events, count: int) -> list[Window]:
    """The first windows of a recording from 0 us on, each with its start as seed."""
    starts_us = range(0, count * WINDOW_US, WINDOW_US)
    return [Window(t0_us, events.window(t0_us, t0_us + WINDOW_US), t0_us) for t0_us in starts_us]


def look_at(model: VoxelNetwork, events: Events, t0_us: int, cut: Cut = USUAL_CUT) -> tuple[np.ndarray, np.ndarray]:
    """What the network takes for a window of a recording, `(inputs, bins, H, W)`, and its output `(C, bins, H, W)`."""
    starts_us = [t0_us + offset * cut.window_us for offset in neighbour_offsets(model.config.context)]
    windows = [(start_us, events.window(start_us, start_us + cut.window_us)) for start_us in starts_us]
    seen = np.concatenate([encode_window(each, start_us, cut, model.channels) for start_us, each in windows])
    with torch.no_grad():
        output = model.eval()(torch.from_numpy(seen)[None].to(model.device))[0].float().cpu().numpy()
    return seen, output


def deflare_window(model: VoxelNetwork, events: Events, t0_us: int, seed: int, cut: Cut = USUAL_CUT) -> AppliedVoxel:
    """A window of a recording after the network."""
    seen, output = look_at(model, events, t0_us, cut)
    before = seen[: model.channels]
    after = round_at_level(model.config.level, torch.from_numpy(before), torch.from_numpy(output)).numpy()
    mine = events.window(t0_us, t0_us + cut.window_us)
    return apply_voxel(mine, before, after, cut.window_us, t0_us=t0_us, seed=seed)


def deflare_all(model: VoxelNetwork, events: Events, windows: Sequence[Window]) -> Events:
    """The recording after the network, window by window."""
    return Events.concatenate([deflare_window(model, events, w.t0_us, w.seed).events for w in windows])
