"""Training: step, validate, save, stop.

A run is a folder of checkpoints and `metrics.jsonl`, one line per step and per validation. Everything that a step
depends on follows from the configuration and the step's number, so a resumed run continues as if never stopped.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from deflare_core.checkpoint import find_checkpoint, load_training_state, load_weights, read_checkpoint, save_checkpoint
from deflare_core.config import OptimizerConfig, TrainConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.provenance import pick_device

METRICS = "metrics.jsonl"
LOSSES = {"mse": functional.mse_loss, "l1": functional.l1_loss}
OPTIMIZERS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}


class TrainingError(ValueError):
    """Training that cannot go on; the message says at which step, on which recordings, and what to do."""


@dataclass
class Run:
    """A training run in progress: what it works on and how far it has come."""

    config: TrainConfig
    model: VoxelNetwork
    optimizer: torch.optim.Optimizer
    device: torch.device
    data: EventVoxelDataset
    validation: EventVoxelDataset
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    validated_step: int = -1

    @property
    def epoch(self) -> int:
        """Passes over the training data that are complete."""
        return self.step // steps_per_epoch(len(self.data), self.config.trainer.batch_size)


def fit(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """The last checkpoint of a run trained as configured; checkpoints and metrics stand in `trainer.output_dir`.

    Parameters
    ----------
    config : everything about the run.
    resume : go on from the last checkpoint in the output folder; without one there, start.
    progress : show a progress bar with loss, rate and remaining time.

    Raises
    ------
    TrainingError
        When the output folder already holds a run and `resume` is off, or the loss is not finite.
    """
    run = start_run(config, resume)
    trainer = config.trainer
    saved = find_checkpoint(trainer.output_dir, "last") if run.step else None
    loader = batches(run)
    with stop_requested() as stop, tqdm(total=trainer.max_steps, initial=run.step, disable=not progress) as bar:
        for batch in loader:
            loss = train_step(run, batch)
            bar.set_postfix({"loss": f"{loss:.4g}", "validation": f"{run.metrics.get('loss', float('nan')):.4g}"})
            bar.update()
            last = run.step == trainer.max_steps or stop.is_set
            if last or run.step % trainer.validate_every == 0:
                validate(run)
            if last or run.step % trainer.checkpoint_every == 0:
                saved = save(run)
            if stop.is_set:
                break
    if saved is None:
        raise TrainingError(f"{trainer.output_dir}: nothing to train, max_steps is {trainer.max_steps}.")
    return saved


def start_run(config: TrainConfig, resume: bool) -> Run:
    """A run at its first step, or at the one where the last checkpoint left it."""
    trainer = config.trainer
    device = pick_device(trainer.device)
    model = build_model(config.model, trainer.seed).to(device)
    optimizer = make_optimizer(config.optimizer, model)
    data, validation = (EventVoxelDataset.from_config(c) for c in (config.data, config.validation))
    run = Run(config, model, optimizer, device, data, validation)
    checkpoints = sorted(trainer.output_dir.glob("checkpoint_epoch_*"))
    if checkpoints and not resume:
        raise TrainingError(f"{trainer.output_dir}: already holds a run; resume it or choose another output_dir.")
    if checkpoints:
        restore(run, find_checkpoint(trainer.output_dir, "last"))
    trim_log(trainer.output_dir, run.step)
    return run


def restore(run: Run, path: Path) -> None:
    """Put the run where the checkpoint left it.

    Raises
    ------
    CheckpointError
        When the checkpoint is damaged.
    TrainingError
        When it belongs to another network.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.model != run.config.model:
        raise TrainingError(f"{path}: is of another network ({checkpoint.model}) than configured ({run.config.model}).")
    load_weights(run.model, path)
    load_training_state(path, run.optimizer)
    run.step, run.metrics = checkpoint.step, dict(checkpoint.metrics)


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimizer over the model's parameters."""
    make = OPTIMIZERS[config.name]
    return make(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def train_step(run: Run, batch: dict[str, torch.Tensor]) -> float:
    """The loss of one optimizer step; the step is counted and logged.

    Raises
    ------
    TrainingError
        When the loss is not finite; it names the recordings of the batch.
    """
    started = time.perf_counter()
    run.model.train()
    loss = voxel_loss(run, batch)
    value = float(loss.detach())
    if not np.isfinite(value):
        names = [run.data.name(i) for i in sample_indices(run, run.step)]
        raise TrainingError(f"The loss is {value} at step {run.step + 1} on {names}; lower optimizer.learning_rate.")
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()
    run.step += 1
    log(run, {"step": run.step, "loss": value, "seconds": round(time.perf_counter() - started, 4)})
    return value


@torch.no_grad()
def validate(run: Run) -> None:
    """Put the mean loss over the whole validation set into the run's metrics and its log."""
    run.model.eval()
    losses = [float(voxel_loss(run, batch)) for batch in DataLoader(run.validation, num_workers=0)]
    run.metrics, run.validated_step = {"loss": float(np.mean(losses))}, run.step
    log(run, {"step": run.step, "epoch": run.epoch, "validation": run.metrics})


def voxel_loss(run: Run, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The configured loss between the network's output and the target, averaged over cells."""
    raw, label = (batch[name].to(run.device, non_blocking=True) for name in ("raw", "label"))
    return LOSSES[run.config.trainer.loss](run.model(raw), label)


def save(run: Run) -> Path:
    """The folder of a new checkpoint of the run."""
    return save_checkpoint(
        run.config.trainer.output_dir,
        run.model,
        run.optimizer,
        epoch=run.epoch,
        step=run.step,
        metrics=run.metrics if run.validated_step == run.step else {},
        training=run.config.model_dump(mode="json"),
    )


def batches(run: Run) -> DataLoader:
    """The batches from the run's step to its last, in an order that depends on the seed and the step only."""
    steps = range(run.step, run.config.trainer.max_steps)
    return DataLoader(
        run.data,
        batch_sampler=[sample_indices(run, step) for step in steps],
        num_workers=run.config.trainer.num_workers,
        pin_memory=run.device.type == "cuda",
    )


def sample_indices(run: Run, step: int) -> list[int]:
    """The samples of a step: its place in the shuffled order of its epoch."""
    trainer, num_samples = run.config.trainer, len(run.data)
    epoch, place = divmod(step, steps_per_epoch(num_samples, trainer.batch_size))
    order = np.random.default_rng([trainer.seed, epoch]).permutation(num_samples)
    return order[place * trainer.batch_size : (place + 1) * trainer.batch_size].tolist()


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Steps that pass over the data once; the last batch may be smaller."""
    return -(-num_samples // batch_size)


def log(run: Run, entry: dict[str, object]) -> None:
    """Add a line to the run's metrics file."""
    with (run.config.trainer.output_dir / METRICS).open("a") as file:
        file.write(json.dumps(entry) + "\n")


def read_log(folder: str | Path) -> list[dict]:
    """The lines of a run's metrics file, in their order."""
    path = Path(folder) / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def trim_log(folder: Path, step: int) -> None:
    """Drop what a stopped run logged after the checkpoint that it resumes from."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [entry for entry in read_log(folder) if entry["step"] <= step]
    (folder / METRICS).write_text("".join(json.dumps(entry) + "\n" for entry in kept))


@dataclass
class StopFlag:
    """Whether a signal has asked the run to stop."""

    is_set: bool = False


@contextmanager
def stop_requested() -> Iterator[StopFlag]:
    """A flag that SIGINT or SIGTERM sets, so that the loop finishes its step, saves and stops."""
    flag = StopFlag()

    def handle(number: int, frame: FrameType | None) -> None:
        flag.is_set = True

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
