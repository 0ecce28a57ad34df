"""Simulated pairs as training data that never ends: new scenes as fast as a GPU draws them, no files.

Processes prepare what seeds stand for. A thread simulates the next pairs on the GPU, on a CUDA stream of its own, while
the network trains on the last ones.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from multiprocessing.util import Finalize
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset

from data_simu.config import SimulationConfig
from data_simu.gpu.simulation import Preparation, TensorPair, as_tensor, map_arrays, prepare, simulate_on
from data_simu.pairs import derive_seed
from data_simu.recorded import check_backgrounds
from data_simu.simulation import simulate
from deflare_core.codec import encode_window
from deflare_core.events import WINDOW_US
from deflare_core.kernels.event_tensors import EventTensors
from deflare_core.system.prefetch import load_items, prefetch

Sample = dict[str, torch.Tensor]
Made = TypeVar("Made")
LAST = -100
"""Priority of what a process does last; multiprocessing empties its queues at -5."""


class PairOrder(NamedTuple):
    """Which pairs come in which order: those of several configurations, in cycles that are all alike.

    Parameters
    ----------
    configs : the configuration of each kind.
    kinds : the kind of each pair of a cycle, `(num,)` whole numbers.
    """

    configs: tuple[SimulationConfig, ...]
    kinds: NDArray[np.int64]

    def find(self, number: int) -> tuple[SimulationConfig, int]:
        """The configuration of pair `number`, and the pair's own number among those of its kind."""
        cycle, place = divmod(number, len(self.kinds))
        same = self.kinds == self.kinds[place]
        return self.configs[self.kinds[place]], cycle * int(same.sum()) + int(same[:place].sum())


class SimulatedPairs(IterableDataset[Sample]):
    """The windows of endless simulated pairs, in order: {"raw": (1, bins, H, W), "label": (1, bins, H, W)} float32.

    Pair k of a configuration is always the same on one device, and is recording k of the training set that
    `deflare simulate` writes of it. On a CPU the pairs are simulated there, which takes seconds each.

    Parameters
    ----------
    config : what to simulate; or several configurations, and their order.
    device : where the samples are made and stay.
    split : "train" or "test", the two sets of seeds of a configuration.
    split_polarity : give `(2, bins, H, W)` instead, the numbers of positive and of negative events.
    first : number of the first pair.
    workers : processes that prepare pairs (or on a CPU simulate them).
    num_ahead : pairs that are made before they are asked for.
    """

    def __init__(
        self,
        config: SimulationConfig | PairOrder,
        device: torch.device | str,
        *,
        split: str = "train",
        split_polarity: bool = False,
        first: int = 0,
        workers: int = 2,
        num_ahead: int = 2,
    ) -> None:
        self.order = config if isinstance(config, PairOrder) else PairOrder((config,), np.zeros(1, np.int64))
        for each in self.order.configs:
            check_backgrounds(each)
        self.device, self.split = torch.device(device), split
        self.split_polarity, self.first, self.workers, self.num_ahead = split_polarity, first, workers, num_ahead

    def __iter__(self) -> Iterator[Sample]:
        with closing(self.make(self.windows)) as pairs:
            for samples in pairs:
                yield from samples

    def pairs(self) -> Generator[TensorPair, None, None]:
        """The pairs themselves, as events on the device, without end."""
        return self.make(lambda pair: pair)

    def make(self, work: Callable[[TensorPair], Made]) -> Generator[Made, None, None]:
        """What `work` makes of each pair, without end; the work is done ahead, by the thread that simulates."""
        return prefetch(self._simulate(work), self.num_ahead)

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

    def _simulate(self, make: Callable[[TensorPair], Made]) -> Generator[Made, None, None]:
        """What is made of each pair, complete on the device: who takes it does not wait for the GPU."""
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        with closing(self._preparations()) as preparations:
            for preparation in preparations:
                yield make(preparation) if stream is None else self._simulate_one(preparation, make, stream)

    def _simulate_one(
        self, preparation: Preparation, make: Callable[[TensorPair], Made], stream: torch.cuda.Stream
    ) -> Made:
        with torch.cuda.stream(stream):
            made = make(simulate_on(preparation, self.device))
            stream.synchronize()
            # The caller uses them on the default stream; without this their memory might be given away too early.
            for tensor in filter(lambda tensor: tensor.is_cuda, _find_tensors(made)):
                tensor.record_stream(torch.cuda.default_stream(tensor.device))
        return made

    def _preparations(self) -> Generator[Any, None, None]:
        source = _Preparations(self.order, self.split, self.device.type)
        numbers: Any = itertools.count(self.first)
        context = "spawn" if self.workers else None
        # Tensors pass from one process to another without a copy; arrays would be pickled.
        to_tensors = functools.partial(map_arrays, as_tensor)
        return load_items(
            DataLoader(
                source, batch_size=None, sampler=numbers, num_workers=self.workers, collate_fn=to_tensors,
                multiprocessing_context=context, prefetch_factor=2 if self.workers else None,
                pin_memory=self.device.type == "cuda", worker_init_fn=leave_at_once,
            )
        )  # fmt: skip


class _Preparations(Dataset[Any]):
    """What pairs need of a processor, by number."""

    def __init__(self, order: PairOrder, split: str, device_type: str) -> None:
        self.order, self.split, self.device_type = order, split, device_type

    def __getitem__(self, index: int) -> Preparation | TensorPair:
        config, number = self.order.find(index)
        seed = derive_seed(config.seed, self.split, number)
        if self.device_type != "cpu":
            return prepare(config, seed)
        pair = simulate(config, seed)
        flare, clean = (EventTensors.from_events(events) for events in (pair.flare, pair.clean))
        flare_label, clean_label = (torch.from_numpy(label) for label in (pair.flare_label, pair.clean_label))
        return TensorPair(flare, clean, flare_label, clean_label, pair.clock_us, pair.plan)


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
