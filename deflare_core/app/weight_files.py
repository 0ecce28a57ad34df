"""Weight files: what `torch.save`, Lightning and safetensors write, read without running code, by the names used here.

A file of `torch.save` is a pickle, which may carry code. Tensors, plain containers, numbers, paths and namespaces of
arguments are taken; a file that holds anything else is refused.
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import pickle
import re
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import safe_globals

from deflare_core.checkpoint import CheckpointError
from deflare_core.system.errors import quote, shorten
from deflare_core.system.input_files import check_input
from deflare_core.system.tensors import find_oddity, find_unfinite, read_tensors

Weights = dict[str, torch.Tensor]
ENTRIES = ("model_state_dict", "state_dict", "model", "network", "weights")
"""Where in a dictionary the weights are, in the order in which these names are looked for; else it is they itself."""
WRAPPERS = ("module", "_orig_mod")
"""What DataParallel and torch.compile put into the names of weights."""
HOLDERS = ("model", "network", "net")
"""What a training program may call the network, before the names of its weights."""
BACKBONE = "backbone"
OLD_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of what torch wrote before it wrote zip archives (1.6), and still writes if it is told to."""
ADVICE = "save the network's state_dict() with torch.save, or as safetensors"
DAMAGE = (
    *(RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError, AssertionError),
    *(OverflowError, MemoryError, struct.error, zipfile.BadZipFile),
)
"""What reading a damaged file may raise in torch."""

# A loss kept beside the weights is often a number of numpy, and a state of its generator an array, which torch does not
# count among plain data. What makes them goes by an older name in files written under numpy 1.
PLAIN: list[Any] = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    *((np.zeros(1).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")),
    *(np.dtype, np.ndarray),
    *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"),
    *(argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath),
]


def read_weights(path: Path) -> Weights:
    """The weights in a file by the names of `TrueResidualUNet3D`; a CheckpointError if it holds none, or others.

    Raises
    ------
    CheckpointError
        When the file is in no known format, damaged, needs code to be read, or holds no weights that are finite.
    """
    check_input(path, CheckpointError)
    with path.open("rb") as file:
        head = file.read(16)
    is_plain = head[8:9] == b"{"
    content = read_tensors(path, CheckpointError, "download it again") if is_plain else _read_torch(path, head)
    weights = name_weights(find_weights(content, path), path)
    if unfit := find_unfinite(weights):
        raise CheckpointError(f"{path}: {unfit}.")
    return weights


def find_weights(content: Any, path: Path) -> Mapping[str, Any]:
    """The dictionary of weights in what a file holds; a CheckpointError that says what it holds if there is none."""
    inside = content
    while isinstance(inside, Mapping):
        found = next((inside[name] for name in ENTRIES if isinstance(inside.get(name), Mapping)), None)
        if found is None:
            break
        inside = found
    if isinstance(inside, Mapping) and (inside is not content or _is_named(inside)):
        if others := [name for name, value in inside.items() if not isinstance(value, torch.Tensor)]:
            raise CheckpointError(f"{path}: the weights must be tensors; {quote(others[:3])} are none.")
        for name, value in inside.items():
            if odd := find_oddity(value):
                raise CheckpointError(f"{path}: '{shorten(name)}' is {odd}; {ADVICE}, of plain tensors.")
        return inside
    is_mapping = isinstance(content, Mapping)
    found = f"a dictionary of {quote(sorted(map(str, content)))}" if is_mapping else type(content).__name__
    raise CheckpointError(f"{path}: has no dictionary '{ENTRIES[0]}' or '{ENTRIES[1]}' of weights; it holds {found}.")


def name_weights(weights: Mapping[str, torch.Tensor], path: Path) -> Weights:
    """The weights by the names of one plain network; a CheckpointError if two come to have one name."""
    named: Weights = {}
    for name, value in weights.items():
        if (plain := _unwrap(str(name))) in named:
            raise CheckpointError(f"{path}: holds two tensors for '{plain}', one of them called '{name}'.")
        named[plain] = value
    is_backbone = not any(name.startswith(f"{BACKBONE}.") for name in named) and "encoders" in map(_first, named)
    if not is_backbone:
        return named
    logging.warning("%s: holds a backbone alone; it is taken for one whose output is added to its input.", path)
    return {f"{BACKBONE}.{name}": value for name, value in named.items()}


def _is_named(content: Mapping[Any, Any]) -> bool:
    """Whether a dictionary holds tensors under the names of a network's weights, and not state of other kinds."""
    return any(isinstance(value, torch.Tensor) and "." in str(name) for name, value in content.items())


def _unwrap(name: str) -> str:
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    while len(parts) > 1 and parts[0] in HOLDERS:
        parts = parts[1:]
    return ".".join(parts)


def _first(name: str) -> str:
    return name.split(".")[0]


def _read_torch(path: Path, head: bytes) -> Any:
    """What `torch.save` wrote, read without running code."""
    if not zipfile.is_zipfile(path) and not head.startswith(OLD_MAGIC[:16]):
        raise CheckpointError(f"{path}: {_name_other(path, head)}")
    try:
        if _is_program(path):
            raise CheckpointError(f"{path}: is a TorchScript program, which is never run; {ADVICE}.")
        with safe_globals(PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not named and "Unsupported" not in str(error):
            raise CheckpointError(f"{path}: is damaged ({_line(error)}); download it again.") from error
        what = f"'{named.group(1)}'" if named else "what is not plain data"
        raise CheckpointError(
            f"{path}: needs code to be read ({what}), which is never run; refused. Where it was made, {ADVICE}."
        ) from None
    except DAMAGE as error:
        raise CheckpointError(f"{path}: is not a checkpoint of torch.save, or is damaged ({_line(error)}).") from error


def _is_program(path: Path) -> bool:
    """Whether a zip archive holds the constants of a TorchScript program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _name_other(path: Path, head: bytes) -> str:
    """What a file is that is neither of `torch.save` nor safetensors, and what to do."""
    if tarfile.is_tarfile(path):
        return f"is in torch's first format, a tar archive, which cannot be read without running code; {ADVICE}."
    if head.startswith(b"\x80"):
        return f"is a pickle, which may run code and is never read; {ADVICE}."
    return "is not a checkpoint of torch.save or safetensors, or is cut short; download it again."


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
