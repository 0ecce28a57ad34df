"""The command line: one thin function per command; the work is in the modules that they call."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deflare_core.app.arguments import make_parser, parse, parsed
from deflare_core.config import InferenceConfig, TestConfig, TrainConfig
from deflare_core.system.places import PRETRAINED
from deflare_core.system.settings import load_config, make_config
from deflare_core.system.signals import Terminated, raise_termination

if TYPE_CHECKING:
    import numpy as np
    import torch

    from deflare_core.events import Events
    from deflare_core.io.reading import Reading
    from deflare_core.model import VoxelNetwork


def main(arguments: list[str] | None = None) -> int:
    """The exit status of one command: 0 if it did what was asked, 1 after an error, told in one line."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    options = parse(make_parser(COMMANDS), arguments)
    try:
        with raise_termination():
            return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"deflare {options.command}: error: {in_words(error)}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated) as stop:
        print(
            f"deflare {options.command}: interrupted; nothing half-written was left. Run it again to go on.",
            file=sys.stderr,
        )
        return stop.code if isinstance(stop, Terminated) else 130


def in_words(error: Exception) -> str:
    """What an error says, without the number of one of the operating system that names no file."""
    return str(error.strerror if isinstance(error, OSError) and not error.filename and error.strerror else error)


def simulate(options: argparse.Namespace) -> None:
    """Make a folder of simulated pairs."""
    from data_simu import SimulationConfig, write_dataset

    if options.workers is not None and options.workers < 1:
        raise ValueError(f"--workers must be at least 1; received {options.workers}.")
    config = load_config(SimulationConfig, options.config, options.overrides)
    write_dataset(config, options.output_dir, workers=options.workers)
    print(f"{config.num_train} training and {config.num_test} test pairs in {options.output_dir}")


def verify(options: argparse.Namespace) -> int:
    """Report what two folders of recordings hold; 1 if something is wrong with them."""
    from deflare_core.io.manifest import find_differences, read_manifest
    from deflare_core.io.verify import verify_folders

    report = verify_folders(options.noisy_dir, options.clean_dir, reading(options))
    durations = [(c.clock_us[1] - c.clock_us[0]) / 1e3 for c in report.checks if not c.problem] or [0]
    sizes = sorted({f"{c.sensor_size[1]}x{c.sensor_size[0]}" for c in report.checks if c.sensor_size})
    print(f"pairs {report.num_pairs}, files {len(report.checks)}, orphans {len(report.orphans)}")
    print(f"unreadable {sum(c.problem is not None for c in report.checks)}, sensors {', '.join(sizes)}")
    print(f"events {sum(c.num_events for c in report.checks):,}, each {min(durations):g} to {max(durations):g} ms")
    problems = list(report.problems)
    if options.manifest and not problems:
        problems = find_differences(read_manifest(options.manifest), options.noisy_dir, options.clean_dir)
    for problem in problems:
        print(f"deflare verify: error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def encode(options: argparse.Namespace) -> None:
    """Write a recording's windows as a voxel file."""
    from deflare_core.deflaring.voxel_files import encode_file

    show_first = window_pictures(f"encode_{options.output.stem}", "input") if options.debug else None
    start_us, shape = encode_file(options.input, options.output, reading=reading(options), show_first=show_first)
    print(f"{options.output}: {shape} (windows, bins, height, width), first window at {start_us} us")


def decode(options: argparse.Namespace) -> None:
    """Write a recording drawn from a voxel file."""
    from deflare_core.deflaring.voxel_files import decode_file

    if options.seed < 0:
        raise ValueError(f"--seed must be at least 0; received {options.seed}.")
    show_first = window_pictures(f"decode_{options.output.stem}", "output") if options.debug else None
    settings = {"t0_us": options.t0_us, "seed": options.seed, "show_first": show_first}
    num_events = decode_file(options.input, options.output, **settings)
    print(f"{options.output}: {num_events:,} events")


def window_pictures(folder: str, name: str) -> Callable[[Events, np.ndarray, int], object]:
    """What pictures a window in a folder of `reports/debug_output`."""
    from deflare_core.show.debug import DEBUG_OUTPUT, write_window_pictures

    return partial(write_window_pictures, DEBUG_OUTPUT / folder, name)


def train(options: argparse.Namespace) -> int:
    """Train a network; 130 if a signal stopped it before its last step."""
    from deflare_core.checkpoint import read_checkpoint
    from deflare_core.system.processes import is_first_process
    from deflare_core.training import fit

    config = load_config(TrainConfig, options.config, options.overrides)
    if options.debug:
        return debug_train(config, options.debug_dir, options.resume)
    last = fit(config, resume=options.resume)
    if is_first_process():
        print(f"{last}")
    return 0 if read_checkpoint(last).step >= config.trainer.max_steps else 130


def debug_train(config: TrainConfig, folder: Path, resume: bool) -> int:
    """Picture what the first steps of a training work on; the run itself is not started."""
    from deflare_core.show.debug import debug_training
    from deflare_core.system.processes import is_first_process

    for path in debug_training(config, folder, resume=resume):
        if is_first_process():
            print((path / "debug_summary.txt").read_text() + f"Pictures in {path}\n")
    return 0


def curves(options: argparse.Namespace) -> None:
    """Draw the training curves of a run."""
    from deflare_core.show.curves import write_curves

    print(f"{write_curves(options.run_dir, options.detailed)}")


def evaluate(options: argparse.Namespace) -> int:
    """Score a checkpoint against the untouched input, or the methods that are named; 1 if a recording failed."""
    config = load_config(TestConfig, options.config, options.overrides)
    return score(config, config.output_dir, "Evaluation", options.debug_dir if options.debug else None)


def roc(options: argparse.Namespace) -> None:
    """Tell how well a checkpoint tells flare's events from all others, and with --set-level let it decide by that."""
    from deflare_core.checkpoint import find_checkpoint, load_model, set_level
    from deflare_core.dataset import EventVoxelDataset
    from deflare_core.scores.roc import roc_of
    from deflare_core.show.figures import draw_roc, save_figure

    if not 0 < options.kept < 1:
        raise ValueError(f"--kept is a share between 0 and 1, such as 0.95; received {options.kept:g}.")
    config = load_config(TestConfig, options.config, options.overrides)
    if options.set_level and config.checkpoint == PRETRAINED:
        raise ValueError(f"{PRETRAINED}: --set-level would change the package's own network; name checkpoint=FOLDER.")
    found = roc_of(load_model(config.checkpoint, config.device), EventVoxelDataset.from_config(config.data))
    level = found.level_at(options.kept)
    removed = found.removed_at(options.kept)
    print(f"area {found.area:.4f}; {removed:.1%} of flare removed where {options.kept:.0%} are kept, level {level}")
    print(f"{save_figure(draw_roc(found, options.kept), config.output_dir / 'roc.png')}")
    if options.set_level:
        set_level(find_checkpoint(config.checkpoint), level)


def compare(options: argparse.Namespace) -> int:
    """Score a checkpoint, every baseline and the oracle, also as published, into reports/<date>_<time>_comparison."""
    from datetime import datetime

    from deflare_core.dataset import EventVoxelDataset
    from deflare_core.scores.evaluation import methods_to_compare

    config = load_config(TestConfig, options.config, options.overrides)
    if "methods" not in config.model_fields_set:
        methods = methods_to_compare(EventVoxelDataset.from_config(config.data))
        config = config.model_copy(update={"methods": methods})
    config = config.model_copy(update={"legacy": True})
    return score(config, Path("reports") / f"{datetime.now():%Y-%m-%d_%H%M%S}_comparison", "Comparison")


def score(config: TestConfig, folder: Path, title: str, debug_dir: Path | None = None) -> int:
    """Write the report of what a configuration asks for; predictions and scores made before are taken up."""
    from deflare_core.dataset import EventVoxelDataset
    from deflare_core.scores.breakdown import write_breakdown
    from deflare_core.scores.evaluation import evaluate_methods, methods_of
    from deflare_core.show.debug import write_debug_windows
    from deflare_core.show.report import tabulate_scores, write_report

    data, methods = EventVoxelDataset.from_config(config.data), methods_of(config)
    cache = config.output_dir / "predictions"
    result = evaluate_methods(methods, data, cache=cache, legacy=config.legacy, workers=config.workers)
    for name, message in result.failures.items():
        print(f"deflare: error: {name} was not scored: {message}", file=sys.stderr)
    if len(result.failures) == len(data.pairs):
        return 1
    page = write_report(result, methods, data, cache, folder, title)
    manifest = config.data.noisy_dir.parent / "manifest.json"
    if manifest.exists():
        split = "test" if config.data.noisy_dir.name.endswith("_test") else "train"
        write_breakdown(result, methods[-1].name, manifest, split, folder / "breakdown.md")
    print(tabulate_scores(result) + f"\nReport in {page}")
    if debug_dir:
        scored = result.scores[methods[-1].name]
        pictured = write_debug_windows(data, methods[-1], cache, debug_dir, scored)
        print(f"Pictures of {len(pictured)} windows in {debug_dir}")
    return 1 if result.failures else 0


def ablate(options: argparse.Namespace) -> None:
    """Train and score variants of a training configuration, and write one table of them."""
    from deflare_core.scores.ablation import AblationConfig, run_ablation

    print(run_ablation(load_config(AblationConfig, options.config, options.overrides)))


def import_weights(options: argparse.Namespace) -> None:
    """Make a checkpoint from published weights."""
    from deflare_core.app.import_weights import import_checkpoint

    print(f"{import_checkpoint(options.input, options.output_dir)}")


def convert(options: argparse.Namespace) -> None:
    """Write a recording of any format as HDF5, npz, npy or csv."""
    from deflare_core.io.convert import convert

    num_events = convert(options.input, options.output, reading(options))
    print(f"{options.output}: {num_events:,} events")


def infer(options: argparse.Namespace) -> int:
    """Deflare a recording, or every recording of a folder; torchrun shares them among its processes.

    What was done of a folder before is skipped; what cannot be deflared is named at the end, and the status is then 1.
    """
    from deflare_core.deflaring.jobs import recordings_to_deflare, text_files
    from deflare_core.system.processes import join_processes

    overrides = [*options.overrides, *([f"method={options.method.replace('-', '_')}"] if options.method else [])]
    if options.config:
        config = load_config(InferenceConfig, options.config, overrides)
    else:
        config = make_config(InferenceConfig, {}, overrides, origin="deflare infer")
    settings = {name: getattr(config, name) for name in ("window_us", "num_bins", "seed", "overlap", "flags")}
    settings |= asdict(reading(options))
    with join_processes(config.device) as processes:
        method = inference_method(config, processes.device)
        jobs = processes.share(recordings_to_deflare(options.input, options.output))
        if processes.is_first and (left_out := text_files(options.input)):
            names = ", ".join(path.name for path in left_out)
            print(f"{options.input}: text files are left out ({names}); name one to deflare it")
        failures = infer_each(method, jobs, settings, skip=options.input.is_dir(), progress=processes.is_first)
        # Before the processes part: torchrun ends all others when the first has failed.
        for failure in failures:
            print(f"deflare infer: error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def infer_each(
    method: VoxelNetwork | str, jobs: Sequence[tuple[Path, Path]], settings: dict[str, Any], skip: bool, progress: bool
) -> list[str]:
    """Why recordings could not be deflared, by name; of the others a line is printed, also where one is skipped."""
    from deflare_core.deflaring.jobs import is_deflared
    from deflare_core.inference import deflare_recording

    failures = []
    for source, target in jobs:
        try:
            if skip and is_deflared(method, source, target, settings):
                print(f"{target}: skipped, since it holds the same recording deflared in the same way")
            else:
                print(f"{target}: {deflare_recording(method, source, target, **settings, progress=progress)}")
        except (ValueError, OSError) as error:
            told = in_words(error)
            failures.append(told if source.name in told or str(target) in told else f"{source}: {told}")
    return failures


def inference_method(config: InferenceConfig, device: torch.device) -> VoxelNetwork | str:
    """The configured network on a device, or the name of a baseline that there is."""
    from deflare_core.streams.baselines import baseline_named

    if config.method == "network":
        return inference_network(config, device)
    baseline_named(config.method)
    return config.method


def inference_network(config: InferenceConfig, device: torch.device) -> VoxelNetwork:
    """The network of the configured checkpoint, in strips where those are configured."""
    from deflare_core.checkpoint import check_cut, find_checkpoint, load_model, read_checkpoint
    from deflare_core.deflaring.strips import in_strips

    check_cut(read_checkpoint(find_checkpoint(config.checkpoint)), config.window_us, config.num_bins)
    model = load_model(config.checkpoint, str(device))
    return in_strips(model, config.strip_rows) if config.strip_rows else model


def video(options: argparse.Namespace) -> None:
    """Film a recording, or two side by side: before and after."""
    from deflare_core.io.recording_set import open_together
    from deflare_core.show.video import write_video

    recordings, target = before_and_after(options.files, (".mp4",))
    with open_together(recordings, reading(options)) as opened:
        print(write_video(opened, target, frame_us=options.frame_us))


def sheet(options: argparse.Namespace) -> None:
    """Picture a recording, or two, from its start to its end: before and after."""
    from deflare_core.io.recording_set import open_together
    from deflare_core.show.contact_sheet import draw_contact_sheet
    from deflare_core.show.figures import save_figure

    recordings, target = before_and_after(options.files, (".png", ".pdf", ".svg"))
    with open_together(recordings, reading(options)) as opened:
        print(f"{save_figure(draw_contact_sheet(opened), target)}")


def before_and_after(files: list[Path], suffixes: tuple[str, ...]) -> tuple[dict[str, Path], Path]:
    """The one or two recordings named, and the file to write."""
    from deflare_core.system.atomic_files import check_output

    *sources, target = files
    if not 1 <= len(sources) <= 2:
        raise ValueError(f"Name one or two recordings and the file to write; received {len(files)} names.")
    check_output(target, sources[0], suffixes)
    return dict(zip(("before", "after"), sources, strict=False)), target


def benchmark(options: argparse.Namespace) -> None:
    """Measure this machine's speed: network, training step, whole windows; into reports/<date>_benchmark."""
    from datetime import date

    from deflare_core.app.benchmark import run_benchmark
    from deflare_core.system.devices import pick_device

    folder = options.output_dir or Path("reports") / f"{date.today():%Y-%m-%d}_benchmark"
    print(run_benchmark(pick_device(options.device), folder) + f"\nReport in {folder}")


def notebook(options: argparse.Namespace) -> None:
    """Run a notebook with parameters, or show it as an app."""
    from deflare_core.app.notebook import run_notebook, serve_notebook

    parameters = {name: parsed(name, value) for name, value in options.parameter}
    if options.app:
        serve_notebook(options.name, parameters, port=options.port)
    print(f"report in {run_notebook(options.name, parameters)}")


def doctor(options: argparse.Namespace) -> int:
    """Check the installation; 1 if a part of it does not work."""
    from deflare_core.app.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.works else 'FAIL'} {finding.subject:9} {finding.detail}")
    return 0 if all(finding.works for finding in findings) else 1


def reading(options: argparse.Namespace) -> Reading:
    """What the caller says of a recording."""
    from deflare_core.io.reading import Reading

    return Reading(options.sensor_size, options.polarity, options.time_unit)


COMMANDS = (
    *(simulate, verify, encode, decode, convert),
    *(train, curves, evaluate, roc, compare, ablate, import_weights),
    *(infer, video, sheet, benchmark, notebook, doctor),
)
"""Every command, in the order in which `deflare --help` lists them."""


if __name__ == "__main__":
    sys.exit(main())
