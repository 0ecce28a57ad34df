"""Prefetching: an iterable's items, made by another thread or process while the ones before are used."""

from __future__ import annotations

import pickle
import queue
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from pathlib import Path
from tempfile import gettempdir
from threading import Event
from typing import Any, NamedTuple, TypeVar, cast

from deflare_core.system.errors import DeflareError
from deflare_core.system.signals import ignore_signals
from deflare_core.system.unfinished import temporary_folder
from deflare_core.system.workers import follow_parent

Item = TypeVar("Item")
END = object()
"""What the iterator gives when it has no more items; None is an item like any other."""
LOOK_AGAIN_S = 5.0
"""How often to look whether a process that gives nothing still lives, seconds."""
AT_EXIT = 0
"""Priority of what multiprocessing does before it waits for processes."""
MOST_LETTERS = 60
"""Of a folder for temporary files in which a socket can be made: its path has at most 107 bytes."""


class _End:
    """Follows the last item of a process."""


class _Failed(NamedTuple):
    """Comes in place of the item in whose making an error was raised."""

    error: Exception


def prefetch(items: Iterable[Item], size: int = 2) -> Generator[Item, None, None]:
    """Yield the items in their order, up to `size` of them made ahead; an error in making one is raised in its place.

    Close the generator where the rest is not wanted: it then waits for the item that is being made, and drops it. With
    it, items that are a generator are closed.
    """
    iterator, thread = iter(items), ThreadPoolExecutor(1)
    made: deque[Future[object]] = deque()
    try:
        made.extend(thread.submit(next, iterator, END) for _ in range(size))
        while (item := made[0].result()) is not END:
            made.popleft()
            made.append(thread.submit(next, iterator, END))
            yield cast(Item, item)
    finally:
        with ExitStack() as ending:
            if isinstance(iterator, Generator):
                ending.callback(iterator.close)
            ending.callback(thread.shutdown)
            for _ in range(2):  # A signal's exception may end the first wait; a generator that runs cannot be closed.
                ending.callback(_drop_items, made)


def _drop_items(made: Iterable[Future[object]]) -> None:
    wait([item for item in made if not item.cancel()])


def load_items(loader: Iterable[Item]) -> Generator[Item, None, None]:
    """Yield the items of a torch `DataLoader`, and end its processes at the end, at an error, and when closed.

    The loader's own iterator ends them when nothing refers to it any more. The traceback of an error does, as long as
    a notebook or a test keeps it, and this process would wait for them at its end.

    Raises
    ------
    DeflareError
        When a process raised one; it says what it said there.
    """
    return _yield_items(iter(loader))  # Processes are copies of the thread that calls this: one of a pool fails to end.


def _yield_items(iterator: Iterator[Item]) -> Generator[Item, None, None]:
    try:
        yield from iterator
    except DeflareError as error:
        raise type(error)(_find_words(str(error))) from None
    finally:
        if hasattr(iterator, "_shutdown_workers"):  # One without processes has none to end.
            iterator._shutdown_workers()


def _find_words(message: str) -> str:
    """What an error said in the process that raised it: the last line of the traceback that torch makes its message."""
    if "\nOriginal Traceback" not in message:
        return message
    return message.rstrip("\n").rpartition("\n")[2].partition(": ")[2]


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
    is_short = len(gettempdir()) <= MOST_LETTERS
    with temporary_folder(None if is_short else Path("/tmp")) as folder:
        process = context.Process(target=_make_items, args=(make, made, folder))
        process.start()
        # At its end Python waits for processes before it closes a generator that somebody has kept.
        end = Finalize(None, _end_process, (process,), exitpriority=AT_EXIT)
        try:
            yield from _take_items(made, process)
        finally:
            end()


def _end_process(process: BaseProcess) -> None:
    process.kill()  # It ignores gentler signals, which may be sent to all processes of a run.
    process.join()


def _take_items(made: Any, process: BaseProcess) -> Generator[Any, None, None]:
    """Yield the items that a process puts into a queue."""
    while True:
        try:
            item = pickle.loads(made.get(timeout=LOOK_AGAIN_S))
        except (queue.Empty, OSError, EOFError) as error:
            if not process.is_alive():
                raise DeflareError(
                    f"A process that makes items ahead ended with exit code {process.exitcode}; run it again with "
                    "less work at once if memory was short."
                ) from None
            if isinstance(error, queue.Empty):
                continue
            raise
        if isinstance(item, _Failed):
            raise item.error
        if isinstance(item, _End):
            return
        yield item


def _make_items(make: Callable[[], Iterable[Item]], made: Any, folder: Path) -> None:
    """Put every item, and what ends them, into the queue; end with the process that takes them."""
    follow_parent()
    ignore_signals(0)
    tempfile.tempdir = str(folder)  # Tensors pass through a socket there, which a process that is killed leaves.

    def put(item: object) -> None:
        # The queue's own thread would print an error of this, and leave the item out.
        made.put(bytes(ForkingPickler.dumps(item)))

    try:
        for item in make():
            put(item)
        put(_End())
    except Exception as error:
        put(_Failed(error))
    Event().wait()  # Tensors that have not been taken end with the process; it is killed when they have.
