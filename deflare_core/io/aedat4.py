"""AEDAT4: iniVation's container of several streams, of which one of events is read.

After a line of text comes a header that describes the streams in XML, then packets, each of one stream, compressed
with LZ4 or Zstandard. Header and packets are flatbuffers: tables whose fields stand where a table of offsets says.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

import lz4.frame
import numpy as np
import zstandard

from deflare_core.events import SensorSize, check_sensor_size
from deflare_core.io.oddities import Oddities
from deflare_core.io.reading import PIECE_EVENTS, Columns, Content, Reading, explain_damage
from deflare_core.system.errors import DeflareError
from deflare_core.system.limits import MOST_PACKET_BYTES

LINE = b"#!AER-DAT4.0\r\n"
EVENT = np.dtype(
    {"names": ["t", "x", "y", "p"], "formats": ["<i8", "<i2", "<i2", "?"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
CUT_SHORT = "the file is cut short: it ends before its last packet does; copy or record it again."
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


def read_aedat4(path: Path, reading: Reading) -> Content:
    """The content of one of the streams of events of an AEDAT4 file."""
    with explain_damage(*DAMAGE), path.open("rb") as file:
        if file.read(len(LINE)) != LINE:
            raise DeflareError("is an AEDAT file of an unknown version; read is 4.0.")
        header = _read_exactly(file, *struct.unpack("<I", _read_exactly(file, 4)))
        start = file.tell()
        root = _root(header)
        decompress, end = DECOMPRESS[_scalar(header, root, 0, "<i")], _scalar(header, root, 1, "<q")
        streams, others = _find_streams(_string(header, root, 2))
    if not streams:
        raise DeflareError(f"holds no events, only streams of {', '.join(others) or 'nothing'}; record events as well.")
    name = reading.choose_stream(streams)
    stream = streams[name]
    pieces = _join(_decode(path, stream.number, decompress, start, end))
    return Content(stream.sensor_size, pieces, f"stream {name}", Oddities(path))


def _find_streams(description: str) -> tuple[dict[str, Stream], list[str]]:
    """The streams of events by name, and what the others hold.

    A stream is called as its output is, where cameras have one each as the camera is, or else as both are.
    """
    streams, others = [], []
    for node in ElementTree.fromstring(description).iterfind("node[@name='outInfo']/node"):
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


def _decode(
    path: Path, number: int, decompress: Callable[[bytes], bytes], start: int, end: int
) -> Iterator[np.ndarray]:
    """The events of each packet of a stream, up to the table of packets, if the file was closed with one."""
    with explain_damage(*DAMAGE), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(start)
        while file.tell() < (end if end > start else size):
            stream, num_bytes = struct.unpack("<iI", _read_exactly(file, 8))
            if file.tell() + num_bytes > size:
                raise DeflareError(CUT_SHORT)
            if stream != number:
                file.seek(num_bytes, 1)
                continue
            if len(packet := decompress(_read_exactly(file, num_bytes))) > MOST_PACKET_BYTES:
                raise DeflareError(
                    f"has a packet of more than {MOST_PACKET_BYTES:,} bytes when decompressed; the file is damaged."
                )
            at, length = _vector(packet, _root(packet), 0)
            yield np.frombuffer(packet, EVENT, length, at)


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
