"""Devices: what a process keeps of its memory."""

import ctypes
import resource

import pytest
import torch

from deflare_core.system.devices import pick_device

PAGE = 4096


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="Only glibc is asked to keep memory.")
def test_a_processor_uses_memory_again_that_was_freed():
    num_bytes = 2**26  # Twice as much as glibc ever keeps by itself.
    pick_device("cpu")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(num_bytes, dtype=torch.uint8)
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert pages < 5 * num_bytes / PAGE, f"20 tensors, one after the other, asked the system for {pages} pages."
