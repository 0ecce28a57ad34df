"""Compiled functions: numba's compiler with the options that all inner loops share, and a cache that follows them.

Numba keeps compiled code on disk and compiles anew when a function's own file changes, but not when a file changes
whose functions it calls. So the code lives in a folder named after the sources of all inner loops.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config

from deflare_core.system.places import PROJECT_ROOT

PACKAGES = (PROJECT_ROOT / "deflare_core", PROJECT_ROOT / "data_simu")
_PREFIX = "compiled-"
numba_config: Any = config
COMPILES = "DEFLARE_COMPILES"
"""The environment variable that marks a process which only compiles."""


def compiled(**options: Any) -> Callable[..., Any]:
    """A decorator that compiles a function to machine code that releases the interpreter and is kept on disk."""
    return numba.njit(cache=True, nogil=True, error_model="numpy", **options)


@functools.cache
def compiled_before(module: str) -> None:
    """Let a process of its own compile what a module's `main` runs through, if no process has, and leave it on disk.

    In the process that compiles functions, they call each other's separate copies; in all that load the result, the
    copies inside it, which the compiler has ordered otherwise and which round otherwise. So the first process would
    simulate other events than all later ones.
    """
    if COMPILES in os.environ or numba_config.DISABLE_JIT or not numba_config.CACHE_DIR:
        return
    done = Path(numba_config.CACHE_DIR) / f"{module}.done"
    if done.exists():
        return
    environment = os.environ | {COMPILES: module}
    subprocess.run([sys.executable, "-m", module], env=environment, stdout=subprocess.DEVNULL, check=True)
    done.touch()


def hash_loops() -> str:
    """A digest of the sources of all inner loops."""
    total = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in package.rglob("*.py")):
        text = path.read_bytes()
        if b"compiled" in text:
            total.update(text)
    return total.hexdigest()[:16]


def use_own_cache(parent: Path) -> None:
    """Keep compiled code under `parent` in a folder for these sources, and remove that of other sources."""
    folder = parent / f"{_PREFIX}{hash_loops()}"
    for old in parent.glob(f"{_PREFIX}*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    numba_config.CACHE_DIR = str(folder)


_CACHES = PROJECT_ROOT / "deflare_core" / "__pycache__"
if "NUMBA_CACHE_DIR" not in os.environ and os.access(_CACHES.parent, os.W_OK):
    use_own_cache(_CACHES)
