"""Folders that a process was filling when it was killed: the next one takes them away."""

import signal
import tempfile

from support.killed_run import kill_before
from support.processes import Started

from deflare_core.system.unfinished import MARK, temporary_folder


def be_killed_at_the_end(parent):
    tempfile.tempdir = str(parent)
    kill_before(tempfile.TemporaryDirectory, "cleanup", 1)
    with temporary_folder() as folder:
        (folder / "copy").mkdir()
        (folder / "copy" / "data").touch()
        (folder / "data").touch()


def test_a_process_killed_while_it_clears_its_folder_leaves_what_the_next_one_finds(tmp_path, monkeypatch):
    (parent := tmp_path / "temporary").mkdir()
    run = Started(be_killed_at_the_end, parent, folder=tmp_path / "streams")
    assert run.wait() == -signal.SIGKILL, run.err
    (left,) = parent.iterdir()
    assert [path.name for path in left.iterdir()] == [MARK]
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    with temporary_folder() as folder:
        assert list(parent.iterdir()) == [folder]
    assert not list(parent.iterdir())
