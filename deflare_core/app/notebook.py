"""Notebooks: run one with parameters, strictly, and leave a report folder that can be read without Jupyter.

papermill alone only warns of a parameter that the notebook does not have, and takes `sys.exit(0)` for success; here
the first is an error before anything runs, and a run counts only when its last cell was reached.
"""

from __future__ import annotations

import ast
import base64
import difflib
import importlib.util
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from traitlets.config import Config

from deflare_core.app.kernel import own_kernels
from deflare_core.io.reading import AS_STATED, Reading
from deflare_core.show.notebook_page import make_notebook_page
from deflare_core.show.run_index import write_index
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.devices import device_name, pick_device
from deflare_core.system.errors import DeflareError
from deflare_core.system.places import PROJECT_ROOT, REPORTS, make_dated_folder
from deflare_core.system.revision import find_revision, hash_file, list_versions
from deflare_core.system.settings import read_value
from deflare_core.system.unfinished import dated_folder, temporary_folder

NOTEBOOKS = PROJECT_ROOT / "notebooks"
TEXTS = (
    *("recording", "target", "output", "dataset", "pair", "checkpoint", "run_dir", "output_dir"),
    *("simulation_config", "train_config", "method", "device", "polarity", "time_unit", "stream"),
)
"""Parameters that are paths or names, whatever else their text may look like: 20240501, null, on or #1.h5."""


class NotebookError(DeflareError):
    """A notebook that cannot be run as asked, or that failed; the message says which cell and where it is."""


def run_notebook(name: str | Path, parameters: dict[str, Any], *, reports: Path = REPORTS) -> Path:
    """The report folder of a notebook run: executed notebook, HTML page, figures and `run.json`.

    Parameters
    ----------
    name : a path, a name such as `00_quickstart`, or a number such as `00`.
    parameters : values for the notebook's parameters; paths that exist here are made absolute.
    reports : folder in which `<date>_<name>` is made.

    Raises
    ------
    NotebookError
        When there is no such notebook or parameter, a cell fails, or the last cell is not reached.
    """
    source, declared = find_declared(name, parameters)
    started = time.perf_counter()
    with dated_folder(reports.resolve(), source.stem) as folder:
        given = fill_parameters(parameters, declared, folder)
        error = execute_notebook(source, folder / source.name, given)
        write_report(folder, source, declared, given, time.perf_counter() - started, error)
    write_index(folder.parent)
    if error:
        raise NotebookError(f"{folder / source.name}: {error}")
    return folder


def serve_notebook(name: str | Path, parameters: dict[str, Any], *, port: int, reports: Path = REPORTS) -> None:
    """Turn this process into a server that shows a notebook as an app, without its code, on the given port.

    Cells tagged `report` are left out: they are there for readers of an executed notebook.
    """
    if importlib.util.find_spec("voila") is None:
        raise NotebookError("Apps need the package 'voila', which is not installed; `pip install voila`.")
    source, declared = find_declared(name, parameters)
    folder = make_dated_folder(reports, source.stem).resolve()
    given = fill_parameters(parameters, declared, folder)
    notebook = parameterize_notebook(load_notebook_node(str(source)), given)
    notebook.cells = [cell for cell in notebook.cells if "report" not in cell.metadata.get("tags", [])]
    nbformat.write(notebook, folder / source.name)
    words = ["-m", "deflare_core.app.server", str(folder / source.name), f"--port={port}", "--show_tracebacks=True"]
    os.chdir(PROJECT_ROOT)
    os.execv(sys.executable, [sys.executable, *words])


def find_declared(name: str | Path, parameters: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The notebook's path and its declared parameters; a NotebookError if one of those given is not among them."""
    source = find_notebook(name)
    declared = read_parameters(source)
    if unknown := [key for key in parameters if key not in declared]:
        near = difflib.get_close_matches(unknown[0], declared, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(declared)}."
        raise NotebookError(f"{source.name}: has no parameter '{unknown[0]}'; {hint}")
    return source, declared


def fill_parameters(parameters: dict[str, Any], declared: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The parameters to set: those given, and the folder of the report where the notebook writes there."""
    defaults = {"output_dir": str(folder)} if "output_dir" in declared else {}
    return defaults | {key: make_absolute(value) for key, value in parameters.items()}


def execute_notebook(source: Path, target: Path, parameters: dict[str, Any]) -> str | None:
    """Why the run failed, or None; the executed notebook is at `target` either way, its streams in the terminal."""
    streams = {"stdout_file": sys.stdout, "stderr_file": sys.stderr, "progress_bar": False}
    settings = {"kernel_name": "python3", "cwd": str(PROJECT_ROOT), **streams}
    # What a kernel logs is of its own machinery, such as a traceback when it is ended in the middle of a message.
    settings |= {"extra_arguments": ["--log-level=50"]}
    try:
        # Jupyter's own file of the connection stays where a run is stopped.
        with temporary_folder() as folder, own_kernels() as kernel:
            place = Config({"ConnectionFileMixin": {"connection_file": str(folder / "kernel.json")}})
            settings |= {"config": place, "kernel_manager_class": kernel}
            papermill.execute_notebook(str(source), str(target), parameters, **settings)
    except PapermillExecutionError as error:
        return f"cell {error.exec_count} failed: {error.ename}: {error.evalue}"
    cells = [cell for cell in nbformat.read(target, 4).cells if cell.cell_type == "code"]
    return None if cells[-1].get("execution_count") else "the last cell was not reached"


def write_report(
    folder: Path, source: Path, declared: dict[str, Any], given: dict[str, Any], elapsed_s: float, error: str | None
) -> None:
    """Write the HTML page, the figures and `run.json` beside the executed notebook."""
    parameters = declared | given
    # What a progress bar overwrote is left out.
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(folder / source.name, 4), {})
    nbformat.write(notebook, folder / source.name)
    write_figures(notebook, folder / "figures")
    files = [v for v in parameters.values() if isinstance(v, str) and (PROJECT_ROOT / v).is_file()]
    record = {
        "notebook": source.name,
        "status": error or "done",
        "asked": {name: value for name, value in given.items() if name != "output_dir" and value != declared[name]},
        "parameters": parameters,
        "elapsed_s": round(elapsed_s, 1),
        "device": device_name(pick_device("auto")),
        "git_revision": find_revision(),
        "versions": list_versions(),
        "input_digests": {file: hash_file(PROJECT_ROOT / file) for file in files},
    }
    with complete_or_absent(folder / "run.json") as path:
        path.write_text(json.dumps(record, indent=2, default=str) + "\n")
    (folder / f"{source.stem}.html").write_text(make_notebook_page(notebook, record))


def write_figures(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Write every PNG among the cells' outputs as `<cell id>.png`, further ones of a cell as `<cell id>_2.png`."""
    folder.mkdir(exist_ok=True)
    for cell in notebook.cells:
        pictures = [o.data["image/png"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        for number, picture in enumerate(pictures, 1):
            stem = cell.id if number == 1 else f"{cell.id}_{number}"
            (folder / f"{stem}.png").write_bytes(base64.b64decode(picture))


def find_notebook(name: str | Path) -> Path:
    """The path of a notebook given by path, name or number; a NotebookError if there is none, or several fit."""
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        return path.resolve()
    known = sorted(NOTEBOOKS.glob("*.ipynb"))
    fitting = [p for p in known if p.stem == path.stem] or [p for p in known if p.stem.startswith(path.stem)]
    if len(fitting) != 1:
        raise NotebookError(f"{name}: {len(fitting)} notebooks fit; there are {', '.join(p.stem for p in known)}.")
    return fitting[0]


def read_parameters(path: Path) -> dict[str, Any]:
    """The parameters of a notebook and their defaults; one that is no literal stays text.

    papermill's own reading of them goes by lines, and misses lists of texts with an equals sign in them.
    """
    cells = [cell for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", [])]
    if not cells:
        raise NotebookError(f"{path}: has no cell tagged 'parameters', so nothing could be set in it.")
    assigned = [line for line in ast.parse(cells[0].source).body if isinstance(line, ast.Assign)]
    return {ast.unparse(name): _literal(ast.unparse(line.value)) for line in assigned for name in line.targets}


def _literal(source: str) -> Any:
    """The value of a default as written in the notebook; an expression stays text."""
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return source


def parameter_value(name: str, text: str) -> Any:
    """The value of a parameter on the command line, read as YAML, where 1e-3 is a number too; `TEXTS` are taken as is.

    An empty one of these is a NotebookError: a shell makes it of a variable that is not set.
    """
    if name in TEXTS and not text:
        raise NotebookError(f"'{name}': is empty; name a file, or leave it out.")
    if name in TEXTS:
        return text
    value = read_value(name, text)
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def reading_parameters(reading: Reading) -> dict[str, Any]:
    """The parameters of a notebook that say what a reading says, without those of which it says nothing."""
    said = {name: value for name, value in asdict(reading).items() if value != getattr(AS_STATED, name)}
    # papermill writes a tuple into a notebook as text.
    return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}


def make_absolute(value: Any) -> Any:
    """The value, as an absolute path if it names an existing file or folder relative to where the command runs."""
    return str(Path(value).resolve()) if isinstance(value, str) and value and Path(value).exists() else value
