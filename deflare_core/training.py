"""Training: validate, save, stop, step.

A run is a folder of checkpoints and `metrics.jsonl`, one line per step and per validation. Everything that a step
depends on follows from the configuration and the step's number: the samples, their order, the learning rate and the
seed of dropout. So a resumed run continues to the bit as if never stopped.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from deflare_core.checkpoint import CheckpointError, find_checkpoint, save_checkpoint
from deflare_core.config import TrainConfig
from deflare_core.kernels.cuda_graphs import GraphedGradient
from deflare_core.loop.augmentation import Batch, augment_batch
from deflare_core.loop.circumstances import KEY, hold_folder
from deflare_core.loop.gpu_memory import memory_advice
from deflare_core.loop.optimizer import learning_rate
from deflare_core.loop.run import Run, TrainingError, link_checkpoints, start_run
from deflare_core.loop.run_log import RunLog
from deflare_core.loop.sampling import derive_batch_seed, sample_indices, step_batches
from deflare_core.loop.training_data import load_batches
from deflare_core.losses import FUNCTIONS
from deflare_core.model import VoxelNetwork
from deflare_core.system.devices import explain_out_of_memory
from deflare_core.system.prefetch import prefetch
from deflare_core.system.processes import join_processes
from deflare_core.system.signals import StopFlag, flag_stop_signals

REMEDY = "Lower optimizer.learning_rate, or set optimizer.clip_norm=1 and optimizer.warmup_steps."
"""What to do where values are no longer finite."""


def fit(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """The last checkpoint of a run trained as configured; checkpoints and metrics stand in `trainer.output_dir`.

    SIGINT and SIGTERM end the run after the step that is under way, with a checkpoint of it. Started by torchrun,
    the processes share the work, and the first one writes.

    Parameters
    ----------
    resume : go on from the last checkpoint in the output folder; without one there, start.
    progress : show a progress bar with loss, rate and remaining time.

    Raises
    ------
    TrainingError
        When the output folder already holds a run and `resume` is off, or the loss is not finite.
    DeflareError
        When another run writes to the output folder.
    DeviceError
        When the device is not there, or its memory does not suffice.
    """
    with join_processes(config.trainer.device) as processes, hold_folder(config.trainer.output_dir, processes.is_first):
        run = start_run(config, resume, processes)
        if run.step and processes.is_first:
            link_checkpoints(run)  # It may have been killed before it had set them.

        def advise() -> tuple[str, str]:
            return f"at step {run.step + 1}", memory_advice(run.config, run.data.sensor_size)

        with flag_stop_signals() as stop, keep_randomness(run.device), explain_out_of_memory(advise):
            stopped = run_steps(run, stop, progress and processes.is_first)
    saved = find_checkpoint(config.trainer.output_dir, "last")
    if stopped and processes.is_first:
        logging.warning(
            f"{stop.signal or 'Another process'}: stopped after step {run.step} of {config.trainer.max_steps}, saved "
            f"{saved}. To go on, give `deflare train` the same settings and --resume, or fit(config, resume=True)."
        )
    return saved


def run_steps(run: Run, stop: StopFlag, progress: bool) -> bool:
    """Take the steps that are left, validate and save between them; returns whether the run was stopped before."""
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
                save_run(run)
            if stopped or run.step >= trainer.max_steps:
                return stopped
            entry = train_step(run, batches)
            log.append(entry)
            advance_bar(bar, entry, run.metrics)


def train_step(run: Run, batches: Iterator[Batch]) -> dict[str, float]:
    """Take one optimizer step on the next batches, unless the loss or its gradient is not finite; returns its line."""
    started, epoch = time.perf_counter(), run.epoch
    rate = learning_rate(run.config.optimizer, run.step, run.config.trainer.max_steps)
    total = accumulate_gradients(run, batches)
    length = nn.utils.clip_grad_norm_(run.model.parameters(), run.config.optimizer.clip_norm or math.inf)
    figures = torch.stack([total, length])
    if run.device.type == "cpu":  # A CPU's optimizer does not look at `found_inf`; to wait for a CPU costs nothing.
        require_finite(run, *figures.tolist())
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    step_if_finite(run.optimizer, figures)
    loss, norm = figures.tolist()
    require_finite(run, loss, norm)
    run.step, run.unsaved = run.step + 1, True
    if run.average:
        run.average.update_parameters(run.model)
    entry = {"step": run.step, "epoch": epoch, "loss": loss, "learning_rate": rate, "gradient_norm": norm}
    return entry | {"seconds": round(time.perf_counter() - started, 4)}


def step_if_finite(optimizer: torch.optim.Optimizer, figures: torch.Tensor) -> None:
    """Let the optimizer step unless a figure of `figures`, float32 `(2,)`, is not finite; on a GPU without waiting."""
    if figures.is_cuda:
        # The fused optimizers of torch skip a step by this tensor, as they do for GradScaler.
        optimizer.found_inf = (~figures.isfinite()).any().float()  # type: ignore[attr-defined]
    optimizer.step()


def accumulate_gradients(run: Run, batches: Iterator[Batch]) -> torch.Tensor:
    """The mean loss over the step's windows in all processes, float32 `()`; its gradient is then in the parameters."""
    run.model.train()
    run.optimizer.zero_grad(set_to_none=False)  # Recorded graphs add to these very tensors.
    parts = step_batches(run.config.trainer, run.supply, run.step)
    num_windows = sum(map(len, parts))
    total = torch.zeros((), device=run.device)
    for k, batch in zip(run.processes.share(range(len(parts))), batches, strict=False):
        torch.manual_seed(derive_batch_seed(run.config.trainer, run.step, k))
        total += add_gradient(run, augment_batch(batch, run.config.trainer), len(parts[k]) / num_windows)
    run.processes.sum([*list_gradients(run.model), total])
    return total


def add_gradient(run: Run, batch: Batch, share: float) -> torch.Tensor:
    """The loss of a batch times its share of the step, float32 `()`; its gradient is added to the parameters'."""
    if run.model.is_recorded_on(run.device):
        raw, label = (batch[name].to(run.device, non_blocking=True) for name in ("raw", "label"))
        if raw.shape not in run.graphs:
            list_gradients(run.model)
            with torch.random.fork_rng([run.device]):  # The runs before a recording draw dropout's numbers too.
                run.graphs[raw.shape] = GraphedGradient(run.model, FUNCTIONS[run.config.trainer.loss], raw, label)
        return run.graphs[raw.shape](raw, label, share)
    loss = voxel_loss(run, run.model, batch) * share
    loss.backward()
    return loss.detach()


def list_gradients(model: nn.Module) -> list[torch.Tensor]:
    """The gradient of every parameter, of its shape; zeros where no batch has given one."""
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def voxel_loss(run: Run, network: VoxelNetwork, batch: Batch) -> torch.Tensor:
    """The configured loss of a network on a batch, float32 `()`."""
    raw, label = (batch[name].to(run.device, non_blocking=True) for name in ("raw", "label"))
    return FUNCTIONS[run.config.trainer.loss](network, raw, label)


def require_finite(run: Run, loss: float, norm: float) -> None:
    """Raise TrainingError, which names the step's windows, unless the loss and its gradient's norm are finite."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"The loss is {loss}" if not math.isfinite(loss) else f"The gradient's norm is {norm}"
    names = ", ".join(run.data.window_name(i) for i in sample_indices(run.config.trainer, run.supply, run.step))
    raise TrainingError(
        f"{what} at step {run.step + 1} on {names}; nothing was saved since step {run.saved_step}. {REMEDY}"
    )


def validation_due(run: Run) -> bool:
    """Whether to validate the weights: every `validate_every` steps and at the end, once."""
    trainer = run.config.trainer
    return run.validated_step != run.step and (run.step % trainer.validate_every == 0 or run.step == trainer.max_steps)


@torch.no_grad()
def validate(run: Run) -> dict[str, object]:
    """Validate the weights on every window of the validation set; returns the mean loss as a line of the log."""
    run.network.eval()
    losses = torch.zeros(len(run.validation), dtype=torch.float64, device=run.device)
    share = run.processes.share(range(len(run.validation)))
    batches = load_batches(run.validation, [[i] for i in share], run.device, run.config.trainer.num_workers)
    with closing(batches):
        for i, batch in zip(share, batches, strict=True):
            losses[i] = voxel_loss(run, run.network, batch)
    run.processes.sum([losses])
    broken = [run.validation.window_name(int(i)) for i in torch.nonzero(~losses.isfinite())]
    if broken:
        raise TrainingError(
            f"The validation loss at step {run.step} is not finite on {', '.join(broken)}; nothing was saved since "
            f"step {run.saved_step}. Lower optimizer.learning_rate."
        )
    run.note_validation(run.step, {"loss": float(losses.mean())})
    run.unsaved = True
    return {"step": run.step, "epoch": run.epoch, "validation": run.metrics}


def checkpoint_due(run: Run) -> bool:
    """Whether to save the run: every `checkpoint_every` steps, after the best validation, and at the end, once."""
    trainer = run.config.trainer
    regular = run.step % trainer.checkpoint_every == 0 or run.step == trainer.max_steps
    return run.unsaved and (regular or run.best_step == run.step)


def save_run(run: Run) -> None:
    """Write a checkpoint, and let `last` and, after the best validation, `best` lead to it; in the first process."""
    if run.processes.is_first:
        write_checkpoint(run)
    run.saved_step, run.unsaved = run.step, False


def write_checkpoint(run: Run) -> None:
    """Write a checkpoint and its links; a TrainingError if weights or the optimizer's state are not finite."""
    try:
        save_checkpoint(
            run.config.trainer.output_dir,
            run.network,
            run.optimizer,
            epoch=run.epoch,
            step=run.step,
            metrics=run.metrics if run.validated_step == run.step else {},
            training=run.config.model_dump(mode="json") | {KEY: run.circumstances},
            trained=run.model if run.average else None,
        )
    except CheckpointError as error:
        raise TrainingError(f"{error} Nothing was saved since step {run.saved_step}. {REMEDY}") from error
    link_checkpoints(run)


def advance_bar(bar: tqdm, entry: dict[str, float], metrics: dict[str, float]) -> None:
    """Move the progress bar on by a step."""
    validation = {"validation": f"{metrics['loss']:.4g}"} if metrics else {}
    figures = {"loss": f"{entry['loss']:.4g}", "rate": f"{entry['learning_rate']:.2g}"} | validation
    bar.set_postfix(figures, refresh=False)
    bar.update()


def training_batches(run: Run) -> Generator[Batch, None, None]:
    """The process's share of the batches from the run's step to its last, each made while the one before is used."""
    trainer, supply = run.config.trainer, run.supply
    steps = range(run.step, trainer.max_steps)
    parts = (part for step in steps for part in run.processes.share(step_batches(trainer, supply, step)))
    return prefetch(load_batches(run.data, parts, run.device, trainer.num_workers), size=1)


@contextmanager
def keep_randomness(device: torch.device) -> Iterator[None]:
    """Restore torch's random state after the block, in which each batch is seeded, and let cuDNN be repeatable."""
    settings = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": True}
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.backends.cudnn.flags(**settings):
        yield
