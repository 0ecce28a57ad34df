"""Worker processes: functions called in other processes, or at once in this one, in the same words."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from deflare_core.signals import ignore_signals

Item = TypeVar("Item")
Submit = Callable[..., "Future[Any]"]
"""Takes a function and its arguments; what it gives has, or will have, the result."""


@contextmanager
def processes(count: int) -> Iterator[Submit]:
    """What calls functions in so many processes; with none, in this one and at once.

    The processes are started anew, not forked, so that this one may use a GPU. When the block is left, what has not
    begun is forgotten.
    """
    if not count:
        yield _call
        return
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=ignore_signals, initargs=(0,))
    try:
        yield pool.submit
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


def _call(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(function(*arguments))
    return done
