"""Published weights and scores: what others released for this task, brought into the forms that are used here.

Known are the weights of E-Deflare (arXiv 2512.09016), a dictionary written by `torch.save`. Its data sets E-Flare-2.7K
and E-Flare-R are read as they are: pairs `composed_XXXXX_bg_flare.h5` and `composed_XXXXX_bg_light.h5`, each with
`events/{t,x,y,p}` and no word on sensor or clock, which `configs/published_test_config.yaml` says.
"""

from __future__ import annotations

from itertools import count, takewhile
from pathlib import Path

import torch

from deflare_core.app.weight_files import read_weights
from deflare_core.checkpoint import CONFIG, CheckpointError, save_checkpoint
from deflare_core.config import ModelConfig
from deflare_core.loop.optimizer import leave_out_compiler
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.system.errors import QUOTED, quote, shorten
from deflare_core.system.revision import hash_file
from deflare_core.system.settings import ConfigError, make_config
from deflare_core.system.tensors import find_odd_kind


def import_checkpoint(path: str | Path, output_dir: str | Path) -> Path:
    """The checkpoint folder made under `output_dir` from published weights, for `load_model` and every command.

    The shapes of the weights give the backbone's levels and feature maps. They do not give the number of groups of
    GroupNorm nor the order within a block, which are taken to be those of the publication: 8 and "gcr".

    Parameters
    ----------
    path : a file of `torch.save` or safetensors that `weight_files` reads, with the weights of a residual 3-D U-Net;
        those of a backbone alone are taken for one whose output is added to its input.
    output_dir : folder in which to make the checkpoint folder, as in a run of training; it holds none yet.

    Raises
    ------
    CheckpointError
        When the file is no such checkpoint, would have to run code to be read, its weights are of another network or
        not finite, or a checkpoint is in the folder already.
    """
    path, output_dir = Path(path), Path(output_dir)
    weights = read_weights(path)
    check_place(output_dir)
    model = _build_network(weights, path)
    if odd := find_odd_kind(model.state_dict(), weights):
        raise CheckpointError(f"{path}: {odd}.")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason, f_maps = shorten(" ".join(str(error).split()), 2 * QUOTED), list(model.config.f_maps)
        raise CheckpointError(f"{path}: these are no weights of a network of f_maps {f_maps}: {reason}") from None
    origin = {"imported_from": path.name, "sha256": hash_file(path)}
    optimizer = leave_out_compiler(torch.optim.Adam)(model.parameters())
    return save_checkpoint(output_dir, model, optimizer, epoch=0, step=0, metrics={}, training=origin)


def check_place(folder: Path) -> None:
    """Raise a CheckpointError if a folder is a checkpoint, or a run that holds some: nothing in it may be replaced."""
    if (folder / CONFIG).exists() or any(folder.glob("checkpoint_epoch_*")):
        raise CheckpointError(f"{folder}: holds a checkpoint already; name another folder.")


def _build_network(weights: dict[str, torch.Tensor], path: Path) -> VoxelNetwork:
    """The network whose weights have these names and shapes; each level's first bias is as long as its feature maps."""
    names = map("backbone.encoders.{}.basic_module.conv1.bias".format, count())
    f_maps = [weights[name].numel() for name in takewhile(weights.__contains__, names)]
    if not f_maps:
        raise CheckpointError(
            f"{path}: its weights are not those of a residual 3-D U-Net, which begin with "
            f"backbone.encoders.0.basic_module.conv1.bias; found {quote(list(weights)[:3]) if weights else 'nothing'}."
        )
    try:
        settings = {"f_maps": f_maps, "num_levels": len(f_maps)}
        return build_model(make_config(ModelConfig, settings, origin=str(path)), seed=0)
    except ConfigError as error:
        raise CheckpointError(f"{error}; the weights fit no network that is known here.") from error
