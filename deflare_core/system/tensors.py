"""Tensors of files from anywhere: what may be odd about one that says it is plain numbers."""

from __future__ import annotations

import torch


def find_oddity(tensor: torch.Tensor) -> str:
    """Why a tensor is no plain array of as many numbers as it has, in words that follow "is"; '' if it is one."""
    if tensor.is_meta:
        return "without values (on the device meta)"
    if tensor.layout != torch.strided or tensor.is_nested:
        return f"no dense tensor ({'nested' if tensor.is_nested else tensor.layout})"
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype})"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"of the shape {tuple(tensor.shape)}, but the file holds fewer numbers, repeated"
    return ""
