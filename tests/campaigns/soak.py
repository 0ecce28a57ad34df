"""Long recordings, a large folder with bad files in it, and two runs on one folder; prints what each took.

    PYTHONPATH=tests:. python tests/campaigns/soak.py [--seconds 10] [--hours 1] [--minutes 10]

What is asked for zero of is left out.

An hour at 5 million events a second is 18 billion events; what is run here of it are the hour, at a lower rate, and
the rate, for a shorter time. `README.md` has the last table.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from support.checkpoints import save_small_checkpoint
from support.commands_at_work import digest
from support.faults import FAULTS
from support.recordings import make_events

from deflare_core.events import Events
from deflare_core.io.recordings import open_recording, save_events
from deflare_core.io.writer import RecordingWriter

RATE_HZ = 5_000_000
MOST_GB = 4
NUM_FILES, NUM_BAD = 200, 20


class Ended(NamedTuple):
    """How a command ended: its exit code, what it said of errors, its seconds, and the most memory it held."""

    code: int
    errors: list[str]
    seconds: float
    peak_gb: float


def run_deflare(words: list[str], folder: Path) -> Ended:
    """A command, run to its end in an interpreter of its own."""
    return wait_for(*start_deflare(words, folder))


def start_deflare(words: list[str], folder: Path) -> tuple[subprocess.Popen, Path, float]:
    """A command that has been started, the file of its errors, and when it began."""
    said = Path(tempfile.mkstemp(dir=folder, suffix=".stderr")[1])
    with said.open("w") as file:
        run = subprocess.Popen([sys.executable, "-m", "deflare_core", *words], stderr=file, stdout=subprocess.DEVNULL)
    return run, said, time.perf_counter()


def wait_for(run: subprocess.Popen, said: Path, started: float) -> Ended:
    """How a started command ended."""
    _, status, usage = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    errors = [line for line in said.read_text().splitlines() if "error" in line or "Traceback" in line]
    return Ended(run.returncode, errors, time.perf_counter() - started, usage.ru_maxrss / 1e6)


def write_long(path: Path, seconds: float, rate_hz: float, sensor_size: tuple[int, int]) -> int:
    """The number of events of a generated recording, written a fifth of a second, or 500,000 events, at a time."""
    rng, (height, width) = np.random.default_rng(0), sensor_size
    step_us = max(200_000, int(500_000 / rate_hz * 1e6))
    end_us = int(seconds * 1e6)
    with RecordingWriter(path, sensor_size, source="generated", clock_us=(0, end_us)) as writer:
        for t0_us in range(0, end_us, step_us):
            duration_us = min(step_us, end_us - t0_us)
            num = int(duration_us * rate_hz / 1e6)
            t = np.sort(rng.integers(t0_us, t0_us + duration_us, num))
            x, y = rng.integers(0, width, num), rng.integers(0, height, num)
            writer.append(Events.from_columns(t, x, y, rng.integers(0, 2, num) * 2 - 1, sensor_size))
    return writer.num_events


def soak(folder: Path, name: str, seconds: float, rate_hz: float, sensor_size: tuple[int, int], method: str) -> str:
    """A row of the table: a long recording through `infer`."""
    num = write_long(folder / "long.h5", seconds, rate_hz, sensor_size)
    chosen = (
        ["--method", method] if method != "network" else [f"checkpoint={save_small_checkpoint(folder)}", "device=cpu"]
    )
    ended = run_deflare(["infer", "-i", str(folder / "long.h5"), "-o", str(folder / "out.h5"), "-q", *chosen], folder)
    assert ended.code == 0, ended.errors
    with open_recording(folder / "out.h5") as recording:
        kept = len(recording)
    size = f"{sensor_size[1]}x{sensor_size[0]}"
    for path in folder.glob("*.h5"):
        path.unlink()
    assert ended.peak_gb < MOST_GB, f"{ended.peak_gb:.2f} GB"
    return (
        f"| {name}, {size}, {method} | {seconds:,.0f} | {num:,} | {kept:,} | {ended.seconds:,.0f} | "
        f"{num / ended.seconds:,.0f} | {ended.peak_gb:.2f} |"
    )


def make_folder(folder: Path) -> None:
    """Two hundred recordings, of which every tenth is a bad one, each of another kind."""
    bad = [fault for fault in FAULTS if fault.is_of_a_recording and fault.file == "a.h5"]
    bad = bad[1 : NUM_BAD + 1]  # The first is a recording that is not there.
    for k in range(NUM_FILES):
        path = folder / f"{k:03d}.h5"
        if k % (NUM_FILES // NUM_BAD):
            save_events(path, make_events(seed=k, num=5_000, sensor_size=(24, 32), duration_us=100_000), source="test")
        else:
            path.parent.mkdir(exist_ok=True)
            bad[k * NUM_BAD // NUM_FILES].make(path)


def deflare_folder(folder: Path) -> list[str]:
    """Lines on a folder of 200 with 20 bad ones, by one run, and by two at once."""
    make_folder(folder / "in")
    chosen = ["--method", "baf"]
    alone = run_deflare(["infer", "-i", str(folder / "in"), "-o", str(folder / "alone"), *chosen], folder)
    expected = {path.name: digest(path) for path in (folder / "alone").iterdir()}
    words = ["infer", "-i", str(folder / "in"), "-o", str(folder / "both"), *chosen]
    started = [start_deflare(words, folder) for _ in range(2)]
    both = [wait_for(*run) for run in started]
    found = {path.name: digest(path) for path in (folder / "both").iterdir()}
    named = [sum("another run" in line for line in ended.errors) for ended in both]
    same = sum(found.get(name) == take for name, take in expected.items())
    return [
        f"- a folder of {NUM_FILES} with {NUM_BAD} bad ones: exit code {alone.code}, {len(alone.errors)} lines of "
        f"errors, {len(expected)} recordings written, {alone.seconds:.0f} s, {alone.peak_gb:.2f} GB",
        f"- two runs at once on that folder: exit codes {both[0].code} and {both[1].code}; {len(found)} files, {same} "
        f"of them of the same bytes as by one run; {named[0]} and {named[1]} files were named as the other's work; "
        f"{both[0].seconds:.0f} and {both[1].seconds:.0f} s",
    ]


def run_campaign() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="at 5 million events a second")
    parser.add_argument("--hours", type=float, default=1, help="at 5,000 events a second")
    parser.add_argument("--minutes", type=float, default=10, help="through a network, on a small sensor")
    given = parser.parse_args()
    sys.stdout.write("| recording | seconds of it | events | events after | seconds of work | events/s | peak GB |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        folder = Path(name)
        for row in (
            ("the full rate", given.seconds, RATE_HZ, (480, 640), "baf"),
            ("an hour", given.hours * 3600, RATE_HZ / 1000, (480, 640), "baf"),
            ("a small sensor", given.minutes * 60, 20_000, (24, 32), "network"),
        ):
            if row[1]:
                sys.stdout.write(soak(folder, *row) + "\n")
                sys.stdout.flush()
        sys.stdout.write("\n".join(["", *deflare_folder(folder), ""]))


if __name__ == "__main__":
    run_campaign()
