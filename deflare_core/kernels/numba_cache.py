"""Compiled functions: numba's compiler with the options that all inner loops share, and a cache that follows them.

Numba keeps compiled code on disk and compiles again when a function's own file changes, but not when a file changes
whose functions it calls. So the code lives in a folder named after the sources of all inner loops: in the package, or
where that cannot be written (a container, a module of a cluster) in the user's cache, or in a temporary folder.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from deflare_core.system.errors import DeflareError
from deflare_core.system.late_imports import import_late
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.unfinished import TEMPORARY, mark_unfinished, remove_abandoned

PACKAGES = (PROJECT_ROOT / "deflare_core", PROJECT_ROOT / "data_simu")
_PREFIX = "compiled-"
COMPILES = "DEFLARE_COMPILES"
"""The environment variable that marks a process which only compiles."""
LOOK_AGAIN_S = 1.0
"""How often a process that compiles looks whether the one that waits for it is there, seconds."""
CACHE_VARIABLE = "NUMBA_CACHE_DIR"
"""The environment variable that names a folder for compiled code; processes that this one starts share it."""
_temporary: list[tempfile.TemporaryDirectory[str]] = []
"""Keeps the temporary folder, if there is one, until the process ends."""


def compiled(**options: Any) -> Callable[..., Any]:
    """A decorator that compiles a function to machine code that releases the interpreter and is kept on disk."""
    numba = load_numba()
    return numba.njit(cache=bool(numba.config.CACHE_DIR), nogil=True, error_model="numpy", **options)


class CompiledLater:
    """A function that is `compiled` when it is first called, or when one that calls it is compiled.

    So importing it does not load numba, which takes most of a second. It cannot be called in a CUDA kernel.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    @functools.cached_property
    def machine_code(self) -> Any:
        """What numba makes of the function."""
        return compiled()(self.function)

    @property
    def _numba_type_(self) -> Any:
        # Numba asks for this of any object that a compiled function calls; with it, the call is one of machine code.
        return self.machine_code._numba_type_

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        return self.machine_code(*arguments)


@functools.cache
def load_numba() -> Any:
    """The package numba, which keeps compiled code in a folder for these sources."""
    with import_late("scipy.linalg.cython_blas"):  # It only looks whether there is one; a sixth of a second.
        numba: Any = importlib.import_module("numba")
        importlib.import_module("numba.np.arraymath")
    numba.config.CACHE_DIR = str(find_cache() or "")
    return numba


@functools.cache
def compiled_before(module: str) -> None:
    """Let another process compile what a module's `main` runs through, unless one has; the code is kept on disk.

    In the process that compiles functions, they call each other's separate copies; in all that load the result, the
    copies inside it, which the compiler has ordered otherwise and which round otherwise. So the first process would
    simulate other events than all later ones.

    Raises
    ------
    DeflareError
        When there is no folder for compiled code.
    """
    config = load_numba().config
    if COMPILES in os.environ:
        Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if COMPILES in os.environ or config.DISABLE_JIT:
        return
    if not config.CACHE_DIR:
        raise DeflareError(
            "compiled code can be kept nowhere, and one seed would give other events than elsewhere; make room in "
            f"TMPDIR, or set {CACHE_VARIABLE} to a folder that can be written."
        )
    done = Path(config.CACHE_DIR) / f"{module}.done"
    if done.exists():
        return
    environment = os.environ | {COMPILES: module}
    subprocess.run([sys.executable, "-m", module], env=environment, stdout=subprocess.DEVNULL, check=True)
    done.touch()


def _end_with(parent: int) -> None:
    """End this process, which compiles for another one, when that one has been killed."""
    while os.getppid() == parent:
        time.sleep(LOOK_AGAIN_S)
    os._exit(1)


def find_cache() -> Path | None:
    """The folder for compiled code of these sources: in the first place that can be written, else a temporary one.

    It is none where there is no room for a temporary one either.
    """
    package, named = PROJECT_ROOT / "deflare_core" / "__pycache__", os.environ.get(CACHE_VARIABLE)
    if not named and is_writable(package):
        return choose_cache(package)
    # Of a user without a home `Path.expanduser` raises an error; this gives "~", a folder where the program runs.
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "deflare")  # noqa: PTH111
    place = Path(named).absolute() if named else user
    if place.is_absolute() and is_writable(place):
        return place / name_cache()
    return make_temporary_cache(package / name_cache(), place)


def make_temporary_cache(compiled: Path, place: Path) -> Path | None:
    """A temporary folder for compiled code, with a copy of what is there already; none if it cannot be made."""
    advice = f"set {CACHE_VARIABLE} to a folder that can be"
    try:
        remove_abandoned(Path(tempfile.gettempdir()), f"{TEMPORARY}*")
        parent = tempfile.TemporaryDirectory(prefix=TEMPORARY)
        mark_unfinished(Path(parent.name))
        folder = Path(parent.name) / name_cache()
        if compiled.is_dir():
            shutil.copytree(compiled, folder)
    except OSError as error:
        logging.warning("Compiled code is not kept, since no temporary folder can be written (%s); %s.", error, advice)
        return None
    _temporary.append(parent)
    os.environ[CACHE_VARIABLE] = parent.name
    logging.warning("Compiled code is kept until the program ends, since %s cannot be written; %s.", place, advice)
    return folder


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def hash_loops() -> str:
    """A digest of the sources of all inner loops: of all files of both packages that name a decorator of this one."""
    total = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in package.rglob("*.py")):
        text = path.read_bytes()
        if b"compiled" in text or b"CompiledLater" in text:
            total.update(text)
    return total.hexdigest()[:16]


def name_cache() -> str:
    """The name of the folder for compiled code of these sources."""
    return f"{_PREFIX}{hash_loops()}"


def choose_cache(parent: Path) -> Path:
    """The folder under `parent` for compiled code of these sources; those of other sources are removed."""
    folder = parent / name_cache()
    for old in parent.glob(f"{_PREFIX}*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return folder
