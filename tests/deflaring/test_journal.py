"""The journal of a long run: what it notes comes back, what was cut off does not, and one run holds it at a time."""

import errno
import os
import resource
import signal
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.recordings import make_events, same_events

from deflare_core.codec import merge_events
from deflare_core.deflaring.journal import FIRST_LINE, KEY_BYTES, Journal
from deflare_core.io.recordings import RecordingError


def window(seed: int, num: int, num_added: int):
    recorded, added = make_events(seed, num), make_events(seed + 1, num_added)
    kept = np.random.default_rng(seed).uniform(size=num) < 0.7
    return recorded, merge_events(recorded[kept], added, kept)


WINDOWS = [window(1, 1000, 3), window(5, 0, 0), window(9, 17, 400)]


def note(target, windows=WINDOWS, key="key"):
    with Journal(target, key) as journal:
        for _, applied in windows:
            journal.append(applied)
        return journal.path


def test_what_was_noted_comes_back(tmp_path):
    path = note(tmp_path / "out.h5")
    with Journal(tmp_path / "out.h5", "key") as journal:
        assert journal.num_done == 3
        for (recorded, expected), decision in zip(WINDOWS, journal.decisions(), strict=True):
            found = decision.apply(recorded)
            assert same_events(found.events, expected.events)
            assert np.array_equal(found.kept, expected.kept)
            assert np.array_equal(found.synthesised, expected.synthesised)
        journal.append(WINDOWS[0][1])
    assert path.stat().st_size < 2 * KEY_BYTES + 3 * 20 + 2 * 160 + 403 * 13 + 50, (
        "A bit for each event, 13 bytes added."
    )
    with Journal(tmp_path / "out.h5", "key") as journal:
        assert journal.num_done == 4, "A journal is gone on with."


def test_a_journal_of_other_work_is_begun_again(tmp_path):
    note(tmp_path / "out.h5")
    with Journal(tmp_path / "out.h5", "another network") as journal:
        assert journal.num_done == 0
    with Journal(tmp_path / "out.h5", "key") as journal:
        assert journal.num_done == 0, "And the old one is gone."


@example(cut=0, flipped=236)
@given(cut=st.integers(0, 5800), flipped=st.integers(0, 5800))
def test_what_was_cut_off_or_damaged_is_made_again(tmp_path_factory, cut, flipped):
    target = tmp_path_factory.mktemp("journal") / "out.h5"
    path = note(target)
    raw = bytearray(path.read_bytes())
    raw[max(flipped % len(raw), len(FIRST_LINE))] ^= 4
    path.write_bytes(raw[: len(raw) - cut % len(raw)])
    with Journal(target, "key") as journal:
        for (recorded, expected), decision in zip(WINDOWS, journal.decisions(), strict=False):
            assert same_events(decision.apply(recorded).events, expected.events), "Whole records are true ones."
        for _, applied in WINDOWS[journal.num_done :]:
            journal.append(applied)
    with Journal(target, "key") as journal:
        assert journal.num_done == 3


def test_what_has_the_journals_name_and_is_none_stays(tmp_path):
    path, other = tmp_path / ".out.h5.journal", tmp_path / "kept"
    for make in (
        path.symlink_to,
        path.hardlink_to,
        lambda to: path.write_bytes(to.read_bytes()),
        lambda _: os.mkfifo(path),
    ):
        other.write_bytes(b"of the user")
        make(other)
        with pytest.raises(RecordingError, match=r"\.out\.h5\.journal: is .*; move it, or name another output"):
            Journal(tmp_path / "out.h5", "key").__enter__()
        assert other.read_bytes() == b"of the user"
        path.unlink()


def test_only_what_dead_processes_left_is_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    kept = [".out.h5.my-notes.part", f".out.h5.x.h5.{dead.pid}.part", f".out.h5.{os.getppid()}.part", ".out.h5.part"]
    # In a container the killed run may have had this process's number.
    for name in [*kept, f".out.h5.{dead.pid}.part", f".out.h5.{os.getpid()}.part"]:
        (tmp_path / name).write_bytes(b"begun")
    note(tmp_path / "out.h5")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, ".out.h5.journal"}


def test_one_run_holds_it_at_a_time(tmp_path):
    with Journal(tmp_path / "out.h5", "key"):
        with pytest.raises(RecordingError, match=r"out\.h5: another run is writing this file"):
            Journal(tmp_path / "out.h5", "key").__enter__()
        assert not (tmp_path / "out.h5").exists()


def test_a_full_disk_names_the_journal_and_keeps_what_was_noted(tmp_path):
    path = note(tmp_path / "out.h5")
    size, limits = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limits[1]))
        with (
            pytest.raises(OSError, match=r"\.out\.h5\.journal: cannot be written .*; make room for it"),
            Journal(tmp_path / "out.h5", "key") as journal,
        ):
            journal.append(WINDOWS[0][1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    with Journal(tmp_path / "out.h5", "key") as journal:
        assert journal.num_done == 3, "The record that did not fit is made again."


def caused_by(cause):
    error = RecordingError("stop")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (KeyboardInterrupt(), True),
        (OSError(), True),
        (caused_by(OSError(errno.EIO, "Input/output error")), True),
        (caused_by(torch.cuda.OutOfMemoryError("CUDA out of memory.")), True),
        (caused_by(ValueError("Time must not go backwards")), False),
        (RecordingError("stop"), False),
        (ValueError("a bug"), True),
    ],
)
def test_only_an_unfit_input_takes_it_away(tmp_path, error, stays):
    with pytest.raises(type(error)), Journal(tmp_path / "out.h5", "key") as journal:
        raise error
    assert journal.path.exists() == stays, "A failure that may pass keeps what was decided so far."
