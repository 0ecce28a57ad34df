"""Commands that are killed in the middle of their work: the next run gives the same bytes, and nothing is left.

`tests/campaigns/kills.py` kills every command at moments spread over its run; here each dies where most is at stake.
"""

import os
import signal
from pathlib import Path
from pkgutil import resolve_name

import pytest
from support.commands_at_work import WORKS
from support.killed_run import kill_before
from support.killing import MARK, Found, Whole, copy_begun, note_differences, note_processes, prepare
from support.processes import Started

STAGES = {
    "convert": [
        ("the events are written", "deflare_core.io.writer:RecordingWriter", "_finish", 1),
        ("the file is given its name", "deflare_core.system.atomic_files", "_replace", 1),
    ],
    "evaluate": [("the page of the report is made", "deflare_core.show.report", "make_page", 1)],
    "notebook": [("the third cell runs", "papermill.clientwrap:PapermillNotebookClient", "execute_cell", 3)],
}
"""Just before which call of which function a command is killed, the first or a later one."""


@pytest.mark.parametrize("name", STAGES)
def test_the_run_after_a_killed_one_ends_as_if_it_had_not_been(name, tmp_path, monkeypatch):
    work, found = WORKS[name], Found()
    work.make(prepare(tmp_path / "begun"))
    undisturbed = work.start(copy_begun(tmp_path / "begun", tmp_path / "work"), tmp_path / "undisturbed")
    assert undisturbed.wait() == 0, undisturbed.err
    whole = Whole(tmp_path / "begun", work.digests(tmp_path / "work"), seconds=0, used_s=0)
    monkeypatch.setenv(MARK, str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    for about, *call in STAGES[name]:
        place, temporary = copy_begun(whole.begun, tmp_path / "work"), prepare(tmp_path / "temporary")
        killed = Started(run_until, name, place, *call, folder=tmp_path / "killed")
        assert killed.wait() == -signal.SIGKILL, f"It was to be killed before {about}: {killed.err}"
        note_processes(about, found)
        again = work.start(place, tmp_path / "again", again=True)
        assert again.wait() == 0, again.err
        note_processes(about, found)
        note_differences(work, whole, place, about, found)
        assert list(temporary.rglob("*")) == [], f"No temporary file is left where it was killed before {about}."
    assert found.faults == []


def run_until(command: str, place: Path, owner: str, name: str, count: int) -> None:
    """Run a command at work in its folder, and be killed before a call of a function."""
    kill_before(resolve_name(owner), name, count)
    os.chdir(place)
    WORKS[command].run(WORKS[command].words.split())
