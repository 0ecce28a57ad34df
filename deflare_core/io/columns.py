"""Columns: the times, places and polarities of a file that is not HDF5, as its reader hands them on, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deflare_core.events import SensorSize
from deflare_core.system.errors import DeflareError

TimeUnit = Literal["s", "ms", "us"]
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""t, x, y and p."""

MICROSECONDS: Mapping[TimeUnit, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
PIECE_EVENTS = 1 << 18


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds: the sensor size it states, if any, and its columns, times in microseconds."""

    sensor_size: SensorSize | None
    columns: Iterator[Columns]


def checked_columns(columns: Mapping[str, np.ndarray]) -> Columns:
    """The columns in their order; one that is missing or does not fit the others is a DeflareError."""
    missing = [name for name in "txyp" if name not in columns]
    if missing:
        raise DeflareError(f"lacks {missing}; it holds {sorted(columns)}.")
    t, x, y, p = (columns[name] for name in "txyp")
    shapes = {name: columns[name].shape for name in "txyp"}
    if len(set(shapes.values())) > 1 or t.ndim != 1:
        raise DeflareError(f"t, x, y and p must be one-dimensional and of one length; their shapes are {shapes}.")
    return t, x, y, p


def microseconds(t: np.ndarray, unit: TimeUnit) -> np.ndarray:
    """Times in microseconds: whole numbers stay exact, seconds and milliseconds are rounded to the nearest one."""
    if unit == "us" or t.dtype.kind not in "iuf":
        return t
    if t.dtype.kind != "f":
        return t.astype(np.int64) * MICROSECONDS[unit]
    return np.rint(t.astype(np.float64) * MICROSECONDS[unit])
