"""Worker processes: functions called in other processes, or in this one, through one interface."""

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

from deflare_core.system.errors import DeflareError

Item = TypeVar("Item")
Submit = Callable[..., "Future[Any]"]
"""Takes a function and its arguments, and gives a future of the result."""


class WorkerError(DeflareError):
    """A worker process that was killed; the message says what to lower."""


@contextmanager
def worker_processes(count: int) -> Iterator[Submit]:
    """Give a function that calls others in `count` processes; with 0 or 1, in this process and at once.

    The processes are spawned, not forked, so that this one may use a GPU. Calls that have not begun when the block is
    left are dropped. A process that was killed is a WorkerError.
    """
    if count <= 1:
        yield lambda function, *arguments: hold_result(function(*arguments))
        return
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=follow_parent)
    try:
        yield pool.submit
    except BrokenProcessPool as error:
        raise WorkerError(
            f"One of {count} processes was killed, as when memory does not suffice; lower workers, or set it to 1."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def delay_items(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Yield the items in their order, each when the `count` after it have been made."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def is_worker() -> bool:
    """Whether another process started this one to work for it."""
    return parent_process() is not None


def follow_parent() -> None:
    """Let the process that started this one decide when it ends: leave Ctrl-C to it, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "Only a worker follows."
    parent.join()
    os._exit(1)


def hold_result(result: Any) -> Future[Any]:
    """A future that has its result already."""
    done: Future[Any] = Future()
    done.set_result(result)
    return done


def hold_error(error: Exception) -> Future[Any]:
    """A future that raises the error where its result is asked for."""
    done: Future[Any] = Future()
    done.set_exception(error)
    return done
