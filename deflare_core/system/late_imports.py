"""Modules that a package imports but does not need for what is used of it: loaded when they are, or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any


@contextmanager
def import_late(name: str) -> Iterator[None]:
    """Let functions that are imported from a module in this block load it when they are called; nothing if it is."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = _stand_in(name)
    try:
        yield
    finally:
        del sys.modules[name]


def _stand_in(name: str) -> ModuleType:
    module = ModuleType(name)

    def find_function(function: str) -> Callable[..., Any]:
        if function.startswith("__"):
            raise AttributeError(function)
        return partial(_call, name, function)

    module.__getattr__ = find_function  # type: ignore[method-assign]
    return module


def _call(module: str, function: str, *arguments: Any, **named: Any) -> Any:
    return getattr(import_module(module), function)(*arguments, **named)
