"""Revision: what a result was made with, as code revision, package versions, and digests of sources and files."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from deflare_core.system.places import PROJECT_ROOT

UNDECIDING = ("show", "app")
"""Wings that change no event and no score, so that an edit in them leaves predictions valid."""
PACKAGES = ("deflare", "torch", "pytorch3dunet", "numpy", "numba", "h5py", "hdf5plugin")


def find_revision() -> str:
    """The git revision of the running checkout, with `+changes` if its files differ; "unknown" outside a checkout."""
    command = ["git", "-C", str(PROJECT_ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@functools.cache
def hash_sources(package: Path = PROJECT_ROOT / "deflare_core") -> str:
    """The SHA-256 of the package's sources that decide a result, in hexadecimal: of all wings but `UNDECIDING`."""
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in UNDECIDING:
            total.update(path.read_bytes())
    return total.hexdigest()


def list_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; "unknown" of one that is on the path only."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def hash_file(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal; a file that has not changed is read once in a process."""
    state = Path(path).stat()
    return _hash_file(Path(path).resolve(), state.st_mtime_ns, state.st_size)


@functools.cache
def _hash_file(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
