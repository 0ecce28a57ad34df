"""A run: what is trained, on what, and how far it has come; started, or restored from its last checkpoint."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch.optim.swa_utils import AveragedModel

from deflare_core.checkpoint import (
    Checkpoint,
    compare_settings,
    describe_changes,
    find_checkpoint,
    link_checkpoint,
    load_training_state,
    load_weights,
    read_checkpoint,
)
from deflare_core.config import TrainConfig
from deflare_core.kernels.cuda_graphs import GraphedGradient
from deflare_core.loop.circumstances import KEY, describe_differences, list_circumstances
from deflare_core.loop.optimizer import average_weights, make_optimizer
from deflare_core.loop.run_log import read_log
from deflare_core.loop.sampling import Supply, steps_per_epoch, windows_per_step
from deflare_core.loop.training_data import TrainingWindows, find_supply, open_windows
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.system.devices import pick_device
from deflare_core.system.errors import DeflareError
from deflare_core.system.processes import Processes


class TrainingError(DeflareError):
    """Training that cannot go on; the message says at which step, on which recordings, and what to do."""


@dataclass
class Run:
    """A training run in progress: what it works on and how far it has come."""

    config: TrainConfig
    processes: Processes
    model: VoxelNetwork
    optimizer: torch.optim.Optimizer
    data: TrainingWindows
    validation: TrainingWindows
    supply: Supply
    average: AveragedModel | None
    circumstances: dict[str, Any]
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    validated_step: int = 0
    best_step: int = -1
    best_loss: float = math.inf
    saved_step: int = 0
    unsaved: bool = False
    graphs: dict[torch.Size, GraphedGradient] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.processes.device

    @property
    def epoch(self) -> int:
        """Passes over the training data that are complete."""
        return self.step // steps_per_epoch(self.config.trainer, self.supply.num_windows)

    @property
    def network(self) -> VoxelNetwork:
        """The network that is validated and saved: the average where there is one."""
        return cast(VoxelNetwork, self.average.module) if self.average else self.model

    def note_validation(self, step: int, metrics: dict[str, float]) -> None:
        """Remember the figures of a validation, and at which step the loss was lowest."""
        if metrics["loss"] < self.best_loss:
            self.best_loss, self.best_step = metrics["loss"], step
        self.metrics, self.validated_step = metrics, step


def start_run(config: TrainConfig, resume: bool, processes: Processes | None = None) -> Run:
    """A run at its first step, or at the one where the last checkpoint left it.

    Raises
    ------
    TrainingError
        When the output folder holds a run that is not to be resumed, or one of another batch size, or when that run or
        `trainer.start_from` is of another network.
    """
    processes = processes or Processes(pick_device(config.trainer.device))
    config = share_batches(processes.count, config)
    trainer = config.trainer
    checkpoints = sorted(trainer.output_dir.glob("checkpoint_epoch_*"))
    if checkpoints and not resume:
        raise TrainingError(f"{trainer.output_dir}: already holds a run; resume it or choose another output_dir.")
    model = build_model(config.model, trainer.seed).to(processes.device)
    if trainer.start_from and not checkpoints:
        take_weights(model, read_checkpoint(find_checkpoint(trainer.start_from)), config)
    average = average_weights(model, trainer.average_decay) if trainer.average_decay else None
    data, validation = (open_windows(c, processes, model) for c in (config.data, config.validation))
    supply = find_supply(data)
    circumstances = list_circumstances(config, processes.device, data, validation)
    optimizer = make_optimizer(config.optimizer, model)
    run = Run(config, processes, model, optimizer, data, validation, supply, average, circumstances)
    if checkpoints:
        restore_run(run, find_checkpoint(trainer.output_dir, "last"))
    return run


def share_batches(num_processes: int, config: TrainConfig) -> TrainConfig:
    """The configuration with its batches per step stated: as given, or one for each process."""
    batches = config.trainer.accumulate_steps or num_processes
    if batches < num_processes:
        raise TrainingError(
            f"trainer.accumulate_steps is {batches}, so of {num_processes} processes {num_processes - batches} would "
            f"have nothing to do; set it to {num_processes} or a multiple, or start fewer processes."
        )
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"accumulate_steps": batches})})


def take_weights(model: VoxelNetwork, checkpoint: Checkpoint, config: TrainConfig) -> None:
    """Put the weights of a checkpoint of the configured network into the model."""
    changes = compare_settings(checkpoint, config)
    if other := {name: change for name, change in changes.items() if name.startswith("model.")}:
        raise TrainingError(f"{checkpoint.path}: is of another network than configured ({describe_changes(other)}).")
    load_weights(model, checkpoint.path)


def restore_run(run: Run, path: Path) -> None:
    """Put the run where a checkpoint of the same network and as many windows a step left it."""
    checkpoint = read_checkpoint(path)
    trainer = {"batch_size": 1, "accumulate_steps": 1} | checkpoint.training.get("trainer", {})
    before, now = trainer["batch_size"] * trainer["accumulate_steps"], windows_per_step(run.config.trainer)
    if before != now:
        raise TrainingError(
            f"{path}: its steps took {before} windows, the configured ones take {now}; keep the product of "
            "trainer.batch_size and trainer.accumulate_steps, or choose another output_dir."
        )
    take_weights(run.model, checkpoint, run.config)
    if changes := compare_settings(checkpoint, run.config):
        logging.warning(f"{path}: the run goes on with other settings ({describe_changes(changes)}).")
    known = checkpoint.training.get(KEY)
    if known and (differences := describe_differences(known, run.circumstances)):
        logging.warning(f"{path}: the run goes on under other circumstances ({differences}).")
    if decay := run.config.trainer.average_decay:
        # The checkpoint's weights are the average; those in training come with the optimizer's state.
        run.average = average_weights(run.model, decay, checkpoint.step)
    load_training_state(path, run.optimizer, run.model)
    run.step = run.saved_step = checkpoint.step
    for entry in read_log(run.config.trainer.output_dir):
        if "validation" in entry and entry["step"] <= run.step:
            run.note_validation(entry["step"], entry["validation"])


def link_checkpoints(run: Run) -> None:
    """Let `last` in the run's folder lead to the checkpoint of its step, and `best` to that of the best validation."""
    steps: dict[Literal["best", "last"], int] = {"last": run.step, "best": run.best_step}
    for name, step in steps.items():
        for path in run.config.trainer.output_dir.glob(f"checkpoint_epoch_*_iter_{step:06d}"):
            link_checkpoint(path, name)
