"""Processes: copies of the training, one per GPU and started by `torchrun`, that act as one.

Each takes its share of the batches of a step and of the windows of a validation, and what they find is summed over
all of them, so a run gives the same figures in any number of processes. The network is not wrapped: gradients and loss
are summed as one tensor after the last batch of a step. A process without a batch, at an epoch's end, takes part with
zeros, and checkpoints have the names of the bare network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

from deflare_core.system.devices import pick_device

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Processes:
    """One process among those that work together: where it computes, its number from 0, and how many there are."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The process's share: every `count`-th item."""
        return items[self.rank :: self.count]

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in one exchange; all have one dtype and any shapes."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any of the processes."""
        if self.count == 1:
            return flag
        number = torch.tensor(float(flag), device=self.device)
        self.sum([number])
        return bool(number)


def is_first_process() -> bool:
    """Whether this is the process that speaks for all those that torchrun started; alone, it is."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Connect the processes that torchrun started; without torchrun there is this one alone.

    The device is one of `pick_device`; "auto" gives each process a GPU of its own where there are GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
    if count == 1:
        yield Processes(pick_device(device))
        return
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    processes = Processes(pick_device(device), int(os.environ["RANK"]), count)
    on_gpu = processes.device.type == "cuda"
    distributed.init_process_group("nccl" if on_gpu else "gloo", device_id=processes.device if on_gpu else None)
    yield processes
    # Not in a `finally`: a process that fails must end at once, so that torchrun ends those that wait for it.
    distributed.barrier()
    distributed.destroy_process_group()
