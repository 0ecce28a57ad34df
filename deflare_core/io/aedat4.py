"""AEDAT4: iniVation's container of several streams, of which one of events is read.

After a line of text comes a header that describes the streams in XML, then packets, each of one stream, compressed
with LZ4 or Zstandard. Header and packets are flatbuffers: tables whose fields stand where a table of offsets says.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

import lz4.frame
import numpy as np
import zstandard

from deflare_core.events import SensorSize, check_sensor_size
from deflare_core.io.oddities import UNCLOSED, Oddities
from deflare_core.io.reading import PIECE_EVENTS, Columns, Content, Reading, explain_damage
from deflare_core.system.errors import DeflareError, shorten
from deflare_core.system.limits import MOST_PACKET_BYTES

LINE = b"#!AER-DAT4.0\r\n"
EVENT = np.dtype(
    {"names": ["t", "x", "y", "p"], "formats": ["<i8", "<i2", "<i2", "?"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
EMPTY_BYTES = 32
"""Bytes of a packet that has no field for its events; one of none may leave it out."""
CUT_SHORT = "the file is cut short: it ends in its header; copy or record it again."
DAMAGE = (
    *(struct.error, ValueError, RuntimeError, KeyError, IndexError, MemoryError, OverflowError),
    *(ElementTree.ParseError, zstandard.ZstdError),
)
"""What is raised where bytes mean nothing."""


def _unpack_lz4(data: bytes) -> bytes:
    return lz4.frame.LZ4FrameDecompressor().decompress(data, MOST_PACKET_BYTES + 1)


def _unpack_zstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor(max_window_size=MOST_PACKET_BYTES).stream_reader(data).read(MOST_PACKET_BYTES + 1)


DECOMPRESS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    **dict.fromkeys((1, 2), _unpack_lz4),
    **dict.fromkeys((3, 4), _unpack_zstd),
}
"""By the number of the compression in the header."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of events in a file: its number, the names of its camera and output, its sensor (height, width)."""

    number: int
    camera: str
    output: str
    sensor_size: SensorSize | None


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a stream: its packets, their events, and the last of their times."""

    num_packets: int = 0
    num_events: int = 0
    last_us: int = 0

    def add(self, events: np.ndarray) -> Found:
        """What was found with one more packet."""
        last_us = int(events["t"][-1]) if len(events) else self.last_us
        return replace(
            self, num_packets=self.num_packets + 1, num_events=self.num_events + len(events), last_us=last_us
        )

    def __str__(self) -> str:
        return f"{self.num_events:,} events" + (f" up to {self.last_us:,} us" if self.num_events else "")


@dataclass(frozen=True, slots=True)
class Packets:
    """Where the packets of a file begin and end, how they are decompressed, and what the header says of them.

    Parameters
    ----------
    end : as the header says it.
    streams : the numbers of those that it describes.
    """

    path: Path
    start: int
    end: int
    decompress: Callable[[bytes], bytes]
    streams: set[str | None]

    @property
    def is_closed(self) -> bool:
        """Whether the header says where packets end, as whoever records writes there when he closes the file."""
        return self.end > self.start

    def explain_end(self, found: Found, at: int, size: int) -> str:
        """Why a file ends in the packet that begins at a place, what was found before, and what to do."""
        before = f"before it {found} are whole"
        if not self.is_closed:
            return (
                f"the file is cut short: it was never closed, and its last packet is not whole; {before}. To read "
                f"these, take what is whole: head -c {at} OLD > NEW.aedat4."
            )
        if size < self.end:
            return (
                f"the file is cut short: {self.end - size:,} bytes of its packets are missing; {before}. Copy or "
                "record it again."
            )
        return f"the file is damaged: a packet is longer than all that follows; {before}. Copy or record it again."


def read_aedat4(path: Path, reading: Reading) -> Content:
    """The content of one of the streams of events of an AEDAT4 file."""
    with explain_damage(*DAMAGE), path.open("rb") as file:
        if file.read(len(LINE)) != LINE:
            raise DeflareError("is an AEDAT file of an unknown version; read is 4.0.")
        header = _read_exactly(file, *struct.unpack("<I", _read_exactly(file, 4)))
        root = _root(header)
        decompress, end = DECOMPRESS[_scalar(header, root, 0, "<i")], _scalar(header, root, 1, "<q")
        nodes = ElementTree.fromstring(_string(header, root, 2)).findall("node[@name='outInfo']/node")
        packets = Packets(path, file.tell(), end, decompress, {node.get("name") for node in nodes})
        streams, others = _find_streams(nodes)
    if not streams:
        raise DeflareError(
            f"holds no events, only streams of {shorten(', '.join(others)) or 'nothing'}; record events as well."
        )
    name, oddities = reading.choose_stream(streams), Oddities(path)
    stream, layout = streams[name], f"stream {name}" + (", not closed" if not packets.is_closed else "")
    return Content(stream.sensor_size, _join(_decode(packets, stream.number, oddities)), layout, oddities)


def _find_streams(nodes: Iterable[ElementTree.Element]) -> tuple[dict[str, Stream], list[str]]:
    """The streams of events by name, and what the others hold.

    A stream is called as its output is, where cameras have one each as the camera is, or else as both are.
    """
    streams, others = [], []
    for node in nodes:
        said = {attr.get("key"): attr.text or "" for attr in node.iter("attr")}
        if said.get("typeIdentifier") != "EVTS":
            others.append(said.get("originalOutputName", "an unknown kind"))
            continue
        size = check_sensor_size((said["sizeY"], said["sizeX"])) if "sizeX" in said else None  # type: ignore[arg-type]
        number = int(node.get("name", ""))
        streams.append(Stream(number, said.get("source", ""), said.get("originalOutputName", ""), size))
    namings = (lambda s: s.output, lambda s: s.camera, lambda s: f"{s.camera}/{s.output}", lambda s: str(s.number))
    named = ({name_of(stream): stream for stream in streams} for name_of in namings)
    return next(names for names in named if len(names) == len(streams) and "" not in names), others


def _decode(packets: Packets, number: int, oddities: Oddities) -> Iterator[np.ndarray]:
    """The events of each packet of a stream, up to the table of packets, if the file was closed with one."""
    found = Found()
    with explain_damage(*DAMAGE), packets.path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(packets.start)
        while (at := file.tell()) < (packets.end if packets.is_closed else size):
            head = file.read(8)
            stream, num_bytes = struct.unpack("<iI", head) if len(head) == 8 else (number, 0)
            if len(head) < 8 or file.tell() + num_bytes > size:
                raise DeflareError(packets.explain_end(found, at, size))
            if str(stream) not in packets.streams:
                raise DeflareError(f"the file is damaged: a packet is of stream {stream}, which it does not describe.")
            if stream != number:
                file.seek(num_bytes, 1)
                continue
            events = _unpack(file.read(num_bytes), packets.decompress)
            found = found.add(events)
            yield events
    if not packets.is_closed:
        oddities.add(UNCLOSED, found.num_packets, found.num_packets, f": {found}")


def _unpack(data: bytes, decompress: Callable[[bytes], bytes]) -> np.ndarray:
    """The events of a compressed packet."""
    if len(packet := decompress(data)) > MOST_PACKET_BYTES:
        raise DeflareError(
            f"has a packet of more than {MOST_PACKET_BYTES:,} bytes when decompressed; the file is damaged."
        )
    at, length = _vector(packet, _root(packet), 0)
    said, end = struct.unpack_from("<I", packet)[0], at + length * EVENT.itemsize
    ends = (len(packet), 0) if len(packet) <= EMPTY_BYTES else (len(packet),)
    if said != len(packet) - 4 or packet[8:12] != b"EVTS" or end not in ends:
        raise DeflareError("the file is damaged: a packet holds something else than it says; copy or record it again.")
    return np.frombuffer(packet, EVENT, length, at)


def _join(packets: Iterator[np.ndarray]) -> Iterator[Columns]:
    """The columns of several packets at a time, because they are small."""
    while True:
        batch: list[np.ndarray] = []
        while sum(map(len, batch)) < PIECE_EVENTS and (packet := next(packets, None)) is not None:
            batch.append(packet)
        if not batch:
            return
        events = np.concatenate(batch)
        yield events["t"], events["x"], events["y"], events["p"]


def _read_exactly(file: IO[bytes], num_bytes: int) -> bytes:
    data = file.read(num_bytes)
    if len(data) < num_bytes:
        raise DeflareError(CUT_SHORT)
    return data


def _root(data: bytes) -> int:
    """Where the root table of a flatbuffer is; a packet begins with its size, the header's has been read before."""
    at = 0 if data[4:8] == b"IOHE" else 4
    return at + struct.unpack_from("<I", data, at)[0]


def _field(data: bytes, table: int, number: int) -> int | None:
    """Where a field of a table is, or None if it has its default."""
    offsets = table - struct.unpack_from("<i", data, table)[0]
    (num_bytes,) = struct.unpack_from("<H", data, offsets)
    offset = struct.unpack_from("<H", data, offsets + 4 + 2 * number)[0] if num_bytes > 4 + 2 * number else 0
    return table + offset if offset else None


def _scalar(data: bytes, table: int, number: int, kind: str) -> int:
    at = _field(data, table, number)
    return 0 if at is None else struct.unpack_from(kind, data, at)[0]


def _vector(data: bytes, table: int, number: int) -> tuple[int, int]:
    """Where the items of a vector begin, and how many there are."""
    at = _field(data, table, number)
    if at is None:
        return 0, 0
    at += struct.unpack_from("<I", data, at)[0]
    return at + 4, struct.unpack_from("<I", data, at)[0]


def _string(data: bytes, table: int, number: int) -> str:
    at, length = _vector(data, table, number)
    return data[at : at + length].decode()
