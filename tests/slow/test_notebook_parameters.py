"""Every notebook with parameters other than its defaults, through papermill: the pictures and pages that it leaves."""

import json
import re

import pytest

from data_simu import SimulationConfig, simulate, write_dataset
from deflare_core.app.notebook import run_notebook
from deflare_core.io.convert import convert
from deflare_core.io.recordings import save_events
from deflare_core.system.settings import load_config


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A simulation configuration of a few pixels, data sets with and without causes, and two recordings."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "simu.yaml").write_text("sensor_size: [24, 32]\nnum_train: 1\nnum_test: 1\n")
    config = load_config(SimulationConfig, folder / "simu.yaml")
    write_dataset(config, folder / "data", workers=1)
    validation = config.model_copy(update={"seed": 1, "num_test": 0})
    write_dataset(validation, folder / "data/validation", workers=1)
    pair = simulate(config, 9)
    for name, events in (("before", pair.flare), ("after", pair.clean)):
        save_events(folder / f"{name}.h5", events, source="test", clock_us=pair.clock_us)
    convert(folder / "before.h5", folder / "before.npy", progress=False)
    for kind, events in (("flare", pair.flare), ("light", pair.clean)):
        path = folder / f"unlabelled/background_with_{kind}_events_test/a.h5"
        save_events(path, events, source="test", clock_us=pair.clock_us)
    return folder


OTHER_PARAMETERS = {
    "01": ({"dataset": "data", "t_start_us": 20_000, "interactive": True}, {"voxel", "pair", "spectrum"}, 9),
    "02": (
        {"simulation_config": "simu.yaml", "f_maps": [8, 16], "steps": 3, "window_index": 1},
        {"windows", "spent"},
        5,
    ),
    "03": (
        {"dataset": "data", "overrides": ["trainer.max_steps=2", "trainer.device=cpu"], "more_steps": 1},
        {"train", "resume", "curves"},
        3,
    ),
    "04": ({"dataset": "unlabelled", "device": "cpu"}, {"cell06", "cell08", "cell10", "cell13"}, 6),
    "05": (
        {
            "recording": "before.npy",
            "sensor_size": [24, 32],
            "time_unit": "us",
            "output": "after.h5",
            "window_index": 2,
        },
        {"viewer"},
        1,
    ),
    "06": (
        {"recording": "before.npy", "sensor_size": [24, 32], "method": "baf", "video_us": 40_000},
        {"show", "series", "sheet"},
        4,
    ),
    "07": (
        {"simulation_config": "simu.yaml", "methods": ["baf"], "num_pairs": 2, "least_flare": 0, "device": "cpu"},
        {"downstream"},
        1,
    ),
}
"""Parameters other than the defaults, some of the figures they must leave, and how many pictures the page holds."""


@pytest.mark.parametrize("number", OTHER_PARAMETERS)
def test_a_notebook_runs_with_other_parameters_and_its_page_has_all_figures(number, small, tmp_path, monkeypatch):
    monkeypatch.chdir(small)
    parameters, figures, count = OTHER_PARAMETERS[number]
    folder = run_notebook(number, parameters, reports=tmp_path / "reports")
    assert figures <= {path.stem for path in (folder / "figures").glob("*.png")}
    (page,) = folder.glob(f"{number}_*.html")
    shown = re.findall(r'<img[^>]*?src="data:image/png;base64', page.read_text())
    assert len(shown) == count, "Every figure is in the page itself."
    if number == "01":
        assert (folder / "cloud.html").is_file()
    if number == "06":
        assert "data:video/mp4;base64" in page.read_text()


def test_training_in_several_processes_is_followed_by_the_notebook(small, tmp_path, monkeypatch):
    """With torchrun, as notebook 03 starts it: two processes on this machine's processors."""
    monkeypatch.chdir(small)
    overrides = ["trainer.max_steps=1", "trainer.device=cpu", "trainer.batch_size=1"]
    parameters = {"dataset": "data", "num_processes": 2, "overrides": overrides, "more_steps": 1}
    folder = run_notebook("03", parameters, reports=tmp_path / "reports")
    lines = (folder / "training_run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if "gradient_norm" in line] == [1, 2]
