"""Kill every command at moments spread over its run, and print a table of what the next run found.

    PYTHONPATH=tests:. python tests/campaigns/kills.py [--moments 30] [--minutes 60] [COMMAND ...]

Moments are shares of the processor's time that an undisturbed run takes. Two of three are of SIGKILL, the others of
SIGTERM and SIGINT in turn; at every fourth the run that goes on is stopped too. `README.md` has the last table.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from support.commands_at_work import WORKS
from support.killing import Found, Stop, run_whole, try_stops
from support.processes import PRELOADED, SERVER, start_server

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGKILL)

HEAD = ("command", "undisturbed, s", "moments", "stopped before its end", "stopped again", "faults")


def try_command(name: str, moments: int, minutes: float, folder: Path) -> Found:
    """What was found when a command was stopped at so many moments from its start to its end, as far as time allows."""
    whole, found, end = run_whole(WORKS[name], folder), Found(), time.monotonic() + 60 * minutes
    for k in sorted(range(moments), key=lambda k: k * 0.618 % 1):  # Those of a short campaign are spread too.
        if time.monotonic() > end:
            break
        stops = [Stop((k + 0.5) / moments * whole.used_s, SIGNALS[k % len(SIGNALS)])]
        if k % 4 == 1:  # The run that goes on is stopped too.
            stops.append(Stop(k * 0.382 % 1 * whole.used_s, SIGNALS[(k // 4) % len(SIGNALS)]))
        try_stops(WORKS[name], whole, folder, stops, found)
    first, second = found.stopped
    say(f"| `{name}` | {whole.seconds:.1f} | {found.trials} | {first} | {second} | {len(found.faults)} |")
    for fault in found.faults:
        say(f"{name}: {fault}")
    return found


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run_campaign() -> int:
    """Print the table, and return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=60, help="the most for one command")
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(WORKS))
    given = parser.parse_args()
    say(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    num_faults = 0
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        os.environ["OMP_NUM_THREADS"] = "1"  # Threads that wait for each other use up a processor.
        SERVER.set_forkserver_preload([*PRELOADED, "support.commands_at_work", "deflare_core.app.notebook"])
        start_server()
        for name in given.commands or WORKS:
            num_faults += len(
                try_command(name, given.moments, given.minutes, Path(folder) / name.replace(" ", "_")).faults
            )
    return 1 if num_faults else 0


if __name__ == "__main__":
    sys.exit(run_campaign())
