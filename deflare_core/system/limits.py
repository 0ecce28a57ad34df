"""Limits: what no sensor and no recording exceeds, and the memory that this machine has left.

A few bytes of a file can ask for years of work or more memory than there is. Each number that a file or a setting gives
is compared with one of these before work starts.
"""

from __future__ import annotations

import resource
from pathlib import Path

from deflare_core.system.errors import DeflareError

MOST_PIXELS = 1 << 26
"""Pixels of a sensor, twice those of a film of 8K; the largest event camera has 4 million."""
MOST_ROWS = 1 << 16
"""Rows or columns of a sensor, since events hold each as 16 bits."""
HOUR_US = 3_600_000_000
LONGEST_US = 24 * HOUR_US
"""Microseconds of a recording: its index of milliseconds is made in memory, 8 bytes for each."""
MOST_EVENTS = 10**13
"""Events of a recording: a hundred million a second for all of its 24 hours."""
EVENT_BYTES = 26
"""Memory that an event takes at least while it is read or made: as it comes, and as it is given."""
MOST_WINDOWS = 1 << 24
"""Windows of a recording: 24 hours in windows of 5 ms."""
MOST_GROUPS = 10_000
"""Groups and datasets of an HDF5 file."""
DEEPEST_GROUP = 32
"""Groups of an HDF5 file that are in one another."""
MOST_BINS = 4096
"""Time bins of a window."""
MOST_MAPS = 4096
"""Feature maps of a level of a network."""
MOST_LEVELS = 12
MOST_CONTEXT = 64
"""Windows on each side that a network sees besides its own."""
MOST_PROCESSES = 1024
MOST_PAIRS = 1_000_000
"""Pairs of a data set."""
MOST_LINE_BYTES = 1 << 16
"""Bytes of a line of a text table."""
MOST_PACKET_BYTES = 1 << 28
"""Bytes of a packet of AEDAT4 once it is decompressed; those of cameras are a thousandth of it."""
MOST_HEADER_BYTES = 1 << 24
"""Bytes of what a file of weights says of its tensors; that of a network of a thousand layers takes a hundredth."""
LONGEST_SIDE = 1 << 14
"""Rows or columns of a film: H.264 has no more."""
LONGEST_GIF_SIDE = (1 << 16) - 1
MOST_INCHES = 200
"""Height of a figure, in inches of 110 pixels, so that a sensor of one column is no picture of gigabytes."""
FREE_BYTES = 1 << 26
"""What takes less memory than this is not asked about."""
CONTROL_GROUPS = Path("/sys/fs/cgroup")


def check_memory(num_bytes: float, what: str, advice: str) -> None:
    """Raise a DeflareError, with the figures, if something needs more memory than is left.

    Parameters
    ----------
    num_bytes : what it needs at least.
    what : what needs it, such as "5 windows of 480 x 640".
    advice : what to do about it.
    """
    if num_bytes > FREE_BYTES and num_bytes > (left := find_memory()):
        raise DeflareError(
            f"{what} would take at least {num_bytes / 1e9:,.1f} GB of memory, and {left / 1e9:,.1f} GB are left; "
            f"{advice}."
        )


def find_memory() -> float:
    """Bytes of memory that this process can still take: of the machine, its control group and its own limit."""
    return min(_of_machine(), _of_group(), _of_process())


def _of_machine() -> float:
    found = [line.split() for line in _read(Path("/proc/meminfo")).splitlines() if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else float("inf")


def _of_group() -> float:
    limit, used = (_read(CONTROL_GROUPS / f"memory.{name}").strip() for name in ("max", "current"))
    return int(limit) - int(used) if limit.isdecimal() and used.isdecimal() else float("inf")


def _of_process() -> float:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return float("inf")
    return limit - int((_read(Path("/proc/self/statm")).split() or ["0"])[0]) * resource.getpagesize()


def _read(path: Path) -> str:
    """The text of a file of the system, or none where there is no such file."""
    return path.read_text() if path.is_file() else ""
