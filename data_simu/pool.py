"""A pool of simulated windows that a network trains on: made when a run starts, or renewed while it trains.

This is the one door through which training knows the simulator.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Generator, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm import tqdm

from data_simu.config import SimulationConfig
from data_simu.gpu.simulation import TensorPair
from data_simu.stream import PairOrder, Sample, SimulatedPairs
from deflare_core.config import SimulatedDataConfig
from deflare_core.events import WINDOW_US
from deflare_core.kernels.event_tensors import join_channels
from deflare_core.system.prefetch import prefetch_from_process
from deflare_core.system.settings import ConfigError, load_config
from deflare_core.windows import neighbour_offsets

AHEAD = 64
"""Pairs that are simulated before a renewed pool asks for them: draws ask for several at once, and then for none."""


class SparseCounts(NamedTuple):
    """Input and target of a window without the cells where both are empty, which nearly all are.

    Parameters
    ----------
    cells : the flat indices of the K other cells, `(K,)` int32.
    counts : what input and target hold there, `(2, K)` int8, or int16 where a count needs it.
    shape : of a voxel, `(C, bins, H, W)`.
    """

    cells: torch.Tensor
    counts: torch.Tensor
    shape: torch.Size

    @classmethod
    def from_voxels(cls, voxels: torch.Tensor) -> SparseCounts:
        """The counts of voxels `(2, C, bins, H, W)` that hold whole numbers."""
        flat = voxels.flatten(1)
        cells = flat.any(0).nonzero()[:, 0]
        return cls(cells.int(), _narrow(flat[:, cells]), voxels.shape[1:])

    def to_voxels(self) -> torch.Tensor:
        """Input and target, `(2, C, bins, H, W)` float32."""
        return self._spread(self.counts).view(2, *self.shape)

    def to_input(self) -> torch.Tensor:
        """The input alone, `(C, bins, H, W)` float32."""
        return self._spread(self.counts[:1]).view(self.shape)

    def to(self, device: torch.device) -> SparseCounts:
        """The same on that device."""
        return SparseCounts(self.cells.to(device), self.counts.to(device), self.shape)

    def _spread(self, counts: torch.Tensor) -> torch.Tensor:
        voxels = torch.zeros((len(counts), self.shape.numel()), device=self.cells.device)
        voxels[:, self.cells.long()] = counts.float()
        return voxels


class SimulatedWindows(Dataset[Sample]):
    """The windows of simulated pairs, kept on the device: 6 bytes for each cell that holds an event.

    A sample is {"raw": (C, bins, H, W), "label": (1 or 2, bins, H, W)} float32; `with_context` adds its neighbours.
    With `fresh_share`, windows are numbered on without end. Those beyond the last are made when they are first asked
    for, and of each number of windows that a pool holds, the oldest are dropped. Ask in about rising order.

    Parameters
    ----------
    config : which pairs.
    device : where they are kept, and simulated unless `config.device` is another.
    split_polarity : as of `SimulatedPairs`.
    progress : show a progress bar.
    """

    def __init__(
        self, config: SimulatedDataConfig, device: torch.device, split_polarity: bool = False, progress: bool = True
    ) -> None:
        self.config, self.context = config, 0
        self.order = order_pairs(config)
        first = self.order.find(0)[0]
        self.sensor_size, self.num_windows = first.sensor_size, first.duration_us // WINDOW_US
        self._split_polarity, self._device, self._progress = split_polarity, device, progress
        self._pairs: dict[int, list[SparseCounts]] = {}
        self._made: Generator[list[SparseCounts], None, None] | None = None
        if not config.fresh_share:
            self._make_pairs(range(len(self.order.kinds))).close()

    def __len__(self) -> int:
        """Windows that there are at a time."""
        return self.num_windows * len(self.order.kinds)

    def __getitem__(self, index: int) -> Sample:
        window = index % self.num_windows
        counts = self._find_pair(index // self.num_windows)
        raw, label = counts[window].to_voxels()
        seen = [raw]
        for offset in neighbour_offsets(self.context)[1:]:
            inside = 0 <= window + offset < self.num_windows
            seen.append(counts[window + offset].to_input() if inside else None)
        return {"raw": join_channels(seen), "label": label}

    def find_sizes(self) -> NDArray[np.int64] | None:
        """A number for the sensor size of each window of the pool, `(len(self),)`; None if all are alike.

        Raises
        ------
        ConfigError
            When pairs of a pool that is not renewed differ in their sensor: a shuffled order would mix them in a step.
        """
        sizes = [config.sensor_size for config in self.order.configs]
        known = sorted(set(sizes))
        if len(known) == 1:
            return None
        if not self.config.fresh_share:
            raise ConfigError(
                f"Pairs of {self.config.simulation} and the further ones are of different sensors, "
                f"{', '.join(map(str, known))}; set sensor_size in data.overrides, which hold for all, or "
                "data.fresh_share above 0, which draws a step's windows of one sensor."
            )
        numbers = np.array([known.index(size) for size in sizes])
        return np.repeat(numbers[self.order.kinds], self.num_windows)

    def _find_pair(self, pair: int) -> list[SparseCounts]:
        """The windows of a pair; pairs up to it are made if they are not there."""
        if pair not in self._pairs:
            first = max(self._pairs, default=max(pair - len(self.order.kinds) - 1, -1)) + 1
            self._made = self._make_pairs(range(first, pair + 1))
        return self._pairs[pair]

    def _make_pairs(self, numbers: range) -> Generator[list[SparseCounts], None, None]:
        """Simulate these pairs, which follow the last ones, and drop older ones than a pool holds."""
        made = self._made or begin_pairs(self.config, self.order, self._device, self._split_polarity, numbers.start)
        for number in tqdm(numbers, unit="pair", disable=not self._progress or bool(self._pairs)):
            self._pairs[number] = next(made)
            # One pair more than a pool holds: where a pool starts within a pair, it ends within one.
            self._pairs.pop(number - len(self.order.kinds) - 1, None)
        return made

    def with_context(self, context: int) -> SimulatedWindows:
        """The same windows, not copied, each input with the `context` inputs before and after it in its pair.

        Their channels come after those of the window itself. Beyond the ends of the pair, inputs are empty.
        """
        found = copy.copy(self)
        found.context = context
        if self.config.fresh_share:  # Each run renews a pool of its own, from its own step on.
            found._pairs = {}
        return found

    def window_name(self, index: int) -> str:
        """The pair and window of a sample, for messages."""
        pair, window = divmod(index, self.num_windows)
        if not self.config.fresh_share and pair >= len(self.order.kinds):
            raise IndexError(f"Sample {index} of {len(self)}.")
        kind = self.config.kinds[self.order.kinds[pair % len(self.order.kinds)]]
        return f"{kind}, {self.config.split} pair {self.order.find(pair)[1]}[{window}]"


def begin_pairs(
    config: SimulatedDataConfig, order: PairOrder, home: torch.device, split_polarity: bool, first: int
) -> Generator[list[SparseCounts], None, None]:
    """The windows of one pair after the other, from pair `first` on, on the device `home`.

    While a network trains, the pairs of a GPU come from a process of their own: in a thread they took four times as
    long, and so did the training steps.
    """
    device, renewed = torch.device(config.device or home), bool(config.fresh_share)
    pairs = SimulatedPairs(
        order,
        device,
        split=config.split,
        split_polarity=split_polarity,
        first=first,
        workers=config.workers,
        num_ahead=AHEAD if renewed and device.type == "cpu" else 2,
    )
    if not renewed or device.type == "cpu":
        yield from pairs.make(functools.partial(pack_windows, pairs))
        return
    for counts in prefetch_from_process(functools.partial(pack_pairs, pairs), AHEAD):
        yield [count.to(home) for count in counts]


def pack_windows(pairs: SimulatedPairs, pair: TensorPair) -> list[SparseCounts]:
    """The windows of a pair."""
    return [SparseCounts.from_voxels(torch.stack([window["raw"], window["label"]])) for window in pairs.windows(pair)]


def pack_pairs(pairs: SimulatedPairs) -> Iterator[list[SparseCounts]]:
    """The windows of each pair in host memory, without end."""
    for counts in pairs.make(functools.partial(pack_windows, pairs)):
        yield [count.to(torch.device("cpu")) for count in counts]


def order_pairs(config: SimulatedDataConfig) -> PairOrder:
    """The order of the pairs: one kind after the other, or mixed by a fixed draw where a pool is renewed.

    Raises
    ------
    ConfigError
        When further pairs have another length than the first ones.
    """
    found = [load_config(SimulationConfig, kind.simulation, kind.overrides) for kind in config.kinds]
    for kind, simulation in zip(config.kinds, found, strict=True):
        if simulation.duration_us != found[0].duration_us:
            raise ConfigError(
                f"Pairs of {kind} are {simulation.duration_us} us long; the first ones are {found[0].duration_us} us. "
                "All must be alike; set duration_us in data.overrides, which hold for all."
            )
    kinds = np.repeat(np.arange(len(found)), [kind.num_pairs for kind in config.kinds])
    return PairOrder(tuple(found), np.random.default_rng(0).permutation(kinds) if config.fresh_share else kinds)


@functools.lru_cache(maxsize=2)
def simulate_windows(
    config: SimulatedDataConfig, device: torch.device, split_polarity: bool, progress: bool
) -> SimulatedWindows:
    """The `SimulatedWindows` of a configuration; those of training and validation are kept for the next run."""
    return SimulatedWindows(config, device, split_polarity, progress)


def _narrow(counts: torch.Tensor) -> torch.Tensor:
    """The whole numbers as int8 if all fit, else as int16."""
    fit = bool((counts.abs() <= torch.iinfo(torch.int8).max).all())
    return counts.to(torch.int8 if fit else torch.int16)
