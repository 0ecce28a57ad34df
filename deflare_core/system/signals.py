"""Signals that stop a run: noticed between two steps, raised as an exception, or held back while it must not stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SOON_S = 0.01
"""After how long a signal is sent again: by then Python has freed what it was freeing."""
Handler = Callable[[int, FrameType | None], Any]


@dataclass
class StopFlag:
    """The name of the signal that has asked the run to stop, or nothing."""

    signal: str = ""


@contextmanager
def replace_handlers(handle: Handler, *numbers: signal.Signals) -> Iterator[dict[signal.Signals, Any]]:
    """Give the signals this handler inside the block; yields the ones that they had, by signal."""
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def flag_stop_signals() -> Iterator[StopFlag]:
    """Let SIGINT and SIGTERM set a flag inside the block, and nothing else; a second SIGINT interrupts at once.

    A second SIGTERM does not: a scheduler and torchrun may both send one.
    """
    flag = StopFlag()

    def handle(number: int, frame: FrameType | None) -> None:
        flag.signal = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    with replace_handlers(handle, *STOP_SIGNALS) as before:
        yield flag


class Terminated(SystemExit):
    """SIGTERM as an exception, on whose way out everything is cleaned up as after Ctrl-C."""

    code: int


@contextmanager
def raise_termination() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` inside the block.

    One that comes while the first is cleaned up after is ignored: a scheduler and torchrun may both send one.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if not isinstance(sys.exception(), Terminated):
            raise Terminated(128 + number)

    with replace_handlers(handle, signal.SIGTERM):
        yield


@contextmanager
def resend_dropped() -> Iterator[None]:
    """Send a signal again inside the block if Python drops its exception, as it does while it frees an object."""
    before = sys.unraisablehook

    def hear(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt | Terminated):
            return before(dropped)
        number = signal.SIGTERM if isinstance(dropped.exc_value, Terminated) else signal.SIGINT
        timer = threading.Timer(SOON_S, os.kill, (os.getpid(), number))  # Here it would be dropped too.
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hear
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def hold_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM take effect after the block: HDF5 crashes when the file that it writes to raises.

    Python handles signals in the main thread only, so there is nothing to hold in another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    try:
        with replace_handlers(lambda number, _: came.append(number), *STOP_SIGNALS):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


def ignore_signals(worker: int) -> None:
    """Leave a signal sent to all processes of a run, such as Ctrl-C, to the one that trains: it still needs data."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
