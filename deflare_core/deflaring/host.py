"""The host's path: windows are encoded and decoded on the processor; the network runs where its weights are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deflare_core.codec import AppliedVoxel, apply_voxel, encode_window
from deflare_core.deflaring.decision_level import round_at_level
from deflare_core.deflaring.silence import SilentVoxel
from deflare_core.kernels.event_tensors import join_channels
from deflare_core.model import VoxelNetwork
from deflare_core.windows import Cut, Window


class HostEncoded(NamedTuple):
    """A window and its voxel, float32 `(C, bins, H, W)` in host memory."""

    window: Window
    voxel: torch.Tensor


class HostPath:
    """What `stream.Path` asks for, in host memory."""

    ahead = 0

    def __init__(self, model: VoxelNetwork, cut: Cut) -> None:
        self.model, self.cut = model.eval(), cut
        self.silent = SilentVoxel(model.channels, cut.num_bins)

    def encode(self, window: Window) -> HostEncoded:
        """The window and its voxel."""
        if not len(window.events):
            return HostEncoded(window, self.silent.of(window.events.sensor_size))
        voxel = encode_window(window.events, window.t0_us, self.cut, self.model.channels)
        return HostEncoded(window, torch.from_numpy(voxel))

    def run(self, seen: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """The network's output, float32 `(C, bins, H, W)` in host memory."""
        return run_network(self.model, join_channels(seen))

    def begin(self, encoded: HostEncoded, output: torch.Tensor) -> AppliedVoxel:
        """The decoded window."""
        (t0_us, events, seed, _), before = encoded
        after = round_at_level(self.model.config.level, before, output).numpy()
        applied = apply_voxel(events, before.numpy(), after, self.cut.window_us, t0_us=t0_us, seed=seed)
        return applied._replace(output=output)

    def finish(self, begun: AppliedVoxel) -> AppliedVoxel:
        """The same."""
        return begun


@torch.no_grad()
def run_network(model: VoxelNetwork, voxel: torch.Tensor) -> torch.Tensor:
    """The network's output for one voxel `(inputs, bins, H, W)`, float32 `(C, bins, H, W)` in host memory."""
    return model.eval()(voxel[None].to(model.device))[0].float().cpu()


def run_voxel(model: VoxelNetwork, voxel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The output of a network of signed voxels without context for one of them, float32 `(bins, H, W)`."""
    return run_network(model, torch.from_numpy(voxel[None]))[0].numpy()
