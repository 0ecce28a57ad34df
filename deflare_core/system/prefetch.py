"""Prefetching: an iterable's items, made by another thread while the ones before are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")
END = object()
"""What the iterator gives when it has no more items; None is an item like any other."""


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
