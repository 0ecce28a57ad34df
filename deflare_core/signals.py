"""Signals that stop a run: noticed between two steps, so that the step under way is finished and saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopFlag:
    """The name of the signal that has asked the run to stop, or nothing."""

    signal: str = ""


@contextmanager
def stop_requested() -> Iterator[StopFlag]:
    """A flag that SIGINT or SIGTERM sets.

    A second SIGINT interrupts at once. A second SIGTERM does not: a scheduler and torchrun may both send one.
    """
    flag = StopFlag()

    def handle(number: int, frame: FrameType | None) -> None:
        flag.signal = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals(worker: int) -> None:
    """Leave a signal sent to all processes of a run, such as Ctrl-C, to the one that trains: it still needs data."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
