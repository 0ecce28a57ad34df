"""Trials: what becomes of functions that end, fail, crash or hang, in a copy of this process."""

import ctypes
import os
import signal
import time

import pytest

from deflare_core.system import trials
from deflare_core.system.trials import find_failure


def fail() -> None:
    raise ValueError


@pytest.mark.parametrize("function", [int, fail, lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGINT)])
def test_what_comes_to_an_end_is_no_failure(function, capfd):
    assert find_failure(function) == ""
    assert capfd.readouterr() == ("", ""), "A trial says nothing."


def test_a_crash_is_told_by_its_signal(capfd):
    assert find_failure(lambda: ctypes.string_at(0)) == "crashes (SIGSEGV)"
    assert find_failure(os.abort) == "crashes (SIGABRT)"
    assert capfd.readouterr() == ("", "")


def test_what_waits_for_ever_is_stopped(monkeypatch):
    monkeypatch.setattr(trials, "MOST_WAITED_SECONDS", 0.01)
    assert find_failure(signal.pause) == "comes to no end"


def test_a_trial_that_asks_for_time_gets_it():
    def compute() -> None:
        trials.allow_seconds(1e9)
        time.sleep(0)

    assert find_failure(compute) == ""


def test_nothing_stays_of_a_trial_that_is_interrupted(monkeypatch):
    started = []

    def interrupt(child: int, options: int) -> tuple[int, int]:
        started.append(child)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "waitpid", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_failure(signal.pause)
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def test_a_signal_that_comes_while_the_process_is_copied_is_heard(capfd):
    coming = [signal.SIGINT]
    os.register_at_fork(after_in_parent=lambda: coming and signal.raise_signal(coming.pop()))
    with pytest.raises(KeyboardInterrupt):
        find_failure(int)
    assert capfd.readouterr() == ("", ""), "Python says nothing of an exception that it has dropped."
