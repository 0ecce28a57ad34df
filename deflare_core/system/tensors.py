"""Tensors of files from anywhere: read without running code, and what may be odd about them.

A file of safetensors is a length, a header in JSON that names its tensors, and their bytes. Of a name that stands in it
twice the library takes either tensor, so the header is looked at first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from deflare_core.system.errors import DeflareError, quote, shorten
from deflare_core.system.input_files import check_input
from deflare_core.system.limits import MOST_HEADER_BYTES

Tensors = Mapping[str, torch.Tensor]
UNREAD = (OSError, SafetensorError, ValueError, RecursionError, KeyError, AttributeError, TypeError, RuntimeError)
"""What is raised where a file is no safetensors file, or holds a kind of numbers that torch does not know."""


def read_tensors(path: Path, kind: type[DeflareError], advice: str) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name; one that cannot be read is an error of this kind that names it."""
    check_input(path, kind)
    try:
        _check_header(path)
        return load_file(path)
    except UNREAD as error:
        raise kind(f"{path}: cannot be read ({shorten(error)}); {advice}.") from error


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MOST_HEADER_BYTES:
            raise ValueError(f"it declares a header of {length:,} bytes; read are at most {MOST_HEADER_BYTES:,}")
        json.loads(file.read(length), object_pairs_hook=_refuse_twice)


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    group = dict(pairs)
    if len(group) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in group if names.count(name) > 1)
        raise ValueError(f"its header names {quote(twice)} twice")
    return group


def find_misfit(own: Tensors, given: Tensors) -> str:
    """How tensors differ from those that a network takes, by name, shape and kind; '' if they fit it."""
    if missing := [name for name in own if name not in given]:
        return f"{_name_some(missing)} missing"
    if others := [name for name in given if name not in own]:
        return f"{_name_some(others)} no part of it"
    for name, tensor in own.items():
        if tensor.shape != given[name].shape:
            return f"{quote(name)} has the shape {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
    return ""


def _name_some(names: list[str]) -> str:
    return quote(names[0]) + (f" and {len(names) - 1:,} more are" if len(names) > 1 else " is")


def find_odd_kind(own: Tensors, given: Tensors) -> str:
    """Which tensors torch would turn into a network's with other values, and what to do; '' if there are none."""
    for name in (name for name in own if name in given):
        tensor = given[name]
        if tensor.is_complex() or tensor.is_floating_point() != own[name].is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            return (
                f"the weights '{name}' are of the type {kind}, and are read as floating-point numbers only; save them "
                "as float32"
            )
    return ""


def find_unfinite(tensors: Tensors) -> str:
    """Which tensor has values that are not finite in 32 bits, and what to do; '' if there is none."""
    for name, tensor in tensors.items():
        if unfit := int((~torch.isfinite(tensor.float())).sum()):
            return (
                f"{unfit:,} of {tensor.numel():,} values of '{shorten(name)}' are nan or infinite; its training "
                "failed, take an earlier checkpoint"
            )
    return ""


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
