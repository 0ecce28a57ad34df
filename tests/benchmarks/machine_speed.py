"""The speed of this machine: network, training step and whole windows, the usual way and ours, beside its ceilings.

The usual way is pytorch-3dunet as it comes, in eager mode. Every figure of a row is taken in the same process, one
after the other; times are medians. Each row says what bounds it, and which share of its time that alone would take:
of a network, the products of its convolutions at the machine's fastest, or reading and writing their maps once; of
what is done side by side, the slowest part.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from deflare_core.checkpoint import load_pretrained
from deflare_core.codec import AppliedVoxel
from deflare_core.config import ModelConfig, SimulatedDataConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.stream import choose_path, deflare_windows
from deflare_core.events import NUM_BINS, WINDOW_US, Events, SensorSize
from deflare_core.inference import deflare_recording, write_windows
from deflare_core.io.formats import read_stream
from deflare_core.io.reading import Reading
from deflare_core.io.recordings import open_recording, read_windows, save_events
from deflare_core.io.writer import RecordingWriter
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
SENSOR_SIZE, CPU_SENSOR_SIZE, PROCESSOR_SIZE = (480, 640), (120, 160), (480, 640)
EVENTS_PER_WINDOW, RECORDED_WINDOWS = 200_000, 100
SIMULATION, FED_STEPS = PROJECT_ROOT / "configs" / "simu_config.yaml", 400
CUBE = 8192
"""Edge of the matrices whose product measures the arithmetic ceiling."""


class Row(NamedTuple):
    """A measurement: what, how long it takes, memory at its peak, how far it is from float64, and what bounds it."""

    work: str
    way: str
    ms: float | None
    gib: float | None = None
    error: float | None = None
    limit: str = ""


class Ceilings(NamedTuple):
    """What a device can do at most: milliseconds for 1e12 operations by the type of number, and for moving 1 GB."""

    product_ms: Mapping[torch.dtype, float]
    move_ms: float


def run_benchmark(device: torch.device, folder: Path) -> str:
    """The tables of a benchmark on a device, in Markdown, written to the folder with a figure, row by row as they come.

    On a CPU, frames are 120x160 and only the default network runs, but for the pretrained one.
    """
    size = SENSOR_SIZE if device.type == "cuda" else CPU_SENSOR_SIZE
    title = f"{device_name(device)}, windows of {NUM_BINS}x{size[0]}x{size[1]}"
    rows: list[Row] = []
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True):
        for row in collect_rows(list_groups(device, size)):
            rows.append(row)
            print(f"{row.work}: {row.way}{'' if row.ms is None else f': {row.ms:.2f} ms'}", file=sys.stderr, flush=True)
            write_rows(rows, title, folder)
    save_figure(draw_durations(rows), folder / "benchmark.png")
    return tabulate(rows, title)


def list_groups(device: torch.device, size: SensorSize) -> dict[str, Callable[[], Iterable[Row]]]:
    """What is measured, by name, each with a function that gives its rows."""
    groups: dict[str, Callable[[], Iterable[Row]]] = {
        "ceilings": lambda: list_ceilings(device),
        "network": lambda: measure_network(device, size),
        "training step": lambda: measure_training_steps(device, size),
        "whole window": lambda: measure_whole_windows(device, size),
        "pretrained network on the processor": lambda: measure_processor(PROCESSOR_SIZE),
        "encode": measure_encoders,
        "read EVT3": measure_readers,
    }
    if device.type == "cuda":
        simulated = SimulatedDataConfig(simulation=SIMULATION)
        groups["fed training step"] = lambda: measure_feeding(
            build_model(ModelConfig(), seed=0).to(device), size, simulated, FED_STEPS
        )
    return groups


def collect_rows(groups: Mapping[str, Callable[[], Iterable[Row]]]) -> Iterator[Row]:
    """The rows of all groups; of one that cannot run, those until then and one that says why."""
    for name, measure in groups.items():
        try:
            yield from measure()
        except Exception as error:
            yield Row(name, f"could not run: {type(error).__name__}: {str(error).partition(chr(10))[0]}", None)


def write_rows(rows: list[Row], title: str, folder: Path) -> None:
    """Write the rows until now as a table and as JSON."""
    with complete_or_absent(folder / "benchmark.md") as path:
        path.write_text(tabulate(rows, title))
    content = {"versions": list_versions(), "rows": [row._asdict() for row in rows]}
    with complete_or_absent(folder / "benchmark.json") as path:
        path.write_text(json.dumps(content, indent=2) + "\n")


def draw_durations(rows: list[Row]) -> Figure:
    """A bar for each row, milliseconds on a logarithmic axis, with what bounds it; the usual ways are grey."""
    timed = [row for row in rows if row.ms][::-1]
    figure = make_figure(11, 0.35 * len(timed) + 1)
    axes = figure.subplots()
    colours = [NEUTRAL if row.way == "usual" else NEGATIVE for row in timed]
    bars = axes.barh(range(len(timed)), [row.ms or 0 for row in timed], color=colours)
    axes.set_yticks(range(len(timed)), [f"{row.work}: {row.way}" for row in timed])
    axes.bar_label(bars, [f"{format_ms(row.ms or 0)}{row.limit and f'   {row.limit}'}" for row in timed], padding=3)
    axes.set(xscale="log", xlabel="milliseconds, and what bounds them (grey: the usual way)")
    axes.margins(x=0.45)
    return figure


def format_ms(ms: float) -> str:
    """Milliseconds as a person reads them: three figures, whole from 100 on."""
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"


def name_limit(ms: float, floors_ms: Mapping[str, float]) -> str:
    """The part that would take longest alone, and which share of the whole that is."""
    name = max(floors_ms, key=lambda part: floors_ms[part])
    return f"{name}, {floors_ms[name] / ms:.0%} of it"


def name_limit_of(model: VoxelNetwork, voxel: torch.Tensor, dtype: torch.dtype, ms: float, passes: int = 1) -> str:
    """What bounds a network that multiplies in `dtype`: its products, or its maps on their way to memory and back."""
    members = [part.config for part in model.modules() if isinstance(part, VoxelNetwork) and hasattr(part, "backbone")]
    operations, numbers = map(sum, zip(*(count_work(config, tuple(voxel.shape)) for config in members), strict=True))
    ceilings = find_ceilings(voxel.device, torch.get_num_threads())
    floors = {
        "products": operations / 1e12 * ceilings.product_ms[dtype],
        "memory": numbers * dtype.itemsize / 1e9 * ceilings.move_ms,
    }
    return name_limit(ms, {name: passes * floor_ms for name, floor_ms in floors.items()})


@functools.cache
def count_work(config: ModelConfig, shape: tuple[int, ...]) -> tuple[int, int]:
    """As `count_convolutions`, for a network and the shape of a voxel."""
    return count_convolutions(build_model(config, seed=0).eval(), shape)


def count_convolutions(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """The operations of a model's convolutions on such an input, and how many numbers they read and write."""
    found = [0, 0]

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        found[0] += 2 * output.numel() * module.weight[0].numel()
        found[1] += inputs[0].numel() + output.numel()

    model = model.to("meta")
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.empty(shape, device="meta"))
    return found[0], found[1]


@functools.cache
def find_ceilings(device: torch.device, threads: int) -> Ceilings:
    """What the device can do at most, a processor with this many threads: products of large matrices, and a copy."""
    edge, count = (CUBE, 2**28) if device.type == "cuda" else (CUBE // 8, 2**24)
    values = torch.empty(count, device=device)
    target = torch.empty_like(values)
    move_ms = measure_ms(lambda: target.copy_(values), device) / (8e-9 * count)
    with use_threads(threads), use_tf32():
        return Ceilings(
            {dtype: time_product(edge, dtype, device) for dtype in (torch.float32, torch.bfloat16)}, move_ms
        )


def time_product(edge: int, dtype: torch.dtype, device: torch.device) -> float:
    """Milliseconds for 1e12 operations of a product of two matrices."""
    a = torch.randn(edge, edge, device=device, dtype=dtype)
    out = torch.empty_like(a)
    return measure_ms(lambda: torch.mm(a, a, out=out), device) / (2e-12 * edge**3)


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """A block in which torch uses `count` processor cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def use_tf32() -> Iterator[None]:
    """A block in which a GPU multiplies float32 matrices as convolutions do."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def list_ceilings(device: torch.device) -> Iterator[Row]:
    """The ceilings as rows."""
    ceilings = find_ceilings(device, torch.get_num_threads())
    for dtype, ms in ceilings.product_ms.items():
        yield Row("1e12 operations", f"product of {str(dtype).removeprefix('torch.')}", ms)
    yield Row("1 GB moved", "copy", ceilings.move_ms)


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
            error = float((output - exact).norm() / (exact - voxel.cpu()).norm())
            dtype = torch.bfloat16 if way == "ours, half" else torch.float32
            yield Row("network", way, ms, peak(), error, name_limit_of(model, voxel, dtype, ms))


def list_ways(model: VoxelNetwork, voxel: torch.Tensor) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """Ways to run a network, by name."""
    usual = build_usual(model)
    yield "usual", lambda: usual(voxel)
    plain = copy_in(model, "single")
    yield "ours, single", lambda: plain(voxel)
    if model.is_half_on(voxel.device):
        is_on_gpu = voxel.device.type == "cuda"  # Some processors multiply in half precision too, without graphs.
        half = GraphedNetwork(model, tuple(voxel.shape)) if is_on_gpu else model.eval()
        yield "ours, half", lambda: half(voxel)


def copy_in(model: VoxelNetwork, precision: str) -> VoxelNetwork:
    """The same network in a precision."""
    copied = copy.deepcopy(model).eval()
    for network in copied.modules():  # Of a committee each member's too.
        if isinstance(network, VoxelNetwork):
            network.config = network.config.model_copy(update={"precision": precision})
    return copied


def measure_processor(size: SensorSize) -> Iterator[Row]:
    """One window through the pretrained network on the processor, in each precision, on one core and on all.

    The error is that of the backbone's output against single precision: a gate would leave random events alone.
    """
    pretrained, cpu = load_pretrained("cpu"), torch.device("cpu")
    voxel = draw_inputs(pretrained, size, cpu)
    singly = None
    for precision, dtype in (("single", torch.float32), ("half", torch.bfloat16)):
        model = copy_in(pretrained, precision)
        for threads in sorted({1, torch.get_num_threads()}):
            with use_threads(threads), torch.no_grad():
                if precision == "half" and not model.is_half_on(cpu):
                    continue
                ms, logits = measure_ms(lambda model=model: model(voxel), cpu), model.run_backbone(voxel)
                singly = logits if singly is None else singly
                error = float((logits - singly).norm() / singly.norm())
                way, limit = f"{precision}, {threads} core{'s' * (threads > 1)}", name_limit_of(model, voxel, dtype, ms)
                yield Row("pretrained network on the processor", way, ms, None, error, limit)


def draw_inputs(model: VoxelNetwork, size: SensorSize, device: torch.device, seed: int = 0) -> torch.Tensor:
    """A voxel `(1, inputs, bins, H, W)` of small counts as a network sees it: its polarities, and its neighbours."""
    voxel = draw_voxel(size, device, seed)
    voxel = torch.cat([voxel, -voxel], 1).clamp(min=0) if model.channels == 2 else voxel
    return voxel.repeat(1, model.inputs // model.channels, 1, 1, 1)


def measure_encoders() -> Iterator[Row]:
    """Events to a voxel, one thread, our way and those of the packages that are installed."""
    codec_speed = run_path(str(Path(__file__).with_name("codec_speed.py")))
    events = codec_speed["make_recording"](EVENTS_PER_WINDOW, seed=0)
    ways = codec_speed["encoders"](events)
    times_ms = {way: measure_ms(work, torch.device("cpu")) for way, work in ways.items()}
    floor_ms = min(ms for way, ms in times_ms.items() if way.startswith("limit"))
    for way, ms in times_ms.items():
        yield Row(f"encode {EVENTS_PER_WINDOW:,} events", way, ms, limit=name_limit(ms, {"clearing": floor_ms}))


def measure_readers() -> Iterator[Row]:
    """A Prophesee RAW file to events, our way and that of faery, which pip installs."""
    events = draw_events(EVENTS_PER_WINDOW, 5, SENSOR_SIZE)
    cpu, work = torch.device("cpu"), f"read EVT3, {len(events):,} events"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.raw"
        path.write_bytes(make_evt3(events))
        plain_ms = measure_ms(path.read_bytes, cpu)
        for way, read in list_readers(path).items():
            ms = measure_ms(lambda read=read: deque(read(), maxlen=0), cpu)
            yield Row(work, way, ms, limit=name_limit(ms, {"reading the bytes": plain_ms}))


def list_readers(path: Path) -> dict[str, Callable[[], Iterable[Any]]]:
    """Ways to read a camera's file piece by piece; those that are not installed are left out."""
    readers: dict[str, Callable[[], Iterable[Any]]] = {"ours": lambda: read_stream(path, Reading())[1]}
    if importlib.util.find_spec("faery"):
        faery = importlib.import_module("faery")
        readers["faery"] = lambda: faery.events_stream_from_file(path)
    return readers


def make_evt3(events: Events) -> bytes:
    """A file in EVT3, of four words an event: the halves of its time, its row, its column with the polarity."""
    head = f"% evt 3.0\n% format EVT3;height={events.sensor_size[0]};width={events.sensor_size[1]}\n% end\n"
    t, x, y = (column.astype(np.int64) for column in (events.t, events.x, events.y))
    words = [0x8000 | t >> 12, 0x6000 | t & 0xFFF, y, 0x2000 | (events.p > 0).astype(np.int64) << 11 | x]
    return head.encode() + np.stack(words, 1).astype("<u2").tobytes()


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
    raw, label = (draw_inputs(model, size, device, seed) for seed in (0, 1))
    label = model.take_window(label)
    yield measure_step("ours, as the pretrained network", model, model, raw, label)


def measure_step(
    way: str, model: VoxelNetwork, run: Callable[[torch.Tensor], torch.Tensor], raw: torch.Tensor, label: torch.Tensor
) -> Row:
    """A step of Adam on one window."""
    with watch_memory(raw.device) as peak:
        step = make_step(model, run, raw)
        ms = measure_ms(lambda: step(raw, label), raw.device)
    dtype = torch.bfloat16 if run is model and model.is_recorded_on(raw.device) else torch.float32
    # Backwards the products are made twice, for the weights and for the maps.
    limit = name_limit_of(model, raw, dtype, ms, passes=3)
    return Row(f"training step {list(model.config.f_maps)}", way, ms, peak(), None, limit)


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
            "windows from files": load_windows(Path(folder), size, device, workers),
            "a new pair every ten steps": simulate_windows(simulated, device),
        }
        step_ms = None
        for way, windows in feeds.items():
            ms = mean_ms(step, windows, num_steps, device)
            step_ms = step_ms or ms
            yield Row("fed training step", way, ms, limit=name_limit(ms, {"the step": step_ms}))


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


def load_windows(
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
            parts = {"network": time_network(model, windows[0]), "reading": time_reading(source)}
            # The first pass also pays for page-locked memory.
            deflared = [each._replace(output=None) for each in deflare_windows(model, windows, USUAL_CUT)]
            parts["writing"] = time_writing(deflared, Path(folder) / "written.h5")
            ms = run_once(lambda model=model: deque(deflare_windows(model, windows, USUAL_CUT), maxlen=0), device)
            limit = name_limit(ms / num_windows, {"network": parts["network"]})
            yield Row(f"whole window, {name}", "events to events", ms / num_windows, limit=limit)
            summary = deflare_recording(model, source, Path(folder) / f"{name}.h5", progress=False)
            ms = summary.elapsed_s * 1e3 / num_windows
            yield Row(f"whole window, {name}", "file to file", ms, limit=name_limit(ms, parts))


def time_network(model: VoxelNetwork, window: Window) -> float:
    """Milliseconds that the network alone takes for a window, as it runs in a stream of them."""
    path = choose_path(model, USUAL_CUT)
    seen = [path.encode(window).voxel] * (model.inputs // model.channels)
    return measure_ms(lambda: path.run(seen), model.device)


def time_reading(source: Path) -> float:
    """Milliseconds that reading a window of a recording takes, on average."""
    with open_recording(source) as recording:
        starts_us = recording.window_starts(WINDOW_US)
        ms = run_once(lambda: deque(read_windows(recording, starts_us, WINDOW_US, 0), maxlen=0), torch.device("cpu"))
    return ms / len(starts_us)


def time_writing(windows: list[AppliedVoxel], target: Path) -> float:
    """Milliseconds that writing a deflared window takes, on average."""

    def write() -> None:
        with RecordingWriter(target, windows[0].events.sensor_size, source="benchmark") as writer:
            write_windows(windows, writer, flags=False)

    return run_once(write, torch.device("cpu")) / len(windows)


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
    """The rows as a table, each with its ratio to the usual way of the same work, and what bounds it."""
    usual = {row.work: row.ms for row in rows if row.way == "usual" and row.ms}
    lines = [f"# {title}", "", "| work | way | ms | times the usual | GiB | error | bounded by |"]
    lines.append("|---|---|---:|---:|---:|---:|---|")
    for row in rows:
        ratio = f"{usual[row.work] / row.ms:.1f}" if row.work in usual and row.ms else ""
        memory, error = ("" if v is None else f"{v:.2g}" if v < 0.01 else f"{v:.2f}" for v in (row.gib, row.error))
        ms = "" if row.ms is None else f"{row.ms:.2f}"
        lines.append(f"| {row.work} | {row.way} | {ms} | {ratio} | {memory} | {error} | {row.limit} |")
    return "\n".join(lines) + "\n"
