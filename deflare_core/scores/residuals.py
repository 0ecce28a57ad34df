"""Residuals: what a network adds to its input, against what it should add, which is minus the flare.

A residual is output less input, whatever the network. The wanted one is target less input: minus the flare's events,
plus those that the flare kept from happening. Voxels are signed and float32 `(bins, H, W)`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from deflare_core.codec import events_to_voxel
from deflare_core.deflaring.host import run_voxel
from deflare_core.events import CAUSES, NUM_BINS, WINDOW_US, Events
from deflare_core.model import VoxelNetwork
from deflare_core.system.markdown import markdown_table

CELL_KINDS = (*CAUSES.values(), "empty")


def measure_residual(model: VoxelNetwork, raw: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, float]:
    """What the network does to one window, in figures by name.

    `energy_kept`: the output's sum of squares over the input's. `positive_kept`: of the cells with a positive input,
    the share whose output still rounds to at least one positive event. `relative_difference`: the norm of the
    residual over that of the input. `is_identity`: 1 if the output is the input to the last bit, else 0.
    `residual_mean`, `residual_std`, `wanted_mean`, `wanted_std`: of the given and the wanted residual, events per
    cell. `correlation`: between these two; nan if one is constant. `error_over_input`: the mean squared error over
    that of the untouched input; below 1 the network is better than doing nothing. `gradient_last`, `gradient_rest`:
    the norm of that error's gradient in the last layer and in all others. Input and target, float32 `(bins, H, W)`,
    are neither empty nor equal to each other.
    """
    output, before, after = (voxel.astype(np.float64) for voxel in (run_voxel(model, raw), raw, truth))
    given, wanted = output - before, after - before
    last, rest = measure_gradients(model, raw, truth)
    return {
        "energy_kept": float((output**2).sum() / (before**2).sum()),
        "positive_kept": float((np.rint(output[before > 0]) >= 1).mean()),
        "relative_difference": float(np.linalg.norm(given) / np.linalg.norm(before)),
        "is_identity": float(not given.any()),
        "residual_mean": float(given.mean()),
        "residual_std": float(given.std()),
        "wanted_mean": float(wanted.mean()),
        "wanted_std": float(wanted.std()),
        "correlation": correlate(given, wanted),
        "error_over_input": float(((given - wanted) ** 2).sum() / (wanted**2).sum()),
        "gradient_last": last,
        "gradient_rest": rest,
    }


def tabulate_residuals(reports: Mapping[str, Mapping[str, float]]) -> str:
    """Reports side by side as a Markdown table: a row for each figure, a column for each named report."""
    names = next(iter(reports.values()))
    rows = [[name.replace("_", " "), *(f"{report[name]:.4g}" for report in reports.values())] for name in names]
    return markdown_table(["", *reports], rows)


CLAIMS = {
    "energy kept": ("energy_kept", "-46 %", "100 %"),
    "positive values kept": ("positive_kept", "13.6 %", "100 %"),
    "relative difference": ("relative_difference", "148.7 %", "0 %"),
}
"""What the project's record says of an untrained network, plain and residual, by the figure that tells."""


def tabulate_claims(plain: Mapping[str, float], residual: Mapping[str, float]) -> str:
    """The record's claims about untrained networks beside what was measured of them, as a Markdown table."""
    rows = [
        [title, in_plain, f"{100 * plain[name]:.0f} %", in_residual, f"{100 * residual[name]:.0f} %"]
        for title, (name, in_plain, in_residual) in CLAIMS.items()
    ]
    head = ["before training", "plain, the record", "plain, measured", "residual, the record", "residual, measured"]
    return markdown_table(head, rows)


def describe_learning(reports: Mapping[str, Mapping[str, float]], steps: int) -> str:
    """Which network was nearer to the target before and after its training, in sentences with this run's figures.

    Reports are named "plain, before", "residual, before", and the same with "after".
    """
    wrong = {name: report["error_over_input"] for name, report in reports.items()}
    kept = {name: reports[f"{name}, after"]["positive_kept"] for name in ("plain", "residual")}
    nearer = min(("plain", "residual"), key=lambda name: wrong[f"{name}, after"])
    return (
        f"Of the untouched input's squared error, the plain network has {wrong['plain, before']:.2f} before training, "
        f"the residual one {wrong['residual, before']:.2f}; after {steps} steps they have {wrong['plain, after']:.2f} "
        f"and {wrong['residual, after']:.2f}: the {nearer} one is nearer to the target. Of the cells with positive "
        f"events the plain network then keeps {kept['plain']:.0%}, the residual one {kept['residual']:.0%}."
    )


def measure_gradients(model: VoxelNetwork, raw: NDArray[np.float32], truth: NDArray[np.float32]) -> tuple[float, float]:
    """The norm of the mean squared error's gradient in the network's last layer, and in all its other weights."""
    model.eval()
    model.zero_grad(set_to_none=True)
    before, after = (torch.from_numpy(voxel)[None, None] for voxel in (raw, truth))
    functional.mse_loss(model(before), after).backward()
    squares = {True: 0.0, False: 0.0}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            squares["final_conv" in name] += float(parameter.grad.norm() ** 2)
    model.zero_grad(set_to_none=True)
    return squares[True] ** 0.5, squares[False] ** 0.5


def correlate(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The correlation coefficient of two arrays of one shape; nan if one of them is constant."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) if a.std() and b.std() else np.nan


def share_residual(
    residual: NDArray[np.floating],
    events: Events,
    labels: NDArray[np.uint8],
    t0_us: int,
    window_us: int = WINDOW_US,
) -> dict[str, float]:
    """Where a residual is spent: the share of its absolute sum for each cause, and for cells without events.

    A cell's part is divided as its events are, so the shares add up to 1; of a residual of zeros they are nan. The
    residual is `(bins, H, W)`; labels `(N,)` are the causes of the window's input events, keys of `CAUSES`.
    """
    counts = encode_causes(events, labels, len(residual), t0_us, window_us)
    size, total = np.abs(residual.astype(np.float64)), counts.sum(0)
    spent = [(size * count / np.maximum(total, 1)).sum() for count in counts]
    spent.append(size[total == 0].sum())
    whole = size.sum()
    return {name: float(part / whole) if whole else np.nan for name, part in zip(CELL_KINDS, spent, strict=True)}


def encode_causes(
    events: Events, labels: NDArray[np.uint8], num_bins: int = NUM_BINS, t0_us: int = 0, window_us: int = WINDOW_US
) -> NDArray[np.float32]:
    """The number of events of each cause in each cell, both polarities alike, float32 `(4, bins, H, W)`."""
    unsigned = Events(events.t, events.x, events.y, np.ones(len(events), np.int8), events.sensor_size)
    return np.stack(
        [events_to_voxel(unsigned[labels == label], num_bins, None, window_us, t0_us=t0_us) for label in CAUSES]
    )
