"""HDF5 layouts: where in a file the events lie, ours and those of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from deflare_core.system.errors import DeflareError

COLUMNS = ("t", "x", "y", "p")
CLOCK_ATTRIBUTES = ("t_start_us", "t_end_us")


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a compound table, read like a dataset of its own."""

    table: h5py.Dataset
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.table.shape

    @property
    def dtype(self) -> np.dtype:
        return self.table.dtype[self.name]

    def __getitem__(self, index: int | slice) -> np.ndarray:
        return self.table.fields(self.name)[index]


def event_node(file: h5py.File) -> h5py.Group | h5py.Dataset:
    """The group or compound table that holds the events."""
    if isinstance(file.get("events"), h5py.Group):
        return file["events"]
    found: list[h5py.Group | h5py.Dataset] = [file["/"]] if set(COLUMNS) <= set(file) else []
    file.visititems(lambda _, item: found.append(item) if set(COLUMNS) <= _column_names(item) else None)
    if len(found) > 1:
        found = [item for item in found if item.name.endswith("/left")] or found
    if not found:
        raise DeflareError(f"no group 'events'; the file holds {sorted(file)}, and no other group of t, x, y, p.")
    if len(found) > 1:
        raise DeflareError(f"several groups of events, {[item.name for item in found]}; keep one of them in the file.")
    return found[0]


def _column_names(item: h5py.Group | h5py.Dataset) -> set[str]:
    return set(item) if isinstance(item, h5py.Group) else set(item.dtype.names or ())


def event_columns(node: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """The columns t, x, y and p of a group or table, by name; ones that cannot be read are a DeflareError."""
    if isinstance(node, h5py.Dataset):
        columns: dict[str, Any] = {name: _Field(node, name) for name in COLUMNS}
    else:
        missing = [name for name in COLUMNS if not isinstance(node.get(name), h5py.Dataset)]
        if missing:
            raise DeflareError(f"the group '{node.name[1:]}' lacks {missing}; it holds {sorted(node)}.")
        columns = {name: node[name] for name in COLUMNS}
    _check_decompressed([node] if isinstance(node, h5py.Dataset) else list(columns.values()))
    for name, column in columns.items():
        if column.dtype.kind not in "iufb":
            raise DeflareError(f"{node.name[1:]}/{name} must be numeric; its dtype is {column.dtype}.")
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or len(shapes["t"]) != 1:
        raise DeflareError(f"t, x, y and p must be one-dimensional and of one length; their shapes are {shapes}.")
    return columns


def first_of(file: h5py.File, *names: str) -> Any:
    """The first of these items that the file holds, or None."""
    return next((file[name] for name in names if name in file), None)


def _check_decompressed(datasets: list[h5py.Dataset]) -> None:
    """Refuse a compression whose plugin is not installed, by name, before it looks like damage."""
    for dataset in datasets:
        properties = dataset.id.get_create_plist()
        for k in range(properties.get_nfilters()):
            number, _, _, name = properties.get_filter(k)
            if not h5py.h5z.filter_avail(number):
                raise DeflareError(
                    f"{dataset.name[1:]} is compressed with HDF5 filter {number} ({name.decode() or 'unnamed'}), which "
                    "is not installed; install its plugin (HDF5_PLUGIN_PATH), or export the recording as RAW."
                )


def t_offset_us(file: h5py.File, node: h5py.Group | h5py.Dataset) -> int:
    """What is to be added to the stored times."""
    offset = first_of(file, f"{node.name}/t_offset", "t_offset")
    return 0 if offset is None else int(np.asarray(offset[()]).item())
