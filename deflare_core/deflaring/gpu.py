"""Deflaring on a GPU, events in host memory to events in host memory: encode, network and decode there.

One window is always ahead: while the host takes the events of one apart, the GPU works on the next. Which events are
kept is decided as on the CPU, by the same draws, so the output differs only where the network's precision makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from deflare_core.codec import AppliedVoxel, bin_edges_us, merged, refuse_cells
from deflare_core.deflaring.decision_level import window_level
from deflare_core.deflaring.stream import neighbourhoods
from deflare_core.events import Events
from deflare_core.kernels.codec_triton import Choice, choose_kept_on_gpu
from deflare_core.kernels.cuda_graphs import GraphedNetwork
from deflare_core.kernels.event_tensors import EventTensors, cells_of, decode_cells, side_by_side
from deflare_core.model import VoxelNetwork
from deflare_core.windows import Window

LISTED = 1 << 14
"""Cells where events are missing that travel to the host without being counted first; more have to wait."""


class Encoded(NamedTuple):
    """A window on the GPU.

    Parameters
    ----------
    window : as it came.
    events, cells : its events, and the flat index of each one's cell.
    voxel, counts : float32 `(C, bins, H, W)`, the sums of their polarities, and what the network takes.
    """

    window: Window
    events: EventTensors
    cells: torch.Tensor
    voxel: torch.Tensor
    counts: torch.Tensor


class Begun(NamedTuple):
    """A window that the GPU works on.

    Parameters
    ----------
    window, choice : the window, and which of its events are kept, on the GPU.
    kept, listed, numbers : in host memory, which events are kept, the first cells where some are missing, and of how
        many cells that is true and how many cannot be rounded.
    done : when these three are complete.
    """

    window: Window
    choice: Choice
    kept: torch.Tensor
    listed: torch.Tensor
    numbers: torch.Tensor
    done: torch.cuda.Event


def deflare_on_gpu(
    model: VoxelNetwork, windows: Iterable[Window], window_us: int, num_bins: int
) -> Iterator[AppliedVoxel]:
    """Every window after the network's output was applied to it; see `codec.apply_voxel`.

    Parameters
    ----------
    model : a network on a GPU that `is_half_on` it.
    windows : windows of one sensor, whose events lie inside them.
    window_us, num_bins : how windows are cut.

    Raises
    ------
    ValueError
        When a cell of the output is not finite or beyond +-32,767.
    """
    upload, begun = torch.cuda.Stream(next(model.parameters()).device), None
    with torch.no_grad():
        on_gpu = (_encode(window, model.channels, num_bins, window_us, upload) for window in windows)
        for seen in neighbourhoods(on_gpu, model.config.context):
            following = _begin(model, seen)
            if begun:
                yield _finish(begun, window_us)
            begun = following
        if begun:
            yield _finish(begun, window_us)


def _encode(window: Window, num_channels: int, num_bins: int, window_us: int, upload: torch.cuda.Stream) -> Encoded:
    """Start the copy of a window to the GPU, and its encoding there."""
    t0_us, recorded, _ = window
    with torch.cuda.stream(upload):
        events = EventTensors.from_events(recorded, upload.device)
    now = torch.cuda.current_stream(upload.device)
    now.wait_stream(upload)
    for column in events[:4]:
        column.record_stream(now)
    voxel = torch.zeros((num_channels, num_bins, *recorded.sensor_size), device=upload.device)
    cells = cells_of(events, num_bins, window_us, t0_us, split_polarity=num_channels == 2)
    voxel.view(-1).index_add_(0, cells, events.p.float())
    return Encoded(window, events, cells, voxel, turned(voxel))


def _begin(model: VoxelNetwork, seen: tuple[Encoded | None, ...]) -> Begun:
    """Start the work on the first of the windows, and the copies of its results; nothing waits for the one before."""
    assert seen[0] is not None, "A window sees itself."
    window, events, cells, before, counts = seen[0]
    voxel = side_by_side([found.counts if found else torch.zeros_like(counts) for found in seen])[None]
    network = GraphedNetwork.of(model, tuple(voxel.shape))
    output = network(voxel)[0]
    level = model.config.level
    output = counted_from(level if isinstance(level, float) else window_level(counts, output), output)
    after = turned(output.clamp(min=0)) if model.channels == 2 else output
    choice = choose_kept_on_gpu(events, cells, before, after, window[2])
    kept, listed = _to_host(choice.kept), _to_host(listed_cells(choice.missing, LISTED))
    numbers = _to_host(torch.stack([choice.num_missing, choice.num_unfit]))
    done = torch.cuda.Event()
    done.record()
    return Begun(window, choice, kept, listed, numbers, done)


def turned(voxel: torch.Tensor) -> torch.Tensor:
    """A voxel `(C, bins, H, W)` with the sign of the second channel, if of negative events, turned."""
    return torch.cat([voxel[:1], -voxel[1:]])


def counted_from(level: torch.Tensor | float, voxel: torch.Tensor) -> torch.Tensor:
    """As `codec.at_level`."""
    if isinstance(level, float) and level == 0.5:
        return voxel
    return torch.copysign((voxel.abs() + (1 - level)).floor(), voxel)


def _finish(begun: Begun, window_us: int) -> AppliedVoxel:
    """The window's events, once the GPU is done with it."""
    _, recorded, _ = begun.window
    begun.done.synchronize()
    num_missing, num_unfit = begun.numbers.tolist()
    if num_unfit:
        refuse_cells(num_unfit)
    kept = begun.kept.numpy()
    synthetic = _missing(begun, num_missing, window_us) if num_missing else Events.empty(recorded.sensor_size)
    return merged(recorded[kept], synthetic, kept)


def _missing(begun: Begun, num_cells: int, window_us: int) -> Events:
    """The events that no recorded ones can be; see `codec.apply_polarity_voxel`."""
    (t0_us, recorded, seed), missing = begun.window, begun.choice.missing
    cells, counts = (listed_cells(missing, num_cells).cpu() if num_cells > LISTED else begun.listed)[:, :num_cells]
    edges, size = bin_edges_us(missing.shape[1], window_us, t0_us), missing[0].numel()
    made = []
    for k in range(len(missing)):
        mine = cells // size == k
        drawn = decode_cells(cells[mine] % size, counts[mine], edges, seed + 2 * k + 1, recorded.sensor_size)
        made.append(drawn.to_events())
    return made[0] if len(made) == 1 else merged(made[0], made[1], begun.kept.numpy()).events


def listed_cells(voxel: torch.Tensor, size: int) -> torch.Tensor:
    """Flat index and content of the first cells that are not 0, as many as `size`, int64 `(2, size)`; no wait.

    Where there are fewer, the first cell of the voxel follows them.
    """
    flat = voxel.flatten()
    cells = torch.nonzero_static(flat, size=size, fill_value=0)[:, 0]
    return torch.stack([cells, flat[cells].long()])


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in page-locked memory, complete when the GPU has come so far."""
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
