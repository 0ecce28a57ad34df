"""Camera files: what Prophesee and iniVation cameras write, decoded by faery.

The decoders are not written here: faery (LGPL-3.0) is an optional dependency, imported when needed. Readers were
compared event by event on three public recordings, in EVT2, EVT3 and AEDAT4, 1.2 million events in all. faery 0.7.1
and evlib 0.13.2 agree on all three, and with dv-processing 2.0.4 on AEDAT4. expelliarmus 1.1.12 agrees on EVT2, but
stretches EVT3's times to twice their length (4.15 s for 2.08 s). faery was chosen because it streams and needs nothing
but numpy. EVT2.1 is not read: faery panics on it, and evlib reads the one of its two byte orders, but makes up events
from the other without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from deflare_core.events import SensorSize, checked_sensor_size
from deflare_core.io.columns import PIECE_EVENTS, Columns, Content, TimeUnit
from deflare_core.system.errors import DeflareError

EVT_VERSIONS = {"2": "evt2", "2.0": "evt2", "3": "evt3", "3.0": "evt3"}
WORD_BYTES = {"evt2": 4, "evt3": 2, "dat": 8}
HEAD_BYTES = 4096


def read_evt(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> Content:
    """The content of a Prophesee RAW file: EVT2 or EVT3."""
    stated = evt_version(_head(path))
    version = EVT_VERSIONS.get(stated)
    if version is None:
        raise DeflareError(
            f"is EVT{stated}; read are EVT2 and EVT3. Convert it to DAT or CSV with the tools of the camera's maker."
        )
    _check_whole_words(path, WORD_BYTES[version], 0)
    return _read_faery(path, sensor_size, "evt")


def read_dat(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> Content:
    """The content of a Prophesee DAT file."""
    _check_whole_words(path, WORD_BYTES["dat"], 2)
    return _read_faery(path, sensor_size, "dat")


def read_aedat4(path: Path, sensor_size: SensorSize | None, time_unit: TimeUnit | None) -> Content:
    """The content of an iniVation AEDAT4 file."""
    return _read_faery(path, sensor_size, "aedat")


def _read_faery(path: Path, sensor_size: SensorSize | None, file_type: str) -> Content:
    """The content of a camera file. A fallback of one pixel tells whether the file states its size."""
    unstated = (1, 1)
    faery = _faery()
    with _decoding():
        decoder = faery.events_stream_from_file(path, dimensions_fallback=unstated, file_type=file_type)
    width, height = decoder.dimensions()
    if (width, height) != unstated:
        return Content((height, width), _faery_pieces(decoder))
    if sensor_size is not None:
        fallback = checked_sensor_size(sensor_size)[::-1]
        decoder = faery.events_stream_from_file(path, dimensions_fallback=fallback, file_type=file_type)
    return Content(None, _faery_pieces(decoder))


def _faery() -> ModuleType:
    try:
        import faery
    except ImportError as error:
        raise DeflareError(
            "camera formats are read through faery, which is not installed: pip install faery."
        ) from error
    return faery


def _faery_pieces(decoder: Iterable[np.ndarray]) -> Iterator[Columns]:
    """The columns of a decoder's packets, several packets at a time because they are small."""
    packets = iter(decoder)
    while batch := _batch(packets):
        events = np.concatenate(batch)
        yield events["t"], events["x"], events["y"], events["p"]


def _batch(packets: Iterator[np.ndarray]) -> list[np.ndarray]:
    batch: list[np.ndarray] = []
    with _decoding():
        while sum(map(len, batch)) < PIECE_EVENTS and (packet := next(packets, None)) is not None:
            batch.append(packet)
    return batch


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn what faery raises into a DeflareError: bare exceptions, and panics, which are not even those."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise DeflareError(_undecodable(error)) from error


def _undecodable(error: BaseException) -> str:
    cause = " ".join(str(error).split())
    if "overflow" in cause:
        return f"{cause}; give the sensor size of the camera that made the recording, or copy the file again."
    return f"cannot be decoded ({cause}); copy or record it again."


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def evt_version(head: bytes) -> str:
    """The EVT version in a Prophesee header as it is written there, or '' when there is none."""
    found = re.search(rb"^% *(?:evt +|format +EVT)([\d.]+)", head, re.MULTILINE | re.IGNORECASE)
    return found[1].decode() if found and head.startswith(b"%") else ""


def _check_whole_words(path: Path, word_bytes: int, bytes_before: int) -> None:
    """Refuse a file that ends inside a word: faery would drop the rest in silence."""
    start = 0
    with path.open("rb") as file:
        while (line := file.readline(HEAD_BYTES)).startswith(b"% ") and line.strip() != b"% end":
            start = file.tell()
        start = file.tell() if line.strip() == b"% end" else start
    if (path.stat().st_size - start - bytes_before) % word_bytes:
        raise DeflareError("the file is cut short: it ends in the middle of an event; copy or record it again.")
