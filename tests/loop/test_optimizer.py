"""Optimizers without torch's compiler: the same steps, and nothing of it loaded."""

import subprocess
import sys

import pytest
import torch

from deflare_core.loop.optimizer import leave_out_compiler

STEP = """
import sys, torch
from deflare_core.config import OptimizerConfig
from deflare_core.loop.optimizer import make_optimizer
model = torch.nn.Linear(2, 2)
optimizer = make_optimizer(OptimizerConfig(), model)
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""


def train(kind):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
    return model.weight.detach(), optimizer.state_dict()


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_steps_are_those_of_torch(kind):
    weights, state = train(leave_out_compiler(kind))
    expected, usual = train(kind)
    assert torch.equal(weights, expected), "The weights are the same to the last bit."
    assert [*state, *state["state"]] == [*usual, *usual["state"]], "What is saved has the same form."


@pytest.mark.slow
def test_a_step_does_not_load_the_compiler():
    assert subprocess.run([sys.executable, "-c", STEP], check=False).returncode == 0
