"""Devices: which hardware computes, and what it is called."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from deflare_core.system.errors import DeflareError, quote, shorten

CPU_INFO = Path("/proc/cpuinfo")


class DeviceError(DeflareError):
    """A device that is not there, or whose memory does not suffice; the message says what to do."""


def pick_device(name: str) -> torch.device:
    """The torch device of that name; "auto" takes the first GPU if there is one. A missing one is a DeviceError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.empty(0, device=name).device
        reason = "" if device.type != "meta" else "it computes nothing"
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split(".")[0].splitlines()[0]
    if reason:
        raise DeviceError(f"The device {quote(name)} cannot be used ({shorten(reason)}); use auto, cpu or cuda.")
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # CUDA graphs and events are of the current one.
    return device


def device_name(device: torch.device) -> str:
    """The name of the hardware behind a torch device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


@contextmanager
def explain_out_of_memory(describe: Callable[[], tuple[str, str]]) -> Iterator[None]:
    """Turn a GPU's out-of-memory error inside the block, or a loading process that was killed, into a DeviceError.

    `describe` gives what needs the GPU's memory ("for frames of 720 x 1280"), and a sentence on what to do.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        what, advice = describe()
        reason = str(error).splitlines()[0]
        raise DeviceError(f"The GPU's memory does not suffice {what} ({reason}). {advice}") from error
    except RuntimeError as error:
        # torch raises it in the midst of whatever the program does when a process of a DataLoader ends.
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise DeviceError(
            "A process that loads batches ended before its time, as when memory does not suffice. Lower "
            "trainer.num_workers, or set it to 0, and go on with --resume."
        ) from error


@functools.cache
def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a processor has instructions that multiply bfloat16: AVX-512 BF16, AMX, or those of ARM.

    Others do it too, but slower than float32. Linux alone says; elsewhere the answer is no.
    """
    if device.type != "cpu" or not CPU_INFO.exists():
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(CPU_INFO.read_text().split())
