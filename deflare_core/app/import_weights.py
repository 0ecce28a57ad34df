"""Published weights and scores: what others released for this task, brought into the forms that are used here.

Known are the weights of E-Deflare (arXiv 2512.09016), a dictionary written by `torch.save`. Its data sets E-Flare-2.7K
and E-Flare-R are read as they are: pairs `composed_XXXXX_bg_flare.h5` and `composed_XXXXX_bg_light.h5`, each with
`events/{t,x,y,p}` and no word on sensor or clock, which `configs/published_test_config.yaml` says.

A file of `torch.save` is a pickle, which may carry code. It is read without running any: tensors, plain containers and
numbers are taken, a file that holds anything else is refused.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import safe_globals

from deflare_core.checkpoint import CheckpointError, save_checkpoint
from deflare_core.config import ModelConfig
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.system.input_files import check_input
from deflare_core.system.revision import hash_file
from deflare_core.system.settings import ConfigError, make_config

WEIGHTS_ENTRY = "model_state_dict"

# A loss kept beside the weights is often a number of numpy, which torch does not count among plain data. What makes
# such a number goes by an older name in files written under numpy 1.
_NUMBERS: list[Any] = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)),
]


def import_checkpoint(path: str | Path, output_dir: str | Path) -> Path:
    """The checkpoint folder made under `output_dir` from published weights, for `load_model` and every command.

    The shapes of the weights give the backbone's levels and feature maps. They do not give the number of groups of
    GroupNorm nor the order within a block, which are taken to be those of the publication: 8 and "gcr".

    Parameters
    ----------
    path : `checkpoint.pth` as written by `torch.save`: a dictionary whose `model_state_dict` holds the weights of a
        residual 3-D U-Net under the names of `TrueResidualUNet3D`, with or without `module.` before them.
    output_dir : folder in which to make the checkpoint folder, as in a run of training.

    Raises
    ------
    CheckpointError
        When the file is no such checkpoint, would have to run code to be read, or its weights are of another network.
    """
    path = Path(path)
    weights = _read_weights(path)
    model = _build_network(weights, path)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason, f_maps = " ".join(str(error).split()), list(model.config.f_maps)
        raise CheckpointError(f"{path}: these are no weights of a network of f_maps {f_maps}: {reason}") from None
    origin = {"imported_from": path.name, "sha256": hash_file(path)}
    optimizer = torch.optim.Adam(model.parameters())
    return save_checkpoint(output_dir, model, optimizer, epoch=0, step=0, metrics={}, training=origin)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a file of `torch.save`, named as for one process."""
    content = _read_plain(path)
    weights = content.get(WEIGHTS_ENTRY) if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        found = f"a dictionary of {sorted(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: has no dictionary '{WEIGHTS_ENTRY}'; it holds {found}.")
    if others := [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]:
        raise CheckpointError(f"{path}: '{WEIGHTS_ENTRY}' must hold tensors only; {others[:3]} are none.")
    return {str(name).removeprefix("module."): value for name, value in weights.items()}


def _read_plain(path: Path) -> Any:
    """What `torch.save` wrote, read without running code."""
    check_input(path, CheckpointError)
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: is not a checkpoint of torch.save, or is cut short; download it again.")
    try:
        with safe_globals(_NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"'{named.group(1)}'" if named else "what is not plain data"
        raise CheckpointError(f"{path}: needs code to be read ({what}), which is never run; refused.") from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: is not a checkpoint of torch.save, or is damaged ({reason}).") from error


def _build_network(weights: dict[str, torch.Tensor], path: Path) -> VoxelNetwork:
    """The network whose weights have these names and shapes; each level's first bias is as long as its feature maps."""
    names = map("backbone.encoders.{}.basic_module.conv1.bias".format, count())
    f_maps = [len(weights[name]) for name in takewhile(weights.__contains__, names)]
    if not f_maps:
        raise CheckpointError(
            f"{path}: its weights are not those of a residual 3-D U-Net, which begin with "
            f"backbone.encoders.0.basic_module.conv1.bias; found {list(weights)[:3] or 'nothing'}."
        )
    try:
        settings = {"f_maps": f_maps, "num_levels": len(f_maps)}
        return build_model(make_config(ModelConfig, settings, origin=str(path)), seed=0)
    except ConfigError as error:
        raise CheckpointError(f"{error}; the weights fit no network that is known here.") from error
