"""The commands on recordings and voxel files: simulate, verify, info, encode, decode and convert."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_simu import SimulationConfig
from deflare_core.config import SEEDS
from deflare_core.io.reading import LATEST_US, Reading
from deflare_core.system.errors import make_plain
from deflare_core.system.limits import MOST_PROCESSES

Recording = Annotated[Path, Field(description="recording of any format")]
VoxelFile = Annotated[Path, Field(description="voxel file (.npy or .pt)")]
Pictures = Annotated[bool, Field(description="pictures under reports/debug_output")]


def simulate(
    config: Annotated[SimulationConfig, "configs/simu_config.yaml"],
    output_dir: Annotated[Path, Field(description="folder of the pairs")] = Path("data_simu/physics_method"),
    workers: Annotated[
        int | None, Field(gt=0, le=MOST_PROCESSES, description="processes; none: one per processor")
    ] = None,
) -> None:
    """Write the pairs of a simulation, and say how many."""
    from data_simu import write_dataset

    write_dataset(config, output_dir, workers=workers)
    print(f"{config.num_train} training and {config.num_test} test pairs in {output_dir}")


def verify(
    noisy_dir: Annotated[Path, Field(description="folder of recordings with flare")],
    clean_dir: Annotated[Path, Field(description="folder of their clean partners")],
    reading: Reading,
    manifest: Annotated[Path | None, Field(description="compare with this manifest's test recordings too")] = None,
) -> int:
    """Print what two folders hold, and return 1 if something is wrong with them."""
    from deflare_core.io.manifest import find_differences, read_manifest
    from deflare_core.io.verify import verify_folders

    report = verify_folders(noisy_dir, clean_dir, reading)
    durations = [(c.clock_us[1] - c.clock_us[0]) / 1e3 for c in report.checks if not c.problem] or [0]
    sizes = sorted({f"{c.sensor_size[1]}x{c.sensor_size[0]}" for c in report.checks if c.sensor_size})
    print(f"pairs {report.num_pairs}, files {len(report.checks)}, orphans {len(report.orphans)}")
    print(f"unreadable {sum(c.problem is not None for c in report.checks)}, sensors {', '.join(sizes)}")
    print(f"events {sum(c.num_events for c in report.checks):,}, each {min(durations):g} to {max(durations):g} ms")
    problems = report.problems
    if manifest and not problems:
        problems, num_rounded = find_differences(read_manifest(manifest), noisy_dir, clean_dir, reading)
        if num_rounded:
            print(
                f"{num_rounded} of {report.num_pairs} pairs have other digests than the manifest, but its numbers of "
                "events to 1 in 10,000: another processor rounds otherwise, which hardly moves a score"
            )
    for kind, lines in {"warning": report.warnings, "error": problems}.items():
        for line in lines:
            print(f"deflare verify: {kind}: {make_plain(line)}", file=sys.stderr)
    if not problems and not report.warnings:
        print("all is well: every recording can be read, and fits its partner")
    return 1 if problems else 0


def info(input: Recording, reading: Reading) -> None:
    """Print what a recording is, what is odd about it, and the command that would mend it."""
    from deflare_core.io.description import describe

    print(describe(input, reading))


def encode(input: Recording, output: VoxelFile, reading: Reading, debug: Pictures = False) -> None:
    """Write the voxels of a recording, and say where its windows begin."""
    from deflare_core.deflaring.voxel_files import encode_file

    show_first = picture_windows(pictures_of("encode", output), "input") if debug else None
    start_us, shape = encode_file(input, output, reading=reading, show_first=show_first)
    print(f"{output}: {shape} (windows, bins, height, width), first window at {start_us} us")
    if debug:
        print(f"Pictures in {pictures_of('encode', output)}")


def decode(
    input: VoxelFile,
    output: Annotated[Path, Field(description="recording (.h5)")],
    t0_us: Annotated[int, Field(gt=-LATEST_US, lt=LATEST_US, description="start of the first window, us")] = 0,
    seed: Annotated[int, Field(ge=0, lt=SEEDS, description="seed of the event times")] = 0,
    debug: Pictures = False,
) -> None:
    """Write the events of a voxel file, and say how many."""
    from deflare_core.deflaring.voxel_files import decode_file

    show_first = picture_windows(pictures_of("decode", output), "output") if debug else None
    num_events = decode_file(input, output, t0_us=t0_us, seed=seed, show_first=show_first)
    print(f"{output}: {num_events:,} events")
    if debug:
        print(f"Pictures in {pictures_of('decode', output)}")


def pictures_of(command: str, output: Path) -> Path:
    """The folder for pictures of what a command writes."""
    from deflare_core.show.debug import DEBUG_OUTPUT

    return DEBUG_OUTPUT / f"{command}_{output.stem}"


def picture_windows(folder: Path, name: str) -> Callable[..., object]:
    """The function that pictures a window in a folder."""
    from deflare_core.show.debug import write_window_pictures

    return partial(write_window_pictures, folder, name)


def convert(
    input: Recording,
    output: Annotated[Path, Field(description="file to write: .h5, .npz, .npy or .csv")],
    reading: Reading,
    sort: Annotated[bool, Field(description="put events that are out of order in that of their times")] = False,
) -> None:
    """Write a recording in another format, and say how many events it has."""
    from deflare_core.io.convert import convert

    num_events = convert(input, output, reading, sort=sort)
    print(f"{output}: {num_events:,} events")
