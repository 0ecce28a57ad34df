"""Checkpoints: a folder with the weights, a readable configuration, and the state that training resumes from.

    checkpoint_epoch_0000_iter_002500/
        model.safetensors      weights, named as in pytorch-3dunet with the prefix `backbone.`
        config.json            model and training configuration, step, metrics, versions, revision
        training.safetensors   optimizer state; the weights in training, where model.safetensors has their average
        partner/               a second network's checkpoint, where two judge together (`deflaring/committee.py`)
    best, last                 links to two of these folders

There is no random-number state: each step of training is seeded by its number. No pickle is ever read, so a checkpoint
from anywhere can be opened safely.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import nn

from deflare_core.config import ModelConfig, TrainConfig
from deflare_core.deflaring.committee import Committee
from deflare_core.events import NUM_BINS, WINDOW_US
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.devices import pick_device
from deflare_core.system.documents import read_json
from deflare_core.system.errors import DeflareError, shorten
from deflare_core.system.places import PRETRAINED
from deflare_core.system.revision import find_revision, hash_file, list_versions
from deflare_core.system.settings import list_changes, make_config
from deflare_core.system.tensors import Tensors, find_misfit, find_odd_kind, find_unfinite, read_tensors

WEIGHTS, CONFIG, TRAINING, PARTNER = "model.safetensors", "config.json", "training.safetensors", "partner"
FORMAT = 1
HOW_AND_WHERE = {
    *("level", "use_checkpoint", "precision", "device", "workers", "num_workers"),
    *("output_dir", "tensorboard", "validate_every", "checkpoint_every", "accumulate_steps"),
}
"""Settings that change how a run works and what it reports, not what it learns."""


class CheckpointError(DeflareError):
    """A checkpoint that cannot be used; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint folder says about itself."""

    path: Path
    model: ModelConfig
    step: int
    """Optimizer steps taken."""
    metrics: dict[str, float]
    """Validation figures at that step."""
    training: dict[str, Any]
    """The training configuration it was made with."""
    shares: tuple[float, ...] = ()
    """Where it has a partner, how much its own judgement counts, and how much the partner's."""


def save_checkpoint(
    folder: str | Path,
    model: VoxelNetwork,
    optimizer: torch.optim.Optimizer,
    *,
    epoch: int,
    step: int,
    metrics: dict[str, float],
    training: dict[str, Any],
    trained: nn.Module | None = None,
) -> Path:
    """Write a checkpoint folder under `folder`, complete or not at all; returns its path.

    Parameters
    ----------
    folder : the run's folder.
    model : the network to use from now on.
    epoch : passes over the data that are complete.
    step, metrics, training : see `Checkpoint`.
    trained : the network that the optimizer trains, where `model` is an average of it.

    Raises
    ------
    CheckpointError
        When a value of the weights or of the optimizer's state is not finite: no run could go on from there.
    """
    path = Path(folder) / f"checkpoint_epoch_{epoch:04d}_iter_{step:06d}"
    settings, progress = model.config.model_dump(mode="json"), {"epoch": epoch, "step": step, "metrics": metrics}
    origin = {"training": training, "versions": list_versions(), "git_revision": find_revision()}
    description = {"format": FORMAT, "model": settings, **progress, **origin}
    files = {WEIGHTS: model.state_dict(), TRAINING: _name_state(optimizer, trained)}
    for name, tensor in (files[WEIGHTS] | files[TRAINING]).items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: is not saved, since values of '{name}' are nan or infinite.")
    with complete_or_absent(path) as temporary:
        temporary.mkdir()
        for name, tensors in files.items():
            # Python's own writing, unlike safetensors', says of a full disk that it is full.
            (temporary / name).write_bytes(save({k: tensor.detach().contiguous() for k, tensor in tensors.items()}))
        description["training_digest"] = hash_file(temporary / TRAINING)
        (temporary / CONFIG).write_text(json.dumps(description, indent=2) + "\n")
    return path


def link_checkpoint(path: Path, name: Literal["best", "last"]) -> None:
    """Let `best` or `last` in the run folder lead to the checkpoint; the link is replaced in one operation."""
    temporary = path.with_name(f".{name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path.name)
    temporary.replace(path.with_name(name))


def find_checkpoint(path: str | Path, which: Literal["best", "last"] = "best") -> Path:
    """The checkpoint folder at `path`, or the best (lowest validation loss) or last one of a run folder.

    Raises
    ------
    CheckpointError
        When there is none.
    """
    path = Path(path)
    if (path / CONFIG).is_file():
        return path
    found = sorted(path.glob("checkpoint_epoch_*_iter_*"), key=_step_of)
    if not found and path.is_file():
        raise CheckpointError(f"{path}: is a file; make a checkpoint of it: deflare import-weights FILE FOLDER.")
    if not found:
        what = "holds no checkpoint" if path.exists() else "no such checkpoint or run folder"
        raise CheckpointError(f"{path}: {what}; `deflare train` makes them.")
    if which == "last":
        return found[-1]
    return min(found, key=lambda p: read_checkpoint(p).metrics.get("loss", float("inf")))


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read what the checkpoint folder says about itself, without its weights.

    Raises
    ------
    CheckpointError
        When the folder or its description cannot be read.
    """
    path = Path(path)
    if not (path / CONFIG).is_file():
        raise CheckpointError(f"{path}: is not a checkpoint folder, which holds a file {CONFIG}.")
    description = read_json(path / CONFIG, CheckpointError)
    try:
        model = make_config(ModelConfig, description["model"], origin=str(path / CONFIG))
        step, metrics, training = (description[key] for key in ("step", "metrics", "training"))
        shares = tuple(description.get("shares", ()))
        numbers, groups = (step, *metrics.values(), *shares), [training.get(name, {}) for name in ("data", "trainer")]
        if not all(isinstance(n, float | int) for n in numbers) or not all(isinstance(g, dict) for g in groups):
            raise TypeError("its step, metrics, shares or training are of no such kind")
    except (KeyError, TypeError, AttributeError) as error:
        why = shorten(repr(error))
        raise CheckpointError(f"{path / CONFIG}: is damaged ({why}); use another checkpoint.") from error
    return Checkpoint(path, model, step, metrics, training, shares)


def check_cut(checkpoint: Checkpoint, window_us: int, num_bins: int) -> None:
    """Raise CheckpointError unless the network was trained on windows of `window_us` with `num_bins` bins."""
    trained = {"window_us": WINDOW_US, "num_bins": NUM_BINS} | checkpoint.training.get("data", {})
    for name, given in (("window_us", window_us), ("num_bins", num_bins)):
        if trained[name] != given:
            raise CheckpointError(
                f"{checkpoint.path}: was trained with {name}={trained[name]}, and the data are cut with {given}; "
                f"set {name}={trained[name]} or take another checkpoint."
            )


def compare_settings(checkpoint: Checkpoint, config: TrainConfig) -> dict[str, str]:
    """The settings in which two runs learn differently, as "before -> now" by name; those of `HOW_AND_WHERE` do not."""
    before = checkpoint.training | {"model": checkpoint.model.model_dump(mode="json")}
    changed = list_changes(before, config.model_dump(mode="json"))
    return {name: change for name, change in changed.items() if name.rpartition(".")[2] not in HOW_AND_WHERE}


def describe_changes(changes: dict[str, str]) -> str:
    """Settings that have changed, in one line."""
    return "; ".join(f"{name}: {change}" for name, change in changes.items())


def load_model(path: str | Path, device: str = "auto") -> VoxelNetwork:
    """The network of a checkpoint, or of a run folder's best one, in evaluation mode on the device.

    Parameters
    ----------
    device : "auto" takes the first GPU, else the CPU; or a torch device such as "cuda:1".

    Raises
    ------
    CheckpointError
        When there is no checkpoint, or its weights do not fit its configuration.
    """
    checkpoint = read_checkpoint(find_checkpoint(path))
    model = build_model(checkpoint.model, seed=0)
    load_weights(model, checkpoint.path)
    if checkpoint.shares:
        model = Committee([model, load_model(checkpoint.path / PARTNER, "cpu")], checkpoint.shares)
    return model.to(pick_device(device)).eval()


def load_pretrained(device: str = "auto") -> VoxelNetwork:
    """The network that comes with the package, as from `load_model`; see deflare_core/pretrained/README.md."""
    return load_model(PRETRAINED, device)


def set_level(path: str | Path, level: float) -> None:
    """Write a decision level into a checkpoint's description; see `ModelConfig.level`.

    Raises
    ------
    ConfigError
        When the level does not lie between 0 and 1.
    """
    folder = read_checkpoint(path).path
    description = read_json(folder / CONFIG, CheckpointError)
    description["model"]["level"] = level
    make_config(ModelConfig, description["model"], origin=str(folder / CONFIG))
    with complete_or_absent(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(description, indent=2) + "\n")


def load_weights(model: nn.Module, path: Path) -> None:
    """Put a checkpoint's weights into the model; CheckpointError when they are damaged or of another network."""
    _load_state(model, read_tensors(path / WEIGHTS, CheckpointError, "use another checkpoint"), path / WEIGHTS)


def load_training_state(path: Path, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Put back a checkpoint's optimizer state, and the weights in training where it has them besides an average."""
    file, groups = path / TRAINING, optimizer.state_dict()["param_groups"]
    advice = f"remove {path}, and --resume goes on from the checkpoint before it, or from the start"
    tensors = read_tensors(file, CheckpointError, advice)
    description = read_json(path / CONFIG, CheckpointError)
    if "training_digest" in description and description["training_digest"] != hash_file(file):
        raise CheckpointError(f"{file}: holds other bytes than were written with its checkpoint; {advice}.")
    weights = {name[8:]: tensor for name, tensor in tensors.items() if name.startswith("weights.")}
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith("weights.")}
    own = _state_of_adam([parameter for group in optimizer.param_groups for parameter in group["params"]])
    state: dict[int, dict[str, torch.Tensor]] = {}
    if given:
        _check_fit(own, given, file)
        for name, tensor in given.items():
            _, number, entry = name.split(".")
            state.setdefault(int(number), {})[entry] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if weights:
        _load_state(model, weights, file)


def _state_of_adam(parameters: list[torch.Tensor]) -> Tensors:
    """Tensors of the shapes of Adam's state, by the names of training.safetensors."""
    number, own = torch.zeros(()), dict(enumerate(parameters))
    state = {f"optimizer.{i}.{name}": tensor for i, tensor in own.items() for name in ("exp_avg", "exp_avg_sq")}
    return state | {f"optimizer.{i}.step": number for i in own}


def _load_state(model: nn.Module, weights: Tensors, path: Path) -> None:
    _check_fit(model.state_dict(), weights, path)
    model.load_state_dict(weights)


def _check_fit(own: Tensors, given: Tensors, path: Path) -> None:
    """Raise CheckpointError unless tensors are those of a network by name, shape and kind, and finite."""
    if misfit := find_misfit(own, given):
        raise CheckpointError(
            f"{path}: the weights are of another network than {CONFIG} says ({misfit}); take both of one checkpoint."
        )
    if odd := find_odd_kind(own, given) or find_unfinite(given):
        raise CheckpointError(f"{path}: {odd}.")


def _name_state(optimizer: torch.optim.Optimizer, trained: nn.Module | None) -> dict[str, torch.Tensor]:
    """The tensors of training.safetensors by name: `optimizer.PARAMETER.ENTRY`, and `weights.NAME` of `trained`."""
    state, weights = optimizer.state_dict()["state"], trained.state_dict() if trained is not None else {}
    named = {f"optimizer.{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}
    return named | {f"weights.{name}": value for name, value in weights.items()}


def _step_of(path: Path) -> int:
    match = re.search(r"_iter_(\d+)$", path.name)
    return int(match.group(1)) if match else -1
