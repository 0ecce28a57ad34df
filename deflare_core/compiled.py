"""Compiled functions: numba's compiler with the options that all inner loops share, and a cache that follows them.

Numba keeps compiled code on disk and compiles anew when a function's own file changes, but not when a file changes
whose functions it calls. So the code lives in a folder named after the sources of all inner loops.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config

_PACKAGES = (Path(__file__).parent, Path(__file__).parents[1] / "data_simu")
_PREFIX = "compiled-"


def compiled(**options: Any) -> Callable[..., Any]:
    """A decorator that compiles a function to machine code that releases the interpreter and is kept on disk."""
    return numba.njit(cache=True, nogil=True, error_model="numpy", **options)


def sources_digest() -> str:
    """A digest of the sources of all inner loops."""
    total = hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in package.glob("*.py")):
        text = path.read_bytes()
        if b"compiled" in text:
            total.update(text)
    return total.hexdigest()[:16]


def use_own_cache(parent: Path) -> None:
    """Keep compiled code under `parent` in a folder for these sources, and remove that of other sources."""
    folder = parent / f"{_PREFIX}{sources_digest()}"
    for old in parent.glob(f"{_PREFIX}*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    numba_config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]


if "NUMBA_CACHE_DIR" not in os.environ and os.access(Path(__file__).parent, os.W_OK):
    use_own_cache(Path(__file__).parent / "__pycache__")
