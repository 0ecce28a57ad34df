"""Where a result comes from: code revision, versions of what computed it, the device, and digests of its inputs."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from deflare_core.config import PROJECT_ROOT

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
    """A digest of the package's own sources, any of which may decide a result; made once in a process."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def pick_device(name: str) -> torch.device:
    """The torch device of that name; "auto" takes the first GPU if there is one.

    Raises
    ------
    ValueError
        When the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"The device '{name}' cannot be used ({reason}); use auto, cpu or cuda.") from None
    device = torch.device(name)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # CUDA graphs and events are of the current one.
    return device


def device_name(device: torch.device) -> str:
    """The name of the hardware behind a torch device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def digest(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
