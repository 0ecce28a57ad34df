"""Training curves: how a run's loss, learning rate and epochs went, read from its log, afterwards or while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from deflare_core.loop.run_log import METRICS, RunLogError, read_log, read_tensorboard
from deflare_core.show.figures import ACCENT, NEGATIVE, NEUTRAL, POSITIVE, as_label, make_figure, save_figure

CURVES = "training_loss_curves.png"
REPORTS = Path("reports/training_curves")
DETAILS = {"gradient_norm": "gradient norm", "seconds": "seconds per step"}
LEGEND = {"frameon": False, "loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2, "borderaxespad": 0.1}
"""Above the axes, where it covers no curve."""

VALIDATION = ACCENT
"""The colour of what validation says, in every figure."""

Entries = list[dict[str, Any]]


def draw_learning_curve(entries: Entries, title: str = "") -> Figure:
    """The loss of each step with its moving average, and of each validation, in one panel; empty before the first step.

    `entries` are the lines of a run's log, as `read_log` and `RunLog` give them.
    """
    figure = make_figure(7, 3.6)
    axes = figure.subplots()
    if entries:
        draw_step_losses(axes, entries)
        draw_validations(axes, entries)
        axes.legend(frameon=False)
    scale_losses(axes)
    axes.set(xlabel="step", title=as_label(title))
    return figure


def draw_training_curves(run_dir: str | Path, detailed: bool = False) -> Figure:
    """Panels over the steps of a run: loss of each step with its moving average, loss of each epoch, learning rate.

    The losses are on a logarithmic scale; the best epoch stands in a light-green box. With `detailed` there are panels
    of the gradient's norm and the duration of each step.

    Raises
    ------
    RunLogError
        When the folder holds neither `metrics.jsonl` nor TensorBoard scalars with a step.
    """
    entries = read_run(Path(run_dir))
    extra = [name for name in ("learning_rate", *(DETAILS if detailed else ())) if len(list_column(entries, name)[0])]
    heights = [3, 3, *(1.5 for _ in extra)]
    figure = make_figure(8, sum(heights) + 0.6)
    grid = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    draw_step_losses(grid[0], entries)
    draw_epoch_losses(grid[1], entries)
    for axes in grid[:2]:
        scale_losses(axes)
        axes.legend(**LEGEND)
    for axes, name in zip(grid[2:], extra, strict=True):
        axes.plot(*list_column(entries, name), color=NEUTRAL, linewidth=0.8)
        axes.set_ylabel(DETAILS.get(name, name.replace("_", " ")))
        if name == "gradient_norm":
            axes.set_yscale("log")
    grid[-1].set_xlabel("step")
    figure.suptitle(f"{as_label(Path(run_dir).name)}: {entries[-1]['step']:,} steps", fontsize=11)
    return figure


def write_curves(run_dir: str | Path, detailed: bool = False) -> Path:
    """The path at which the run's curves were written as PNG: `reports/training_curves/RUN/`."""
    return save_figure(draw_training_curves(run_dir, detailed), REPORTS / Path(run_dir).resolve().name / CURVES)


def read_run(run_dir: Path) -> Entries:
    """The lines of a run's log, from its file or else from its TensorBoard scalars."""
    entries = read_log(run_dir) or read_tensorboard(run_dir)
    if not any("loss" in entry for entry in entries):
        raise RunLogError(f"{run_dir}: has no {METRICS} or TensorBoard scalars of a run; `deflare train` writes them.")
    return entries


def draw_step_losses(axes: Axes, entries: Entries) -> None:
    """Draw the loss of each step and the mean of the last ones, a fiftieth of the run."""
    steps, losses = list_column(entries, "loss")
    width = max(1, len(losses) // 50)
    axes.plot(steps, losses, color=NEGATIVE, alpha=0.4, linewidth=0.8, label="training, each step")
    if width > 1:
        label = f"mean of the last {width} steps"
        axes.plot(steps[width - 1 :], average_steps(losses, width), color=POSITIVE, linewidth=1.4, label=label)


def draw_validations(axes: Axes, entries: Entries) -> None:
    """Draw the loss of each validation, if there was one."""
    steps, losses = list_validations(entries)
    if len(steps):
        axes.plot(steps, losses, "o-", color=VALIDATION, markersize=4, linewidth=1, label="validation")


def draw_epoch_losses(axes: Axes, entries: Entries) -> None:
    """Draw the mean training loss over the steps of each epoch, each validation, and the best epoch in a box."""
    steps, losses = list_column(entries, "loss")
    epochs = list_epochs(entries)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        label = "training, mean of each epoch" if epoch == epochs[0] else ""
        axes.hlines(losses[here].mean(), steps[here][0] - 1, steps[here][-1], color=NEGATIVE, linewidth=2, label=label)
    draw_validations(axes, entries)
    box = {"boxstyle": "round", "facecolor": "lightgreen", "edgecolor": "none"}
    axes.text(0.02, 0.05, find_best_epoch(entries), transform=axes.transAxes, bbox=box, fontsize=9)


def scale_losses(axes: Axes) -> None:
    """Give the axes, already drawn on, a logarithmic scale of losses with plain numbers, over whole steps."""
    axes.set(ylabel="loss", yscale="log")
    low, high = axes.get_ylim()
    # Powers of ten alone would leave the axis of a curve within one decade without a number.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def find_best_epoch(entries: Entries) -> str:
    """Which epoch, counted from 1, was best: by its validation, or by its mean training loss where there is none."""
    steps, losses = list_column(entries, "loss")
    epochs = list_epochs(entries)
    validated, scores = list_validations(entries)
    if len(scores):
        step = validated[scores.argmin()]
        epoch = epochs[np.searchsorted(steps, step)]
        return f"best: epoch {epoch}, step {step:,}, validation loss {scores.min():.4g}"
    mean, epoch = min((losses[epochs == epoch].mean(), epoch) for epoch in np.unique(epochs))
    return f"best: epoch {epoch}, mean training loss {mean:.4g}"


def average_steps(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of each `width` values in a row, float64: `(N,)` becomes `(N - width + 1,)`."""
    return np.convolve(values, np.ones(width) / width, "valid")


def list_column(entries: Entries, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps that logged a figure, int64 `(N,)`, and the figure at each, float64 `(N,)`."""
    return _split([(entry["step"], entry[name]) for entry in entries if name in entry and "loss" in entry])


def list_epochs(entries: Entries) -> np.ndarray:
    """The epoch of each step, counted from 1, int64 `(N,)`."""
    return np.array([int(entry.get("epoch", 0)) + 1 for entry in entries if "loss" in entry])


def list_validations(entries: Entries) -> tuple[np.ndarray, np.ndarray]:
    """The steps that were validated, int64 `(N,)`, and the loss of each, float64 `(N,)`."""
    return _split([(entry["step"], entry["validation"]["loss"]) for entry in entries if "validation" in entry])


def _split(found: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([step for step, _ in found], int), np.array([value for _, value in found], float)
