"""Devices: what a process keeps of its memory."""

import ctypes
import subprocess
import sys

import pytest

ASK_AGAIN = """
import resource, torch
from deflare_core.system.devices import pick_device
pick_device("cpu")
for k in range(40):
    if k == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**26, dtype=torch.uint8)  # Twice as much as glibc ever keeps by itself.
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="Only glibc is asked to keep memory.")
def test_a_processor_uses_memory_again_that_was_freed():
    # In a process of its own: what others have left in the heap decides where a block fits.
    pages = int(subprocess.run([sys.executable, "-c", ASK_AGAIN], capture_output=True, check=True, timeout=120).stdout)
    assert pages < 2**26 / 4096, f"20 tensors, one after the other, asked the system for {pages} pages."
