"""Worker processes: functions called in other processes, or at once in this one, in the same words."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
Submit = Callable[..., "Future[Any]"]
"""Takes a function and its arguments; what it gives has, or will have, the result."""


@contextmanager
def worker_processes(count: int) -> Iterator[Submit]:
    """What calls functions in so many processes; with none, in this one and at once.

    The processes are started anew, not forked, so that this one may use a GPU. When the block is left, what has not
    begun is forgotten.

    Raises
    ------
    ValueError
        When one of the processes was killed.
    """
    if not count:
        yield _call
        return
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_follow)
    try:
        yield pool.submit
    except BrokenProcessPool as error:
        raise ValueError(
            f"One of {count} processes was killed, as when memory does not suffice; lower workers, or set it to 0."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def late(items: Iterable[Item], count: int) -> Iterator[Item]:
    """The same items, each given when `count` later ones have been made."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def is_worker() -> bool:
    """Whether this process works for another one, beside others."""
    return parent_process() is not None


def _follow() -> None:
    """Let the process that started this one decide when it ends: leave Ctrl-C to it, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "Only a worker follows."
    parent.join()
    os._exit(1)


def completed(result: Any) -> Future[Any]:
    """What has the result already."""
    done: Future[Any] = Future()
    done.set_result(result)
    return done


def failed(error: Exception) -> Future[Any]:
    """What raises the error where its result is asked for."""
    done: Future[Any] = Future()
    done.set_exception(error)
    return done


def _call(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    return completed(function(*arguments))
