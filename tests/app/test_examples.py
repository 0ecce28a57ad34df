"""The examples that `deflare COMMAND --help` shows: they are those of the README, and run as they are printed."""

import shlex
import shutil

import numpy as np
import pytest
from support.camera_bytes import aedat4, evt3_bytes
from support.checkpoints import save_small_checkpoint
from support.recordings import list_rows, make_events

from deflare_core.app.arguments import list_examples
from deflare_core.app.commands import COMMANDS, main
from deflare_core.io.recordings import save_events
from deflare_core.system.places import PROJECT_ROOT

PLACE = "data_simu/physics_method"
PAIRS = ("background_with_flare_events", "background_with_light_events")
ELSEWHERE = {
    "simulate",
    "train",
    "curves",
    "compare",
    "ablate",
    "combine",
    "import-weights",
    "view",
    "benchmark",
    "notebook",
}
ELSEWHERE |= {"doctor", "completion"}
"""Commands that take minutes, or need what only others make; further tests run them on less."""
EXAMPLES = {command.name: list_examples(f"deflare {command.name}") for command in COMMANDS}


@pytest.fixture
def world(three_pairs, tmp_path, monkeypatch):
    """A folder in which the files are that the examples name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(PROJECT_ROOT / "configs")
    for folder in (f"{PLACE}/validation", PLACE):
        for name, part in zip(PAIRS, ("noisy", "clean"), strict=True):
            shutil.copytree(three_pairs / part, tmp_path / folder / name)
            shutil.copytree(three_pairs / part, tmp_path / folder / f"{name}_test")
    for run in ("train", "other"):
        save_small_checkpoint(tmp_path / "runs").parent.rename(tmp_path / "runs" / run)
    events = make_events(num=3_000, duration_us=100_000)
    save_events("recording.h5", events, source="test")
    save_events("recordings/recording.h5", events[:500], source="test")
    large = make_events(num=900, sensor_size=(480, 640), t_start_us=13_960_000, duration_us=60_000)
    (tmp_path / "recording.raw").write_bytes(evt3_bytes(large, b"% evt 3.0\n% geometry 640x480\n% end\n"))
    (tmp_path / "recording.aedat4").write_bytes(aedat4({("A", "events"): [list_rows(events[:100])]}))
    np.savetxt("out_of_order.csv", large.to_array()[::-1], "%d", ",", header="t,x,y,p", comments="")


@pytest.mark.slow
def test_examples_run_as_they_are_printed(world, capsys):
    lines = [line for name, lines in EXAMPLES.items() if name not in ELSEWHERE for line in lines]
    order = sorted(lines, key=lambda line: not line.startswith("deflare infer"))  # Others show what it writes.
    for line in order:
        if not {"--manifest", "--debug"} & set(line.split()):  # A large data set, and many pictures.
            assert main(shlex.split(line)[1:]) == 0, f"{line}: {capsys.readouterr().err}"
