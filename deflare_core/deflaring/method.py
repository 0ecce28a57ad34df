"""Methods: ways to deflare, all of one kind. Windows go in, and the same windows come out with other events.

NetworkMethod    a trained network with the event-faithful decode.
BaselineMethod   a filter of `streams.baselines`.
OracleMethod     the input without the events that flare caused, for recordings that carry causes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from typing import Protocol

import numpy as np
import torch

from deflare_core.codec import AppliedVoxel
from deflare_core.deflaring.decision_level import list_constants
from deflare_core.deflaring.stream import deflare_windows
from deflare_core.deflaring.stretches import deflare_stretches
from deflare_core.events import FLARE, SensorSize
from deflare_core.model import VoxelNetwork
from deflare_core.streams.baselines import find_baseline
from deflare_core.system.devices import explain_out_of_memory
from deflare_core.system.errors import DeflareError
from deflare_core.system.limits import check_memory
from deflare_core.windows import Cut, Window


class Method(Protocol):
    """A way to deflare."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def about(self) -> str:
        """What it is, for reports."""

    @property
    def key(self) -> str:
        """A digest of everything but the windows and their cut that decides what it gives."""

    @property
    def reach(self) -> int | None:
        """How many windows before and after a window decide what becomes of it; None: all before it."""

    def deflare(self, windows: Iterable[Window], cut: Cut, skip: int = 0) -> Iterator[AppliedVoxel]:
        """Every window after the method, in order, but the first `skip`, which are only seen."""


@dataclass(frozen=True)
class NetworkMethod:
    """A network with the event-faithful decode.

    Parameters
    ----------
    model : the network, on the device to use.
    overlap : blend its outputs of overlapping windows, at twice the work; see `overlap`.
    name : what tables call it.
    origin : where its weights come from, for reports.
    """

    model: VoxelNetwork
    overlap: bool = False
    name: str = "network"
    origin: str = ""

    @property
    def about(self) -> str:
        """The kind of network, its feature maps and its origin."""
        config = self.model.config
        return f"{config.name}, feature maps {list(config.f_maps)}{self.origin and f', {self.origin}'}"

    @cached_property
    def key(self) -> str:
        """A digest of the network's settings, its weights, the rule of its level, and the kind of device."""
        # What multiplies in 16 bits, or in others, gives other events.
        with torch.no_grad():
            is_half = self.model.is_half_on(self.model.device)
        parts = [self.model.device.type, is_half, self.overlap, *list_constants(self.model.config.level)]
        found = hashlib.sha256((self.model.config.model_dump_json() + json.dumps(parts)).encode())
        for name, tensor in self.model.state_dict().items():
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    @property
    def reach(self) -> int:
        """Its context, and with overlap one window more."""
        return self.model.config.context + self.overlap

    def deflare(self, windows: Iterable[Window], cut: Cut, skip: int = 0) -> Iterator[AppliedVoxel]:
        """As `stream.deflare_windows`; when a GPU's memory does not suffice, the error says what needs less."""
        windows = iter(windows)
        for first in islice(windows, 1):
            self._check_memory(first.events.sensor_size)
            with explain_out_of_memory(partial(self._advise_on_memory, first.events.sensor_size)):
                yield from deflare_windows(self.model, chain([first], windows), cut, overlap=self.overlap, skip=skip)

    def _check_memory(self, sensor_size: SensorSize) -> None:
        """Raise a DeflareError unless a processor has room for what the first convolution takes in and gives."""
        (height, width), config = sensor_size, self.model.config
        planes = 2 * config.f_maps[0] * (1 / config.patch**2 if self.model.is_flat else config.num_bins)
        if self.model.device.type == "cpu":
            check_memory(
                4 * planes * height * width, f"a frame of {height} x {width} in a network", "take a part (--crop)"
            )

    def _advise_on_memory(self, sensor_size: SensorSize) -> tuple[str, str]:
        height, width = sensor_size
        # A 2-D backbone is not cut in strips: it needs an eighth of the memory on whole frames.
        strips = f"Let it work on strips of them with strip_rows={max(8, height // 8)}, or use"
        return f"for frames of {height} x {width}", f"{'Use' if self.model.is_flat else strips} device=cpu."


@dataclass(frozen=True)
class BaselineMethod:
    """A filter by its name in `streams.baselines`; a name that is not there is a DeflareError."""

    name: str
    seed: int = 0
    reach: None = None

    def __post_init__(self) -> None:
        find_baseline(self.name)

    @property
    def about(self) -> str:
        """What the filter is."""
        return find_baseline(self.name).about

    @property
    def key(self) -> str:
        """A digest of the name and the seed."""
        return hashlib.sha256(f"{self.name} {self.seed}".encode()).hexdigest()[:16]

    def deflare(self, windows: Iterable[Window], cut: Cut, skip: int = 0) -> Iterator[AppliedVoxel]:
        """As `stretches.deflare_stretches`."""
        deflared = deflare_stretches(find_baseline(self.name).function, windows, cut.window_us, self.seed)
        return islice(deflared, skip, None)


@dataclass(frozen=True)
class OracleMethod:
    """The input without the events that flare caused.

    It is no bound: where flare has changed when a pixel fires, what it keeps differs from the target too. The least
    MSE that removing events can reach is the score `mse_least`.
    """

    name: str = "oracle"
    about: str = "the input without the events that flare caused, by the causes in simulated recordings"
    key: str = "oracle"
    reach: int = 0

    def deflare(self, windows: Iterable[Window], cut: Cut, skip: int = 0) -> Iterator[AppliedVoxel]:
        """Every window without its flare; windows without causes are a DeflareError."""
        for window in islice(windows, skip, None):
            if window.causes is None:
                raise DeflareError("carries no causes (column `label`), which the oracle needs; leave it out.")
            kept = window.causes != FLARE
            yield AppliedVoxel(window.events[kept], np.zeros(int(kept.sum()), np.bool_), kept)
