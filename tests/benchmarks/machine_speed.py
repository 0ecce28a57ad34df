"""The speed of this machine: network, training step and whole windows, the usual way and ours, beside its ceilings.

The usual way is pytorch-3dunet as it comes, in eager mode. Every figure of a row is taken in the same process, one
after the other; times are medians.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from deflare_core.checkpoint import load_pretrained
from deflare_core.config import ModelConfig, SimulatedDataConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.stream import deflare_windows
from deflare_core.events import NUM_BINS, WINDOW_US, Events, SensorSize
from deflare_core.inference import deflare_recording
from deflare_core.io.recordings import save_events
from deflare_core.kernels.cuda_graphs import GraphedGradient, GraphedNetwork
from deflare_core.kernels.group_norm import PiecewiseGroupNorm
from deflare_core.losses import FUNCTIONS
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.show.figures import NEGATIVE, NEUTRAL, make_figure, save_figure
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.devices import device_name
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.revision import list_versions
from deflare_core.windows import USUAL_CUT, Window

F_MAPS = ((32, 64, 128), (48, 96, 144), (64, 128, 256), (32, 64, 128, 256))
SENSOR_SIZE, CPU_SENSOR_SIZE = (480, 640), (120, 160)
EVENTS_PER_WINDOW, RECORDED_WINDOWS = 200_000, 100
SIMULATION, FED_STEPS = PROJECT_ROOT / "configs" / "simu_config.yaml", 400
CUBE = 8192
"""Edge of the matrices whose product measures the arithmetic ceiling."""


class Row(NamedTuple):
    """A measurement: what, how long it takes, how much memory at its peak, and how far it is from float64."""

    work: str
    way: str
    ms: float
    gib: float | None = None
    error: float | None = None


def run_benchmark(device: torch.device, folder: Path) -> str:
    """The tables of a benchmark on a device, in Markdown, written to the folder with a figure.

    On a CPU, frames are 120x160 and only the default network runs.
    """
    on_gpu = device.type == "cuda"
    size = SENSOR_SIZE if on_gpu else CPU_SENSOR_SIZE
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True):
        rows = [*measure_ceilings(device), *measure_network(device, size), *measure_training_steps(device, size)]
        rows += measure_whole_windows(device, size)
    if on_gpu:
        model = build_model(ModelConfig(), seed=0).to(device)
        rows += measure_feeding(model, size, SimulatedDataConfig(simulation=SIMULATION), FED_STEPS)
    text = tabulate(rows, f"{device_name(device)}, windows of {NUM_BINS}x{size[0]}x{size[1]}")
    with complete_or_absent(folder / "benchmark.md") as path:
        path.write_text(text)
    with complete_or_absent(folder / "benchmark.json") as path:
        path.write_text(
            json.dumps({"versions": list_versions(), "rows": [row._asdict() for row in rows]}, indent=2) + "\n"
        )
    durations = [row for row in rows if row.work.startswith(("network", "training step", "whole window", "fed"))]
    labels = {f"{row.work}: {row.way}": row.ms for row in durations}
    usual = [label for label in labels if label.endswith(": usual")]
    save_figure(draw_durations(labels, usual), folder / "benchmark.png")
    return text


def draw_durations(durations_ms: Mapping[str, float], compared: Sequence[str]) -> Figure:
    """A bar for each duration by name, milliseconds on a logarithmic axis; those compared with are grey."""
    figure = make_figure(8, 0.35 * len(durations_ms) + 1)
    axes = figure.subplots()
    names = list(durations_ms)[::-1]
    colours = [NEUTRAL if name in compared else NEGATIVE for name in names]
    bars = axes.barh(names, [durations_ms[name] for name in names], color=colours)
    axes.bar_label(bars, [f"{durations_ms[name]:.1f}" for name in names], padding=3)
    axes.set(xscale="log", xlabel="milliseconds (grey: the usual way)")
    axes.margins(x=0.15)
    return figure


def measure_ceilings(device: torch.device) -> Iterator[Row]:
    """What the device can do at most: a product of large matrices, and a copy; per 1e12 operations and per GB."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    edge = CUBE if device.type == "cuda" else CUBE // 8
    a = torch.randn(edge, edge, device=device, dtype=dtype)
    out = torch.empty_like(a)
    yield Row(
        "1e12 operations",
        f"product of {dtype}",
        measure_ms(lambda: torch.mm(a, a, out=out), device) / (2e-12 * edge**3),
    )
    values = torch.empty(2**28 if device.type == "cuda" else 2**24, device=device)
    target = torch.empty_like(values)
    yield Row("1 GB moved", "copy", measure_ms(lambda: target.copy_(values), device) / (8e-9 * values.numel()))


def measure_network(device: torch.device, size: SensorSize) -> Iterator[Row]:
    """One window through the default network, the usual way and ours, with the error against float64."""
    model = waken(build_model(ModelConfig(), seed=0)).to(device).eval()
    voxel = draw_voxel(size, device)
    with torch.no_grad():
        exact = build_usual(model)(voxel.double(), torch.float64).cpu()
        for way, run in list_ways(model, voxel):
            with watch_memory(device) as peak:
                ms = measure_ms(run, device)
            output = run().cpu().double()
            yield Row("network", way, ms, peak(), float((output - exact).norm() / (exact - voxel.cpu()).norm()))


def list_ways(model: VoxelNetwork, voxel: torch.Tensor) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """Ways to run a network, by name."""
    usual = build_usual(model)
    yield "usual", lambda: usual(voxel)
    plain = build_model(model.config.model_copy(update={"precision": "single"}), seed=0).to(voxel.device).eval()
    plain.load_state_dict(model.state_dict())
    yield "ours, single", lambda: plain(voxel)
    if model.is_half_on(voxel.device):
        is_on_gpu = voxel.device.type == "cuda"  # Some processors multiply in half precision too, without graphs.
        half = GraphedNetwork(model, tuple(voxel.shape)) if is_on_gpu else model.eval()
        yield "ours, half", lambda: half(voxel)


def measure_training_steps(device: torch.device, size: SensorSize) -> Iterator[Row]:
    """One training step of each network: the usual way, and ours with and without checkpoints."""
    raw, label = draw_voxel(size, device), draw_voxel(size, device, seed=1)
    for f_maps in F_MAPS if device.type == "cuda" else F_MAPS[:1]:
        config = ModelConfig(f_maps=f_maps, num_levels=len(f_maps))
        model = build_model(config, seed=0).to(device)
        yield measure_step("usual", model, build_usual(model, keep=True), raw, label)
        for use_checkpoint in (False, True):
            model = build_model(config.model_copy(update={"use_checkpoint": use_checkpoint}), seed=0).to(device)
            yield measure_step("ours, checkpointed" if use_checkpoint else "ours", model, model, raw, label)
    model = build_model(load_pretrained().config, seed=0).to(device)
    raw, label = (torch.cat([voxel, -voxel], 1).clamp(min=0) for voxel in (raw, label))
    raw = raw.repeat(1, model.inputs // model.channels, 1, 1, 1)
    yield measure_step("ours, as the pretrained network", model, model, raw, label)


def measure_step(
    way: str, model: VoxelNetwork, run: Callable[[torch.Tensor], torch.Tensor], raw: torch.Tensor, label: torch.Tensor
) -> Row:
    """A step of Adam on one window."""
    with watch_memory(raw.device) as peak:
        step = make_step(model, run, raw)
        ms = measure_ms(lambda: step(raw, label), raw.device)
    return Row(f"training step {list(model.config.f_maps)}", way, ms, peak())


def make_step(
    model: VoxelNetwork, run: Callable[[torch.Tensor], torch.Tensor], raw: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A step of Adam as a function of input and target of the shape of `raw`."""
    optimizer = torch.optim.Adam(model.parameters(), fused=raw.is_cuda)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    recorded = run is model and model.is_recorded_on(raw.device)
    graph = GraphedGradient(model, FUNCTIONS["mse"], raw, model.take_window(raw)) if recorded else None

    def step(raw: torch.Tensor, label: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=False)
        if graph:
            graph(raw, label, 1)
        else:
            functional.mse_loss(run(raw), label).backward()
        optimizer.step()

    return step


def measure_feeding(
    model: VoxelNetwork, size: SensorSize, simulated: SimulatedDataConfig, num_steps: int
) -> Iterator[Row]:
    """A training step of a network whose windows are ready, come from files, or come from new simulated pairs.

    Parameters
    ----------
    model : a network for signed voxels.
    size : (height, width) of what is simulated.
    simulated : what is simulated, and by how many processes; of each pair of 100 ms every window is trained on twice.
    num_steps : steps to time of each, after 20 others.
    """
    device, workers = next(model.parameters()).device, simulated.workers
    ready = draw_voxel(size, device), draw_voxel(size, device, seed=1)
    step = make_step(model, model, ready[0])
    with tempfile.TemporaryDirectory() as folder:
        feeds = {
            "windows that lie ready": itertools.repeat(ready),
            "windows from files": read_windows(Path(folder), size, device, workers),
            "a new pair every ten steps": simulate_windows(simulated, device),
        }
        for way, windows in feeds.items():
            yield Row("fed training step", way, mean_ms(step, windows, num_steps, device))


def mean_ms(
    step: Callable[[torch.Tensor, torch.Tensor], None],
    windows: Iterator[tuple[torch.Tensor, torch.Tensor]],
    num_steps: int,
    device: torch.device,
) -> float:
    """Milliseconds a step takes with its data, on average, after the first ones."""
    for raw, label in itertools.islice(windows, 20):
        step(raw, label)

    def steps() -> None:
        for raw, label in itertools.islice(windows, num_steps):
            step(raw, label)

    return run_once(steps, device) / num_steps


def read_windows(
    folder: Path, size: SensorSize, device: torch.device, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Windows of recordings written to the folder, read by processes in an endless order."""
    events = draw_events(size[0] * size[1] * EVENTS_PER_WINDOW // (SENSOR_SIZE[0] * SENSOR_SIZE[1]), 5, size)
    for kind in ("noisy", "clean"):
        save_events(folder / kind / "a.h5", events, source="benchmark", clock_us=(0, 5 * WINDOW_US))
    data = EventVoxelDataset(folder / "noisy", folder / "clean")
    order = ([k % len(data)] for k in itertools.count())
    loader = DataLoader(data, batch_sampler=order, num_workers=workers, pin_memory=device.type == "cuda")
    for batch in loader:
        yield batch["raw"].to(device, non_blocking=True), batch["label"].to(device, non_blocking=True)


def simulate_windows(
    simulated: SimulatedDataConfig, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Windows of new simulated pairs, each twice: ten steps on each pair of 100 ms."""
    from data_simu.pool import order_pairs
    from data_simu.stream import SimulatedPairs

    for sample in SimulatedPairs(order_pairs(simulated).configs[0], device, workers=simulated.workers):
        yield from itertools.repeat((sample["raw"][None], sample["label"][None]), 2)


def measure_whole_windows(device: torch.device, size: SensorSize) -> Iterator[Row]:
    """A window of 200,000 events on a full frame, from events in memory to events in memory, and from file to file."""
    networks = {
        "default": waken(build_model(ModelConfig(), seed=0), strength=0.04).to(device),
        "pretrained": load_pretrained(str(device)),
    }
    share = size[0] * size[1] / (SENSOR_SIZE[0] * SENSOR_SIZE[1])
    num_windows = RECORDED_WINDOWS if device.type == "cuda" else 3
    events = draw_events(int(EVENTS_PER_WINDOW * share), num_windows, size)
    starts_us = range(0, num_windows * WINDOW_US, WINDOW_US)
    windows = [Window(t0_us, events.window(t0_us, t0_us + WINDOW_US), seed=t0_us) for t0_us in starts_us]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "recording.h5"
        save_events(source, events, source="benchmark")
        for name, model in networks.items():
            # The first pass also pays for page-locked memory.
            deque(deflare_windows(model, windows, USUAL_CUT), maxlen=0)
            started = time.perf_counter()
            deque(deflare_windows(model, windows, USUAL_CUT), maxlen=0)
            yield Row(f"whole window, {name}", "events to events", (time.perf_counter() - started) * 1e3 / num_windows)
            summary = deflare_recording(model, source, Path(folder) / f"{name}.h5", progress=False)
            yield Row(f"whole window, {name}", "file to file", summary.elapsed_s * 1e3 / num_windows)


def build_usual(model: VoxelNetwork, keep: bool = False) -> Callable[..., torch.Tensor]:
    """The residual rule around pytorch-3dunet's backbone with torch's own GroupNorm, of the same weights.

    With `keep` the model's own parameters are used, so that they can be trained.
    """
    usual = build_model(model.config, seed=0).backbone.to(next(model.parameters()).device)
    for module in list(usual.modules()):
        for name, child in module.named_children():
            if isinstance(child, PiecewiseGroupNorm):
                norm = nn.GroupNorm(child.num_groups, child.num_channels, child.eps)
                setattr(module, name, norm.to(next(model.parameters()).device))
    usual.load_state_dict(model.backbone.state_dict(), assign=keep)
    if keep:
        model.backbone = usual

    def run(voxel: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return voxel + usual.to(dtype)(voxel)

    return run


def waken(model: VoxelNetwork, strength: float = 0.3) -> VoxelNetwork:
    """The network with a last layer that is not zero, so that it is no longer the identity."""
    with torch.no_grad():
        model.backbone.final_conv.weight.normal_(std=strength, generator=torch.Generator().manual_seed(1))
    return model


def draw_voxel(size: SensorSize, device: torch.device, seed: int = 0) -> torch.Tensor:
    """A voxel `(1, 1, bins, H, W)` of small signed counts."""
    counts = np.random.default_rng(seed).poisson(0.1, (2, 1, 1, NUM_BINS, *size)).astype(np.float32)
    return torch.from_numpy(counts[0] - counts[1]).to(device)


def draw_events(per_window: int, num_windows: int, size: SensorSize) -> Events:
    """Events at random places and times."""
    rng, num = np.random.default_rng(0), per_window * num_windows
    t = np.sort(rng.integers(0, num_windows * WINDOW_US, num))
    x, y = rng.integers(0, size[1], num), rng.integers(0, size[0], num)
    return Events.from_columns(t, x, y, rng.choice(np.array([-1, 1], np.int8), num), size)


def measure_ms(work: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds that the work takes, the median of several runs after the first ones."""
    # torch's Timer would run the work twice more before each measurement, and on one thread.
    first, repeats = (3, 15) if device.type == "cuda" else (1, 3)
    return statistics.median([run_once(work, device) for _ in range(first + repeats)][first:])


def run_once(work: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds that one run of the work takes, until the GPU has done it."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return (time.perf_counter() - started) * 1e3


@contextmanager
def watch_memory(device: torch.device) -> Iterator[Callable[[], float | None]]:
    """A function that gives, after this block, the most GPU memory that it took, in GiB; none on a CPU."""
    before, peak = 0, None
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    yield lambda: peak
    if device.type == "cuda":
        peak = (torch.cuda.max_memory_allocated(device) - before) / 2**30


def tabulate(rows: list[Row], title: str) -> str:
    """The rows as a table, each with its ratio to the usual way of the same work."""
    usual = {row.work: row.ms for row in rows if row.way == "usual"}
    lines = [f"# {title}", "", "| work | way | ms | times the usual | GiB | error |", "|---|---|---:|---:|---:|---:|"]
    for row in rows:
        ratio = f"{usual[row.work] / row.ms:.1f}" if row.work in usual else ""
        memory, error = ("" if v is None else f"{v:.2g}" if v < 0.01 else f"{v:.2f}" for v in (row.gib, row.error))
        lines.append(f"| {row.work} | {row.way} | {row.ms:.2f} | {ratio} | {memory} | {error} |")
    return "\n".join(lines) + "\n"
