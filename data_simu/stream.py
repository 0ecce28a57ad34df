"""Simulated pairs as training data that never ends: new scenes as fast as a GPU draws them, no files.

Processes prepare what seeds stand for. A thread simulates the next pairs on the GPU, on a CUDA stream of its own, while
the network trains on the last ones. This is the one door through which training knows the simulator.
"""

from __future__ import annotations

import copy
import functools
import itertools
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from multiprocessing.util import Finalize
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm import tqdm

from data_simu.config import SimulationConfig
from data_simu.gpu.simulation import Preparation, TensorPair, as_tensor, map_arrays, prepare, simulate_on
from data_simu.pairs import derive_seed
from data_simu.simulation import simulate
from deflare_core.codec import encode_window
from deflare_core.config import SimulatedDataConfig
from deflare_core.events import WINDOW_US
from deflare_core.kernels.event_tensors import EventTensors, join_channels
from deflare_core.system.prefetch import prefetch
from deflare_core.system.settings import ConfigError, load_config
from deflare_core.windows import neighbour_offsets

Sample = dict[str, torch.Tensor]
Made = TypeVar("Made")
LAST = -100
"""Priority of what a process does last; multiprocessing empties its queues at -5."""


class SimulatedPairs(IterableDataset[Sample]):
    """The windows of endless simulated pairs, in order: {"raw": (1, bins, H, W), "label": (1, bins, H, W)} float32.

    Pair k of a configuration is always the same on one device, and is recording k of the training set that
    `deflare simulate` writes of it. On a CPU the pairs are simulated there, which takes seconds each.

    Parameters
    ----------
    config : what to simulate.
    device : where the samples are made and stay.
    split : "train" or "test", the two sets of seeds of a configuration.
    split_polarity : give `(2, bins, H, W)` instead, the numbers of positive and of negative events.
    first : number of the first pair.
    workers : processes that prepare pairs (or on a CPU simulate them).
    num_ahead : pairs that are made before they are asked for.
    """

    def __init__(
        self,
        config: SimulationConfig,
        device: torch.device | str,
        *,
        split: str = "train",
        split_polarity: bool = False,
        first: int = 0,
        workers: int = 2,
        num_ahead: int = 2,
    ) -> None:
        self.config, self.device, self.split = config, torch.device(device), split
        self.split_polarity, self.first, self.workers, self.num_ahead = split_polarity, first, workers, num_ahead

    def __iter__(self) -> Iterator[Sample]:
        with closing(prefetch(self._simulate(self.windows), self.num_ahead)) as pairs:
            for samples in pairs:
                yield from samples

    def pairs(self) -> Generator[TensorPair, None, None]:
        """The pairs themselves, as events on the device, without end."""
        return prefetch(self._simulate(lambda pair: pair), self.num_ahead)

    def windows(self, pair: TensorPair) -> list[Sample]:
        """The whole windows of a pair, as `__iter__` gives them; the rest at its end is left out."""
        start, end = pair.clock_us
        starts = range(start, end - WINDOW_US + 1, WINDOW_US)
        return [{"raw": self._encode(pair.flare, t0), "label": self._encode(pair.clean, t0)} for t0 in starts]

    def _encode(self, events: EventTensors, t0_us: int) -> torch.Tensor:
        edges = torch.tensor([t0_us, t0_us + WINDOW_US], device=events.t.device)
        first, last = torch.searchsorted(events.t, edges).tolist()
        t, x, y, p = (column[first:last] for column in events[:4])
        window = EventTensors(t, x, y, p, events.sensor_size)
        return encode_window(window, t0_us, channels=2 if self.split_polarity else 1)

    def _simulate(self, make: Callable[[TensorPair], Made]) -> Iterator[Made]:
        """What is made of each pair, complete on the device: who takes it does not wait for the GPU."""
        if self.device.type == "cpu":
            yield from map(make, self._preparations())
            return
        stream = torch.cuda.Stream(self.device)
        for preparation in self._preparations():
            with torch.cuda.stream(stream):
                made = make(simulate_on(preparation, self.device))
                stream.synchronize()
                # The caller uses them on the default stream; without this their memory might be given away too early.
                for tensor in _find_tensors(made):
                    tensor.record_stream(torch.cuda.default_stream(self.device))
            yield made

    def _preparations(self) -> Iterator[Any]:
        source = _Preparations(self.config, self.split, self.device.type)
        numbers: Any = itertools.count(self.first)
        context = "spawn" if self.workers else None
        # Tensors pass from one process to another without a copy; arrays would be pickled.
        to_tensors = functools.partial(map_arrays, as_tensor)
        return iter(
            DataLoader(
                source, batch_size=None, sampler=numbers, num_workers=self.workers, collate_fn=to_tensors,
                multiprocessing_context=context, prefetch_factor=2 if self.workers else None,
                pin_memory=self.device.type == "cuda", worker_init_fn=leave_at_once,
            )
        )  # fmt: skip


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

    def _spread(self, counts: torch.Tensor) -> torch.Tensor:
        voxels = torch.zeros((len(counts), self.shape.numel()), device=self.cells.device)
        voxels[:, self.cells.long()] = counts.float()
        return voxels


class SimulatedWindows(Dataset[Sample]):
    """The windows of some simulated pairs, kept on the device: 6 bytes for each cell that holds an event.

    A sample is {"raw": (C, bins, H, W), "label": (1 or 2, bins, H, W)} float32; `with_context` adds its neighbours.

    Parameters
    ----------
    config : which pairs.
    device : where they are simulated and kept.
    split_polarity : as of `SimulatedPairs`.
    progress : show a progress bar.
    """

    def __init__(
        self, config: SimulatedDataConfig, device: torch.device, split_polarity: bool = False, progress: bool = True
    ) -> None:
        kinds = load_kinds(config)
        simulation = kinds[0][0]
        self.config, self.sensor_size, self.context = config, simulation.sensor_size, 0
        self.num_windows = simulation.duration_us // WINDOW_US
        samples = itertools.chain.from_iterable(
            itertools.islice(
                SimulatedPairs(kind, device, split=config.split, split_polarity=split_polarity, workers=config.workers),
                num_pairs * self.num_windows,
            )
            for kind, num_pairs in kinds
        )
        total = self.num_windows * sum(num_pairs for _, num_pairs in kinds)
        shown = tqdm(samples, total=total, unit="window", disable=not progress)
        self._counts = [SparseCounts.from_voxels(torch.stack([sample["raw"], sample["label"]])) for sample in shown]

    def __len__(self) -> int:
        return len(self._counts)

    def __getitem__(self, index: int) -> Sample:
        raw, label = self._counts[index].to_voxels()
        seen = [raw]
        for offset in neighbour_offsets(self.context)[1:]:
            inside = 0 <= index % self.num_windows + offset < self.num_windows
            seen.append(self._counts[index + offset].to_input() if inside else None)
        return {"raw": join_channels(seen), "label": label}

    def with_context(self, context: int) -> SimulatedWindows:
        """The same windows, not copied, each input with the `context` inputs before and after it in its pair.

        Their channels come after those of the window itself. Beyond the ends of the pair, inputs are empty.
        """
        found = copy.copy(self)
        found.context = context
        return found

    def window_name(self, index: int) -> str:
        """The pair and window of a sample, for messages."""
        pair, window = divmod(index, self.num_windows)
        for kind in self.config.kinds:
            if pair < kind.num_pairs:
                return f"{kind}, {self.config.split} pair {pair}[{window}]"
            pair -= kind.num_pairs
        raise IndexError(f"Sample {index} of {len(self)}.")


def load_simulation(config: SimulatedDataConfig) -> SimulationConfig:
    """The configuration of the first pairs, with the settings that replace those of the file."""
    return load_config(SimulationConfig, config.simulation, config.overrides)


def load_kinds(config: SimulatedDataConfig) -> list[tuple[SimulationConfig, int]]:
    """The configuration of each kind of pairs, and how many pairs there are of it.

    Raises
    ------
    ConfigError
        When further pairs have another length or another sensor than the first ones.
    """
    found = [load_config(SimulationConfig, kind.simulation, kind.overrides) for kind in config.kinds]
    first = found[0]
    for kind, simulation in zip(config.kinds, found, strict=True):
        if (simulation.sensor_size, simulation.duration_us) != (first.sensor_size, first.duration_us):
            raise ConfigError(
                f"Pairs of {kind} are {simulation.sensor_size}, {simulation.duration_us} us; the first ones are "
                f"{first.sensor_size}, {first.duration_us} us. All must be alike; set sensor_size and duration_us in "
                "data.overrides, which hold for all."
            )
    return [(simulation, kind.num_pairs) for kind, simulation in zip(config.kinds, found, strict=True)]


@functools.lru_cache(maxsize=2)
def simulate_windows(
    config: SimulatedDataConfig, device: torch.device, split_polarity: bool, progress: bool
) -> SimulatedWindows:
    """The `SimulatedWindows` of a configuration; those of training and validation are kept for the next run."""
    return SimulatedWindows(config, device, split_polarity, progress)


class _Preparations(Dataset[Any]):
    """What the pairs of a configuration need of a processor, by number."""

    def __init__(self, config: SimulationConfig, split: str, device_type: str) -> None:
        self.config, self.split, self.device_type = config, split, device_type

    def __getitem__(self, index: int) -> Preparation | TensorPair:
        seed = derive_seed(self.config.seed, self.split, index)
        if self.device_type != "cpu":
            return prepare(self.config, seed)
        pair = simulate(self.config, seed)
        flare, clean = (EventTensors.from_events(events) for events in (pair.flare, pair.clean))
        flare_label, clean_label = (torch.from_numpy(label) for label in (pair.flare_label, pair.clean_label))
        return TensorPair(flare, clean, flare_label, clean_label, pair.clock_us, pair.plan)


def _narrow(counts: torch.Tensor) -> torch.Tensor:
    """The whole numbers as int8 if all fit, else as int16."""
    fit = bool((counts.abs() <= torch.iinfo(torch.int8).max).all())
    return counts.to(torch.int8 if fit else torch.int16)


def _find_tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a nest of lists, dictionaries and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _find_tensors(part)


def leave_at_once(worker: int) -> None:
    """Let the process end as soon as its queues are empty, before libraries clean up.

    Where a library's threads still run, its clean-up aborts the process, and torch then reports a failed worker. A
    worker that did fail ends with its error as usual.
    """
    Finalize(None, lambda: sys.exc_info()[0] or os._exit(0), exitpriority=LAST)
