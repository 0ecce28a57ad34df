"""Processes for tests: forked from a server that has imported the program once, so that each starts in milliseconds."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from pathlib import Path

from deflare_core.app.commands import main
from support.waiting import poll

SERVER = multiprocessing.get_context("forkserver")
# What the commands import, down to what they import late; a name that cannot be imported costs time, and no more.
PRELOADED = (
    "support.processes",
    "deflare_core.app.infer",
    "deflare_core.app.recordings",
    "deflare_core.app.runs",
    "deflare_core.app.simulate",
    "deflare_core.show.debug",
    "support.killed_run",
)
SERVER.set_forkserver_preload(list(PRELOADED))


def start_server() -> None:
    """Start the server where it does not run: it needs a short path for temporary files."""
    forkserver.ensure_running()


class Started:
    """A function or command that runs in a process of its own, which leads a group; its output goes to two files."""

    def __init__(self, function: Callable[..., object], *arguments: object, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        given = (function, arguments, folder, dict(os.environ), Path.cwd())
        self._process = SERVER.Process(target=_work, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process, and its group."""
        return self._process.pid

    @property
    def out(self) -> str:
        """What it has written to standard output."""
        return (self.folder / "stdout").read_text()

    @property
    def err(self) -> str:
        """What it has written to standard error."""
        return (self.folder / "stderr").read_text()

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def wait(self) -> int:
        """Return the exit status, -9 after SIGKILL, once it has ended."""
        self._process.join(300)
        assert not self.runs(), f"The process has not ended: {self.err}"
        return self._process.exitcode

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Return when the condition is true; it must become so while the process runs."""
        poll(lambda: condition() or not self.runs(), "what the process should come to")
        assert condition(), f"The process ended too early for the test: {self.err}"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def send_all(self, number: signal.Signals) -> None:
        """Send a signal to what still runs of it and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def start_command(words: Sequence[object], folder: Path) -> Started:
    """A command of the program that has been started in a process of its own, as `deflare WORDS` would."""
    return Started(main, [str(word) for word in words], folder=folder)


def _work(
    function: Callable[..., object], arguments: tuple, folder: Path, environment: dict[str, str], place: Path
) -> None:
    """Call the function where a program of its own would run, and end with its result as the exit status."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests behind has it ignored
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(place)
    tempfile.tempdir = None  # the server's own may be kept there
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    sys.exit(function(*arguments))
