"""Training: validate, save, stop, step.

A run is a folder of checkpoints and `metrics.jsonl`, one line per step and per validation. Everything that a step
depends on follows from the configuration and the step's number: the samples, their order, the learning rate and the
seed of dropout. So a resumed run continues to the bit as if never stopped.
"""

from __future__ import annotations

import copy
import logging
import math
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from deflare_core.checkpoint import (
    find_checkpoint,
    link_checkpoint,
    load_training_state,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)
from deflare_core.config import OptimizerConfig, TrainConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.memory import memory_advice
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.provenance import pick_device
from deflare_core.run_log import RunLog, read_log

LOSSES = {"mse": functional.mse_loss, "l1": functional.l1_loss, "smooth_l1": functional.smooth_l1_loss}
OPTIMIZERS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Batch = dict[str, torch.Tensor]


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
    average: WeightAverage | None
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    validated_step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    saved_step: int = 0

    @property
    def epoch(self) -> int:
        """Passes over the training data that are complete."""
        return self.step // steps_per_epoch(len(self.data), windows_per_step(self.config))

    @property
    def network(self) -> VoxelNetwork:
        """The network that is validated and saved: the average where there is one."""
        return self.average.model if self.average else self.model


class WeightAverage:
    """A running average of a model's weights, in `model`: often better on new data than the weights themselves.

    Parameters
    ----------
    model : the network that is trained; the average starts as a copy of it.
    decay : what share of the average stays at each step; less in the first steps, so that it forgets its start.
    """

    def __init__(self, model: VoxelNetwork, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: VoxelNetwork, step: int) -> None:
        """Take in the weights after the step, counted from 1."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for mine, trained in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(trained, share)
        for buffer, current in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(current)


def fit(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """The last checkpoint of a run trained as configured; checkpoints and metrics stand in `trainer.output_dir`.

    SIGINT and SIGTERM end the run after the step that is under way, with a checkpoint of it.

    Parameters
    ----------
    config : everything about the run.
    resume : go on from the last checkpoint in the output folder; without one there, start.
    progress : show a progress bar with loss, rate and remaining time.

    Raises
    ------
    TrainingError
        When the output folder already holds a run and `resume` is off, the loss is not finite, or the GPU's memory
        does not suffice.
    """
    run, trainer = start_run(config, resume), config.trainer
    log = RunLog(trainer.output_dir, run.step, trainer.tensorboard)
    bar = tqdm(total=trainer.max_steps, initial=run.step, unit="step", disable=not progress)
    batches = training_batches(run)
    with stop_requested() as stop, own_randomness(run), out_of_memory_explained(run), closing(log), bar:
        while True:
            if not stop.signal and validation_due(run):
                log.append(validate(run))
            if stop.signal or checkpoint_due(run):
                save(run)
            if stop.signal or run.step >= trainer.max_steps:
                break
            entry = train_step(run, batches)
            log.append(entry)
            show(bar, entry, run.metrics)
    saved = find_checkpoint(trainer.output_dir, "last")
    if stop.signal:
        logging.warning(how_to_resume(stop.signal, run, saved))
    return saved


def start_run(config: TrainConfig, resume: bool) -> Run:
    """A run at its first step, or at the one where the last checkpoint left it.

    Raises
    ------
    TrainingError
        When the output folder holds a run that is not to be resumed, or one of another network or batch size.
    """
    trainer = config.trainer
    device = pick_device(trainer.device)
    model = build_model(config.model, trainer.seed).to(device)
    average = WeightAverage(model, trainer.average_decay) if trainer.average_decay else None
    data, validation = (EventVoxelDataset.from_config(c) for c in (config.data, config.validation))
    run = Run(config, model, make_optimizer(config.optimizer, model), device, data, validation, average)
    checkpoints = sorted(trainer.output_dir.glob("checkpoint_epoch_*"))
    if checkpoints and not resume:
        raise TrainingError(f"{trainer.output_dir}: already holds a run; resume it or choose another output_dir.")
    if checkpoints:
        restore(run, find_checkpoint(trainer.output_dir, "last"))
    return run


def restore(run: Run, path: Path) -> None:
    """Put the run where the checkpoint left it.

    Raises
    ------
    CheckpointError
        When the checkpoint is damaged.
    TrainingError
        When it belongs to another network, or its steps took another number of windows.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.model != run.config.model:
        raise TrainingError(f"{path}: is of another network ({checkpoint.model}) than configured ({run.config.model}).")
    trainer = checkpoint.training["trainer"]
    before, now = trainer["batch_size"] * trainer.get("accumulate_steps", 1), windows_per_step(run.config)
    if before != now:
        raise TrainingError(
            f"{path}: its steps took {before} windows, the configured ones take {now}; keep the product of "
            "trainer.batch_size and trainer.accumulate_steps, or choose another output_dir."
        )
    load_weights(run.model, path)
    if run.average:
        run.average.model.load_state_dict(run.model.state_dict())
    load_training_state(path, run.optimizer, run.model)
    run.step = run.saved_step = checkpoint.step
    for entry in read_log(run.config.trainer.output_dir):
        if "validation" in entry and entry["step"] <= run.step:
            note_validation(run, entry["step"], entry["validation"])


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimizer over the model's parameters."""
    make = OPTIMIZERS[config.name]
    return make(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step, counted from 0: the warm-up's straight line, then the schedule."""
    rate, warmup = config.optimizer.learning_rate, config.optimizer.warmup_steps
    if step < warmup:
        return rate * (step + 1) / warmup
    if config.optimizer.schedule == "cosine":
        return rate * (1 + math.cos(math.pi * (step - warmup) / (config.trainer.max_steps - warmup))) / 2
    passed = sum(step >= milestone for milestone in config.optimizer.milestones)
    return rate * config.optimizer.milestone_factor**passed


def train_step(run: Run, batches: Iterator[Batch]) -> dict[str, float]:
    """One optimizer step on the next batches; its line of the log.

    Raises
    ------
    TrainingError
        When the loss or its gradient is not finite; the weights are then those before the step.
    """
    started, epoch, rate = time.perf_counter(), run.epoch, learning_rate(run.config, run.step)
    loss = accumulate_gradients(run, batches)
    norm = float(nn.utils.clip_grad_norm_(run.model.parameters(), run.config.optimizer.clip_norm or math.inf))
    require_finite(run, loss, norm)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    run.step += 1
    if run.average:
        run.average.update(run.model, run.step)
    entry = {"step": run.step, "epoch": epoch, "loss": loss, "learning_rate": rate, "gradient_norm": norm}
    return entry | {"seconds": round(time.perf_counter() - started, 4)}


def accumulate_gradients(run: Run, batches: Iterator[Batch]) -> float:
    """The mean loss over the step's windows, whose gradient is then in the model's parameters."""
    run.model.train()
    run.optimizer.zero_grad(set_to_none=True)
    parts = step_batches(run, run.step)
    num_windows = sum(map(len, parts))
    total = torch.zeros((), device=run.device)
    for k, batch in enumerate(islice(batches, len(parts))):
        torch.manual_seed(batch_seed(run.config.trainer.seed, run.step, k))
        loss = voxel_loss(run, run.model, batch) * (len(batch["raw"]) / num_windows)
        loss.backward()
        total += loss.detach()
    return float(total)


def voxel_loss(run: Run, network: VoxelNetwork, batch: Batch) -> torch.Tensor:
    """The configured loss between the network's output and the target, averaged over cells."""
    raw, label = (batch[name].to(run.device, non_blocking=True) for name in ("raw", "label"))
    return LOSSES[run.config.trainer.loss](network(raw), label)


def require_finite(run: Run, loss: float, norm: float) -> None:
    """Nothing, if the step may be taken.

    Raises
    ------
    TrainingError
        When the loss or the norm of its gradient is not finite; it names the windows of the step.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"The loss is {loss}" if not math.isfinite(loss) else f"The gradient's norm is {norm}"
    names = ", ".join(window_name(run.data, i) for i in sample_indices(run, run.step))
    raise TrainingError(
        f"{what} at step {run.step + 1} on {names}; nothing was saved since step {run.saved_step}. "
        "Lower optimizer.learning_rate, or set optimizer.clip_norm=1 and optimizer.warmup_steps."
    )


def validation_due(run: Run) -> bool:
    """Whether the weights are to be validated: every so many steps and at the end, once."""
    trainer = run.config.trainer
    return run.validated_step != run.step and (run.step % trainer.validate_every == 0 or run.step == trainer.max_steps)


@torch.no_grad()
def validate(run: Run) -> dict[str, object]:
    """The mean loss over the whole validation set, as a line of the log; the run takes note of it.

    Raises
    ------
    TrainingError
        When the loss is not finite; it names the windows.
    """
    run.network.eval()
    loader = make_loader(run, [[i] for i in range(len(run.validation))], run.validation)
    losses = [float(voxel_loss(run, run.network, batch)) for batch in loader]
    broken = [window_name(run.validation, i) for i, loss in enumerate(losses) if not math.isfinite(loss)]
    if broken:
        raise TrainingError(
            f"The validation loss at step {run.step} is not finite on {', '.join(broken)}; nothing was saved since "
            f"step {run.saved_step}. Lower optimizer.learning_rate."
        )
    note_validation(run, run.step, {"loss": float(np.mean(losses))})
    return {"step": run.step, "epoch": run.epoch, "validation": run.metrics}


def note_validation(run: Run, step: int, metrics: dict[str, float]) -> None:
    """Let the run remember the figures of a validation, and at which step they were lowest."""
    if metrics["loss"] < run.best_loss:
        run.best_loss, run.best_step = metrics["loss"], step
    run.metrics, run.validated_step = metrics, step


def checkpoint_due(run: Run) -> bool:
    """Whether the run is to be saved: every so many steps, after the best validation, and at the end, once."""
    trainer = run.config.trainer
    regular = run.step % trainer.checkpoint_every == 0 or run.step == trainer.max_steps
    return run.saved_step != run.step and (regular or run.best_step == run.step)


def save(run: Run) -> None:
    """Write a checkpoint, and let `last` and, after the best validation, `best` lead to it."""
    path = save_checkpoint(
        run.config.trainer.output_dir,
        run.network,
        run.optimizer,
        epoch=run.epoch,
        step=run.step,
        metrics=run.metrics if run.validated_step == run.step else {},
        training=run.config.model_dump(mode="json"),
        trained=run.model if run.average else None,
    )
    run.saved_step = run.step
    link_checkpoint(path, "last")
    if run.best_step == run.step:
        link_checkpoint(path, "best")


def show(bar: tqdm, entry: dict[str, float], metrics: dict[str, float]) -> None:
    """Move the progress bar on by a step."""
    validation = {"validation": f"{metrics['loss']:.4g}"} if metrics else {}
    bar.set_postfix({"loss": f"{entry['loss']:.4g}", "rate": f"{entry['learning_rate']:.2g}"} | validation)
    bar.update()


def training_batches(run: Run) -> Iterator[Batch]:
    """The batches from the run's step to its last, in an order that depends on the seed and the step only."""
    steps = range(run.step, run.config.trainer.max_steps)
    return iter(make_loader(run, (part for step in steps for part in step_batches(run, step)), run.data))


def make_loader(run: Run, parts: Iterable[list[int]], data: EventVoxelDataset) -> DataLoader:
    """A loader of the given batches of windows, which draws no number from the global generator."""
    return DataLoader(
        data,
        batch_sampler=parts,
        num_workers=run.config.trainer.num_workers,
        pin_memory=run.device.type == "cuda",
        generator=torch.Generator(),
        worker_init_fn=ignore_signals,
    )


def ignore_signals(worker: int) -> None:
    """Leave a signal sent to all processes of the run, such as Ctrl-C, to the one that trains: it still needs data."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def step_batches(run: Run, step: int) -> list[list[int]]:
    """The windows of a step, cut into the batches that pass through the network at once."""
    size, indices = run.config.trainer.batch_size, sample_indices(run, step)
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def sample_indices(run: Run, step: int) -> list[int]:
    """The windows of a step: its place in the shuffled order of its epoch; the first step's when overfitting."""
    num_samples, size = len(run.data), windows_per_step(run.config)
    epoch, place = divmod(0 if run.config.trainer.overfit_one_batch else step, steps_per_epoch(num_samples, size))
    order = np.random.default_rng([run.config.trainer.seed, epoch]).permutation(num_samples)
    return order[place * size : (place + 1) * size].tolist()


def windows_per_step(config: TrainConfig) -> int:
    """Windows that make one optimizer step."""
    return config.trainer.batch_size * config.trainer.accumulate_steps


def steps_per_epoch(num_samples: int, step_size: int) -> int:
    """Steps that pass over the data once; the last one may be smaller."""
    return -(-num_samples // step_size)


def batch_seed(seed: int, step: int, batch: int) -> int:
    """The seed of dropout in one batch of a step, as far from its neighbours' as from any other."""
    return int(np.random.SeedSequence([seed, step, batch]).generate_state(1, np.uint64)[0])


def window_name(data: EventVoxelDataset, index: int) -> str:
    """The file and window of a sample, for messages: `data/noisy/composed_00003_bg_flare.h5[2]`."""
    pair, window = data.pairs[index // data.num_windows], index % data.num_windows
    return f"{pair.noisy}[{window}]"


@contextmanager
def own_randomness(run: Run) -> Iterator[None]:
    """Give the process its random-number state back after the run, which seeds each batch."""
    with torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
        yield


@contextmanager
def out_of_memory_explained(run: Run) -> Iterator[None]:
    """Turn a GPU's out-of-memory error into advice.

    Raises
    ------
    TrainingError
        When the memory does not suffice; it names the settings that need less, with estimates.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        advice = memory_advice(run.config, run.data.sensor_size)
        raise TrainingError(f"The GPU's memory does not suffice at step {run.step + 1} ({reason}). {advice}") from error


@dataclass
class StopFlag:
    """The name of the signal that has asked the run to stop, or nothing."""

    signal: str = ""


@contextmanager
def stop_requested() -> Iterator[StopFlag]:
    """A flag that SIGINT or SIGTERM sets, so that the loop finishes its step, saves and stops.

    A second signal ends the process as if there were no flag.
    """
    flag = StopFlag()

    def handle(number: int, frame: FrameType | None) -> None:
        flag.signal = signal.Signals(number).name
        give_back()

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield flag
    finally:
        give_back()


def how_to_resume(signal_name: str, run: Run, saved: Path) -> str:
    """What to tell whoever stopped the run."""
    return (
        f"{signal_name}: stopped after step {run.step} of {run.config.trainer.max_steps}, saved {saved}. To go on, "
        "give `deflare train` the same settings and --resume, or fit(config, resume=True)."
    )
