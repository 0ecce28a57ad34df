"""What a notebook does first. It imports nothing that only the notebooks' runner needs, and so starts 3 s earlier."""

from __future__ import annotations

import os
from pathlib import Path

from IPython import get_ipython
from IPython.core.pylabtools import select_figure_formats

from deflare_core.system.places import PROJECT_ROOT, REPORTS


def enter(output_dir: str | Path | None) -> Path:
    """The folder for a notebook's output, `reports/interactive` if none is named, after the notebook has been set up.

    Setting up means: relative paths count from the project's root, as on the command line, and matplotlib figures
    are shown as PNG.
    """
    os.chdir(PROJECT_ROOT)
    folder = Path(output_dir) if output_dir else REPORTS / "interactive"
    folder.mkdir(parents=True, exist_ok=True)
    if shell := get_ipython():
        select_figure_formats(shell, {"png"})
    return folder
