"""Training in several processes against one: seconds a step of the same windows, and the gain.

Run by hand: `python tests/benchmarks/scaling.py`, on a machine with GPUs with one process for each. The default network
trains on a few pairs that are simulated in memory; settings of `deflare train` may follow, such as `model.f_maps=...`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

DATA = "{{simulation: configs/simu_config.yaml, num_pairs: {}, workers: 8}}"


def median_seconds(processes: int, batches: int, steps: int, folder: Path, settings: list[str]) -> float:
    """The median seconds of a step of so many batches, shared by so many processes, after the first quarter."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "deflare_core", "train", "--config", "configs/train_config.yaml"]
    own = [
        f"data={DATA.format(8)}",
        f"validation={DATA.format(1)}",
        f"trainer.output_dir={folder}",
        f"trainer.accumulate_steps={batches}",
        *(f"trainer.{name}={steps}" for name in ("max_steps", "validate_every", "checkpoint_every")),
    ]
    subprocess.run([*command, *own, *settings], check=True)
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = [entry["seconds"] for entry in entries if "seconds" in entry]
    return statistics.median(seconds[steps // 4 :])


def main() -> None:
    """Print both times and the gain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=max(torch.cuda.device_count(), 2))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("settings", nargs="*", help="settings of the training")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = (1, options.processes)
        found = [
            median_seconds(count, options.processes, options.steps, Path(folder, str(count)), options.settings)
            for count in counts
        ]
    for count, seconds in zip(counts, found, strict=True):
        sys.stdout.write(f"{count} processes: {1e3 * seconds:.1f} ms a step of {options.processes} windows\n")
    sys.stdout.write(f"{found[0] / found[1]:.2f} times as fast\n")


if __name__ == "__main__":
    main()
