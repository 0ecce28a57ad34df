"""The GPU's network and decode against the plain ones: run by Triton's interpreter, so on any machine, if slowly."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.networks import FOLDED
from torch import nn

from deflare_core.kernels.codec_loops import random_below
from deflare_core.kernels.compiler import has_triton
from deflare_core.kernels.event_tensors import random_below_tensor
from deflare_core.kernels.group_norm import PIECES, PiecewiseGroupNorm

QUICK = "flat"


def agreement(part: str):
    """How a network, or the decode, compares in Triton's interpreter, which is chosen before Triton is imported."""
    if not has_triton():
        pytest.skip("Triton is not installed; it comes with torch's CUDA builds and with deflare[test] on Linux.")
    command = [sys.executable, "-m", "support.folded_agreement", part]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != QUICK)) for name in FOLDED])
def test_the_folded_network_is_the_plain_one(name):
    found = agreement(name)
    for way in ("kept", "recomputed"):
        assert found[way]["output"] < 1e-5, f"The output of {name} differs: {found}."
        assert found[way]["gradients"] < 1e-4, f"A gradient of {name} differs: {found}."


def test_the_gpu_keeps_the_events_that_the_cpu_keeps():
    for found in agreement("decode"):
        assert found["removed"] > 100, "Something is removed."
        assert found["kept_otherwise"] == 0, "The same draws keep the same events."
        assert found["missing"] == found["synthesised"] > 0, "As many are missing as the CPU made."
        assert found["unfit"] == 0


def test_draws_on_a_gpu_are_those_of_the_cpu():
    counters, limits = np.arange(2_000), np.random.default_rng(0).integers(1, 2**31, 2_000)
    for seed in (0, 1, 2**40, 2**63 - 1):
        drawn = random_below_tensor(seed, torch.from_numpy(counters), torch.from_numpy(limits)).numpy()
        wanted = [
            random_below(np.uint64(seed), np.uint64(c), np.uint64(n)) for c, n in zip(counters, limits, strict=True)
        ]
        assert drawn.tolist() == wanted


@pytest.fixture
def norms():
    """A norm that is not as it starts, and ours of the same parameters."""
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    pieces = PiecewiseGroupNorm(4, 8)
    pieces.load_state_dict(norm.state_dict())
    return norm, pieces


def test_a_norm_in_pieces_is_the_norm(norms):
    norm, pieces = norms
    x = torch.randn(2, 8, 4, PIECES // 8, 16) * 3 + 5
    assert torch.equal(pieces(x), norm(x)), "On a CPU it is torch's own."
    assert torch.allclose(pieces.in_pieces(x), norm(x), atol=1e-5)


def test_a_norm_by_channel_is_the_norm_in_16_bits(norms):
    norm, pieces = norms
    x = (torch.randn(2, 8, 16, 12) * 3 + 5).bfloat16()
    for order in (torch.contiguous_format, torch.channels_last):
        found = pieces.by_channel(x.contiguous(memory_format=order))
        assert torch.equal(found, norm(x.float()).bfloat16()), "Sums are in float32, whatever order the values lie in."
