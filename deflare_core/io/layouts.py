"""HDF5 layouts: where in a file the events are, in ours and in those of others, and what the file says of them.

Read are files with a group `events` of the columns `t, x, y, p`, by any of their names: the plain layout, the one
written here, DSEC's (Blosc compression, `ms_to_idx`, `t_offset`), event_utils' (`ts xs ys ps`). Without one it is the
only group or table of such columns in the file (Prophesee's `CD/events`, v2e's and MVSEC's `(N, 4)`), the one that the
caller names, or the left camera's of a stereo recording (M3ED's `prophesee/left`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deflare_core.events import SensorSize, check_sensor_size
from deflare_core.io.column_names import NAMES, find_columns, meaning_of, require_columns, unit_of
from deflare_core.io.column_order import find_order
from deflare_core.io.hdf5_sources import check_links, check_sources, check_stored, walk_file
from deflare_core.io.reading import (
    LATEST_US,
    PIECE_EVENTS,
    Columns,
    Reading,
    TimeUnit,
    check_shapes,
    check_times,
    explain_damage,
    to_microseconds,
    warn_of_coarse_times,
)
from deflare_core.system.errors import DeflareError, quote, shorten

DTYPES = {"t": np.int64, "x": np.uint16, "y": np.uint16, "p": np.int8}
"""The columns and their types, as they are written."""
CLOCK_ATTRIBUTES = ("t_start_us", "t_end_us")
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
"""What h5py raises where a file is damaged."""
MVSEC = re.compile(r"/?davis/(left|right)/events")
"""The tables `x y t p` of MVSEC, by their names; those of others, such as v2e's, are `t x y p`."""
RESTATED = ("t_offset", "geometry", "sensor_resolution", "time_unit")
"""Attributes that are no more than what a written file states in other words."""
WIDEST_EXTRA_BYTES = 64
BESIDES = ("ms_to_idx", "t_offset")
"""What a group of events holds besides columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """A dataset, a field of a compound table, or a column of an `(N, 4)` one; damage is an error."""

    dataset: h5py.Dataset
    field: str | int | None = None

    def __len__(self) -> int:
        return self.dataset.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the column alone."""
        return self.dataset.shape[:1] if isinstance(self.field, int) else self.dataset.shape

    @property
    def dtype(self) -> np.dtype:
        """The type of its values."""
        return self.dataset.dtype[self.field] if isinstance(self.field, str) else self.dataset.dtype

    @explain_damage(*HDF5_ERRORS)
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(self.field, int):
            return self.dataset[index, self.field]
        return (self.dataset if self.field is None else self.dataset.fields(self.field))[index]


@dataclass(frozen=True, slots=True)
class Times:
    """The times of the events in absolute microseconds, made of the stored ones, their unit and an offset."""

    column: Column
    unit: TimeUnit | None
    offset_us: int

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: slice) -> np.ndarray:
        t = to_microseconds(self.column[index], self.unit)
        if self.offset_us:
            t = t + self.offset_us
            check_times(t, LATEST_US, "once t_offset is added")
        return t


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the events of a file are, and what the file, or their group or table, says of them.

    Parameters
    ----------
    place, names : that of their group or table, and those of its columns t, x, y and p.
    times, pixels, polarities : t, (x, y) and p `(N,)`; `extra` holds further columns, such as simulated events' causes.
    ms_to_idx : for each millisecond of the stored times the number of the first event in it or after it, if there.
    clock_us : start and end of the recorded time, if the file declares both.
    """

    place: str
    names: dict[str, str]
    times: Times
    pixels: tuple[Column, Column]
    polarities: Column
    extra: dict[str, Column]
    ms_to_idx: Column | None
    attributes: dict[str, Any]
    sensor_size: SensorSize | None
    clock_us: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.times)

    def __str__(self) -> str:
        offset = f", offset {self.times.offset_us} us" if self.times.offset_us else ""
        clock = f", clock [{self.clock_us[0]}, {self.clock_us[1]}) us" if self.clock_us else ""
        return f"{', '.join(self.names.values())} in {self.place or 'its root'}{offset}{clock}"

    def pieces(self) -> Iterator[Columns]:
        """All events in their order, a piece at a time, as they are stored but for times in microseconds."""
        for first in range(0, len(self), PIECE_EVENTS):
            part = slice(first, first + PIECE_EVENTS)
            x, y, p = (column[part] for column in (*self.pixels, self.polarities))
            yield self.times[part], x, y, p


@explain_damage(*HDF5_ERRORS)
def find_layout(file: h5py.File, reading: Reading) -> Layout:
    """The layout of an open file, read as the caller says; one without readable events is an error."""
    node = _find_node(file, reading)
    attributes = _attributes_of(node)
    size = _stated_size(attributes, _first(file, f"{node.name}/calib/resolution"), reading)
    columns, names = _find_columns(node, size, reading)
    offset = _find_offset(file, node, attributes)
    index = _find_index(file, node)
    unit = reading.agree_on_unit(_stated_units(columns["t"], names["t"], index, attributes))
    warn_of_coarse_times(Path(file.filename), columns["t"][-1:], unit)
    return Layout(
        node.name.strip("/"),
        names,
        Times(columns["t"], unit, 0 if offset is None else _offset_us(offset, columns["t"].dtype, unit)),
        (columns["x"], columns["y"]),
        columns["p"],
        _find_extra(node, names, len(columns["t"])),
        None if index is None else Column(index),
        {name: value for name, value in attributes.items() if name not in RESTATED},
        size,
        _declared_clock(attributes),
    )


def _find_index(file: h5py.File, node: h5py.Group | h5py.Dataset) -> h5py.Dataset | None:
    """The numbers of the first events of each millisecond, `ms_to_idx`, if the file has them."""
    index = _first(file, f"{node.name}/ms_to_idx", "ms_to_idx")
    if index is not None and (index.ndim != 1 or index.dtype.kind not in "iu"):
        raise DeflareError(
            f"ms_to_idx must be a row of whole numbers; it is {index.dtype} of shape {index.shape}; remove it."
        )
    return index


def _find_node(file: h5py.File, reading: Reading) -> h5py.Group | h5py.Dataset:
    """The group or table that holds the events of the stream that is asked for, or of the only one."""
    nodes = _find_nodes(file, reading.follow_links)
    named = {name: node for name, node in nodes.items() if _answers_to(name, reading.stream)}
    if reading.stream is None and len(nodes) > 1:
        # A stereo recording is read from its left camera.
        usual = [name for name in nodes if name == "events"] or [name for name in nodes if "left" in name.split("/")]
        named = {name: nodes[name] for name in usual} if len(usual) == 1 else nodes
    if len(named) == 1:
        return next(iter(named.values()))
    if nodes:
        return nodes[reading.choose_stream(nodes)]
    check_links(file, file)
    if isinstance(table := file.get("events"), h5py.Dataset):
        raise DeflareError(
            f"the table 'events' has the shape {table.shape} and no names; expected (N, 4), t x y p, or datasets "
            "events/t, events/x, events/y and events/p."
        )
    if isinstance(events := file.get("events"), h5py.Group):
        missing = [name for name in NAMES if name not in find_columns(events)]
        raise DeflareError(f"the group 'events' lacks {missing}; it holds {quote(sorted(events))}.")
    raise DeflareError(f"no group 'events'; the file holds {quote(sorted(file))}, and no other group of t, x, y, p.")


def _answers_to(name: str, stream: str | None) -> bool:
    """Whether a group or table is called so, in full or by one of the groups that it is in."""
    return stream is None or stream.strip("/") == name or stream in name.split("/")


def _find_nodes(file: h5py.File, follows_links: bool) -> dict[str, h5py.Group | h5py.Dataset]:
    """The groups and tables that hold events, by name."""
    found = {name: item for name, item in walk_file(file, follows_links) if _holds_events(item)}
    nodes: dict[str, h5py.Group | h5py.Dataset] = {"/": file["/"]} if _holds_events(file["/"]) else {}
    # Links are not followed by `walk_file`, but those at the top lead to what the file is about.
    for name in file:
        is_link = not isinstance(file.get(name, getlink=True), h5py.HardLink)
        if is_link and (item := file.get(name)) is not None and _holds_events(item):
            nodes[name] = item
    return nodes | found


def _holds_events(item: h5py.Group | h5py.Dataset) -> bool:
    """Whether a group or table has a column for each of t, x, y and p."""
    if isinstance(item, h5py.Dataset) and item.dtype.names is None:
        return item.ndim == 2 and item.shape[1] == 4 and (item.name.rsplit("/", 1)[-1] == "events")
    return set(NAMES) <= {meaning_of(name) for name in (item if isinstance(item, h5py.Group) else item.dtype.names)}


def _find_columns(
    node: h5py.Group | h5py.Dataset, size: SensorSize | None, reading: Reading
) -> tuple[dict[str, Column], dict[str, str]]:
    """The columns t, x, y and p of a group or table, and their names; ones that cannot be read are an error."""
    if isinstance(node, h5py.Group):
        names = require_columns(node)
        check_links(node, names.values())
        columns = {column: Column(node[name]) for column, name in names.items()}
    elif node.dtype.names:
        names = require_columns(node.dtype.names)
        columns = {column: Column(node, name) for column, name in names.items()}
    else:
        order = _order_of_table(node, size, reading)
        names = dict(zip("txyp", "txyp", strict=True))
        columns = {column: Column(node, order.index(column)) for column in "txyp"}
    for column in columns.values():
        _check_dataset(column, node)
    check_shapes({name: column.shape for name, column in columns.items()})
    return columns, names


def _order_of_table(node: h5py.Dataset, size: SensorSize | None, reading: Reading) -> str:
    """The order of the columns of an `(N, 4)` table; one that its values contradict is an error."""
    usual = "xytp" if MVSEC.fullmatch(node.name) else "txyp"
    first = node[:PIECE_EVENTS]
    order = find_order(list(first.T), reading.sensor_size or size, reading.polarity, usual)
    if order != usual:
        raise DeflareError(
            f"{node.name[1:]} holds its columns as {' '.join(order)}, not as {' '.join(usual)}; write them by name, as "
            "datasets events/t, events/x, events/y and events/p."
        )
    return usual


def _check_dataset(column: Column, node: h5py.Group | h5py.Dataset) -> None:
    """Raise a DeflareError unless a column can be read as numbers."""
    dataset = column.dataset
    if not isinstance(dataset, h5py.Dataset):
        raise DeflareError(f"{dataset.name[1:]} is a group; expected a dataset.")
    name = dataset.name[1:] if not isinstance(column.field, str) else f"{dataset.name[1:]}/{column.field}"
    if dataset.shape is None:
        raise DeflareError(
            f"{name} holds nothing at all (a null dataspace); write no events as an array of shape (0,)."
        )
    check_sources(dataset)
    _check_filters(dataset)
    check_stored(dataset)
    if column.dtype.kind not in "iufb":
        raise DeflareError(f"{name} must be numeric; its dtype is {shorten(column.dtype)}.")
    if (numbers := h5py.check_enum_dtype(column.dtype)) is not None:
        words = ", ".join(f"{word} {number}" for word, number in sorted(numbers.items(), key=itemgetter(1))[:4])
        raise DeflareError(
            f"{name} holds words by number ({shorten(words)}), which are not read; write plain numbers, polarities as "
            "1 for positive and 0 for negative."
        )


def _find_extra(node: h5py.Group | h5py.Dataset, names: dict[str, str], num_events: int) -> dict[str, Column]:
    others = set(node) - {*names.values(), *BESIDES} if isinstance(node, h5py.Group) else set()
    items = [(name, node.get(name)) for name in sorted(others)]
    columns = {name: Column(item) for name, item in items if _is_extra(item, num_events)}
    for column in columns.values():
        check_sources(column.dataset)
    return columns


def _is_extra(item: Any, num_events: int) -> bool:
    """Whether a dataset holds a number or a short word for each event."""
    if not isinstance(item, h5py.Dataset) or item.shape != (num_events,):
        return False
    return item.dtype.kind in "iufbcS" and item.dtype.itemsize <= WIDEST_EXTRA_BYTES


def _attributes_of(node: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """The attributes of a group or table and of the groups that it is in; the nearest one counts."""
    own = {_repair(name): _repair(value) for name, value in node.attrs.items()}
    return own if node.name == "/" else _attributes_of(node.parent) | own


def _repair(value: Any) -> Any:
    """The value, in texts of which what is no UTF-8, and could not be written again, has become a question mark."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return np.array([_repair(each) for each in value.flat], object).reshape(value.shape)
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _stated_units(
    times: Column, name: str, index: h5py.Dataset | None, attributes: Mapping[str, Any]
) -> dict[str, str]:
    """The words for the unit of time that a file states, by where it does."""
    stated: dict[str, str] = {f"the name {name}": unit} if (unit := unit_of(name)) else {}
    own = times.dataset.attrs if times.field is None else {}
    for key, place in (("unit", own), ("units", own), ("time_unit", {**attributes, **own})):
        if key in place:
            stated[f"its attribute {key}"] = _to_text(place[key])
    if index is not None:
        stated["ms_to_idx, which counts microseconds,"] = "us"
    return stated


def _find_offset(file: h5py.File, node: h5py.Group | h5py.Dataset, attributes: dict[str, Any]) -> np.ndarray | None:
    """What is to be added to the times, if the file states it: `t_offset`, a dataset or an attribute."""
    places = {path: file[path][()] for path in (f"{node.name}/t_offset", "t_offset") if _first(file, path) is not None}
    if "t_offset" in attributes:
        places["attribute t_offset"] = attributes["t_offset"]
    offsets = {place: np.ravel(value).tolist() for place, value in places.items()}
    if len(set(map(str, offsets.values()))) > 1:
        raise DeflareError(f"states several offsets of its times, {quote(offsets)}; leave one of them in the file.")
    return next((np.ravel(value) for value in places.values()), None)


def _offset_us(value: np.ndarray, dtype: np.dtype, unit: TimeUnit | None) -> int:
    """An offset in microseconds; a fraction, or a float beside whole times, may be in another unit than they."""
    if value.shape != (1,) or value.dtype.kind not in "iuf":
        raise DeflareError(f"t_offset must be one number; it is {quote(value.tolist())}.")
    # Not `abs(value[0])`: of the least 64-bit integer that is itself.
    if not np.isnan(value[0]) and not -LATEST_US < value[0].item() < LATEST_US:
        raise DeflareError(
            f"t_offset is {value[0]}, too far from 0 to be exact; correct it, or take it out of the file."
        )
    is_float, is_whole = value.dtype.kind == "f", value[0] == np.trunc(value[0])
    if (is_float and unit is None and dtype.kind != "f") or (unit in (None, "us") and not is_whole):
        advice = ", or give the unit of both, as in --time-unit us" if is_whole else ""
        raise DeflareError(
            f"t_offset is {value[0]}, which may be in another unit than the times; write it as a whole number of "
            f"microseconds{advice}."
        )
    return int(to_microseconds(value, unit)[0])


def _to_text(value: Any) -> str:
    """An attribute as text."""
    value = np.ravel(value)[0] if np.size(value) == 1 else value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _first(file: h5py.File, *names: str) -> h5py.Dataset | None:
    """The first of these datasets that the file holds."""
    found = next((file[name] for name in names if isinstance(file.get(name), h5py.Dataset)), None)
    if found is not None:
        check_sources(found)
    return found


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


def _stated_size(attributes: dict[str, Any], resolution: h5py.Dataset | None, reading: Reading) -> SensorSize | None:
    """The sensor that a file states; a statement that cannot be understood counts only if the caller gives none."""
    statements: dict[str, tuple[Any, Any]] = {}
    if {"height", "width"} <= attributes.keys():
        statements["height and width"] = attributes["height"], attributes["width"]
    # Prophesee writes "1280x720" and M3ED [1280, 720], width before height; event_utils height before width.
    if geometry := re.fullmatch(r"(\d+)x(\d+)", _to_text(attributes.get("geometry"))):
        statements["geometry"] = geometry[2], geometry[1]
    if np.size(attributes.get("sensor_resolution", ())) == 2:
        statements["sensor_resolution"] = tuple(np.ravel(attributes["sensor_resolution"]))
    if resolution is not None:
        statements["calib/resolution"] = tuple(np.ravel(resolution[()])[::-1])
    try:
        sizes = {name: check_sensor_size(tuple(map(_to_text, size))) for name, size in statements.items()}  # type: ignore[arg-type]
        if "sensor_resolution" in sizes:
            sizes["sensor_resolution"] = reading.turn_size(sizes["sensor_resolution"])
    except DeflareError:
        if reading.sensor_size is None:
            raise
        return None
    if len(set(sizes.values())) > 1 and reading.sensor_size not in sizes.values():
        raise DeflareError(f"states several sensors (height, width), {sizes}; give the right one of them.")
    return reading.sensor_size if len(set(sizes.values())) > 1 else next(iter(sizes.values()), None)


def _declared_clock(attributes: dict[str, Any]) -> tuple[int, int] | None:
    if not attributes.keys() >= set(CLOCK_ATTRIBUTES):
        return None
    start_us, end_us = (_read_whole(name, attributes[name]) for name in CLOCK_ATTRIBUTES)
    return start_us, end_us


def _read_whole(name: str, value: Any) -> int:
    """An attribute that is to be one whole number; another one is an error."""
    try:
        number = int(np.ravel(value)[0])
        is_whole = np.size(value) == 1 and not isinstance(value, h5py.Empty) and number == np.ravel(value)[0]
    except (TypeError, ValueError, OverflowError, IndexError):
        is_whole = False
    if not is_whole:
        found = quote(np.ravel(value).tolist())
        raise DeflareError(f"its attribute {name} must be one whole number; it is {found}, correct it.")
    if not -(1 << 63) <= number < 1 << 63:
        raise DeflareError(f"its attribute {name} is {quote(np.ravel(value)[0].item())}, too far from 0; correct it.")
    return number
