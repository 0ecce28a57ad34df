"""HDF5 files of every kind with a few bits of their tables changed, and what becomes of a process that opens them.

By hand: `PYTHONPATH=.:tests python tests/campaigns/hdf5_flips.py SECONDS [SEED]`. One to three bits are changed;
KIND=ours takes kinds that begin so, KEPT=FOLDER says where files stay that end a process. Last figures (HDF5 2.0.0):

| before trials | files | hang (10 s) | crash | beyond 2 GB |
|---|---|---|---|---|
| tables changed | about 7,100 | 10 | 4 | 0 |
| values changed, behind ten filters | 1,867 | 0 | 1 (bitshuffle) | 0 |
| either, after trials | 1,706 | 0 | 0 | 0 |

Nine of the ten hang where one bit of the length of a text in a global heap is changed, which no checksum covers.
"""

import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from support.recordings import make_events

from deflare_core.io.description import describe
from deflare_core.io.reading import Reading
from deflare_core.io.recordings import open_recording, save_events
from deflare_core.system.errors import DeflareError

MOST_SECONDS, MOST_BYTES = 60, 4 << 30
READING = Reading(follow_links=True, sensor_size=(12, 16))
EVENTS = make_events(num=2_000, duration_us=100_000)
COLUMNS = {name: getattr(EVENTS, name) for name in "txyp"}
Random = np.random.Generator


def ours(path: Path) -> None:
    """A recording as it is written here."""
    save_events(path, EVENTS, source="test", columns={"label": np.zeros(len(EVENTS), np.uint8)})


def plain(version: str, **settings: object) -> Callable[[Path], None]:
    """A recording of a version of HDF5's tables, whose columns are stored as asked for."""

    def make(path: Path) -> None:
        with h5py.File(path, "w", libver=version) as file:
            for name, values in COLUMNS.items():
                file.create_dataset(f"events/{name}", data=values, **settings)
            file["events"].attrs.update({"height": 12, "width": 16, "source": "test", "note": "é" * 9})

    return make


def table(path: Path) -> None:
    """One compound table."""
    with h5py.File(path, "w") as file:
        file.create_dataset("CD/events", data=EVENTS.to_structured(), chunks=(200,))
        file["CD"].attrs["geometry"] = "16x12"


def crowd(version: str) -> Callable[[Path], None]:
    """A recording among forty groups and attributes, which are kept in trees."""

    def make(path: Path) -> None:
        plain(version, chunks=(100,), maxshape=(None,), compression="gzip")(path)
        with h5py.File(path, "a", libver=version) as file:
            for k in range(40):
                file.create_group(f"more/g{k}").attrs["a"] = np.arange(k)
                file["events"].attrs[f"a{k}"] = "word" * k
            file["link"] = h5py.SoftLink("/events")

    return make


def virtual(path: Path) -> None:
    """A recording whose times are a virtual dataset of the same file."""
    plain("latest", chunks=(100,))(path)
    with h5py.File(path, "a", libver="latest") as file:
        file.move("events/t", "stored")
        layout = h5py.VirtualLayout((2_000,), np.int64)
        layout[:1_000] = h5py.VirtualSource(".", "stored", (2_000,))[:1_000]
        layout[1_000:] = h5py.VirtualSource(".", "stored", (2_000,))[1_000:]
        file.create_virtual_dataset("events/t", layout)


def external(path: Path) -> None:
    """A recording whose times are in another file."""
    path.with_name("other.bin").write_bytes(COLUMNS["t"].tobytes())
    plain("earliest")(path)
    with h5py.File(path, "a") as file:
        del file["events/t"]
        file.create_dataset("events/t", (2_000,), np.int64, external=[("other.bin", 0, h5py.h5f.UNLIMITED)])


CHUNKED = {"chunks": (100,), "maxshape": (None,)}
KINDS: dict[str, Callable[[Path], None]] = {
    "ours": ours,
    "contiguous, v0": plain("earliest"),
    "contiguous, v3": plain("latest"),
    "gzip, v0": plain("earliest", compression="gzip", shuffle=True, **CHUNKED),
    "gzip, v3": plain("latest", compression="gzip", fletcher32=True, **CHUNKED),
    "blosc, v2": plain("v108", **CHUNKED, **hdf5plugin.Blosc()),
    "compact, v3, not extensible": plain("latest", chunks=(100,)),
    "szip or scale-offset": plain("earliest", chunks=(100,), scaleoffset=0),
    "compound table": table,
    "many groups, v0": crowd("earliest"),
    "many groups, v3": crowd("latest"),
    "virtual": virtual,
    "external": external,
}
BLOSC = {f"blosc {name}": hdf5plugin.Blosc(cname=name) for name in ("blosclz", "lz4", "zstd", "zlib")}
FILTERS = BLOSC | {
    "blosc2": hdf5plugin.Blosc2(),
    "bitshuffle": hdf5plugin.Bitshuffle(),
    "lz4": hdf5plugin.LZ4(),
    "zstd": hdf5plugin.Zstd(),
    "lzf": {"compression": "lzf"},
    "gzip": {"compression": "gzip"},
}
VALUES = {f"values, {name}": plain("earliest", chunks=(500,), **settings) for name, settings in FILTERS.items()}
"""What is read through code of others, and carries no checksum: of these the values are changed."""


def find_tables(path: Path) -> np.ndarray:
    """Where in a file its tables are: all bytes but those of values, and one in ten of those that are 0."""
    is_table = np.ones(path.stat().st_size, bool)

    def leave_out(_: str, node: object) -> None:
        if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external:
            return
        spans = [(node.id.get_offset(), node.id.get_storage_size())]
        if node.chunks:
            chunks = map(node.id.get_chunk_info, range(node.id.get_num_chunks()))
            spans = [(chunk.byte_offset, chunk.size) for chunk in chunks]
        for start, size in spans:
            if start is not None:
                is_table[start : start + size] = False

    with h5py.File(path) as file:
        file.visititems(leave_out)
    places = np.flatnonzero(is_table)
    is_said = np.frombuffer(path.read_bytes(), np.uint8)[places] > 0
    return places[is_said | (places % 10 == 0)]


def flip(data: bytes, places: np.ndarray, rng: Random) -> bytes:
    """The bytes with one to three bits changed in some of these places; half the time close to each other."""
    raw, number = bytearray(data), int(rng.integers(1, 4))
    near = int(rng.integers(len(places)))
    for _ in range(number):
        at = places[min(near + int(rng.integers(64)), len(places) - 1)] if rng.random() < 0.5 else rng.choice(places)
        raw[int(at)] ^= 1 << int(rng.integers(8))
    return bytes(raw)


def read(path: Path) -> str:
    """What is answered by whoever reads the file in two ways."""
    answers = []
    for act in (lambda: open_recording(path, READING, progress=False).load(), lambda: describe(path, READING)):
        try:
            act()
            answers.append("read")
        except DeflareError:
            answers.append("refused")
        except BaseException as error:
            answers.append(type(error).__name__)
    return answers[0] if answers[0] not in ("read", "refused") else answers[1]


def try_once(path: Path) -> str:
    """How a process ends that reads the file: what is answered, or what has killed it."""
    ready, done = os.pipe()
    if not (child := os.fork()):
        signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(path.parent)  # where HDF5 looks for the files that values are in
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.write(done, read(path).encode())
        os._exit(0)
    os.close(done)
    _, status, usage = os.wait4(child, 0)
    answer = os.read(ready, 99).decode()
    os.close(ready)
    ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else answer
    return f"{ended}, beyond 2 GB" if usage.ru_maxrss > 2 << 20 else ended


def main(seconds: float, seed: int) -> None:
    """Try files for so long, and print how many ended how, and where those are that killed a process."""
    end, found, slowest = time.monotonic() + seconds, Counter(), Counter()
    kept = Path(os.environ.get("KEPT", tempfile.gettempdir()))
    with tempfile.TemporaryDirectory() as folder:
        path, bases = Path(folder) / "a.h5", {}
        for kind, make in (KINDS | VALUES).items():
            make(path)
            tables = find_tables(path)
            values = np.setdiff1d(np.arange(path.stat().st_size), tables)
            bases[kind] = path.read_bytes(), values if kind in VALUES else tables
            assert try_once(path) == "read", f"{kind}: {try_once(path)}"
            path.unlink()
        kinds, count = [kind for kind in bases if kind.startswith(os.environ.get("KIND", ""))], 0
        while time.monotonic() < end:
            kind, rng = kinds[count % len(kinds)], np.random.default_rng(seed + count)
            path.write_bytes(flip(*bases[kind], rng))
            started = time.monotonic()
            answer = try_once(path)
            slowest[kind] = max(slowest[kind], time.monotonic() - started)
            found[kind, answer] += 1
            if answer not in ("read", "refused"):
                name = "_".join(kind.replace(",", "").split())
                (kept / f"{name}-{seed + count}-{answer[:7]}.h5").write_bytes(path.read_bytes())
            count += 1
    for (kind, answer), number in sorted(found.items()):
        sys.stdout.write(f"{kind:30} {answer:24} {number:6}\n")
    sys.stdout.write(f"seed {seed}: {count} files; slowest {slowest.most_common(3)}\n")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(np.random.default_rng().integers(2**40)))
