"""The optimizer of a run: how it is made, its learning rate at each step, and the average of the weights it gives."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from deflare_core.config import OptimizerConfig
from deflare_core.model import VoxelNetwork

OPTIMIZERS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimizer over the model's parameters."""
    make, parameters = OPTIMIZERS[config.name], list(model.parameters())
    fused = parameters[0].is_cuda
    return make(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused or None)


def learning_rate(config: OptimizerConfig, step: int, max_steps: int) -> float:
    """The learning rate of a step, counted from 0, of `max_steps`: the warm-up's straight line, then the schedule."""
    rate, warmup = config.learning_rate, config.warmup_steps
    if step < warmup:
        return rate * (step + 1) / warmup
    if config.schedule == "cosine":
        return rate * (1 + math.cos(math.pi * (step - warmup) / (max_steps - warmup))) / 2
    return rate * config.milestone_factor ** sum(step >= milestone for milestone in config.milestones)


class WeightAverage:
    """A running average of a model's weights, in `model`: often better on new data than the weights themselves.

    Parameters
    ----------
    model : the network that is trained; the average starts as a copy of it.
    decay : what share of the average stays at each step; less in the first steps, so that it forgets its start.
    """

    def __init__(self, model: VoxelNetwork, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: VoxelNetwork, step: int) -> None:
        """Take in the weights after the step, counted from 1."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), share)
        for buffer, current in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(current)
