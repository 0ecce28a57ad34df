"""The GPU's path, events in host memory to events in host memory: encode, network and decode there.

One window is always ahead: while the host takes the events of one apart, the GPU works on the next. Which events are
kept is decided as on the processor, by the same draws, so the output differs only where the network's precision makes
it.

    upload stream   | events k+1 |         | events k+2 |
    main stream     | encode, network, level, choice k  | encode, network, ... k+1 |
    host                         | wait k-1, its events | wait k, its events ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from deflare_core.codec import AppliedVoxel, bin_edges_us, merge_events, refuse_cells
from deflare_core.deflaring.decision_level import round_at_level
from deflare_core.deflaring.silence import SilentVoxel
from deflare_core.events import Events
from deflare_core.kernels.codec_triton import Choice, choose_kept_on_gpu
from deflare_core.kernels.cuda_graphs import GraphedNetwork
from deflare_core.kernels.event_tensors import EventTensors, decode_cells, find_cells, join_channels, sum_cells
from deflare_core.model import VoxelNetwork
from deflare_core.windows import Cut, Window

LISTED = 1 << 14
"""Cells where events are missing that travel to the host without being counted first; more have to wait."""


class GpuEncoded(NamedTuple):
    """A window on the GPU.

    Parameters
    ----------
    window : as it came.
    events, cells : its N events, and the flat index of each one's cell, int64 `(N,)`.
    voxel : float32 `(C, bins, H, W)`.
    """

    window: Window
    events: EventTensors
    cells: torch.Tensor
    voxel: torch.Tensor


class GpuBegun(NamedTuple):
    """A window that the GPU works on.

    Parameters
    ----------
    window, choice, output : the window, which of its events are kept, and the network's output, on the GPU.
    kept, listed, numbers : in host memory, which events are kept, the first cells where some are missing, and of how
        many cells that is true and how many cannot be rounded.
    done : when these three are complete.
    """

    window: Window
    choice: Choice
    output: torch.Tensor
    kept: torch.Tensor
    listed: torch.Tensor
    numbers: torch.Tensor
    done: torch.cuda.Event


class GpuPath:
    """What `stream.Path` asks for, on the GPU of a network that `is_half_on` it."""

    ahead = 1

    def __init__(self, model: VoxelNetwork, cut: Cut) -> None:
        self.model, self.cut = model, cut
        self.upload = torch.cuda.Stream(model.device)
        self.silent = SilentVoxel(model.channels, cut.num_bins, model.device)

    @torch.no_grad()
    def encode(self, window: Window) -> GpuEncoded:
        """Start the copy of a window to the GPU, and its encoding there."""
        with torch.cuda.stream(self.upload):
            events = EventTensors.from_events(window.events, self.upload.device)
        now = torch.cuda.current_stream(self.upload.device)
        now.wait_stream(self.upload)
        for column in events[:4]:
            # Else the upload's memory could be given away while this stream still reads it.
            column.record_stream(now)
        window_us, num_bins = self.cut
        cells = find_cells(events, num_bins, window_us, window.t0_us, split_polarity=self.model.channels == 2)
        if not len(window.events):
            return GpuEncoded(window, events, cells, self.silent.of(window.events.sensor_size))
        return GpuEncoded(window, events, cells, sum_cells(events, cells, self.model.channels, num_bins))

    @torch.no_grad()
    def run(self, seen: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """The network's output `(C, bins, H, W)`."""
        voxel = join_channels(seen)[None]
        # The graph writes all its results to one place.
        return GraphedNetwork.of(self.model, tuple(voxel.shape))(voxel)[0].clone()

    @torch.no_grad()
    def begin(self, encoded: GpuEncoded, output: torch.Tensor) -> GpuBegun:
        """Start the choice of a window's events, and the copies of its results; nothing waits for the one before."""
        window, events, cells, voxel = encoded
        after = round_at_level(self.model.config.level, voxel, output)
        if self.model.channels == 2:
            voxel, after = turn_negative(voxel), turn_negative(after.clamp(min=0))
        choice = choose_kept_on_gpu(events, cells, voxel, after, window.seed)
        kept, listed = _copy_to_host(choice.kept), _copy_to_host(list_cells(choice.missing, LISTED))
        numbers = _copy_to_host(torch.stack([choice.num_missing, choice.num_unfit]))
        done = torch.cuda.Event()
        done.record()
        return GpuBegun(window, choice, output, kept, listed, numbers, done)

    def finish(self, begun: GpuBegun) -> AppliedVoxel:
        """The window's events, once the GPU is done with it."""
        recorded = begun.window.events
        begun.done.synchronize()
        num_missing, num_unfit = begun.numbers.tolist()
        if num_unfit:
            refuse_cells(num_unfit)
        kept = begun.kept.numpy()
        synthetic = (
            synthesise(begun, num_missing, self.cut.window_us) if num_missing else Events.empty(recorded.sensor_size)
        )
        return merge_events(recorded[kept], synthetic, kept)._replace(output=begun.output)


def synthesise(begun: GpuBegun, num_cells: int, window_us: int) -> Events:
    """The events that no recorded ones can be, in `num_cells` cells; see `codec.apply_voxel`."""
    (t0_us, recorded, seed, _), missing = begun.window, begun.choice.missing
    cells, counts = (list_cells(missing, num_cells).cpu() if num_cells > LISTED else begun.listed)[:, :num_cells]
    edges, size = bin_edges_us(missing.shape[1], window_us, t0_us), missing[0].numel()
    made = []
    for k in range(len(missing)):
        mine = cells // size == k
        drawn = decode_cells(cells[mine] % size, counts[mine], edges, seed + 2 * k + 1, recorded.sensor_size)
        made.append(drawn.to_events())
    return made[0] if len(made) == 1 else merge_events(made[0], made[1], begun.kept.numpy()).events


def turn_negative(voxel: torch.Tensor) -> torch.Tensor:
    """A voxel `(2, bins, H, W)` with the sign of its second channel, of negative events, turned."""
    return torch.cat([voxel[:1], -voxel[1:]])


def list_cells(voxel: torch.Tensor, size: int) -> torch.Tensor:
    """Flat index and content of the first cells that are not 0, as many as `size`, int64 `(2, size)`; no wait.

    Where there are fewer, the first cell of the voxel follows them.
    """
    flat = voxel.flatten()
    cells = torch.nonzero_static(flat, size=size, fill_value=0)[:, 0]
    return torch.stack([cells, flat[cells].long()])


def _copy_to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in page-locked memory, complete when the GPU has come so far."""
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
