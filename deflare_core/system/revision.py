"""Where a result comes from: code revision, versions of what computed it, the device, and digests of its inputs."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from deflare_core.system.places import PROJECT_ROOT

UNDECIDING = ("show", "app")
"""Wings that change no event and no score."""
PACKAGES = ("deflare", "torch", "pytorch3dunet", "numpy", "numba", "h5py", "hdf5plugin")


def git_revision() -> str:
    """The revision of the checkout that is running, with `+changes` if its files differ; "unknown" outside one."""
    command = ["git", "-C", str(PROJECT_ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


@functools.cache
def sources_digest() -> str:
    """The SHA-256 of the sources that can decide a result, in hexadecimal: all but the wings that show or call them."""
    package, total = PROJECT_ROOT / "deflare_core", hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in UNDECIDING:
            total.update(path.read_bytes())
    return total.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def digest(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal; one that has not changed is read once in a process."""
    found = Path(path).resolve()
    stated = found.stat()
    return _digest_of(found, stated.st_size, stated.st_mtime_ns)


@functools.cache
def _digest_of(path: Path, size: int, mtime_ns: int) -> str:
    """The digest of a file of that size and time of change; another size or time is another file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
