"""Training: validate, save, stop, step.

A run is a folder of checkpoints and `metrics.jsonl`, one line per step and per validation. Everything that a step
depends on follows from the configuration and the step's number: the samples, their order, the learning rate and the
seed of dropout. So a resumed run continues to the bit as if never stopped.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from deflare_core.checkpoint import (
    Checkpoint,
    changed_settings,
    find_checkpoint,
    link_checkpoint,
    load_training_state,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    told,
)
from deflare_core.config import DataConfig, SimulatedDataConfig, TrainConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.events import SensorSize
from deflare_core.kernels.cuda_graphs import GraphedGradient
from deflare_core.loop.augmentation import Batch, augmented
from deflare_core.loop.gpu_memory import memory_advice
from deflare_core.loop.optimizer import WeightAverage, learning_rate, make_optimizer
from deflare_core.loop.run_log import RunLog, read_log
from deflare_core.loop.sampling import batch_seed, sample_indices, step_batches, steps_per_epoch, windows_per_step
from deflare_core.losses import LOSSES
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.system.devices import pick_device
from deflare_core.system.errors import DeflareError
from deflare_core.system.prefetch import ahead
from deflare_core.system.processes import Processes, joined
from deflare_core.system.signals import StopFlag, ignore_signals, stop_requested


class Windows(Protocol):
    """Training data: windows by number."""

    @property
    def sensor_size(self) -> SensorSize:
        """(height, width)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...

    def window_name(self, index: int) -> str:
        """What messages call a window."""


class TrainingError(DeflareError):
    """Training that cannot go on; the message says at which step, on which recordings, and what to do."""


@dataclass
class Run:
    """A training run in progress: what it works on and how far it has come."""

    config: TrainConfig
    processes: Processes
    model: VoxelNetwork
    optimizer: torch.optim.Optimizer
    data: Windows
    validation: Windows
    average: WeightAverage | None
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
        return self.step // steps_per_epoch(self.config.trainer, len(self.data))

    @property
    def network(self) -> VoxelNetwork:
        """The network that is validated and saved: the average where there is one."""
        return self.average.model if self.average else self.model


def fit(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """The last checkpoint of a run trained as configured; checkpoints and metrics stand in `trainer.output_dir`.

    SIGINT and SIGTERM end the run after the step that is under way, with a checkpoint of it. Started by torchrun,
    the processes share the work, and the first one writes.

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
    with joined(config.trainer.device) as processes:
        run = start_run(config, resume, processes)
        with stop_requested() as stop, own_randomness(run), out_of_memory_explained(run):
            stopped = go_on(run, stop, progress and processes.is_first)
    saved = find_checkpoint(config.trainer.output_dir, "last")
    if stopped and processes.is_first:
        logging.warning(how_to_resume(stop, run, saved))
    return saved


def go_on(run: Run, stop: StopFlag, progress: bool) -> bool:
    """Whether the run was stopped before its last step: validate, save, stop, step."""
    trainer, processes = run.config.trainer, run.processes
    batches = training_batches(run)
    log = RunLog(trainer.output_dir, run.step, trainer.tensorboard, writes=processes.is_first)
    bar = tqdm(total=trainer.max_steps, initial=run.step, unit="step", disable=not progress)
    with closing(log), closing(batches), bar:
        while True:
            stopped = processes.any(bool(stop.signal))
            if not stopped and validation_due(run):
                log.append(validate(run))
            if stopped or checkpoint_due(run):
                save(run)
            if stopped or run.step >= trainer.max_steps:
                return stopped
            entry = train_step(run, batches)
            log.append(entry)
            show(bar, entry, run.metrics)


def start_run(config: TrainConfig, resume: bool, processes: Processes | None = None) -> Run:
    """A run at its first step, or at the one where the last checkpoint left it.

    Raises
    ------
    TrainingError
        When the output folder holds a run that is not to be resumed, or one of another batch size, or when that run or
        `trainer.start_from` is of another network.
    """
    processes = processes or Processes(pick_device(config.trainer.device))
    config = with_batches_for(processes.count, config)
    trainer = config.trainer
    checkpoints = sorted(trainer.output_dir.glob("checkpoint_epoch_*"))
    if checkpoints and not resume:
        raise TrainingError(f"{trainer.output_dir}: already holds a run; resume it or choose another output_dir.")
    model = build_model(config.model, trainer.seed).to(processes.device)
    if trainer.start_from and not checkpoints:
        take_weights(model, read_checkpoint(find_checkpoint(trainer.start_from)), config)
    average = WeightAverage(model, trainer.average_decay) if trainer.average_decay else None
    data, validation = (windows_of(c, processes, model) for c in (config.data, config.validation))
    run = Run(config, processes, model, make_optimizer(config.optimizer, model), data, validation, average)
    if checkpoints:
        restore(run, find_checkpoint(trainer.output_dir, "last"))
    return run


def windows_of(config: DataConfig | SimulatedDataConfig, processes: Processes, model: VoxelNetwork) -> Windows:
    """The windows that a configuration describes, as the network takes them: lazily from files, or simulated now.

    Raises
    ------
    TrainingError
        When the simulated ones do not fit the GPU's memory.
    """
    split_polarity, context = model.channels == 2, model.config.context
    if isinstance(config, DataConfig):
        return EventVoxelDataset.from_config(config, split_polarity, context)
    from data_simu.stream import simulated_windows

    try:
        windows = simulated_windows(config, processes.device, split_polarity, progress=processes.is_first)
    except torch.cuda.OutOfMemoryError as error:
        num_pairs = sum(kind.num_pairs for kind in config.kinds)
        raise TrainingError(
            f"The GPU's memory does not suffice for {num_pairs} simulated pairs of {config.simulation} "
            f"({str(error).splitlines()[0]}). Lower num_pairs, also of further pairs, or simulate shorter ones."
        ) from error
    return windows.with_context(context)


def with_batches_for(count: int, config: TrainConfig) -> TrainConfig:
    """The configuration with its batches per step stated: as given, or one for each process.

    Raises
    ------
    TrainingError
        When there are more processes than batches.
    """
    batches = config.trainer.accumulate_steps or count
    if batches < count:
        raise TrainingError(
            f"trainer.accumulate_steps is {batches}, so of {count} processes {count - batches} would have nothing to "
            f"do; set it to {count} or a multiple, or start fewer processes."
        )
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"accumulate_steps": batches})})


def take_weights(model: VoxelNetwork, checkpoint: Checkpoint, config: TrainConfig) -> None:
    """Put a checkpoint's weights into the model.

    Raises
    ------
    CheckpointError
        When the weights are damaged.
    TrainingError
        When it belongs to another network than configured.
    """
    changed = changed_settings(checkpoint, config)
    if other := {name: change for name, change in changed.items() if name.startswith("model.")}:
        raise TrainingError(f"{checkpoint.path}: is of another network than configured ({told(other)}).")
    load_weights(model, checkpoint.path)


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
    trainer = {"batch_size": 1, "accumulate_steps": 1} | checkpoint.training.get("trainer", {})
    before, now = trainer["batch_size"] * trainer["accumulate_steps"], windows_per_step(run.config.trainer)
    if before != now:
        raise TrainingError(
            f"{path}: its steps took {before} windows, the configured ones take {now}; keep the product of "
            "trainer.batch_size and trainer.accumulate_steps, or choose another output_dir."
        )
    take_weights(run.model, checkpoint, run.config)
    if changed := changed_settings(checkpoint, run.config):
        logging.warning(f"{path}: the run goes on with other settings ({told(changed)}).")
    if run.average:
        run.average.model.load_state_dict(run.model.state_dict())
    load_training_state(path, run.optimizer, run.model)
    run.step = run.saved_step = checkpoint.step
    for entry in read_log(run.config.trainer.output_dir):
        if "validation" in entry and entry["step"] <= run.step:
            note_validation(run, entry["step"], entry["validation"])


def train_step(run: Run, batches: Iterator[Batch]) -> dict[str, float]:
    """One optimizer step on the next batches; its line of the log.

    Raises
    ------
    TrainingError
        When the loss or its gradient is not finite; the weights are then those before the step.
    """
    started, epoch = time.perf_counter(), run.epoch
    rate = learning_rate(run.config.optimizer, run.step, run.config.trainer.max_steps)
    total = accumulate_gradients(run, batches)
    length = nn.utils.clip_grad_norm_(run.model.parameters(), run.config.optimizer.clip_norm or math.inf)
    figures = torch.stack([total, length])
    if run.device.type == "cpu":
        require_finite(run, *figures.tolist())
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    step_if_finite(run.optimizer, figures)
    loss, norm = figures.tolist()
    require_finite(run, loss, norm)
    run.step, run.unsaved = run.step + 1, True
    if run.average:
        run.average.update(run.model, run.step)
    entry = {"step": run.step, "epoch": epoch, "loss": loss, "learning_rate": rate, "gradient_norm": norm}
    return entry | {"seconds": round(time.perf_counter() - started, 4)}


def step_if_finite(optimizer: torch.optim.Optimizer, figures: torch.Tensor) -> None:
    """Let the optimizer step; on a GPU it sees for itself whether the figures are finite, before the host does."""
    if figures.is_cuda:
        optimizer.found_inf = (~figures.isfinite()).any().float()  # type: ignore[attr-defined]
    optimizer.step()


def accumulate_gradients(run: Run, batches: Iterator[Batch]) -> torch.Tensor:
    """The mean loss over the step's windows in all processes, whose gradient is then in the model's parameters."""
    run.model.train()
    run.optimizer.zero_grad(set_to_none=False)
    parts = step_batches(run.config.trainer, len(run.data), run.step)
    num_windows = sum(map(len, parts))
    total = torch.zeros((), device=run.device)
    for k, batch in zip(run.processes.share(range(len(parts))), batches, strict=False):
        torch.manual_seed(batch_seed(run.config.trainer, run.step, k))
        total += add_gradient(run, augmented(batch, run.config.trainer), len(parts[k]) / num_windows)
    run.processes.sum([*gradients(run.model), total])
    return total


def add_gradient(run: Run, batch: Batch, share: float) -> torch.Tensor:
    """The loss of a batch times its share of the step, whose gradient is added to that of the parameters."""
    if run.model.is_recorded_on(run.device):
        raw, label = (batch[name].to(run.device, non_blocking=True) for name in ("raw", "label"))
        if raw.shape not in run.graphs:
            gradients(run.model)
            with torch.random.fork_rng([run.device]):  # The runs before a recording draw dropout's numbers too.
                run.graphs[raw.shape] = GraphedGradient(run.model, LOSSES[run.config.trainer.loss], raw, label)
        return run.graphs[raw.shape](raw, label, share)
    loss = voxel_loss(run, run.model, batch) * share
    loss.backward()
    return loss.detach()


def gradients(model: nn.Module) -> list[torch.Tensor]:
    """The gradient of every parameter; zeros where no batch has given one."""
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def voxel_loss(run: Run, network: VoxelNetwork, batch: Batch) -> torch.Tensor:
    """The configured loss of a network on a batch."""
    raw, label = (batch[name].to(run.device, non_blocking=True) for name in ("raw", "label"))
    return LOSSES[run.config.trainer.loss](network, raw, label)


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
    names = ", ".join(run.data.window_name(i) for i in sample_indices(run.config.trainer, len(run.data), run.step))
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
    losses = torch.zeros(len(run.validation), dtype=torch.float64, device=run.device)
    share = run.processes.share(range(len(run.validation)))
    for i, batch in zip(share, make_loader(run, [[i] for i in share], run.validation), strict=True):
        losses[i] = voxel_loss(run, run.network, batch)
    run.processes.sum([losses])
    broken = [run.validation.window_name(int(i)) for i in torch.nonzero(~losses.isfinite())]
    if broken:
        raise TrainingError(
            f"The validation loss at step {run.step} is not finite on {', '.join(broken)}; nothing was saved since "
            f"step {run.saved_step}. Lower optimizer.learning_rate."
        )
    note_validation(run, run.step, {"loss": float(losses.mean())})
    run.unsaved = True
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
    return run.unsaved and (regular or run.best_step == run.step)


def save(run: Run) -> None:
    """Write a checkpoint, and let `last` and, after the best validation, `best` lead to it; in the first process."""
    run.saved_step, run.unsaved = run.step, False
    if not run.processes.is_first:
        return
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
    link_checkpoint(path, "last")
    if run.best_step == run.step:
        link_checkpoint(path, "best")


def show(bar: tqdm, entry: dict[str, float], metrics: dict[str, float]) -> None:
    """Move the progress bar on by a step."""
    validation = {"validation": f"{metrics['loss']:.4g}"} if metrics else {}
    figures = {"loss": f"{entry['loss']:.4g}", "rate": f"{entry['learning_rate']:.2g}"} | validation
    bar.set_postfix(figures, refresh=False)
    bar.update()


def training_batches(run: Run) -> Generator[Batch, None, None]:
    """The process's share of the batches from the run's step to its last, each made while the one before is used."""
    trainer, num_samples = run.config.trainer, len(run.data)
    steps = range(run.step, trainer.max_steps)
    parts = (part for step in steps for part in run.processes.share(step_batches(trainer, num_samples, step)))
    return ahead(iter(make_loader(run, parts, run.data)), size=1)


def make_loader(run: Run, parts: Iterable[list[int]], data: Windows) -> DataLoader:
    """A loader of the given batches of windows, which draws no number from the global generator."""
    in_files = isinstance(data, EventVoxelDataset)
    return DataLoader(
        cast(Dataset, data),
        batch_sampler=parts,
        num_workers=run.config.trainer.num_workers if in_files else 0,
        pin_memory=run.device.type == "cuda" and in_files,
        generator=torch.Generator(),
        worker_init_fn=ignore_signals,
    )


@contextmanager
def own_randomness(run: Run) -> Iterator[None]:
    """Give the process its random-number state back after the run, which seeds each batch; let cuDNN be repeatable."""
    settings = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": True}
    with (
        torch.random.fork_rng([run.device] if run.device.type == "cuda" else []),
        torch.backends.cudnn.flags(**settings),
    ):
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


def how_to_resume(stop: StopFlag, run: Run, saved: Path) -> str:
    """What to tell whoever stopped the run."""
    return (
        f"{stop.signal or 'Another process'}: stopped after step {run.step} of {run.config.trainer.max_steps}, saved "
        f"{saved}. To go on, give `deflare train` the same settings and --resume, or fit(config, resume=True)."
    )
