"""Input files: what stands in the way of reading one, found before anything of it is read."""

from __future__ import annotations

import stat
from pathlib import Path

from deflare_core.system.errors import DeflareError

SPECIAL = {
    stat.S_IFIFO: "is a pipe, which can be read only once; write what comes out of it to a file, and name that.",
    stat.S_IFSOCK: "is a socket, not a file; name a file.",
    stat.S_IFCHR: "is a device, not a file; name a file.",
    stat.S_IFBLK: "is a device, not a file; name a file.",
    stat.S_IFDIR: "is a folder; name one file in it.",
}
"""What is said of each kind of thing that is no file. Files are read more than once: first to see what they are."""


def check_input(path: str | Path, kind: type[DeflareError] = DeflareError) -> None:
    """Raise an error of this kind unless a file is at `path`; a pipe that nothing writes to is not waited for."""
    path = Path(path)
    try:
        obstacle = SPECIAL.get(stat.S_IFMT(path.stat().st_mode))
    except FileNotFoundError:
        obstacle = f"is a link to {path.readlink()}, which is not there." if path.is_symlink() else "no such file."
    except (OSError, ValueError) as error:
        obstacle = f"cannot be read ({getattr(error, 'strerror', None) or error})."
    if obstacle:
        raise kind(f"{path}: {obstacle}")
