"""Runs that are killed at every stage: what stands at the output is complete or nothing, and the next run finishes.

`python tests/deflaring/test_killed_runs.py STAGE FOLDER` deflares FOLDER/in.h5 and kills itself at a stage, by SIGKILL.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.recordings import make_events

from deflare_core.config import ModelConfig
from deflare_core.deflaring import journal
from deflare_core.inference import deflare_recording
from deflare_core.io import recordings
from deflare_core.io import writer as recording_writer
from deflare_core.io.recordings import save_events
from deflare_core.model import build_model
from deflare_core.system import atomic_files as output

STAGES = {
    "the input is opened": (recordings.Recording, "__init__", 1),
    "the journal is begun": (journal.Journal, "_begin", 1),
    "the first window is read": (recordings.Recording, "window", 1),
    "the first window is noted": (journal.Journal, "append", 1),
    "the sixth window is noted": (journal.Journal, "append", 6),
    "a window's events are written": (recording_writer.RecordingWriter, "append", 4),
    "the file is finished": (recording_writer.RecordingWriter, "_finish", 1),
    "the file is given its name": (output, "_replace", 1),
    "the journal is taken away": (journal.Journal, "remove", 1),
}
"""Where a run is killed: just before a call, the first or a later one, of these."""
NUM_WINDOWS = 10


def deflare(folder: Path, name: str) -> bytes:
    """The bytes of the recording in a folder after a network that removes and invents, with flags."""
    model = build_model(ModelConfig(f_maps=(8, 16), num_levels=2), seed=0)
    with torch.no_grad():
        torch.nn.init.normal_(model.backbone.final_conv.weight, std=0.5, generator=torch.Generator().manual_seed(1))
    deflare_recording(model, folder / "in.h5", folder / name, flags=True, progress=False)
    return (folder / name).read_bytes()


def kill_before(owner: object, name: str, count: int) -> None:
    """Let the process be killed at a call of a function."""
    called, calls = getattr(owner, name), []

    def killing(*arguments: object, **settings: object) -> object:
        calls.append(name)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return called(*arguments, **settings)

    setattr(owner, name, killing)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a recording, and what an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    save_events(folder / "in.h5", make_events(num=9_000, duration_us=NUM_WINDOWS * 20_000), source="test")
    return folder, deflare(folder, "whole.h5")


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_at_any_stage_ends_as_if_it_had_not_been(whole, stage):
    folder, expected = whole
    command = [sys.executable, __file__, stage, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, f"The run was to be killed before {stage}: {done.stderr}"
    out = folder / "out.h5"
    assert not out.exists() or out.read_bytes() == expected, "The output is complete or absent."
    assert deflare(folder, "out.h5") == expected, "The next run gives the bytes of an undisturbed one."
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["in.h5", "out.h5", "whole.h5"], "It clears away what the killed one left."
    out.unlink()


def test_a_run_does_not_take_another_runs_file_away(tmp_path):
    (tmp_path / ".out.h5.1.part").write_text("of a killed run")
    (tmp_path / ".out2.h5.1.part").write_text("of a run on another file")
    with journal.Journal(tmp_path / "out.h5", "key"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.h5.journal", ".out2.h5.1.part"]


def test_a_journal_that_was_taken_away_while_it_was_waited_for_is_no_lock(tmp_path, monkeypatch):
    target = tmp_path / "out.h5"
    opened = os.open

    def taken_away(path, *flags):
        file = opened(path, *flags)
        monkeypatch.undo()
        Path(path).unlink()
        return file

    monkeypatch.setattr(os, "open", taken_away)
    with journal.Journal(target, "key") as held:
        assert held.path.exists(), "What is locked is the file that other runs find."


if __name__ == "__main__":
    kill_before(*STAGES[sys.argv[1]])
    deflare(Path(sys.argv[2]), "out.h5")
