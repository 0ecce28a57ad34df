"""CUDA graphs: work on a GPU recorded once and replayed, so that no kernel waits for Python to start it.

A network's hundreds of small kernels take longer to start than to run. A graph keeps its own memory, and works on the
tensors that it was recorded with: inputs are copied in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

# A graph goes with its network: the key is held weakly.
_graphs: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], GraphedNetwork]] = WeakKeyDictionary()
WARM_UP = 2
"""Runs before the recording, in which libraries choose and load their kernels."""


class GraphedNetwork:
    """A network for voxels `(N, inputs, bins, H, W)` of one shape; the next call overwrites what the last returned."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        self.voxel = torch.zeros(shape, device=next(model.parameters()).device)
        self._graph, self.output = record(torch.no_grad()(lambda: model.eval()(self.voxel)), self.voxel.device)

    @classmethod
    def of(cls, model: nn.Module, shape: tuple[int, ...]) -> GraphedNetwork:
        """The graph of a model for a shape, recorded when it is first asked for; it follows the model's weights."""
        graphs = _graphs.setdefault(model, {})
        if shape not in graphs:
            graphs[shape] = cls(model, shape)
        return graphs[shape]

    def __call__(self, voxel: torch.Tensor) -> torch.Tensor:
        """The network's output, float32 `(N, C, bins, H, W)`."""
        self.voxel.copy_(voxel, non_blocking=True)
        self._graph.replay()
        return self.output


class GraphedGradient:
    """A loss between a network's output and the target, whose gradient is added to that of the parameters."""

    def __init__(
        self, model: nn.Module, loss: Callable[..., torch.Tensor], raw: torch.Tensor, label: torch.Tensor
    ) -> None:
        self.raw, self.label = torch.zeros_like(raw), torch.zeros_like(label)
        self.share = torch.ones((), device=raw.device)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        before = [gradient.clone() for gradient in gradients]

        def forward_and_backward() -> torch.Tensor:
            total = loss(model, self.raw, self.label) * self.share
            total.backward()
            return total.detach()

        with warnings.catch_warnings():
            # Windows side by side on streams of their own add to the same parameters, one after another.
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            self._graph, self.total = record(forward_and_backward, raw.device)
        # The warm-up has added to the gradients: they become what they were.
        for gradient, kept in zip(gradients, before, strict=True):
            gradient.copy_(kept)

    def __call__(self, raw: torch.Tensor, label: torch.Tensor, share: float) -> torch.Tensor:
        """The loss of a batch times its share, float32 `()`; a copy, which the next call leaves alone."""
        self.raw.copy_(raw, non_blocking=True)
        self.label.copy_(label, non_blocking=True)
        self.share.fill_(share)
        self._graph.replay()
        return self.total.clone()


def record(work: Callable[[], Any], device: torch.device) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A graph of the work, and the tensors that each replay fills.

    The order matters. The warm-up runs on a stream of its own, as torch demands, and loads what libraries load on first
    use, which a recording forbids. The cache is emptied then, since the graph's private memory cannot use it. Whatever
    the work reads while it is recorded must stay where it is: a replay uses the same addresses.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)
    torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    # Only this thread's work is recorded: another one may be laying the next batch into page-locked memory.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = work()
    return graph, result
