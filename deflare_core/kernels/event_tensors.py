"""Events as torch tensors, and the codec's arithmetic on them where there are no kernels: on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from deflare_core.events import Events, SensorSize
from deflare_core.system.errors import DeflareError


class EventTensors(NamedTuple):
    """Events as torch tensors on one device: t int64 microseconds, x and y int32, p int8, and (height, width)."""

    t: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    p: torch.Tensor
    sensor_size: SensorSize

    @classmethod
    def from_events(cls, events: Events, device: torch.device | str = "cpu") -> EventTensors:
        """The events on a device."""
        columns = (np.ascontiguousarray(c) for c in (events.t, events.x, events.y, events.p))
        t, x, y, p = (torch.from_numpy(c.view(np.int16) if c.dtype == np.uint16 else c).to(device) for c in columns)
        return cls(t, x.int() & 0xFFFF, y.int() & 0xFFFF, p, events.sensor_size)

    def to_events(self) -> Events:
        """The events in host memory, validated."""
        t, x, y, p = (column.cpu().numpy() for column in self[:4])
        return Events.from_columns(t, x, y, p, self.sensor_size)


def as_event_tensors(events: EventTensors | torch.Tensor, sensor_size: SensorSize | None) -> EventTensors:
    """Event tensors as they are, or of an `(N, 4)` tensor `[t, x, y, p]` with t in us and p 1 for positive."""
    if isinstance(events, EventTensors):
        return events
    if events.ndim != 2 or events.shape[1] != 4 or sensor_size is None:
        raise DeflareError(
            f"Expected an (N, 4) tensor and a sensor_size; received {tuple(events.shape)}, {sensor_size}."
        )
    t, x, y, p = (events[:, i] for i in range(4))
    return EventTensors(t.long(), x.int(), y.int(), torch.where(p == 1, 1, -1).to(torch.int8), sensor_size)


def find_cells(
    events: EventTensors, num_bins: int, duration_us: int, t0_us: int, split_polarity: bool = False
) -> torch.Tensor:
    """The flat index of each event's cell in the voxel, int64, for events inside the window.

    Split by polarity, the voxel is `(2, bins, H, W)`, of positive and of negative events.
    """
    height, width = events.sensor_size
    bins = torch.div((events.t - t0_us) * num_bins, duration_us, rounding_mode="floor")
    if split_polarity:
        bins = bins + (events.p < 0) * num_bins
    return (bins * height + events.y) * width + events.x


def sum_cells(events: EventTensors, cells: torch.Tensor, num_channels: int, num_bins: int) -> torch.Tensor:
    """The voxel `(C, bins, H, W)` of N events with the cells `(N,)` of `find_cells`, float32 on their device.

    One channel adds up polarities, two count positive and negative events apart.
    """
    voxel = torch.zeros((num_channels, num_bins, *events.sensor_size), device=events.t.device)
    polarity = events.p if num_channels == 1 else events.p.abs()
    voxel.view(-1).index_add_(0, cells, polarity.float())
    return voxel


def join_channels(voxels: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """The channels of several voxels `(C, bins, H, W)` as those of one, zeros where there is none but the first."""
    mine = voxels[0]
    assert mine is not None, "A window has a voxel of its own."
    return mine if len(voxels) == 1 else torch.cat([torch.zeros_like(mine) if v is None else v for v in voxels])


def decode_tensor(voxel: torch.Tensor, edges: np.ndarray, seed: int) -> EventTensors:
    """Events drawn from a voxel `(bins, H, W)` on its device; bin b lasts from edges[b] to edges[b + 1], int64 us."""
    counts = voxel.round().int().flatten()
    cells = counts.nonzero().flatten()
    return decode_cells(cells, counts[cells], edges, seed, (voxel.shape[1], voxel.shape[2]))


def decode_cells(
    cells: torch.Tensor, counts: torch.Tensor, edges: np.ndarray, seed: int, sensor_size: SensorSize
) -> EventTensors:
    """Events drawn, as by `codec.voxel_to_events`, from the K cells of a voxel that are not empty, on their device.

    `cells` int64 `(K,)` are their flat indices, ascending, and `counts`, whole numbers `(K,)`, what they hold.
    """
    height, width = sensor_size
    origin = torch.arange(len(cells), device=cells.device).repeat_interleave(counts.abs())
    starts = torch.as_tensor(edges, device=cells.device)
    bins = torch.div(cells[origin], height * width, rounding_mode="floor")
    draws = random_below_tensor(seed, torch.arange(len(bins), device=cells.device), starts[bins + 1] - starts[bins])
    t, order = (starts[bins] + draws).sort(stable=True)
    origin = origin[order]
    cells, p = cells[origin], counts[origin].sign().to(torch.int8)
    x, y = (cells % width).int(), (torch.div(cells, width, rounding_mode="floor") % height).int()
    return EventTensors(t, x, y, p, sensor_size)


def random_below_tensor(seed: int, counter: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """What `codec_loops.random_below` gives, for int64 tensors of counters and limits below 2^31; int64 wraps."""
    z = _wrapped(seed * 0xD1342543DE82EF95) + (counter + 1) * _wrapped(0x9E3779B97F4A7C15)
    z = (z ^ _shifted(z, 30)) * _wrapped(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _wrapped(0x94D049BB133111EB)
    return _shifted(_shifted(z, 32) * limit, 32)


def _wrapped(number: int) -> int:
    """The signed 64-bit number with the same last 64 bits."""
    return (number + 2**63) % 2**64 - 2**63


def _shifted(z: torch.Tensor, bits: int) -> torch.Tensor:
    """The bits moved right, with zeros coming in."""
    return (z >> bits) & (2 ** (64 - bits) - 1)
