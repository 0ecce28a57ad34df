"""Input made by chance, of a known structure with odd parts, and what a command makes of it.

By hand: `PYTHONPATH=.:tests python -m support.fuzzing SECONDS [SEED]`.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from deflare_core.app.commands import main
from deflare_core.io.recordings import save_events
from support.camera_bytes import aedat4, es, evt2_bytes, evt3_bytes
from support.checkpoints import save_small_checkpoint
from support.faults import EVENTS, h5
from support.processes import SERVER, start_server

MOST_SECONDS, MOST_BYTES = 20, 4 << 30
"""What a command may take of time and memory, whatever it is given."""
Random = np.random.Generator
NUMBERS = (0, 1, -1, 12, 16, 255, 2**31, 2**53, 2**62, 2**63 - 1, -(2**63), 10**12, 10**18)
ODD = (
    *NUMBERS,
    0.5,
    np.inf,
    -np.inf,
    np.nan,
    1e308,
    "",
    "x",
    "12x16",
    "us",
    "\x1b[31m",
    "\n",
    "é" * 300,
    b"\xff",
    True,
)
ODD_ARRAYS = (np.zeros(0), np.zeros((2, 2)), np.arange(3), np.array([1j]), np.zeros(1, [("a", int)]), h5py.Empty("i8"))
ATTRIBUTES = ("height", "width", "t_start_us", "t_end_us", "t_offset", "geometry", "sensor_resolution", "time_unit")
WORDS = ("seed", "method", "baf", "num_bins", "level", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: ", "\n", "  ")
WORDS += (
    ", ",
    "1",
    "1e308",
    ".nan",
    "null",
    "true",
    "!!binary ",
    '"',
    "'",
    "|",
    ">",
    "#",
    "%",
    "\t",
    "\x00",
    "é",
    "2001-01-01",
)
READERS = (
    "infer -i IN -o OUT --method baf",
    "convert IN OUT.npz",
    "info IN",
    "encode IN OUT.npy",
    "convert IN OUT --sort",
)


def pick(rng: Random, values: tuple) -> object:
    """One of the values."""
    return values[int(rng.integers(len(values)))]


def flip(rng: Random, data: bytes, reach: int = 4_000) -> bytes:
    """The bytes with up to four of the first changed."""
    raw = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        raw[int(rng.integers(min(reach, len(raw))))] = int(rng.integers(256))
    return bytes(raw)


def odd_attributes(rng: Random, path: Path) -> None:
    """HDF5 with attributes that are something else."""
    h5()(path)
    with h5py.File(path, "a") as file:
        for _ in range(int(rng.integers(1, 4))):
            node = pick(rng, (file, file["events"], file["events/t"]))
            with contextlib.suppress(OSError, ValueError, TypeError, OverflowError):
                node.attrs[str(pick(rng, ATTRIBUTES))] = pick(rng, (*ODD, *ODD_ARRAYS))


def odd_columns(rng: Random, path: Path) -> None:
    """HDF5 with datasets of other types, shapes, storage and links."""
    h5()(path)
    shapes = ((0,), (2_000,), (2_000, 1), (10**6,), (10**12,), (2**60,), ())
    types = ("i1", "u8", "f2", "f8", "c16", "S1", "S99999", "?", h5py.string_dtype(), h5py.vlen_dtype("i4"), "V3")
    with h5py.File(path, "a") as file:
        for _ in range(int(rng.integers(1, 4))):
            name = f"events/{pick(rng, ('t', 'x', 'y', 'p', 'ms_to_idx', 't_offset', 'label', 'more'))}"
            file.pop(name, None)
            with contextlib.suppress(OSError, ValueError, TypeError, OverflowError, RuntimeError):
                kind = int(rng.integers(5))
                if kind == 0:
                    file[name] = pick(
                        rng, (h5py.SoftLink("/events"), h5py.SoftLink("/no"), h5py.ExternalLink("b", "p"))
                    )
                elif kind == 1:
                    file[name] = file[str(pick(rng, ("/", "events")))]
                elif kind == 2:
                    file[name] = pick(rng, (*ODD, *ODD_ARRAYS))
                else:
                    chunks = True if kind == 3 else None
                    file.create_dataset(name, pick(rng, shapes), pick(rng, types), chunks=chunks)


def odd_header(rng: Random, path: Path) -> None:
    """An npy file whose header says something else."""
    shape = pick(
        rng, ("(9,)", "(9, 4)", "(-1,)", "()", "(1000000000000, 4)", "(4, 9, 9, 9)", "(9.5, 4)", "x", "(" * 999)
    )
    kind = pick(rng, ("'<i8'", "'<f4'", "'O'", "'V9'", "[('t','<i8')]", "'S99999999'", "7", "'<M8[s]'", "'<c16'"))
    text = f"{{'descr': {kind}, 'fortran_order': {pick(rng, ('False', 'True', '9'))}, 'shape': {shape}}}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + rng.bytes(288))


def odd_words(rng: Random, path: Path) -> None:
    """A camera's file whose header or words are by chance."""
    head = f"% evt {pick(rng, (2, 2.1, 3, 9))}.0\n% geometry {pick(rng, NUMBERS)}x{pick(rng, (8, 12, 720))}\n% end\n"
    whole = pick(rng, (evt2_bytes(EVENTS), evt3_bytes(EVENTS), es(EVENTS.to_array().tolist())))
    path.write_bytes(
        pick(rng, (head.encode() + rng.bytes(800), flip(rng, whole), whole[: int(rng.integers(len(whole)))]))
    )


def odd_packets(rng: Random, path: Path) -> None:
    """An AEDAT4 file with changed bytes."""
    whole = aedat4({("A", "events"): [EVENTS.to_array().tolist()]}, compression=int(rng.integers(5)))
    path.write_bytes(flip(rng, whole, int(pick(rng, (800, len(whole))))))


def odd_tables(rng: Random, path: Path) -> None:
    """An AEDAT4 file with odd numbers in its tables, sizes, times and frames of compression, or an odd text."""
    chosen = str(pick(rng, ("text", "header", "table", "frame", "head")))

    def change(part: str, data: bytes) -> bytes:
        if part != chosen or rng.uniform() < 0.3:
            return data
        return odd_text(rng, data) if part == "text" else odd_number(rng, data)

    rows = EVENTS.to_array().tolist()
    streams = {("A", "events"): [rows[:999], rows[999:]]}
    closing = pick(rng, (b"table", b""))
    path.write_bytes(aedat4(streams, compression=int(rng.integers(5)), closing=closing, change=change))


def odd_number(rng: Random, data: bytes) -> bytes:
    """The bytes with an odd number at one of the first places, where tables say what is where, or cut off there."""
    at, length = int(rng.integers(min(60, len(data)))), int(pick(rng, (1, 2, 4, 8)))
    number = (int(pick(rng, NUMBERS)) if rng.uniform() < 0.6 else int(rng.integers(256))) % 256**length
    put = number.to_bytes(length, "little")
    end = pick(rng, (at + length, at + length, at + length, at, len(data)))
    return data[:at] + put + data[end:]


def odd_text(rng: Random, data: bytes) -> bytes:
    """The text of a header with a piece of it in another one's place."""
    pieces = re.split(rb"([<>\"= ])", data)
    deep = b"<node>" * 100_000 + b"</node>" * 100_000
    laughs = b"<!DOCTYPE a [<!ENTITY a '%s'>%s]>" % (
        b"ha" * 99,
        b"".join(b"<!ENTITY %c '%s'>" % (98 + k, b"&%c;" % (97 + k) * 30) for k in range(8)),
    )
    odd = [str(value).encode(errors="replace") for value in ODD] + [b"&i;", b"\0", b"", deep, laughs, *pieces]
    for _ in range(int(rng.integers(1, 4))):
        pieces[int(rng.integers(len(pieces)))] = odd[int(rng.integers(len(odd)))]
    return b"".join(pieces)


def odd_bytes(rng: Random, path: Path) -> None:
    """A recording of ours with changed bytes where HDF5 keeps its tables."""
    save_events(path, EVENTS, source="test")
    data = path.read_bytes()
    path.write_bytes(flip(rng, data, int(pick(rng, (800, 4_000, len(data))))))


def odd_settings(rng: Random, path: Path) -> None:
    """Settings put together of pieces of YAML."""
    text = "".join(str(pick(rng, WORDS)) * int(pick(rng, (1, 1, 1, 2, 300))) for _ in range(int(rng.integers(1, 30))))
    path.write_bytes(pick(rng, (text.encode(), flip(rng, b"seed: 1\nmethod: baf\n" + text.encode()))))


def odd_checkpoint(rng: Random, path: Path) -> None:
    """A small checkpoint with other values in its description."""
    shutil.copytree(save_small_checkpoint(path.parent), path)
    said = json.loads((path / "config.json").read_text())
    group = pick(rng, (said, said["model"]))
    values = (None, [], {}, [[]], [8, 16], *(value for value in ODD if not isinstance(value, bytes)))
    group[str(pick(rng, tuple(group)))] = pick(rng, values)
    text = json.dumps(said)
    (path / "config.json").write_text(str(pick(rng, (text, text, text[: int(rng.integers(len(text)))]))))


KINDS: dict[str, tuple[Callable[[Random, Path], None], str, tuple[str, ...]]] = {
    "attributes": (odd_attributes, "a.h5", READERS),
    "columns": (odd_columns, "a.h5", READERS),
    "bytes": (odd_bytes, "a.h5", READERS),
    "header": (odd_header, "a.npy", (*(f"{reader} --sensor-size 12 16" for reader in READERS), "decode IN OUT")),
    "words": (odd_words, "a.raw", READERS),
    "packets": (odd_packets, "a.aedat4", READERS),
    "tables": (odd_tables, "a.aedat4", READERS),
    "settings": (odd_settings, "a.yaml", ("infer -i GOOD -o OUT --config IN --method baf",)),
    "checkpoint": (odd_checkpoint, "odd", ("infer -i GOOD -o OUT device=cpu checkpoint=IN",)),
}
"""What is made, the name of its file, and the commands that meet it."""


def find_fault(kind: str, seed: int, folder: Path) -> str:
    """What is wrong with what a command makes of an input of this kind and seed; '' if nothing is."""
    rng = np.random.default_rng(seed)
    make, name, commands = KINDS[kind]
    places = {"IN": folder / name, "OUT": folder / "out.h5", "GOOD": folder / "good.h5"}
    save_events(places["GOOD"], EVENTS, source="test")
    make(rng, places["IN"])
    words = []
    for word in str(pick(rng, commands)).split():
        key = next((key for key in places if key in word.replace("=", " ").replace(".", " ").split()), "")
        words.append(word.replace(key, str(places[key])) if key else word)
    run = SERVER.Process(target=_run, args=(words, folder))
    run.start()
    run.join(MOST_SECONDS)
    if run.is_alive():
        run.kill()
        run.join()
        return f"{words} took more than {MOST_SECONDS} s"
    said = (folder / "stderr").read_text(errors="replace")
    lines = [line for line in said.splitlines() if line.startswith("deflare ")]
    if run.exitcode not in (0, 1) or "Traceback" in said or len(lines) > 1 or "\x1b[31m" in said:
        return f"{words} ended with {run.exitcode}: {said[-2_000:]}"
    return ""


def _run(words: list[str], folder: Path) -> None:
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.exit(main(words))


def fuzz(seconds: float, seed: int) -> tuple[int, list[str]]:
    """How many inputs were tried in so much time, and what was wrong, each with its kind and seed."""
    end, count, faults = time.monotonic() + seconds, 0, []
    while time.monotonic() < end:
        kind, own_seed = list(KINDS)[count % len(KINDS)], seed + count
        with tempfile.TemporaryDirectory() as folder:
            if fault := find_fault(kind, own_seed, Path(folder)):
                faults.append(f'("{kind}", {own_seed}): {fault}')
        count += 1
    return count, faults


if __name__ == "__main__":
    start_server()
    given = int(sys.argv[2]) if len(sys.argv) > 2 else int(np.random.default_rng().integers(2**40))
    tried, wrong = fuzz(float(sys.argv[1]), given)
    sys.stdout.write("\n".join([*wrong, f"seed {given}: {tried} inputs, {len(wrong)} faults", ""]))
