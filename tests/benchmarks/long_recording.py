"""Memory and time of deflaring a long recording: 10 million events a second at 640 x 480, made here.

`python tests/benchmarks/long_recording.py` takes 74 s of recording (740 million events, 2.0 GB) and about five minutes;
`--seconds 600` is ten minutes of recording and needs 32 GB of disk. The peak must not depend on the length. What
follows is handed to `deflare infer`, such as `--method pfd-b` or `checkpoint=runs/train`; without it the method is baf.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import trange

from deflare_core.events import Events
from deflare_core.io.writer import RecordingWriter

SENSOR_SIZE = (480, 640)
EVENTS_PER_S = 10_000_000
PIECE_US = 100_000
LIMIT_GB = 4.0


def busy(start_us: int) -> Events:
    """A tenth of a second of events at random places and times."""
    rng = np.random.default_rng([0, start_us])
    num = EVENTS_PER_S * PIECE_US // 1_000_000
    t = np.sort(rng.integers(start_us, start_us + PIECE_US, num))
    x, y = rng.integers(0, SENSOR_SIZE[1], num, np.uint16), rng.integers(0, SENSOR_SIZE[0], num, np.uint16)
    return Events.from_columns(t, x, y, rng.choice(np.array([-1, 1], np.int8), num), SENSOR_SIZE)


def write_busy_recording(path: Path, seconds: int) -> int:
    """The number of events written."""
    with RecordingWriter(path, SENSOR_SIZE, source="benchmark") as writer:
        for k in trange(seconds * 1_000_000 // PIECE_US, desc="making the recording"):
            writer.append(busy(k * PIECE_US))
        return writer.num_events


def measured(source: Path, target: Path, how: list[str]) -> tuple[float, float, float]:
    """Peak memory in GB, seconds, and processor seconds of a `deflare infer` of its own process."""
    command = [sys.executable, "-m", "deflare_core", "infer", "--input", source, "--output", target, *how]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_maxrss * 1024 / 1e9, time.perf_counter() - started, used.ru_utime + used.ru_stime


def main() -> int:
    """1 if memory grew past the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=74, help="length of the recording; default: %(default)s")
    options, how = parser.parse_known_args()
    with TemporaryDirectory(prefix="deflare-") as folder:
        source = Path(folder) / "long.h5"
        num_events = write_busy_recording(source, options.seconds)
        peak_gb, elapsed_s, processor_s = measured(source, Path(folder) / "out.h5", how or ["--method", "baf"])
        print(f"{num_events:,} events, {options.seconds} s of recording, {source.stat().st_size / 1e9:.2f} GB on disk")
        print(f"peak memory {peak_gb:.2f} GB, {elapsed_s:.0f} s, of a processor {processor_s:.0f} s")
    return int(peak_gb > LIMIT_GB)


if __name__ == "__main__":
    sys.exit(main())
