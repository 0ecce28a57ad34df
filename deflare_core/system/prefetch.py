"""Working ahead: an iterable's items made by a thread of its own, while the ones before are used."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from queue import Full, Queue
from typing import TypeVar

Item = TypeVar("Item")
PATIENCE_S = 0.05
"""How long a thread waits for a place in the queue before it looks whether it is still wanted."""


def ahead(items: Iterable[Item], size: int = 2) -> Generator[Item, None, None]:
    """The same items in the same order, made up to `size` ahead; an error in making one comes out in its place."""
    made: Queue[tuple[bool, object]] = Queue(size)
    unwanted = threading.Event()
    thread = threading.Thread(target=_make, args=(items, made, unwanted), daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = made.get()
            if is_item:
                yield value  # type: ignore[misc]
            elif value is None:
                return
            else:
                raise value  # type: ignore[misc]
    finally:
        unwanted.set()
        thread.join()


def _make(items: Iterable[Item], made: Queue[tuple[bool, object]], unwanted: threading.Event) -> None:
    """Put the items into the queue, and at the end nothing or what went wrong."""
    end: BaseException | None = None
    try:
        for item in items:
            if not _put(made, (True, item), unwanted):
                return
    except BaseException as error:
        end = error
    _put(made, (False, end), unwanted)


def _put(made: Queue[tuple[bool, object]], value: tuple[bool, object], unwanted: threading.Event) -> bool:
    """Whether the value found a place before it became unwanted."""
    while not unwanted.is_set():
        try:
            made.put(value, timeout=PATIENCE_S)
        except Full:
            continue
        return True
    return False
