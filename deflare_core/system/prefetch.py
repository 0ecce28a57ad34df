"""Prefetching: an iterable's items, made by another thread or process while the ones before are used."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

from deflare_core.system.errors import DeflareError
from deflare_core.system.signals import ignore_signals

Item = TypeVar("Item")
END = object()
"""What the iterator gives when it has no more items; None is an item like any other."""
LOOK_AGAIN_S = 5.0
"""How often to look whether a process that gives nothing still lives, seconds."""


class _End:
    """Follows the last item of a process."""


class _Failed(NamedTuple):
    """Comes in place of the item in whose making an error was raised."""

    error: Exception


def prefetch(items: Iterable[Item], size: int = 2) -> Generator[Item, None, None]:
    """Yield the items in their order, up to `size` of them made ahead; an error in making one is raised in its place.

    Close the generator where the rest is not wanted: it then waits for the item that is being made, and drops it.
    """
    iterator, thread = iter(items), ThreadPoolExecutor(1)
    try:
        made: deque[Future[object]] = deque(thread.submit(next, iterator, END) for _ in range(size))
        while (item := made.popleft().result()) is not END:
            made.append(thread.submit(next, iterator, END))
            yield cast(Item, item)
    finally:
        thread.shutdown(cancel_futures=True)


def prefetch_from_process(make: Callable[[], Iterable[Item]], size: int) -> Generator[Item, None, None]:
    """Yield the items of what `make` returns in a process of its own, up to `size` of them made ahead.

    For work that a thread would do slowly, since Python runs one thread at a time. Items are pickled; tensors on the
    processor pass without a copy. Close the generator where the rest is not wanted: it ends the process.

    Raises
    ------
    DeflareError
        When the process ends before its time; an error in making an item is raised in its place.
    """
    import torch.multiprocessing  # Half a second: not before it is needed.

    context = torch.multiprocessing.get_context("spawn")
    made: Any = context.Queue(size)
    process = context.Process(target=_make_items, args=(make, made))
    process.start()
    try:
        while True:
            try:
                item = made.get(timeout=LOOK_AGAIN_S)
            except queue.Empty:
                if process.is_alive():
                    continue
                raise DeflareError(
                    f"A process that makes items ahead ended with exit code {process.exitcode}; run it again with less "
                    "work at once if memory was short."
                ) from None
            if isinstance(item, _Failed):
                raise item.error
            if isinstance(item, _End):
                return
            yield item
    finally:
        process.kill()  # It ignores gentler signals, which may be sent to all processes of a run.
        process.join()


def _make_items(make: Callable[[], Iterable[Item]], made: Any) -> None:
    """Put every item, and what ends them, into the queue; end with the process that takes them."""
    ignore_signals(0)
    try:
        for item in make():
            _put(item, made)
        _put(_End(), made)
    except Exception as error:
        _put(_Failed(error), made)


def _put(item: object, made: Any) -> None:
    """Put an item into the queue once there is room; end this process if its parent was killed meanwhile."""
    parent = multiprocessing.parent_process()
    while True:
        try:
            return made.put(item, timeout=LOOK_AGAIN_S)
        except queue.Full:
            if parent and not parent.is_alive():
                os._exit(1)
