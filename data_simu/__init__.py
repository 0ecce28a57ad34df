"""Simulated pairs of event recordings: one scene, seen through a real and through an ideal lens.

Only the configuration is imported at once; the rest needs numba and torch, and is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from data_simu.config import SimulationConfig

if TYPE_CHECKING:
    from data_simu.pairs import write_dataset
    from data_simu.simulation import Pair, render, simulate

__all__ = ["Pair", "SimulationConfig", "render", "simulate", "write_dataset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'pairs' if name == 'write_dataset' else 'simulation'}"), name)
