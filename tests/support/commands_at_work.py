"""Commands at work on small inputs, each in a folder of its own: what campaigns run, kill, and run again.

A row says how the input is made, the words of the command, and what differs between two runs that are equal.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nbformat

from deflare_core.app.commands import main
from deflare_core.events import Events
from deflare_core.io.convert import convert
from deflare_core.io.recordings import save_events
from support.checkpoints import save_small_checkpoint
from support.processes import Started
from support.recordings import make_events

SENSOR = (24, 32)
TRAINING = """
model: {f_maps: [8, 16], num_levels: 2}
data: &pairs {noisy_dir: noisy, clean_dir: clean}
validation: *pairs
trainer: {max_steps: 12, device: cpu, num_workers: 0, output_dir: run, checkpoint_every: 4, validate_every: 6}
"""
SIMULATION = "sensor_size: [24, 32]\nduration_us: 40000\nnum_train: 3\nnum_test: 2\n"
TRAIN = "train --config train.yaml"
CELLS = (
    "output_dir = None\nvalue = 1",
    "from pathlib import Path\nfrom deflare_core.app.interactive import enter\noutput_dir = enter(output_dir)",
    "from deflare_core.inference import deflare_recording\n"
    "from deflare_core.deflaring.method import BaselineMethod\n"
    "summary = deflare_recording(BaselineMethod('baf'), recording, output_dir / 'out.h5', progress=False)",
    "from deflare_core.io.recordings import load_events\nprint(len(load_events(output_dir / 'out.h5')))",
)


def events(seed: int, num: int = 20_000, windows: int = 10) -> Events:
    """Events of 20 ms windows on a small sensor."""
    return make_events(seed=seed, num=num, sensor_size=SENSOR, duration_us=windows * 20_000)


def make_recordings(folder: Path) -> None:
    """Two recordings, one of them in a format that is copied before it is read, and a checkpoint."""
    save_events(folder / "in" / "a.h5", events(0), source="test")
    convert(folder / "in" / "a.h5", folder / "in" / "b.npz", progress=False)
    save_small_checkpoint(folder)


def make_text(folder: Path) -> None:
    """A recording as text."""
    save_events(folder / "a.h5", events(0, num=100_000), source="test")
    convert(folder / "a.h5", folder / "in.csv", progress=False)


def make_pairs(folder: Path) -> None:
    """Three pairs, a checkpoint, and settings to train and to evaluate."""
    for k in range(3):
        noisy = events(k, num=4_000, windows=3)
        save_events(folder / "noisy" / f"{k}.h5", noisy, source="test")
        save_events(folder / "clean" / f"{k}.h5", noisy[::2], source="test")
    (folder / "train.yaml").write_text(TRAINING)
    (folder / "test.yaml").write_text(
        "{data: {noisy_dir: noisy, clean_dir: clean}, methods: [input, baf, network], checkpoint: run, device: cpu, "
        "workers: 0, output_dir: report}\n"
    )


def make_trained(folder: Path) -> None:
    """The same, with a checkpoint."""
    make_pairs(folder)
    save_small_checkpoint(folder)


def make_simulation(folder: Path) -> None:
    """The settings of a small simulation."""
    (folder / "simu.yaml").write_text(SIMULATION)


def make_notebook(folder: Path) -> None:
    """A recording, and a notebook that deflares it."""
    save_events(folder / "a.h5", events(0, num=20_000), source="test")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    cells[0].source += f"\nrecording = {str(folder / 'a.h5')!r}"
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, folder / "tiny.ipynb")


def run_notebook(words: Sequence[str]) -> int:
    """What `deflare notebook` returns, with its reports in the folder where it runs."""
    from deflare_core.app import notebook  # It imports papermill, which no other command needs.

    notebook.run_notebook.__kwdefaults__["reports"] = Path("reports")
    return main(list(words))


def digest(path: Path) -> str:
    """A digest of a file as it is."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def digest_log(path: Path) -> str:
    """A digest of the log of a run, without the seconds that its steps took."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return str([{name: value for name, value in line.items() if name != "seconds"} for line in lines])


def digest_notebook(path: Path) -> str:
    """What the cells of an executed notebook gave."""
    cells = nbformat.read(path, 4).cells
    return str([[each.get("text", "") for each in cell.get("outputs", [])] for cell in cells])


def digest_record(path: Path) -> str:
    """How a notebook's run ended."""
    return json.loads(path.read_text())["status"]


@dataclass(frozen=True)
class Work:
    """A command at work: how its input is made, its words, and those that the run after a killed one takes."""

    make: Callable[[Path], None]
    words: str
    again: str = ""
    run: Callable[[list[str]], int] = main
    differs: tuple[tuple[str, Callable[[Path], str]], ...] = ()
    """What to compare of files whose bytes differ between two equal runs, by a pattern of their paths."""
    may_be_more: str = "nothing"
    """A pattern of files that a stopped run may leave besides those of an undisturbed one."""

    def start(self, folder: Path, streams: Path, again: bool = False) -> Started:
        """The command, started in a process of its own that works in the folder."""
        words = (self.again or self.words) if again else self.words
        return Started(partial(_run_in, folder, self.run), words.split(), folder=streams)

    def digests(self, folder: Path) -> dict[str, str]:
        """What stands in the folder: a digest of each file by its path, in which no date is."""
        found = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = re.sub(r"\d{4}-\d\d-\d\d_\d{6}(_\d+)?_", "DATE_", str(path.relative_to(folder)))
            take = next((take for pattern, take in self.differs if re.fullmatch(pattern, name)), digest)
            found[name] = take(path)
        return found


def _run_in(folder: Path, run: Callable[[list[str]], int], words: list[str]) -> int:
    os.chdir(folder)
    return run(words)


WORKS = {
    "infer": Work(make_recordings, "infer -i in -o out checkpoint=run device=cpu"),
    "infer, one": Work(make_recordings, "infer -i in/b.npz -o out.h5 checkpoint=run device=cpu"),
    "convert": Work(make_text, f"convert in.csv out.h5 --sensor-size {SENSOR[0]} {SENSOR[1]}"),
    "convert --sort": Work(make_text, f"convert in.csv out.npz --sort --sensor-size {SENSOR[0]} {SENSOR[1]}"),
    "simulate": Work(make_simulation, "simulate --config simu.yaml --output-dir data --workers 1"),
    "simulate, two": Work(make_simulation, "simulate --config simu.yaml --output-dir data --workers 2"),
    "train": Work(
        make_pairs, TRAIN, f"{TRAIN} --resume",
        differs=((r"run/metrics\.jsonl", digest_log),), may_be_more=r"run/checkpoint_.*",
    ),
    "train, two loaders": Work(
        make_pairs, f"{TRAIN} trainer.num_workers=2", f"{TRAIN} trainer.num_workers=2 --resume",
        differs=((r"run/metrics\.jsonl", digest_log),), may_be_more=r"run/checkpoint_.*",
    ),
    "evaluate": Work(make_trained, "evaluate --config test.yaml"),
    "evaluate, two": Work(make_trained, "evaluate --config test.yaml workers=2"),
    "notebook": Work(
        make_notebook, "notebook tiny.ipynb", run=run_notebook,
        differs=(
            (r".*/tiny\.ipynb", digest_notebook), (r".*/run\.json", digest_record), (r".*\.html", lambda path: "page"),
        ),
    ),
}  # fmt: skip
"""Every command that campaigns try, by the name of its row."""
