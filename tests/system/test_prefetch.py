"""Prefetching by another thread, and by another process."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from support.processes import Started
from support.waiting import poll
from torch.utils.data import DataLoader, Dataset

from deflare_core.system.errors import DeflareError
from deflare_core.system.prefetch import load_items, prefetch, prefetch_from_process
from deflare_core.system.signals import ignore_signals


def test_items_come_in_their_order():
    assert list(prefetch(range(100))) == list(range(100))
    assert list(prefetch([])) == []
    assert list(prefetch([None, 0])) == [None, 0], "Nothing is an item like any other."


def test_an_error_comes_out_where_it_was_made():
    def broken():
        yield 1
        raise ValueError("the second item")

    found = prefetch(broken())
    assert next(found) == 1
    with pytest.raises(ValueError, match="the second item"):
        next(found)


def test_no_thread_is_left_when_the_rest_is_not_wanted():
    before = threading.active_count()
    made = []
    with closing(prefetch(made.append(k) or k for k in count())) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
    assert threading.active_count() == before
    assert len(made) < 10, "It works only a little ahead."


def test_a_generator_ends_with_its_prefetching_though_somebody_keeps_it():
    kept = (k for k in count())
    with closing(prefetch(kept)) as items:
        assert next(items) == 0
    assert list(kept) == []


def test_a_signal_while_it_ends_waits_for_the_item_too():
    begun, interrupted = threading.Event(), threading.Event()

    def make():
        yield 0
        begun.set()
        interrupted.wait(60)
        yield 1

    def interrupt(*_):
        interrupted.set()
        raise KeyboardInterrupt

    items = prefetch(made := make())
    assert next(items) == 0
    begun.wait(60)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(KeyboardInterrupt):
        items.close()
    signal.signal(signal.SIGALRM, before)
    assert list(made) == []


class Numbers(Dataset):
    """0, 1, 2 and no further."""

    def __getitem__(self, index):
        if index > 2:
            raise DeflareError(f"{index}: no such number.")
        return index


def load_numbers(num, workers):
    loader = DataLoader(
        Numbers(), batch_size=None, sampler=range(num), num_workers=workers, worker_init_fn=ignore_signals
    )
    return load_items(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_no_process_of_a_loader_is_left_though_its_error_is_kept(workers):
    assert list(load_numbers(3, workers)) == [0, 1, 2]
    with pytest.raises(DeflareError, match=r"^3: no such number\.$"):
        list(load_numbers(4, workers))
    kept = load_numbers(3, workers)
    assert next(kept) == 0
    kept.close()
    assert not multiprocessing.active_children()


def make_numbers(num, ends):
    yield os.getpid()
    yield from torch.arange(num)
    if ends == "raises":
        raise ValueError("no more numbers")
    if ends == "dies":
        os._exit(3)


def test_items_come_from_another_process(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        monkeypatch.setattr(tempfile, "tempdir", temporary)
        pid, *numbers = prefetch_from_process(partial(make_numbers, 3, "well"), size=2)
        assert not list(Path(temporary).iterdir()), "The socket through which tensors pass is taken away."
    assert pid != os.getpid()
    assert numbers == [0, 1, 2]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("ends", "error"), [("raises", "no more numbers"), ("dies", "ended with exit code 3")])
def test_what_ends_the_process_comes_out(ends, error, monkeypatch):
    monkeypatch.setattr("deflare_core.system.prefetch.LOOK_AGAIN_S", 0.1)
    with pytest.raises((ValueError, DeflareError), match=error):
        list(prefetch_from_process(partial(make_numbers, 1, ends), size=2))


def make_tensors():
    return (torch.full((3,), k) for k in count())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["short", "long" * 25])
def test_no_process_and_no_file_is_left_when_the_rest_is_not_wanted(name, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        (temporary := Path(parent, name)).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        with closing(prefetch_from_process(make_tensors, size=2)) as items:
            next(items)
            assert next(items).tolist() == [1, 1, 1]
        assert not multiprocessing.active_children()
        assert not list(temporary.iterdir())


@pytest.mark.slow
def test_an_item_that_cannot_pass_is_an_error():
    with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
        list(prefetch_from_process(make_functions, size=2))


def make_functions():
    yield lambda: None


def work_for_ever(folder):
    (folder / str(os.getpid())).touch()
    while True:
        pass


def take_for_ever(folder):
    next(prefetch_from_process(partial(work_for_ever, folder), size=2))


KEEPS = """
from itertools import count
from deflare_core.system.prefetch import prefetch_from_process
kept = prefetch_from_process(count, size=2)
next(kept)
"""


@pytest.mark.slow
def test_a_program_that_keeps_its_items_ends_all_the_same():
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        environment = {**os.environ, "TMPDIR": temporary}
        run = subprocess.run([sys.executable, "-c", KEEPS], env=environment, capture_output=True, timeout=60)
        assert (run.returncode, run.stderr) == (0, b"")
        assert not list(Path(temporary).iterdir()), "The folder of the socket is taken away."


@pytest.mark.slow
def test_the_process_ends_with_a_killed_one_while_it_makes_an_item(tmp_path):
    (tmp_path / "made").mkdir()
    run = Started(take_for_ever, tmp_path / "made", folder=tmp_path / "streams")
    run.wait_for(lambda: list((tmp_path / "made").iterdir()))
    (maker,) = (tmp_path / "made").iterdir()
    run.send(signal.SIGKILL)
    run.wait()
    poll(lambda: not Path("/proc", maker.name, "exe").exists(), "the end of the process that makes items")
