"""The notebooks' form, and their runner; nbval runs each notebook with its defaults in the same session."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from deflare_core.app import interactive
from deflare_core.app.notebook import (
    NotebookError,
    find_notebook,
    parameter_value,
    read_parameters,
    reading_parameters,
    run_notebook,
)
from deflare_core.io.reading import AS_STATED, Reading
from deflare_core.system.places import PROJECT_ROOT, make_dated_folder

NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))


def test_the_numbering_is_complete():
    assert [path.name[:2] for path in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05", "06", "07"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_thin(path):
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# \d\d .*\?", first.source.splitlines()[0]), "The title asks the question it answers."
    assert notebook.metadata.kernelspec.name == "python3"
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert "assert" in code[-1].source, "It ends by asserting what it promised."
    for cell in code:
        assert len(cell.source.splitlines()) <= 15, f"The cell {cell.id} is too long."
        assert not re.search(r"^(def|class) ", cell.source, re.MULTILINE), f"The cell {cell.id} defines something."


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_carries_no_outputs(path):
    for cell in nbformat.read(path, 4).cells:
        assert not cell.get("outputs"), f"The cell {cell.id} has stored outputs; clear them before committing."
        assert not cell.get("execution_count")


def test_a_notebook_is_found_by_number_name_and_path():
    path = find_notebook("00")
    assert path == find_notebook("00_quickstart") == find_notebook(str(path))
    with pytest.raises(NotebookError, match="0 notebooks fit; there are 00_quickstart"):
        find_notebook("quick")
    assert read_parameters(path)["seed"] == 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_line_of_the_parameters_cell_can_be_set(path):
    (cell,) = (cell for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", []))
    values: dict = {}
    exec(cell.source, values)
    del values["__builtins__"]
    assert read_parameters(path) == values


READING = {"sensor_size", "polarity", "time_unit", "stream"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_that_reads_files_takes_the_reading_options(path):
    known = read_parameters(path).keys()
    assert not known & {"recording", "dataset"} or known >= READING, "A RAW file without geometry can be opened."


@pytest.mark.parametrize("text", ["20240501", "null", "on", "1e5", "#1.h5", "rec #2.h5", "~", "[a]", "'a'"])
def test_paths_are_texts(text):
    assert parameter_value("recording", text) == text
    assert parameter_value("checkpoint", text) == text


def test_other_parameters_are_read_as_yaml():
    given = {"seed": "3", "learning_rate": "1e-3", "sensor_size": "[480, 640]", "t_start_us": "null"}
    assert [parameter_value(*each) for each in given.items()] == [3, 1e-3, [480, 640], None]
    with pytest.raises(NotebookError, match="'recording': is empty"):
        parameter_value("recording", "")


def test_the_reading_options_of_the_command_become_parameters():
    assert reading_parameters(AS_STATED) == {}
    reading = Reading((480, 640), "lenient", stream="left")
    given = reading_parameters(reading)
    assert given == {"sensor_size": [480, 640], "polarity": "lenient", "stream": "left"}
    notebook = parameterize_notebook(load_notebook_node(str(find_notebook("06"))), given)
    (set_here,) = (cell.source for cell in notebook.cells if "injected-parameters" in cell.metadata.tags)
    values: dict = {}
    exec(set_here, values)
    assert {name: values[name] for name in given} == given, "They arrive as they are, not as text."


def test_runs_of_one_second_have_folders_of_their_own(tmp_path):
    folders = [make_dated_folder(tmp_path, "01") for _ in range(3)]
    assert len({folder.name for folder in folders}) == 3
    assert all(folder.is_dir() for folder in folders)


def test_a_notebook_that_is_told_of_no_folder_gets_one_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(interactive, "REPORTS", tmp_path)
    monkeypatch.setattr(interactive, "PROJECT_ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEFLARE_INTERACTIVE")
    monkeypatch.setenv("JPY_SESSION_NAME", "/notebooks/03_training.ipynb")
    folders = [interactive.enter(None) for _ in range(2)]
    assert len(set(folders)) == 2, "Plain papermill overwrites no other run."
    assert all(folder.parent.name == "interactive" and "03_training" in folder.name for folder in folders)
    assert interactive.enter("mine") == Path("mine")
    monkeypatch.setenv("DEFLARE_INTERACTIVE", str(tmp_path / "elsewhere"))
    assert interactive.enter(None).parent == tmp_path / "elsewhere"


def tiny_notebook(tmp_path, *sources, parameters="value = 1\noutput_dir = None"):
    notebook = nbformat.v4.new_notebook()
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    notebook.cells = cells
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "tiny.ipynb"
    nbformat.write(notebook, path)
    return path


FIGURE = """
from deflare_core.app.interactive import enter
from deflare_core.show.figures import draw_event_rates
from deflare_core.events import Events
output_dir = enter(output_dir)
draw_event_rates({"none": Events.empty((2, 2))}, (0, 1000))
"""


def test_a_run_leaves_notebook_page_figures_and_record(tmp_path, monkeypatch):
    path = tiny_notebook(tmp_path, FIGURE, "print('a\\rb'); assert value == [1, 2]")
    monkeypatch.chdir(tmp_path)
    folder = run_notebook("tiny.ipynb", {"value": [1, 2]}, reports=tmp_path / "reports")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}_tiny", folder.name)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done"
    assert record["parameters"]["value"] == [1, 2]
    assert {"git_revision", "versions", "device", "elapsed_s", "input_digests"} <= record.keys()
    assert len(list((folder / "figures").glob("*.png"))) == 1
    page = (folder / "tiny.html").read_text()
    assert "data:image/png;base64" in page, "The page shows the figure."
    assert not re.search(r"(src|href)=.?https?:", page), "It needs no other machine."
    assert f'href="{folder.name}/tiny.html"' in (folder.parent / "index.html").read_text(), "The run is listed."
    assert path.is_file()


def test_what_papermill_lets_pass_is_an_error_here(tmp_path):
    reports = tmp_path / "reports"
    path = tiny_notebook(tmp_path, "x = value", "assert x == 1")
    with pytest.raises(NotebookError, match=r"has no parameter 'valeu'; did you mean 'value'\?"):
        run_notebook(path, {"valeu": 1}, reports=reports)
    assert not reports.exists(), "Nothing runs on a misspelt parameter."
    with pytest.raises(NotebookError, match="failed: AssertionError"):
        run_notebook(path, {"value": 2}, reports=reports)
    record = json.loads(next(reports.glob("*/run.json")).read_text())
    assert "AssertionError" in record["status"]
    quitting = tiny_notebook(tmp_path, "import sys; sys.exit(0)", "assert True")
    with pytest.raises(NotebookError, match=r"not reached|SystemExit"):
        run_notebook(quitting, {}, reports=tmp_path / "quit")
    notebook = nbformat.read(path, 4)
    notebook.cells[0].metadata = {}
    nbformat.write(notebook, path)
    with pytest.raises(NotebookError, match="no cell tagged 'parameters'"):
        run_notebook(path, {}, reports=reports)


def test_overwritten_terminal_text_is_left_out(tmp_path):
    bar = "import sys\nfor share in (10, 50, 100):\n    print(f'\\r{share} %', end='', file=sys.stderr, flush=True)"
    folder = run_notebook(tiny_notebook(tmp_path, bar, "assert True"), {}, reports=tmp_path)
    (stream,) = nbformat.read(folder / "tiny.ipynb", 4).cells[2].outputs
    assert stream.text == "100 %", "A bar that came in pieces is one line."


@pytest.mark.slow
def test_the_quickstart_runs_with_other_parameters(tmp_path):
    """The whole path through papermill: other sizes than the defaults, and a recording of the user's own."""
    from data_simu import SimulationConfig, simulate
    from deflare_core.io.recordings import save_events

    own = simulate(SimulationConfig(sensor_size=(33, 45), duration_us=50_000), 7)
    save_events(tmp_path / "own.h5", own.flare, source="test")
    small = tmp_path / "demo_simu_config.yaml"
    small.write_text("sensor_size: [40, 56]\n")
    parameters = {
        "num_train": 1,
        "max_steps": 2,
        "simulation_config": str(small),
        "recording": str(tmp_path / "own.h5"),
    }
    folder = run_notebook("00", parameters, reports=tmp_path / "reports")
    pictures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"look", "rates", "learning-curve", "evaluate", "deflare", "voxels", "own"} <= pictures
    assert (folder / "own_deflared.h5").is_file()
    assert (folder / "evaluation/summary.md").is_file()
    record = json.loads((folder / "run.json").read_text())
    assert str(tmp_path / "own.h5") in record["input_digests"]
