"""The gallery of `reports/`: run the notebooks, take their pictures and one of `deflare view`, and write its page.

`make gallery` does it, in a few minutes. Captions name no figure of a run but what the run itself printed.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import nbformat
from PIL import Image

from deflare_core.app.notebook import run_notebook
from deflare_core.config import TrainConfig
from deflare_core.show.debug import debug_training
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.settings import load_config
from support.chromium import Page

GALLERY = PROJECT_ROOT / "reports" / "gallery"
WIDEST = 1200
HEAD = """# Gallery

What the notebooks and commands show, as `make gallery` took it of them, at most 1,200 pixels wide. The pair of
notebooks 01, 02 and 06 is simulated: 160x120 pixels, 100 ms, a lamp that flickers, with its flare, in a moving scene.
"""


class Shown(NamedTuple):
    """A picture: the heading that it begins, its name here, the notebook and cell that it is of, and what it shows.

    `said` is a word of the line that the run printed, which the caption ends with.
    """

    heading: str
    name: str
    notebook: str
    cell: str
    caption: str
    said: str = ""


PICTURES = (
    Shown(
        "A recording before and after",
        "06_before_after",
        "06",
        "show",
        "20 ms through the pretrained network. All of it:",
        "removed",
    ),
    Shown(
        "", "06_series", "06", "series", "The same 20 ms in slices of 4 ms: every event, red brighter and blue darker."
    ),
    Shown(
        "What is in a recording",
        "01_cloud",
        "01",
        "cloud",
        "The busiest 20 ms as a cloud; lamp and flare are the tube that changes colour with the flicker.",
    ),
    Shown(
        "",
        "01_pair",
        "01",
        "pair",
        "The same window of input and target, and where the input has more events (purple) or fewer (green).",
    ),
    Shown("", "01_spectrum", "01", "spectrum", "The lamp's frequency and its multiples stand out of both recordings."),
    Shown("", "01_causes", "01", "causes", "What the events of each window are due to."),
    Shown(
        "Why a true residual network",
        "02_residuals",
        "02",
        "residuals",
        "Cells by the residual that is wanted and the one that is given.",
        "nearer",
    ),
    Shown("", "02_spent", "02", "spent", "The share of each residual that falls on the cells of each cause."),
    Shown(
        "Training, and looking at what it works on",
        "03_curves",
        "03",
        "curves",
        "A run that was resumed:",
        "best",
    ),
    Shown(
        "",
        "03_debug_series",
        "debug",
        "1_input_events/events_2d",
        "The input's events in a training's first step: one of the pictures of `deflare train --debug`.",
    ),
    Shown("", "03_debug_input", "debug", "3_input_voxel/voxel_bins", "Its voxel, bin by bin."),
    Shown(
        "Scores beside baselines",
        "04_scores",
        "04",
        "cell06",
        "Three test recordings: the untouched input, two filters, an oracle that knows each event's cause, and the "
        "pretrained network.",
    ),
    Shown("", "07_downstream", "07", "downstream", "Pictures, turning and corners made of what each method leaves."),
    Shown("The viewer", "05_view", "view", "", "`deflare view` on the recording of notebook 06 and its output."),
)


def make_gallery(folder: Path = GALLERY) -> None:
    """Write every picture and the page of the gallery, and remove what no row names."""
    with tempfile.TemporaryDirectory() as scratch:
        reports = Path(scratch)
        runs = {n: run_notebook(n, {}, reports=reports) for n in sorted({row.notebook for row in PICTURES} & NUMBERS)}
        picture_training(runs["03"], reports / "debug")
        picture_view(runs["06"], reports / "view.png")
        parts = [HEAD]
        for row in PICTURES:
            shrink(find_picture(row, runs, reports), folder / f"{row.name}.png")
            parts.append(describe(row, runs))
    for stale in {path.name for path in folder.glob("[0-9][0-9]_*.png")} - {f"{row.name}.png" for row in PICTURES}:
        (folder / stale).unlink()
    (folder / "README.md").write_text("\n".join(parts))


NUMBERS = {f"{number:02d}" for number in range(8)}


def find_picture(row: Shown, runs: dict[str, Path], reports: Path) -> Path:
    if row.notebook == "view":
        return reports / "view.png"
    if row.notebook == "debug":
        return reports / "debug" / "epoch_000_iter_000" / f"{row.cell}.png"
    return runs[row.notebook] / "figures" / f"{row.cell}.png"


def describe(row: Shown, runs: dict[str, Path]) -> str:
    """A row of the page, in Markdown; its caption holds what the run said where it asks for it."""
    heading = f"## {row.heading}\n\n" if row.heading else ""
    caption = f"{row.caption} {quote_run(runs[row.notebook], row.said)}" if row.said else row.caption
    source = f" `deflare notebook {row.notebook}`" if row.notebook in NUMBERS else ""
    return f"{heading}![{row.name}]({row.name}.png)\n\n*{caption}*{source}\n"


def quote_run(folder: Path, word: str) -> str:
    """The line of a run's summary that holds the word."""
    name = json.loads((folder / "run.json").read_text())["notebook"]
    told = [cell for cell in nbformat.read(folder / name, 4).cells if "summary" in cell.metadata.get("tags", [])]
    outputs = [output for cell in told for output in cell.outputs]
    texts = [output.get("text") or output.get("data", {}).get("text/markdown", "") for output in outputs]
    return next(line.strip().rstrip(".") for text in texts for line in text.split("\n") if word in line) + "."


def picture_training(run: Path, folder: Path) -> None:
    """Take the pictures of a training's first steps, on the data that notebook 03 left."""
    config = load_config(TrainConfig, run / "train_config.json", [f"trainer.output_dir={folder / 'run'}"])
    debug_training(config, folder)


def picture_view(run: Path, target: Path) -> None:
    """Take a picture of `deflare view` in a browser."""
    command = [sys.executable, "-m", "deflare_core", "view", "--no-browser"]
    command += ["simulated.h5", "simulated_deflared.h5"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    server = subprocess.Popen(command, cwd=run, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        address = next(line.strip() for line in server.stdout if line.strip().startswith("http"))
        page = Page(target.with_suffix(".profile"), 1440, 600)
        try:
            page.send("Page.navigate", url=address)
            page.wait("document.querySelectorAll('.voxel-bin-viewer canvas').length >= 3")
            page.js("new Promise((drawn) => setTimeout(() => drawn(null), 2000))")
            page.screenshot(target)
        finally:
            page.close()
    finally:
        server.terminate()
        server.wait(20)


def shrink(source: Path, target: Path) -> None:
    """Write a picture at most 1,200 pixels wide, in all of its colours: few make thin lines of red and blue grey."""
    picture = Image.open(source).convert("RGB")
    if picture.width > WIDEST:
        size = WIDEST, round(picture.height * WIDEST / picture.width)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    with complete_or_absent(target) as temporary:
        picture.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    make_gallery()
