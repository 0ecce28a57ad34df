"""The optimizer of a run: how it is made, its learning rate at each step, and the average of the weights it gives."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from deflare_core.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimizer over the model's parameters."""
    make, parameters = leave_out_compiler(getattr(torch.optim, config.name)), list(model.parameters())
    fused = parameters[0].is_cuda or None
    return make(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)


@functools.cache
def leave_out_compiler(kind: type[Any]) -> type[Any]:
    """The same kind of optimizer, which does not load torch's compiler: 900 modules, 5 s of a processor.

    Torch marks for its compiler what an optimizer does, which loads it, and means nothing where it is not used.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        function = inspect.unwrap(getattr(kind, name))
        # Under this name torch keeps the marked function once it has made it.
        setattr(function, "__dynamo_disable", function)
    return type(kind.__name__, (kind,), {"step": torch.no_grad()(inspect.unwrap(kind.step))})


def learning_rate(config: OptimizerConfig, step: int, max_steps: int) -> float:
    """The learning rate of a step, counted from 0, of `max_steps`: the warm-up's straight line, then the schedule."""
    rate, warmup = config.learning_rate, config.warmup_steps
    if step < warmup:
        return rate * (step + 1) / warmup
    if config.schedule == "cosine":
        return rate * (1 + math.cos(math.pi * (step - warmup) / (max_steps - warmup))) / 2
    return rate * config.milestone_factor ** sum(step >= milestone for milestone in config.milestones)


def average_weights(model: nn.Module, decay: float, step: int = 0) -> AveragedModel:
    """A running average of a model's weights, which has taken `step` steps: often better on new data than the weights.

    It starts as a copy. At step n, counted from 1, it keeps min(decay, (1 + n) / (10 + n)) of itself: less at first, so
    that it forgets its start. Buffers are the model's.
    """

    @torch.no_grad()
    def blend(averages: Any, weights: Any, num_averaged: Any) -> None:
        number = int(num_averaged)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + number) / (10 + number)))

    average = AveragedModel(model, multi_avg_fn=blend).requires_grad_(False)
    average.n_averaged.fill_(step + 1)  # At 0 its first update would copy the weights and forget the start at once.
    return average
