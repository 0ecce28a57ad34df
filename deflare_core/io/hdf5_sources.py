"""What an HDF5 file only points to: links, virtual datasets and external storage whose source may not be there.

A file from anywhere may point at any file of its reader, whose bytes would then pass as events. So what is in other
files is read only if it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import h5py

from deflare_core.system.errors import DeflareError, shorten
from deflare_core.system.input_files import check_input
from deflare_core.system.limits import DEEPEST_GROUP, MOST_EVENTS, MOST_GROUPS

UNASKED = "what is in other files is read only if it is asked for: add --follow-links (follow_links=true)"
DEEPEST = 10
"""Virtual datasets of virtual datasets that are looked into."""


def walk_file(file: h5py.File, follows_links: bool) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Every group and dataset of a file with its name, each once, by what is not only a link.

    HDF5's own way through a file takes hours where groups are many or deep; here that is a DeflareError, as is what
    points at another file unless links are followed.
    """
    root = file["/"]
    known, waiting = {h5py.h5o.get_info(root.id).addr}, [("", root)]
    while waiting:
        place, node = waiting.pop()
        if place:
            yield place, node
        if isinstance(node, h5py.Dataset):
            if not follows_links:
                _check_values(place, node)
            continue
        if place.count("/") >= DEEPEST_GROUP or len(node) + len(known) > MOST_GROUPS:
            raise DeflareError(
                f"holds more than {MOST_GROUPS:,} groups and datasets, or more than {DEEPEST_GROUP} in each other; "
                "write its events into a file of their own."
            )
        below: list[tuple[str, h5py.Group | h5py.Dataset]] = []
        for name in node:
            link = node.id.links.get_info(name.encode(errors="surrogateescape"))
            if link.type == h5py.h5l.TYPE_EXTERNAL and not follows_links:
                _refuse_link(place, node, name)
            if link.type == h5py.h5l.TYPE_HARD and link.u not in known:
                known.add(link.u)
                below.append((f"{place}/{name}".lstrip("/"), node[name]))
        waiting += reversed([(name, item) for name, item in below if isinstance(item, h5py.Group | h5py.Dataset)])


def _check_values(place: str, dataset: h5py.Dataset) -> None:
    """Raise a DeflareError if a dataset has values in other files."""
    virtual = [source.file_name for source in dataset.virtual_sources()] if dataset.is_virtual else []
    others = [name for name in virtual if name != "."] + [str(name) for name, _, _ in dataset.external or ()]
    if others:
        raise DeflareError(f"{place} has its values in {shorten(others[0])}; {UNASKED}.")


def _refuse_link(place: str, group: h5py.Group, name: str) -> None:
    link, link_place = group.get(name, getlink=True), f"{place}/{name}".lstrip("/")
    raise DeflareError(f"{shorten(link_place)} is a link to {name_target(link)}; {UNASKED}.")


def check_stored(dataset: h5py.Dataset) -> None:
    """Raise a DeflareError if a file declares values that it does not hold: HDF5 reads zeros in their place."""
    if not dataset.shape:
        return
    if dataset.shape[0] > MOST_EVENTS:
        raise DeflareError(
            f"{dataset.name[1:]} declares {dataset.shape[0]:,} values; no recording has more than {MOST_EVENTS:,}."
        )
    if dataset.is_virtual or dataset.external or not dataset.size:
        return
    if dataset.chunks:
        held = dataset.id.get_num_chunks() * dataset.chunks[0]
    else:
        held = dataset.shape[0] if dataset.id.get_storage_size() else 0
    if held < dataset.shape[0]:
        raise DeflareError(
            f"{dataset.name[1:]} declares {dataset.shape[0]:,} values, and the file holds {held:,}; copy or record it "
            "again."
        )


def name_target(link: h5py.ExternalLink) -> str:
    """What a link to another file leads to, in words."""
    return f"{shorten(link.path)} in the file {shorten(link.filename)}"


def check_links(group: h5py.Group, names: Iterable[str]) -> None:
    """Raise a DeflareError if one of these entries of a group is a link to what is not there."""
    for name in names:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.HardLink) or group.get(name) is not None:
            continue
        place = f"{group.name.rstrip('/')}/{name}"[1:]
        if isinstance(link, h5py.ExternalLink):
            raise DeflareError(
                f"{shorten(place)} is a link to {name_target(link)}, which cannot be opened from here; put that file "
                "in its place, or convert the recording where it is."
            )
        raise DeflareError(
            f"{shorten(place)} is a link to {shorten(getattr(link, 'path', ''))}, which is not in the file."
        )


def check_sources(dataset: h5py.Dataset, depth: int = 0) -> None:
    """Raise a DeflareError if values of a dataset are in files that are not there: HDF5 reads zeros in their place."""
    folder = Path(dataset.file.filename).parent
    for name, _, _ in dataset.external or ():
        if not (found := folder / name).exists() and not (found := Path(name)).exists():
            raise _missing(dataset, name, name)
        check_input(found)
    if not dataset.is_virtual:
        return
    for source in dataset.virtual_sources():
        if "%b" in source.file_name:
            raise DeflareError(f"{dataset.name[1:]} is a virtual dataset of numbered files; write its values into one.")
        _check_source(dataset, folder, source, depth)
    covered = sum(source.vspace.get_select_npoints() for source in dataset.virtual_sources())
    if covered < dataset.size:
        raise DeflareError(
            f"{dataset.name[1:]} is a virtual dataset; its sources hold {covered} of {dataset.size} values."
        )


def _check_source(dataset: h5py.Dataset, folder: Path, source: h5py._hl.vds.VDSmap, depth: int) -> None:
    """Raise a DeflareError unless what a virtual dataset takes from a source is all there."""
    file_name, name = source.file_name, source.dset_name
    if file_name != "." and (folder / file_name).exists():
        check_input(folder / file_name)
    try:
        with nullcontext(dataset.file) if file_name == "." else h5py.File(folder / file_name, "r") as file:
            found = file.get(name)
            if not isinstance(found, h5py.Dataset) or depth == DEEPEST:
                raise _missing(dataset, file_name, f"{name} is no dataset of it")
            if not _holds(found, source):
                raise _missing(dataset, file_name, f"{name} has the shape {found.shape} there")
            check_sources(found, depth + 1)
    except OSError as error:
        raise _missing(dataset, file_name, error) from error


def _holds(found: h5py.Dataset, source: h5py._hl.vds.VDSmap) -> bool:
    """Whether a dataset has all the values that a virtual one takes of it."""
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        return found.size >= source.vspace.get_select_npoints()
    ends = source.src_space.get_select_bounds()[1]
    return len(ends) == found.ndim and all(end < size for end, size in zip(ends, found.shape, strict=True))


def _missing(dataset: h5py.Dataset, file_name: str, cause: object) -> DeflareError:
    return DeflareError(
        f"{dataset.name[1:]} has its values in {shorten(file_name)}, which cannot be read from here "
        f"({shorten(cause)}); put that file in its place, or convert the recording where it is."
    )
