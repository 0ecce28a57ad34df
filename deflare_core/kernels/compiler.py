"""Compilers of GPU kernels: whether Triton is there, and torch's own, for the small functions between large kernels.

Of each such function plain torch starts dozens of tiny kernels, forwards and backwards; compiled they are a few.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

MOST_SHAPES = 256
"""Shapes that a function is compiled for in one process: a network has some twelve for each sensor size."""


@functools.cache
def has_triton() -> bool:
    """Whether the compiler of the GPU kernels is installed, as it is with torch's CUDA builds for Linux."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def compile_for_training(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function in a few kernels; the first call with new shapes takes about a second.

    Where torch can be told to, it chooses these kernels without timing them, so that every run sums in the same order.
    """
    from torch import _dynamo, _inductor  # Seconds to load, and of use in training only.

    _dynamo.config.recompile_limit = MOST_SHAPES
    known = "deterministic" in _inductor.list_options()
    return torch.compile(function, dynamic=False, options={"deterministic": True} if known else None)
