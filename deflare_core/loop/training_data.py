"""Training data: windows by number, read from files as they are asked for, or simulated when a run starts.

This is the one door through which training knows the simulator.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Protocol, cast

import torch
from torch.utils.data import DataLoader, Dataset

from deflare_core.config import DataConfig, SimulatedDataConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.events import SensorSize
from deflare_core.loop.augmentation import Batch
from deflare_core.loop.sampling import Supply
from deflare_core.model import VoxelNetwork
from deflare_core.system.devices import explain_out_of_memory
from deflare_core.system.prefetch import load_items
from deflare_core.system.processes import Processes
from deflare_core.system.signals import ignore_signals


class TrainingWindows(Protocol):
    """Windows by number: `{"raw": (inputs, bins, H, W), "label": (C, bins, H, W)}`, float32."""

    @property
    def sensor_size(self) -> SensorSize:
        """(height, width)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...

    def window_name(self, index: int) -> str:
        """What messages call a window."""


def open_windows(
    config: DataConfig | SimulatedDataConfig, processes: Processes, model: VoxelNetwork
) -> TrainingWindows:
    """The windows that a configuration describes, with the channels that the network takes."""
    split_polarity, context = model.channels == 2, model.config.context
    if isinstance(config, DataConfig):
        recorded = EventVoxelDataset.from_config(config, split_polarity, context)
        recorded.check_pairs()
        return recorded
    from data_simu.pool import simulate_windows

    def advise() -> tuple[str, str]:
        num_pairs = sum(kind.num_pairs for kind in config.kinds)
        advice = "Lower num_pairs, also of further pairs, or simulate shorter ones."
        return f"for {num_pairs} simulated pairs of {config.simulation}", advice

    with explain_out_of_memory(advise):
        windows = simulate_windows(config, processes.device, split_polarity, progress=processes.is_first)
        return windows.with_context(context)


def find_supply(windows: TrainingWindows) -> Supply:
    """What the steps of a run draw from."""
    if isinstance(windows, EventVoxelDataset):
        return Supply(len(windows))
    from data_simu.pool import SimulatedWindows

    assert isinstance(windows, SimulatedWindows), "Windows come from files or from the simulator."
    return Supply(len(windows), windows.find_sizes(), windows.config.fresh_share)


def load_batches(
    windows: TrainingWindows, batches: Iterable[list[int]], device: torch.device, num_workers: int
) -> Generator[Batch, None, None]:
    """Yield the given batches of windows, without drawing a number from the global generator."""
    in_files = isinstance(windows, EventVoxelDataset)  # Simulated windows are on the device already.
    loader = DataLoader(
        cast(Dataset, windows),
        batch_sampler=batches,
        num_workers=num_workers if in_files else 0,
        pin_memory=device.type == "cuda" and in_files,
        generator=torch.Generator(),
        worker_init_fn=ignore_signals,
    )
    return load_items(loader)
