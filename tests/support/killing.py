"""Killing: a command is ended by a signal in the middle of its work, and must come to the same end when run again."""

import math
import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from support.commands_at_work import Work
from support.processes import Started
from support.waiting import poll

MARK = "DEFLARE_CAMPAIGN"
"""The environment variable by which all processes of a trial are known."""


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: the folder that it began with, what stood there at its end, and what it took of time.

    `used_s` are seconds of a processor: what else a machine does makes little difference to them.
    """

    begun: Path
    digests: dict[str, str]
    seconds: float
    used_s: float


class Stop(NamedTuple):
    """A signal, and after how many seconds of a processor that a run has used it is sent."""

    after_s: float
    number: signal.Signals


@dataclass
class Found:
    """What the trials of a command have found; `faults` holds a line for each."""

    trials: int = 0
    stopped: list[int] = field(default_factory=lambda: [0, 0])
    """How many runs were stopped before their end, and how many of those that went on with them."""
    faults: list[str] = field(default_factory=list)


def run_whole(work: Work, folder: Path) -> Whole:
    """An undisturbed run in a folder of its own, the second one: the first also imports and compiles."""
    seconds, used_s, digests = 0.0, 0.0, []
    work.make(prepare(folder / "begun"))
    for name in ("first", "second"):
        place = copy_begun(folder / "begun", folder / "work")
        started = time.perf_counter()
        run = work.start(place, folder / name)
        used_s = watch(run)
        assert run.wait() == 0, run.err
        seconds = time.perf_counter() - started
        digests.append(work.digests(place))
    assert digests[0] == digests[1], "Two undisturbed runs are equal."
    return Whole(folder / "begun", digests[0], seconds, used_s)


def prepare(folder: Path) -> Path:
    """A new folder, in place of what stood there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def copy_begun(begun: Path, place: Path) -> Path:
    """A copy of the folder that a run begins with; times of files are kept, since they are part of what is known."""
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(begun, place, symlinks=True))


def try_stops(work: Work, whole: Whole, folder: Path, stops: Sequence[Stop], found: Found) -> None:
    """Stop a run, and each that goes on with it, as long as stops are given; let the next end, and note what is wrong.

    A run that ends before its stop is not gone on with but by the last.
    """
    place, temporary = copy_begun(whole.begun, folder / "work"), prepare(folder / "temporary")
    os.environ |= {MARK: f"{folder}-{found.trials}", "TMPDIR": str(temporary)}
    found.trials += 1
    about = ", then ".join(f"{stop.number.name} after {stop.after_s:.2f} s" for stop in stops)
    for k, stop in enumerate(stops):
        if not stop_run(work.start(place, folder / f"stopped-{found.trials}-{k}", again=k > 0), stop, about, found):
            break
        found.stopped[k] += 1
    again = work.start(place, folder / f"again-{found.trials}", again=True)
    if again.wait() != 0:
        found.faults.append(f"{about}: the next run fails: {again.err[-2_000:]}")
        return
    note_differences(work, whole, place, about, found)
    note_processes(about, found)
    if left := sorted(map(str, temporary.rglob("*"))):
        found.faults.append(f"{about}: temporary files are left: {left}")


def stop_run(run: Started, stop: Stop, about: str, found: Found) -> bool:
    """Whether a signal has stopped a run before its end; notes a traceback, and processes that are left."""
    run.wait_for((run.folder / "stderr").exists)
    watch(run, stop.after_s)
    run.send(stop.number)
    try:
        poll(lambda: not run.runs(), "the end", tries=400, pause_s=0.1)
    except AssertionError:
        found.faults.append(f"{about}: the signal is not heard in 40 s: {run.err[-500:]}")
        run.send_all(signal.SIGKILL)
    if "Traceback" in run.err:
        found.faults.append(f"{about}: a traceback: {run.err[-2_000:]}")
    note_processes(about, found)
    return run.wait() != 0


def watch(run: Started, until_s: float = math.inf) -> float:
    """The seconds of a processor that a run has used when it ends, or has used so many."""
    used_s = [0.0]

    def is_there() -> bool:
        used_s.append(max(used_s[-1], find_used_s(run.pid)))
        return used_s[-1] >= until_s or not run.runs()

    poll(is_there, "the moment", tries=100_000, pause_s=0.003)
    return used_s[-1]


def find_used_s(process: int) -> float:
    """The seconds of a processor that a process has used, and all that it has started."""
    try:
        folder = Path(f"/proc/{process}")
        ticks = map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:15])
        children = [child for file in folder.glob("task/*/children") for child in file.read_text().split()]
    except OSError:
        return 0.0
    return sum(ticks) / os.sysconf("SC_CLK_TCK") + sum(find_used_s(int(child)) for child in children)


def note_processes(about: str, found: Found) -> None:
    """Note the processes of a trial that do not end, and end them."""
    mark = os.environ[MARK]
    try:
        poll(lambda: not processes_of(mark), "the end of all processes", tries=200, pause_s=0.1)
    except AssertionError:
        left = processes_of(mark)
        found.faults.append(f"{about}: processes are left: {left}")
        for line in left:
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)


def note_differences(work: Work, whole: Whole, place: Path, about: str, found: Found) -> None:
    """Note where the second run has come to another end than an undisturbed one."""
    digests = work.digests(place)
    if gone := sorted(whole.digests.keys() - digests):
        found.faults.append(f"{about}: files are missing: {gone}")
    more = [name for name in sorted(digests.keys() - whole.digests) if not re.fullmatch(work.may_be_more, name)]
    more += [name for name in digests if ".part" in name and name not in more]
    if more:
        found.faults.append(f"{about}: files are left: {more}")
    if other := sorted(name for name in digests.keys() & whole.digests if digests[name] != whole.digests[name]):
        found.faults.append(f"{about}: other bytes in {other}")


def processes_of(mark: str) -> list[str]:
    """The processes, and what they run, that belong to a trial."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(f"{folder.name} {(folder / 'cmdline').read_bytes()[:200]!r}")
        except OSError:
            continue
    return found
