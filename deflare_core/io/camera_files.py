"""Camera files: what Prophesee and iniVation cameras write, decoded by faery.

faery (LGPL-3.0) is an optional dependency, imported when needed, chosen because it streams and needs numpy alone. On
three public recordings in EVT2, EVT3 and AEDAT4, 1.2 million events in all, faery 0.7.1 and evlib 0.13.2 agree event
by event, and with dv-processing 2.0.4 on AEDAT4; expelliarmus 1.1.12 stretches EVT3's times to twice their length.
EVT2.1 is not read: faery panics on it, and evlib makes up events from one of its two byte orders without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from deflare_core.events import check_sensor_size
from deflare_core.io.reading import HEAD_BYTES, PIECE_EVENTS, Columns, Content, Reading
from deflare_core.system.errors import DeflareError

EVT_WORD_BYTES = {"2": 4, "2.0": 4, "3": 2, "3.0": 2}
"""Bytes of a word, by the version in the header."""


def read_evt(path: Path, reading: Reading) -> Content:
    """The content of a Prophesee RAW file: EVT2 or EVT3."""
    with path.open("rb") as file:
        version = _evt_version(file.read(HEAD_BYTES))
    if version not in EVT_WORD_BYTES:
        raise DeflareError(
            f"is EVT{version}; read are EVT2 and EVT3. Convert it to DAT or CSV with the tools of the camera's maker."
        )
    _check_whole_words(path, EVT_WORD_BYTES[version], 0)
    return _read_faery(path, reading, "evt")


def read_dat(path: Path, reading: Reading) -> Content:
    """The content of a Prophesee DAT file."""
    _check_whole_words(path, 8, 2)
    return _read_faery(path, reading, "dat")


def read_aedat4(path: Path, reading: Reading) -> Content:
    """The content of an iniVation AEDAT4 file."""
    return _read_faery(path, reading, "aedat")


def _read_faery(path: Path, reading: Reading, file_type: str) -> Content:
    """The content of a camera file."""
    try:
        import faery
    except ImportError as error:
        raise DeflareError("camera files are read through faery, which is not installed: pip install faery.") from error
    # A file that does not state its sensor takes the fallback: a sensor of one pixel, which no camera has, shows that.
    unstated = (1, 1)
    asked = check_sensor_size(reading.sensor_size or unstated)
    with _decoding():
        decoder = faery.events_stream_from_file(path, dimensions_fallback=unstated, file_type=file_type)
        width, height = decoder.dimensions()
        if (width, height) == unstated != asked:
            decoder = faery.events_stream_from_file(path, dimensions_fallback=asked[::-1], file_type=file_type)
    return (None if (width, height) == unstated else (height, width)), _pieces(decoder)


def _pieces(decoder: Iterable[np.ndarray]) -> Iterator[Columns]:
    """The columns of a decoder's packets, several packets at a time because they are small."""
    packets = iter(decoder)
    while True:
        batch: list[np.ndarray] = []
        with _decoding():
            while sum(map(len, batch)) < PIECE_EVENTS and (packet := next(packets, None)) is not None:
                batch.append(packet)
        if not batch:
            return
        events = np.concatenate(batch)
        yield events["t"], events["x"], events["y"], events["p"]


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn what faery raises into a DeflareError: bare exceptions, and panics of Rust, which are not even those."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        cause = " ".join(str(error).split())
        raise DeflareError(
            f"{cause}; give the sensor size of the camera that made the recording, or copy the file again."
            if "overflow" in cause
            else f"cannot be decoded ({cause}); copy or record it again."
        ) from error


def is_evt(head: bytes) -> bool:
    """Whether a file that begins so is a Prophesee RAW file, of whatever EVT version."""
    return bool(_evt_version(head))


def is_dat(head: bytes) -> bool:
    """Whether a file that begins so is a Prophesee DAT file."""
    return head.startswith(b"%") and bool(re.search(rb"^% *(Data file containing|Version [12]\b)", head, re.MULTILINE))


def _evt_version(head: bytes) -> str:
    """The EVT version in a Prophesee header as it is written there, or '' when there is none."""
    found = re.search(rb"^% *(?:evt +|format +EVT)([\d.]+)", head, re.MULTILINE | re.IGNORECASE)
    return found[1].decode() if found and head.startswith(b"%") else ""


def _check_whole_words(path: Path, word_bytes: int, bytes_before: int) -> None:
    """Raise a DeflareError unless a file ends with a whole word; faery would drop the rest of one in silence."""
    start = 0
    with path.open("rb") as file:
        while (line := file.readline(HEAD_BYTES)).startswith(b"% ") and line.strip() != b"% end":
            start = file.tell()
        start = file.tell() if line.strip() == b"% end" else start
    if (path.stat().st_size - start - bytes_before) % word_bytes:
        raise DeflareError("the file is cut short: it ends in the middle of an event; copy or record it again.")
