"""HDF5 layouts: where in a file the events are, in ours and in those of others, and what the file says of them.

Read are files with a group `events` holding `t, x, y, p`: the plain layout, the one written here, and DSEC's (Blosc
compression, `ms_to_idx`, `t_offset`). Without a group `events` it is the only group or compound table of `t, x, y, p`
in the file (Prophesee's `CD/events`), or the one called `left` of a stereo recording (M3ED's `prophesee/left`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from deflare_core.events import SensorSize, check_sensor_size, convert_exactly
from deflare_core.io.reading import check_shapes, explain_damage
from deflare_core.system.errors import DeflareError

DTYPES = {"t": np.int64, "x": np.uint16, "y": np.uint16, "p": np.int8}
"""The columns and their types, as they are written."""
CLOCK_ATTRIBUTES = ("t_start_us", "t_end_us")
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
"""What h5py raises where a file is damaged."""


@dataclass(frozen=True, slots=True)
class Column:
    """A dataset, or one field of a compound table. Damage where it is read is an error that says what to do."""

    dataset: h5py.Dataset
    field: str | None = None

    def __len__(self) -> int:
        return self.dataset.shape[0]

    @explain_damage(*HDF5_ERRORS)
    def __getitem__(self, index: int | slice) -> Any:
        return (self.dataset if self.field is None else self.dataset.fields(self.field))[index]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the events of a file are, and what the file, or their group or table, says of them.

    Parameters
    ----------
    columns, extra : t, x, y and p `(N,)`, and further columns, such as the causes of simulated events.
    t_offset_us : what is to be added to the stored times.
    ms_to_idx : for each millisecond of the stored times the number of the first event in it or after it, if there.
    clock_us : start and end of the recorded time, if the file declares both.
    """

    columns: dict[str, Column]
    extra: dict[str, Column]
    t_offset_us: int
    ms_to_idx: Column | None
    attributes: dict[str, Any]
    sensor_size: SensorSize | None
    clock_us: tuple[int, int] | None


@explain_damage(*HDF5_ERRORS)
def find_layout(file: h5py.File) -> Layout:
    """The layout of an open file; one without readable events is an error."""
    node = _find_node(file)
    columns = _find_columns(node)
    index, offset = (_first(file, f"{node.name}/{name}", name) for name in ("ms_to_idx", "t_offset"))
    attributes = {**file.attrs, **node.attrs}
    return Layout(
        columns,
        _find_extra(node, len(columns["t"])),
        0 if offset is None else int(np.asarray(offset[()]).item()),
        None if index is None else Column(index),
        attributes,
        _stated_size(attributes, _first(file, f"{node.name}/calib/resolution")),
        _declared_clock(attributes),
    )


def _find_node(file: h5py.File) -> h5py.Group | h5py.Dataset:
    """The group or compound table that holds the events."""
    if isinstance(file.get("events"), h5py.Group):
        return file["events"]
    found: list[h5py.Group | h5py.Dataset] = [file["/"]] if DTYPES.keys() <= set(file) else []
    file.visititems(lambda _, item: found.append(item) if DTYPES.keys() <= _names(item) else None)
    if len(found) > 1:
        found = [item for item in found if item.name.endswith("/left")] or found
    if not found:
        raise DeflareError(f"no group 'events'; the file holds {sorted(file)}, and no other group of t, x, y, p.")
    if len(found) > 1:
        raise DeflareError(f"several groups of events, {[item.name for item in found]}; keep one of them in the file.")
    return found[0]


def _names(item: h5py.Group | h5py.Dataset) -> set[str]:
    return set(item) if isinstance(item, h5py.Group) else set(item.dtype.names or ())


def _find_columns(node: h5py.Group | h5py.Dataset) -> dict[str, Column]:
    """The columns t, x, y and p of a group or table; ones that cannot be read are an error."""
    if isinstance(node, h5py.Dataset):
        columns = {name: Column(node, name) for name in DTYPES}
    else:
        missing = [name for name in DTYPES if not isinstance(node.get(name), h5py.Dataset)]
        if missing:
            raise DeflareError(f"the group '{node.name[1:]}' lacks {missing}; it holds {sorted(node)}.")
        columns = {name: Column(node[name]) for name in DTYPES}
    for name, column in columns.items():
        _check_filters(column.dataset)
        dtype = column.dataset.dtype if column.field is None else column.dataset.dtype[column.field]
        if dtype.kind not in "iufb":
            raise DeflareError(f"{node.name[1:]}/{name} must be numeric; its dtype is {dtype}.")
    check_shapes({name: column.dataset.shape for name, column in columns.items()})
    return columns


def _find_extra(node: h5py.Group | h5py.Dataset, num_events: int) -> dict[str, Column]:
    names = set(node) - {*DTYPES, "ms_to_idx", "t_offset"} if isinstance(node, h5py.Group) else set()
    items = [(name, node.get(name)) for name in sorted(names)]
    return {name: Column(item) for name, item in items if getattr(item, "shape", None) == (num_events,)}


def _first(file: h5py.File, *names: str) -> h5py.Dataset | None:
    """The first of these datasets that the file holds."""
    return next((file[name] for name in names if isinstance(file.get(name), h5py.Dataset)), None)


def _check_filters(dataset: h5py.Dataset) -> None:
    """Raise a DeflareError unless all filters are installed; a missing one would look like damage of the file."""
    properties = dataset.id.get_create_plist()
    for k in range(properties.get_nfilters()):
        number, _, _, name = properties.get_filter(k)
        if not h5py.h5z.filter_avail(number):
            raise DeflareError(
                f"{dataset.name[1:]} is compressed with HDF5 filter {number} ({name.decode() or 'unnamed'}), which "
                "is not installed; install its plugin (HDF5_PLUGIN_PATH), or export the recording as RAW."
            )


def _stated_size(attributes: dict[str, Any], resolution: h5py.Dataset | None) -> SensorSize | None:
    if {"height", "width"} <= attributes.keys():
        return check_sensor_size((attributes["height"], attributes["width"]))
    # Prophesee writes "1280x720" and M3ED [1280, 720], width before height.
    if geometry := re.fullmatch(r"(\d+)x(\d+)", str(attributes.get("geometry"))):
        return check_sensor_size((int(geometry[2]), int(geometry[1])))
    return None if resolution is None else check_sensor_size(tuple(resolution[()][::-1]))


def _declared_clock(attributes: dict[str, Any]) -> tuple[int, int] | None:
    if not attributes.keys() >= set(CLOCK_ATTRIBUTES):
        return None
    start_us, end_us = (convert_exactly(np.ravel(attributes[name]), np.int64, name).item() for name in CLOCK_ATTRIBUTES)
    return start_us, end_us
