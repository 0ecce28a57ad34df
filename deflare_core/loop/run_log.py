"""The log of a run: `metrics.jsonl`, one line per step and per validation, and TensorBoard scalars beside it.

The file is the truth: a resumed run reads it, and TensorBoard only shows what it says. A step's line has the keys
step (counted from 1), epoch (whole passes over the data before it), loss, learning_rate, gradient_norm and seconds; a
validation's has step, epoch and validation, itself a dictionary.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.errors import DeflareError, make_plain, shorten

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class RunLogError(DeflareError):
    """A log that cannot be written or read; the message says what to do."""


class RunLog:
    """The log of a run that has come to `step`, 0 for a new one: what a stopped run logged after it is dropped.

    TensorBoard scalars go into `folder/tensorboard`. Only the process that `writes` touches anything.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool = False, writes: bool = True) -> None:
        self.path, self.writes = folder / METRICS, writes
        self.board = make_board(folder / TENSORBOARD, step) if tensorboard and writes else None
        if not writes:
            return
        kept = [entry for entry in read_log(folder) if entry["step"] <= step]
        with complete_or_absent(self.path) as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept))

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line, which is on disk when this returns."""
        if not self.writes:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if self.board is not None:
            group = "validation" if "validation" in entry else "train"
            for name, value in entry.get("validation", entry).items():
                if name != "step":
                    self.board.add_scalar(f"{group}/{name}", value, entry["step"])

    def close(self) -> None:
        """Write out what TensorBoard's writer still holds."""
        if self.board is not None:
            self.board.close()


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics file in their order, without one that a killed run left half-written."""
    path = Path(folder) / METRICS
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    try:
        entries = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [entry for entry in entries if entry["step"] >= 0]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RunLogError(f"{path}: is damaged ({shorten(make_plain(repr(error)))}); take it away.") from error


def read_tensorboard(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's log as its TensorBoard scalars give them back, float32, in the order of their steps."""
    folder = Path(folder) / TENSORBOARD
    if not folder.is_dir():
        return []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()  # 0: every one, not a sample
    lines: dict[tuple[int, str], dict[str, Any]] = {}
    for name in board.Tags()["scalars"]:
        group, _, figure = name.partition("/")
        for scalar in board.Scalars(name):
            line = lines.setdefault((scalar.step, group), {"step": scalar.step})
            (line.setdefault("validation", {}) if group == "validation" else line)[figure] = scalar.value
    return [lines[key] for key in sorted(lines)]


def make_board(folder: Path, step: int) -> Any:
    """A TensorBoard writer whose scalars after `step` replace those of a stopped run."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunLogError(
            "trainer.tensorboard is on, but the package 'tensorboard' is not installed; "
            "`pip install tensorboard`, or set trainer.tensorboard=false."
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
