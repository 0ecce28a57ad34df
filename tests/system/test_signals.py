"""Processes that get a signal at an awkward moment: they end, clean up, and say so."""

import os
import signal
import sys
from pathlib import Path

import pytest
from support.processes import Started, start_command, start_server
from support.recordings import make_events
from support.waiting import poll

from deflare_core.io.convert import convert
from deflare_core.io.recordings import open_recording
from deflare_core.io.writer import RecordingWriter
from deflare_core.system.atomic_files import EnduringFile
from deflare_core.system.signals import Terminated, hold_signals, raise_termination, resend_dropped


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files of this process and those that it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    start_server()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def long_text(path: Path) -> Path:
    with RecordingWriter(path.with_suffix(".h5"), (120, 160), source="test") as writer:
        for k in range(150):
            writer.append(make_events(seed=k, num=5_000, sensor_size=(120, 160), t_start_us=k * 20_000))
    convert(path.with_suffix(".h5"), path, progress=False)
    return path


@pytest.mark.parametrize("moment", ["the copy is written", "windows are deflared"])
def test_a_terminated_run_leaves_no_temporary_copy(tmp_path, temporary, moment):
    source, out = long_text(tmp_path / "in.csv"), tmp_path / "out.h5"
    run = start_command(["infer", "--input", source, "--output", out, "device=cpu"], tmp_path / "streams")
    begun = {"the copy is written": (temporary, "deflare-*/.*.part"), "windows are deflared": (tmp_path, ".*.journal")}
    folder, pattern = begun[moment]
    run.wait_for(lambda: list(folder.glob(pattern)))
    run.send(signal.SIGTERM)
    assert run.wait() == 143, run.err
    assert run.err.splitlines()[-1].startswith("deflare infer: interrupted"), run.err
    assert list(temporary.glob("deflare-*")) == [], "The temporary copy is gone."
    assert {path.name for path in tmp_path.iterdir()} <= {"in.h5", "in.csv", "temporary", "streams", ".out.h5.journal"}


def test_an_open_copy_has_no_name_that_a_killed_process_could_leave(tmp_path, temporary):
    with open_recording(long_text(tmp_path / "in.npz")) as recording:
        assert list(temporary.iterdir()) == []
        assert len(recording.load()) == 750_000, "It is read all the same."


def test_a_second_sigterm_does_not_disturb_the_clean_up():
    before, cleaned = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(Terminated), raise_termination():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)
    assert cleaned, "It went on to its end."
    assert signal.getsignal(signal.SIGTERM) == before, "The handler that was there is back."


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_that_is_held_takes_effect_afterwards(number, error):
    done = []
    with pytest.raises(error), raise_termination(), hold_signals():
        signal.raise_signal(number)
        done.append(True)
    assert done, "The block is not interrupted."


class Freed:
    """What gets a signal while it is freed."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_that_comes_while_an_object_is_freed_takes_effect_soon(number, error, capfd):
    with pytest.raises(error), raise_termination(), resend_dropped():
        Freed(number)
        poll(lambda: False, "the signal that is sent again")
    assert capfd.readouterr() == ("", ""), "Nothing is said of it."


def test_an_interrupted_write_does_not_crash_hdf5(tmp_path):
    run = Started(write_interrupted, tmp_path / "out.h5", folder=tmp_path / "streams")
    assert run.wait() == 0, run.err
    assert int(run.out) > 10, "It was interrupted at many writes."
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"out.h5", "streams"}, "And left nothing but the last, complete file."


def interrupt_at(count: int) -> None:
    """Let the process get SIGINT at the write of this number, counted from now."""
    write, calls = EnduringFile.write, []

    def interrupting(file: EnduringFile, data: object) -> int:
        calls.append(1)
        if len(calls) == count:
            EnduringFile.write = write
            os.kill(os.getpid(), signal.SIGINT)
        return write(file, data)

    EnduringFile.write = interrupting


def write_interrupted(path: Path) -> None:
    """Write at how many writes the writing of a recording was interrupted; the next attempt succeeded."""
    count = 0
    while not path.exists():
        count += 1
        interrupt_at(count)
        try:
            with RecordingWriter(path, (12, 16), source="test") as writer:
                for k in range(5):
                    writer.append(make_events(seed=k, num=70_000, t_start_us=k * 20_000))
        except KeyboardInterrupt:
            continue
    sys.stdout.write(str(count))
