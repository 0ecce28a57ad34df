"""What a notebook does first. It imports nothing that only the notebooks' runner needs, and so starts 3 s earlier."""

from __future__ import annotations

import os
from pathlib import Path

from IPython import get_ipython
from IPython.core.pylabtools import select_figure_formats

from deflare_core.system.places import PROJECT_ROOT, REPORTS, make_dated_folder


def enter(output_dir: str | Path | None) -> Path:
    """The folder for a notebook's output after the notebook has been set up; none makes one of its own.

    That is `reports/interactive/<date>_<time>_<name>`, or one in the folder that DEFLARE_INTERACTIVE of the environment
    names, as tests do; the name is that of the notebook where Jupyter tells it.
    Setting up means: relative paths count from the project's root, as on the command line, and matplotlib figures
    are shown as PNG.
    """
    os.chdir(PROJECT_ROOT)
    name = Path(os.environ.get("JPY_SESSION_NAME", "notebook")).stem
    parent = Path(os.environ.get("DEFLARE_INTERACTIVE") or REPORTS / "interactive")
    folder = Path(output_dir) if output_dir else make_dated_folder(parent, name)
    folder.mkdir(parents=True, exist_ok=True)
    if shell := get_ipython():
        select_figure_formats(shell, {"png"})
    return folder
