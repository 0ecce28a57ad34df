"""Runs that are killed at every stage: what stands at the output is complete or nothing, and the next run finishes."""

import os
import signal
from pathlib import Path

import pytest
from support.killed_run import STAGES, deflare, deflare_until
from support.processes import Started
from support.recordings import make_events

from deflare_core.deflaring import journal
from deflare_core.io.convert import convert
from deflare_core.io.recordings import save_events

NUM_WINDOWS = 10


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a recording, and what an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    save_events(folder / "in.h5", make_events(num=9_000, duration_us=NUM_WINDOWS * 20_000), source="test")
    return folder, deflare(folder, "whole.h5")


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_at_any_stage_ends_as_if_it_had_not_been(whole, stage, tmp_path):
    folder, expected = whole
    run = Started(deflare_until, stage, folder, folder=tmp_path)
    assert run.wait() == -signal.SIGKILL, f"The run was to be killed before {stage}: {run.err}"
    out = folder / "out.h5"
    assert not out.exists() or out.read_bytes() == expected, "The output is complete or absent."
    assert deflare(folder, "out.h5") == expected, "The next run gives the bytes of an undisturbed one."
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["in.h5", "out.h5", "whole.h5"], "It clears away what the killed one left."
    out.unlink()


def test_a_run_does_not_take_another_runs_file_away(tmp_path):
    (tmp_path / ".out.h5.99999999.part").write_text("of a killed run")
    (tmp_path / ".out2.h5.1.part").write_text("of a run on another file")
    with journal.Journal(tmp_path / "out.h5", "key"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.h5.journal", ".out2.h5.1.part"]


@pytest.mark.parametrize("name", ["out.h5", "out.csv"])
def test_what_a_killed_run_of_another_command_left_is_cleared_by_the_next(tmp_path, name):
    save_events(tmp_path / "in.h5", make_events(num=9), source="test")
    gone = Started(os.getpid, folder=tmp_path / "streams")
    gone.wait()
    (tmp_path / f".{name}.{gone.pid}.part").write_text("of a process that was killed")
    (tmp_path / f".{name}.{os.getppid()}.part").write_text("of one that runs")
    convert(tmp_path / "in.h5", tmp_path / name, progress=False)
    left = sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".part")
    assert left == [f".{name}.{os.getppid()}.part"]


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
