"""Devices: which hardware computes, and what it is called."""

from __future__ import annotations

import platform

import torch


def pick_device(name: str) -> torch.device:
    """The torch device of that name; "auto" takes the first GPU if there is one.

    Raises
    ------
    ValueError
        When the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"The device '{name}' cannot be used ({reason}); use auto, cpu or cuda.") from None
    device = torch.device(name)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # CUDA graphs and events are of the current one.
    return device


def device_name(device: torch.device) -> str:
    """The name of the hardware behind a torch device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
