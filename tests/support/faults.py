"""The one table of bad inputs: how each is generated, the command that meets it, and the words of its answer.

Every reader and every command is tried on it; a new bad input is a new row of `FAULTS`.

`PYTHONPATH=tests python -m support.faults` runs them all and writes what each gets to `tests/FAULTS.md`.
"""

import contextlib
import fcntl
import gzip
import io
import json
import os
import pickle
import re
import shutil
import socket
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import IO
from unittest import mock

import h5py
import numpy as np
import torch
from safetensors.torch import load_file, save

from deflare_core.app.commands import main
from deflare_core.checkpoint import load_model
from deflare_core.events import Events
from deflare_core.io.recordings import save_events
from deflare_core.system.places import PROJECT_ROOT
from support.camera_bytes import HEAD2, aedat4, change2, dat, dat_bytes, es, evt2, evt2_bytes, evt3_bytes, evt21, time2
from support.checkpoints import save_small_checkpoint
from support.recordings import make_events

EVENTS = make_events(num=2_000, duration_us=100_000)
COLUMNS = {name: getattr(EVENTS, name) for name in "txyp"}
NAN = float("nan")
TABLE = PROJECT_ROOT / "tests" / "FAULTS.md"
Make = Callable[[Path], object]
"""Writes the bad input to the path that it is given."""


@dataclass(frozen=True)
class Fault:
    """A bad input: the file's name, how it is made, the command on it, and the words that the answer must hold.

    In the command IN stands for the file, OUT for the output, GOOD for a sound recording.
    """

    name: str
    file: str
    make: Make
    words: tuple[str, ...]
    command: str = "infer --input IN --output OUT device=cpu"
    only: bool = False
    """Whether other commands may read the file all the same."""
    at: str = ""
    """The function, by its dotted name, before whose first call the input changes; none: it is bad from the start."""
    change: Make = Path.unlink
    """What happens to it then."""

    @property
    def is_of_a_recording(self) -> bool:
        """Whether the file itself is at fault, and every command that reads recordings must say so."""
        plain = self.command.removesuffix(" device=cpu").removesuffix(" --sensor-size 12 16")
        return plain in (READ, BAF, "convert IN OUT", "encode IN OUT.npy") and not self.only


def h5(**columns: object) -> Make:
    """A plain HDF5 recording with some of its columns replaced; None leaves one out."""

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, values in (COLUMNS | columns).items():
                if values is not None:
                    file[f"events/{name}"] = values
            file["events"].attrs.update({"height": 12, "width": 16})

    return make


def h5_and_result(path: Path) -> None:
    """A recording, and where its result would be a file that is something else."""
    h5()(path)
    path.with_name(f"{path.stem}_deflared.h5").write_bytes(b"kept")


def h5_and_link(path: Path) -> None:
    """A recording, and where the journal of its result would be a link to something else."""
    h5()(path)
    path.with_name(".out.h5.journal").symlink_to(path)


def h5_without_size(path: Path) -> None:
    h5()(path)
    with h5py.File(path, "a") as file:
        file["events"].attrs.clear()


def other_group(path: Path) -> None:
    h5()(path)
    with h5py.File(path, "a") as file:
        file.move("events", "event")
        del file["event/p"]


def changed(name: str, index: int, value: float, dtype: type | None = None) -> np.ndarray:
    """A column with one value replaced."""
    column = COLUMNS[name].astype(dtype or np.int64)
    column[index] = value
    return column


def exchanged() -> np.ndarray:
    """The times with two of ten stretches in each other's place, so that the ends are where they were."""
    parts = np.array_split(COLUMNS["t"], 10)
    return np.concatenate([*parts[:3], parts[6], *parts[4:6], parts[3], *parts[7:]])


def content(data: bytes) -> Make:
    """A file of these bytes."""
    return lambda path: path.write_bytes(data)


def recording(path: Path) -> bytes:
    """The bytes of a sound recording."""
    save_events(path, EVENTS, source="test")
    return path.read_bytes()


def cut(share: float) -> Make:
    """A recording of which only the first part is there."""

    def make(path: Path) -> None:
        data = recording(path)
        path.write_bytes(data[: int(len(data) * share)])

    return make


def text(*rows: str) -> Make:
    """A text file of these lines."""
    return content("".join(f"{row}\n" for row in rows).encode())


def npz(**columns: object) -> Make:
    """An archive of columns."""
    return lambda path: np.savez(path, **{**COLUMNS, "sensor_size": (12, 16), **columns})


def npy_cut(path: Path) -> None:
    np.save(path, np.zeros((5_000, 4)))
    path.write_bytes(path.read_bytes()[:-9])


def npz_cut(path: Path) -> None:
    np.savez(path, **COLUMNS)
    path.write_bytes(path.read_bytes()[:-700])


def npz_flipped(path: Path) -> None:
    np.savez_compressed(path, **COLUMNS)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 255
    path.write_bytes(data)


def npy(array: np.ndarray, **settings: object) -> Make:
    """An array."""
    return lambda path: np.save(path, array, **settings)


def pair(clean: Events) -> Make:
    """A folder of a pair, whose input holds the usual events, and settings to train on it."""

    def make(path: Path) -> None:
        save_events(path / "noisy" / "a.h5", EVENTS, source="test")
        save_events(path / "clean" / "a.h5", clean, source="test")
        (path / "train.yaml").write_text(
            "data: &pair {noisy_dir: pair/noisy, clean_dir: pair/clean}\nvalidation: *pair\n"
        )

    return make


def in_thousandths() -> Events:
    """The usual events, their times in milliseconds."""
    return Events.from_columns(**(COLUMNS | {"t": COLUMNS["t"] // 1000}), sensor_size=EVENTS.sensor_size)


class Malicious:
    """A pickle that would write a file where it is loaded."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("pickle_was_run"),))


def npz_as_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, voxels=np.zeros((8, 4, 4), np.float32))


def nan_voxel(path: Path) -> None:
    voxel = np.zeros((8, 12, 16), np.float32)
    voxel[3, 4, 5] = NAN
    np.save(path, voxel)


def listening(path: Path) -> None:
    """A socket; its name may be no longer than a hundred letters, so it is made where it is."""
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def link(target: str) -> Make:
    """A link to another name."""
    return lambda path: path.symlink_to(target)


def piped_weights(path: Path) -> None:
    shutil.copytree(save_small_checkpoint(path.parent), path)
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors")


def nothing(path: Path) -> None:
    """No file."""


def torch_file(value: object) -> Make:
    """What torch.save makes."""
    return lambda path: torch.save(value, path)


def weights_of(change: Callable[[dict[str, torch.Tensor]], object], **settings: bool) -> Make:
    """A file of torch.save with the weights of a small network, after a change, beside the network's run."""

    def make(path: Path) -> None:
        weights = load_model(save_small_checkpoint(path.parent), "cpu").state_dict()
        change(weights)
        torch.save({"model_state_dict": weights}, path, **settings)

    return make


def tar_archive(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        file.add(__file__)


def checkpoint_of(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor] | bytes]) -> Make:
    """A checkpoint whose weights are others, or whose file of weights holds these bytes."""

    def make(path: Path) -> None:
        shutil.copytree(save_small_checkpoint(path.parent), path)
        file = path / "model.safetensors"
        changed = change(load_file(file))
        file.write_bytes(changed if isinstance(changed, bytes) else save(changed))

    return make


def of_kind(kind: torch.dtype) -> Make:
    """A checkpoint of which some weights are of this kind."""
    return checkpoint_of(lambda w: w | {LAST: w[LAST].to(kind)})


def with_last(values: torch.Tensor) -> Make:
    """A checkpoint of which some weights have these values."""
    return checkpoint_of(lambda w: w | {LAST: values})


def header(text: str, num_bytes: int | None = None) -> Make:
    """A checkpoint whose file of weights has this header, said to be of so many bytes."""
    said = len(text) if num_bytes is None else num_bytes
    return checkpoint_of(lambda _: said.to_bytes(8, "little") + text.encode())


def damaged_weights(path: Path) -> None:
    shutil.copytree(save_small_checkpoint(path.parent), path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def checkpoint_with(**said: object) -> Make:
    """A small checkpoint whose description says something else."""

    def make(path: Path) -> None:
        shutil.copytree(save_small_checkpoint(path.parent), path)
        config = path / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | said))

    return make


def deep_description(path: Path) -> None:
    """A small checkpoint whose description nests more lists than Python can follow."""
    shutil.copytree(save_small_checkpoint(path.parent), path)
    (path / "config.json").write_text("[" * 100_000)


def of_another_network(path: Path) -> None:
    shutil.copytree(save_small_checkpoint(path.parent), path)
    config = path / "config.json"
    config.write_text(config.read_text().replace("16", "32"))


def npz_named(**columns: object) -> Make:
    """An archive of columns of these names alone."""
    return lambda path: np.savez(path, **columns)


def h5_with(name: str, value: object) -> Make:
    """A plain HDF5 recording with one more dataset or link."""

    def make(path: Path) -> None:
        h5()(path)
        with h5py.File(path, "a") as file:
            file.pop(name, None)
            file[name] = value

    return make


def h5_virtual(path: Path) -> None:
    layout = h5py.VirtualLayout((2_000,), np.int64)
    layout[:] = h5py.VirtualSource("gone.h5", "t", (2_000,))
    h5(t=None)(path)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("events/t", layout)


def h5_of_another(path: Path) -> None:
    """A recording whose times are the bytes of another file."""
    path.with_name("other.bin").write_bytes(COLUMNS["t"].tobytes())
    h5(t=None)(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("events/t", (2_000,), np.int64, external=[("other.bin", 0, h5py.h5f.UNLIMITED)])


def h5_flipped(path: Path) -> None:
    """A recording as it is written here, with one bit of the columns x changed."""
    data = bytearray(recording(path))
    with h5py.File(path) as file:
        chunk = file["events/x"].id.get_chunk_info(0)
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    path.write_bytes(data)


def put_byte(wanted: str, at: int, value: int, part: str, data: bytes) -> bytes:
    """The bytes of a part of a file, one of them another if it is the one that is wanted."""
    return data[:at] + bytes([value]) + data[at + 1 :] if part == wanted else data


def replace_by_pipe(path: Path) -> None:
    """Put a pipe, which nothing writes to, in a file's place."""
    path.unlink()
    os.mkfifo(path)


def remove_partner(path: Path) -> None:
    """Remove one file of a pair."""
    (path / "clean" / "a.h5").unlink()


def h5_endless(path: Path) -> None:
    """A recording as it is written here, one bit of which lets HDF5 seek a text for ever: the length of one."""
    data = bytearray(recording(path))
    data[data.index(b"GCOL") + 24] ^= 128
    path.write_bytes(data)


def h5_crashing(path: Path) -> None:
    """A plain HDF5 recording, one bit of which lets HDF5 read where there is no memory: the kind of a text."""
    h5_attributes(note="a text")(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\x19\1\1\0\x10\0\0\0") + 1] ^= 2
    path.write_bytes(data)


LOCKED: list[IO[bytes]] = []
"""Files that stay locked until this process ends."""


def pair_and_run(path: Path) -> None:
    """A sound pair, and where its run would be, one that goes on."""
    pair(EVENTS[::2])(path)
    path.with_name("out.h5").mkdir()
    fcntl.flock(os.open(path.with_name("out.h5"), os.O_RDONLY), fcntl.LOCK_EX)


def h5_locked(path: Path) -> None:
    """A plain HDF5 recording, locked as HDF5 does while it writes."""
    h5()(path)
    LOCKED.append(path.open("rb"))
    fcntl.flock(LOCKED[-1], fcntl.LOCK_EX)


def h5_of_two_cameras(path: Path) -> None:
    h5()(path)
    with h5py.File(path, "a") as file:
        file.move("events", "a")
        file.copy("a", "b")


def h5_attributes(**attributes: object) -> Make:
    """A plain HDF5 recording whose events have these attributes as well."""

    def make(path: Path) -> None:
        h5()(path)
        with h5py.File(path, "a") as file:
            file["events"].attrs.update(attributes)

    return make


def clock(start_us: object, end_us: object) -> Make:
    """A plain HDF5 recording that declares this clock."""
    return h5_attributes(t_start_us=start_us, t_end_us=end_us)


def sensor(height: int, width: int) -> Make:
    """A plain HDF5 recording of this sensor."""
    return h5_attributes(height=height, width=width)


def hour_of_vga(path: Path) -> None:
    """Two bursts an hour apart on a usual sensor."""
    AN_HOUR(path)
    with h5py.File(path, "a") as file:
        file["events"].attrs.update({"height": 480, "width": 640})


def huge_maps(path: Path) -> None:
    """A small checkpoint whose description asks for a thousand terabytes."""
    shutil.copytree(save_small_checkpoint(path.parent), path)
    config = path / "config.json"
    said = json.loads(config.read_text())
    said["model"]["f_maps"] = [10**9, 10**9]
    config.write_text(json.dumps(said))


def h5_table(values: np.ndarray) -> Make:
    """HDF5 with one table, `events`."""

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["events"] = values

    return make


def zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("events.txt", "0.000001 1 1 0\n")


NETWORK = torch.nn.Linear(2, 2)
LAST, FIRST = "backbone.final_conv.bias", "backbone.encoders.0.basic_module.conv1.bias"
ONE = torch.zeros(1)
WITH_MORE = lambda w: w | {"a": ONE + 1, "b": ONE + 2}  # noqa: E731
WITHOUT = lambda w: {name: value for name, value in w.items() if name != LAST}  # noqa: E731
OF_NO_KIND = '{"a": {"dtype": "X9", "shape": [], "data_offsets": [0, 0]}}'
NO_WINDOWS = b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8, 4, 4)}"
NO_WINDOWS = b"\x93NUMPY\x01\x00v\x00" + NO_WINDOWS.ljust(117) + b"\n"
SPARSE = weights_of(lambda w: w.update({LAST: w[LAST].to_sparse()}))
UNREAL = weights_of(lambda w: w.update({LAST: w[LAST].to("meta")}))
REPEATED = weights_of(lambda w: w.update({LAST: ONE.expand(10**9)}))
IMPORT = "import-weights IN OUT"
READ = "infer --input IN --output OUT"
USE = "infer --input GOOD --output OUT device=cpu checkpoint=IN"
DECODE = "decode IN OUT"
SET = "infer --config IN --input GOOD --output OUT"
BAF = "infer --input IN --output OUT --method baf"
BAF_UNNAMED = "infer --input IN --method baf"
SIZED = "infer --input IN --output OUT --sensor-size 12 16 device=cpu"
TRAIN = "train --config IN trainer.output_dir=OUT"
NOWHERE = text("data: &none {noisy_dir: nowhere/noisy, clean_dir: nowhere/clean}", "validation: *none")
VERIFY = "verify IN/noisy IN/clean"
TRAIN_PAIR = "train --config IN/train.yaml trainer.output_dir=OUT trainer.device=cpu"
ROWS = EVENTS.to_array().tolist()
PACKETS = {("A", "events"): [ROWS[:1_000], ROWS[1_000:]]}
UNCLOSED = aedat4(PACKETS, closing=b"")
FIRST_PACKET = len(aedat4({("A", "events"): [ROWS[:1_000]]}, closing=b""))
TWO_CAMERAS = aedat4({("left", "events"): [ROWS], ("right", "events"): [ROWS]})
of_part = lambda part, at, value: content(aedat4(PACKETS, change=partial(put_byte, part, at, value)))  # noqa: E731
AHEAD_AND_BACK = evt2([time2(2_000_000), change2(2_000_000, 1, 1, 1), time2(0), change2(0, 1, 1, 1)])
EVERY_READER = (
    "infer --method baf --input IN --output OUT",
    "convert IN OUT",
    "encode IN OUT.npy",
    "sheet IN OUT.png",
    "view IN --no-browser",
)
"""Commands that read a recording, each in a way of its own: by windows, in pieces, as a whole, and by its span."""
OF_NOTHING = h5(**{name: values[:0] for name, values in COLUMNS.items()})
OF_25_HOURS = h5(t=changed("t", -1, 9 * 10**10))
OF_30_YEARS = h5(t=changed("t", -1, 10**15))
AN_HOUR = h5(t=changed("t", -1, 3_600_000_000))
CONVERT = "convert IN OUT"
ENDLESS_HEADER = b"\x93NUMPY\x01\0\x40\0" + b"{'descr': '<f4', 'fortran_order': False, 'shape': ((((}".ljust(63) + b"\n"
PAIR = pair(EVENTS[::2])
FOUND, CHECKED = "deflare_core.inference.deflare_recording", "deflare_core.io.verify._find_mismatch"
OPENED = "deflare_core.loop.run.find_supply"
"""What commands call once they have found a recording, or have read it a first time."""
IN_US = SIZED + " --time-unit us"
LENIENT = "convert IN OUT --sensor-size 12 16 --polarity lenient"
ON = (COLUMNS["p"] > 0).astype(np.int64)
THREE = np.arange(2_000) % 3 - 1
UNNAMED = "\n".join(f"{min(k, 15)},{k % 12},{k % 2},1" for k in range(99)).encode()


def hollow(num_rows: int, **settings: object) -> Make:
    """A plain HDF5 recording that declares rows which it does not hold."""

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, column in COLUMNS.items():
                file.create_dataset(f"events/{name}", (num_rows,), column.dtype, **settings)
            file["events"].attrs.update({"height": 12, "width": 16})

    return make


def burst(path: Path) -> None:
    """Ten billion events of one microsecond, of which the disk holds none: they are zeros that nobody wrote."""
    with h5py.File(path, "w") as file:
        for name, column in COLUMNS.items():
            file.create_dataset(f"events/{name}", (10**10,), column.dtype, fill_time="never")[0] = 0
        file["events"].attrs.update({"height": 12, "width": 16})


def nested(path: Path, depth: int = 99) -> None:
    """A plain HDF5 recording with groups in groups."""
    h5()(path)
    with h5py.File(path, "a") as file:
        file.create_group("/".join("g" * depth))


def crowded(path: Path) -> None:
    """A plain HDF5 recording among ten thousand groups."""
    h5()(path)
    with h5py.File(path, "a") as file:
        for k in range(10_000):
            file.create_group(f"g{k}")


MANY = np.full((8, 480, 640), 32_767, np.int16)
LAUGHS = ["a0: &a0 [ha, ha]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 30))]
MERGES = ["a0: &a0 {b: 1}", *(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 9)}]}}" for k in range(1, 30))]
SIMULATE = f"simulate --config {PROJECT_ROOT / 'configs' / 'simu_config.yaml'} --output-dir OUT"
PICTURES = "pictures IN --output-dir OUT"
SETTING = "infer --input GOOD --output OUT method=baf"
FAULTS = [
    Fault("no such recording", "a.h5", nothing, ("no such file",)),
    Fault("an empty file", "a.h5", content(b""), ("the file is empty",)),
    Fault("a pipe", "a.h5", os.mkfifo, ("is a pipe", "can be read only once")),
    Fault("a pipe named RAW", "a.raw", os.mkfifo, ("is a pipe", "write what comes out of it to a file")),
    Fault("a socket", "a.h5", listening, ("is a socket",)),
    Fault("a device", "a.h5", link("/dev/zero"), ("is a device",)),
    Fault("a link to nothing", "a.h5", link("elsewhere.h5"), ("a link to elsewhere.h5, which is not there",)),
    Fault("a link to itself", "a.h5", link("a.h5"), ("Too many levels of symbolic links",)),
    Fault("a pipe as checkpoint", "run", os.mkfifo, ("holds no checkpoint",), USE),
    Fault("a pipe as a checkpoint's weights", "piped", piped_weights, ("model.safetensors: is a pipe",), USE),
    Fault("a pipe as weights", "a.pth", os.mkfifo, ("is a pipe",), IMPORT),
    Fault("a pipe as voxels", "a.npy", os.mkfifo, ("is a pipe",), DECODE),
    Fault("a pipe as settings", "a.yaml", os.mkfifo, ("is a pipe",), SET),
    Fault(
        "a stream of a file of one", "a.raw", content(evt2_bytes(EVENTS)), ("no stream 'left'; it has events",),
        f"{READ} --stream left", only=True,
    ),
    Fault("an empty folder", "a.h5", Path.mkdir, ("holds no recordings",), only=True),
    Fault("HDF5, cut to nine tenths", "a.h5", cut(0.9), ("truncated", "copy or record it again")),
    Fault("HDF5, cut to half", "a.h5", cut(0.5), ("copy or record it again",)),
    Fault("HDF5, only its signature", "a.h5", content(b"\x89HDF\r\n\x1a\n"), ("copy or record it again",)),
    Fault("HDF5 without groups", "a.h5", lambda path: h5py.File(path, "w").close(), ("no group 'events'",)),
    Fault("HDF5 without polarities", "a.h5", h5(p=None), ("lacks ['p']",)),
    Fault("HDF5, columns of two lengths", "a.h5", h5(x=COLUMNS["x"][:-1]), ("of one length",)),
    Fault("HDF5, columns of two dimensions", "a.h5", h5(x=COLUMNS["x"][:, None]), ("one-dimensional",)),
    Fault("HDF5, x as text", "a.h5", h5(x=np.full(2_000, b"7")), ("must be numeric",)),
    Fault("HDF5, x as complex numbers", "a.h5", h5(x=COLUMNS["x"].astype(complex)), ("must be numeric",)),
    Fault("a time that is nan", "a.h5", h5(t=changed("t", 5, NAN, float)), ("whole numbers",)),
    Fault("a time that is infinite", "a.h5", h5(t=changed("t", -1, np.inf, float)), ("whole numbers",)),
    Fault("times in seconds", "a.h5", h5(t=COLUMNS["t"] / 1e6), ("whole numbers",)),
    Fault("times that go backwards", "a.h5", h5(t=COLUMNS["t"][::-1]), ("must not go backwards", "Sort")),
    Fault("one time out of order", "a.h5", h5(t=changed("t", 900, 0)), ("must not go backwards",)),
    Fault("two stretches exchanged", "a.h5", h5(t=exchanged()), ("must not go backwards",)),
    Fault("the same, encoded", "a.h5", h5(t=exchanged()), ("must not go backwards",), "encode IN OUT.npy"),
    Fault("a jump of days, converted", "a.npz", npz(t=changed("t", -1, 10**12)), ("hours after",), CONVERT, only=True),
    Fault("a recording of 25 hours", "a.h5", OF_25_HOURS, ("a.h5: An event lies 25 hours",), only=True),
    Fault("the same, by a baseline", "a.h5", OF_25_HOURS, ("a.h5: An event lies 25",), BAF, only=True),
    Fault("the same, converted", "a.h5", OF_25_HOURS, ("a.h5: An",), CONVERT, only=True),
    Fault("x beyond the sensor", "a.h5", h5(x=changed("x", 3, 16)), ("x reaches 16", "Give the sensor size")),
    Fault("y beyond the sensor", "a.h5", h5(y=changed("y", 3, 999)), ("y reaches 999",)),
    Fault("a negative x", "a.h5", h5(x=changed("x", 3, -1)), ("x",)),
    Fault("an x of half a pixel", "a.h5", h5(x=changed("x", 3, 2.5, float)), ("whole numbers",)),
    Fault("a polarity of 2", "a.h5", h5(p=changed("p", 3, 2)), ("found the values", "lenient")),
    Fault("a polarity that is nan", "a.h5", h5(p=changed("p", 3, NAN, float)), ("p",)),
    Fault("an index of one number", "a.h5", h5(ms_to_idx=np.int64(3)), ("ms_to_idx must be a row",), only=True),
    Fault("an index that does not fit", "a.h5", h5(ms_to_idx=np.full(101, 1_999)), ("ms_to_idx",), only=True),
    Fault("a sensor of two sizes", "a.h5", h5(), ("but (99, 99)",), SIZED.replace("12 16", "99 99")),
    Fault("HDF5, 2 kB cut off", "a.h5", cut(0.92), ("truncated", "copy or record it again")),
    Fault("HDF5 with the group of another name", "a.h5", other_group, ("no group 'events'; the file holds",)),
    Fault("HDF5 without y and p", "a.h5", h5(y=None, p=None), ("lacks ['y', 'p']",)),
    Fault("an x that is nan", "a.h5", h5(x=changed("x", 0, NAN, float)), ("Column x", "received nan at event 0")),
    Fault("HDF5 without a sensor size", "a.h5", h5_without_size, ("give sensor_size=(height, width)",), BAF),
    Fault("noise", "a.bin", content(bytes(range(256))), ("no known format",), SIZED),
    Fault("npz, cut short", "a.npz", npz_cut, ("damaged or cut short",)),
    Fault("npz, a byte changed", "a.npz", npz_flipped, ("damaged or cut short",)),
    Fault("npz without y", "a.npz", lambda path: np.savez(path, t=[1], x=[1], p=[1]), ("lacks ['y']",)),
    Fault("npz with a pickle", "a.npz", npz(t=np.array([Malicious()] * 3, object)), ("pickle",)),
    Fault("a web page named h5", "a.h5", content(b"<html>Not found</html>\n"), ("is text, but line 1",), SIZED),
    Fault("npy of three columns", "a.npy", npy(np.ones((5, 3))), ("(N, 4)",), SIZED),
    Fault("npy of texts", "a.npy", npy(np.full((5, 4), "b")), ("fit neither t x y p", "'b'"), SIZED),
    Fault("npy without a sensor size", "a.npy", npy(np.ones((5, 4), int)), ("does not state its sensor",)),
    Fault("npy, cut short", "a.npy", content(b"\x93NUMPY\x01\x00v\x00{'descr'"), ("cannot be read",), SIZED),
    Fault("text without a unit of time", "a.csv", content(b"t,x,y,p\n1,2,3,1\n"), ("unit of time",), SIZED),
    Fault("text, a row too short", "a.csv", content(b"# time_unit: us\n1 2 3 1\n4 5 6\n"), ("3 were found",), SIZED),
    Fault("text that is prose", "a.txt", content(b"Dear diary, today I drove.\n"), ("line 1",), SIZED),
    Fault(
        "RAW EVT2 with x beyond", "a.raw", content(evt2_bytes(make_events(sensor_size=(12, 99)))),
        ("of 500 events beyond the sensor's edge", "give the sensor size of the camera"),
    ),
    Fault("RAW EVT3, cut in its head", "a.raw", content(evt3_bytes(EVENTS)[:9]), ("cut short in its header",)),
    Fault("RAW EVT3, cut in a word", "a.raw", content(evt3_bytes(EVENTS)[:-1]), ("in the middle of an event",)),
    Fault("RAW EVT3 said to be EVT2", "a.raw", content(evt3_bytes(EVENTS, HEAD2)), ("names another format",)),
    Fault("RAW EVT2.1 without times", "a.raw", content(evt21([(5, 3)] * 9)), ("before the first time of the file",)),
    Fault("RAW, its clock set back", "a.raw", content(AHEAD_AND_BACK), ("goes back by 2.000000 s, to 0 us",)),
    Fault("RAW of two sizes", "a.raw", content(b"% evt 2.0\n% geometry 8x8\n% width 9\n"), ("says width twice",)),
    Fault("RAW of unknown version", "a.raw", content(b"% evt 9.0\n% geometry 16x12\n% end\n1234"), ("is EVT9",)),
    Fault("DAT, cut in a word", "a.dat", content(dat_bytes(EVENTS)[:-3]), ("in the middle of an event",)),
    Fault("DAT of triggers", "a.dat", content(dat(ROWS, kind=14)), ("events of type 14", "read are changes")),
    Fault("DAT, its clock set back", "a.dat", content(dat([(400_000, 1, 1, 1), (0, 1, 1, 1)])), ("goes back by 0.4",)),
    Fault("AEDAT4 of two cameras", "a.aedat4", content(TWO_CAMERAS), ("events: left, right", "--stream left")),
    Fault(
        "AEDAT4 of motion alone", "a.aedat4", content(aedat4({("A", "imu"): []}, identifier="IMUS")),
        ("holds no events, only streams of imu",),
    ),
    Fault("AEDAT4 of no known compression", "a.aedat4", content(aedat4({}, compression=9)), ("is damaged",)),
    Fault("DAT of no start", "a.dat", content(dat(ROWS, lines=b"% T0 1.5\n")), ("T0 1.5", "whole microseconds"), SIZED),
    Fault("AEDAT4, cut short", "a.aedat4", content(aedat4({("A", "events"): [ROWS]})[:-9]), ("the file is cut short",)),
    Fault(
        "AEDAT4, never closed and cut short", "a.aedat4", content(UNCLOSED[:-9]),
        ("never closed", "before it 1,000 events up to", "are whole", "head -c"),
    ),
    Fault("AEDAT4, cut between packets", "a.aedat4", content(aedat4(PACKETS)[:FIRST_PACKET]), ("cut short",)),
    Fault("AEDAT4, a stream's number changed", "a.aedat4", of_part("head", 1, 9), ("stream 2304, which", "damaged")),
    Fault("AEDAT4, a packet of fewer events", "a.aedat4", of_part("table", 28, 9), ("something else than it says",)),
    Fault("AEDAT4, a packet without its events", "a.aedat4", of_part("table", 16, 0), ("something else than it says",)),
    Fault("AEDAT4 of nothing", "a.aedat4", content(b"#!AER-DAT4.0\r\n\x10\0"), ("cut short",)),
    Fault("an Event Stream of colours", "a.es", content(es(ROWS, kind=4)), ("type 4", "1 (DVS) and 2 (ATIS)")),
    Fault("an Event Stream, cut short", "a.es", content(es(ROWS)[:-1]), ("in the middle of an event",)),
    Fault("RAW EVT4", "a.raw", content(b"% evt 4.0\n% end\n\0\0\0\0"), ("is EVT4; read are",), SIZED),
    Fault("an old AEDAT", "a.aedat", content(b"#!AER-DAT3.1\r\n\0\0"), ("is an AEDAT file older than 4",), SIZED),
    Fault("npy, data cut short", "a.npy", npy_cut, ("cut short",), SIZED),
    Fault("npy, a time that is nan", "a.npy", npy(np.array([[NAN, 0, 0, 1]])), ("nan at event 0",), SIZED),
    Fault("npy, one of EVIMO2's three", "a_events_t.npy", npy(np.zeros(9)), ("put a_events_xy.npy next to it",), SIZED),
    Fault("npy of nine columns", "a.npy", npy(np.zeros((4, 9))), ("its shape is (4, 9)",), SIZED),
    Fault("npy without the field p", "a.npy", npy(np.zeros(3, [(n, int) for n in "txy"])), ("lacks ['p']",), SIZED),
    Fault("npy of objects", "a.npy", npy(np.array([{}], object)), ("objects", "save numbers"), SIZED),
    Fault("npz, columns of two lengths", "a.npz", npz(p=COLUMNS["p"][:2]), ("of one length",)),
    Fault("npz, polarities as words", "a.npz", npz(p=COLUMNS["p"].astype(str)), ("found the values",)),
    Fault("text named RAW", "a.raw", text("1 1 1 1"), ("does not say its unit of time",), SIZED),
    Fault("text of two units", "a.csv", text("# time_unit: s", "t_us,x,y,p", "1,1,1,1"), ("['s', 'us']",), SIZED),
    Fault("text of an unknown unit", "a.csv", text("# time_unit: min", "1,1,1,1"), ("declared are ['min']",), SIZED),
    Fault("text without p", "a.csv", text("t_us,x,y", "1,1,1"), ("lacks ['p']",), SIZED),
    Fault("text of five columns", "a.csv", text("# time_unit: us", "1,1,1,1,1"), ("has 5 columns",), SIZED),
    Fault("text, a time that is nan", "a.csv", text("# time_unit: s", "nan,1,1,1"), ("nan at event 0",), SIZED),
    Fault("text out of order", "a.csv", text("# time_unit: us", "2,1,1,1", "1,1,1,1"), ("go backwards",), SIZED),
    Fault("text, y beyond", "a.csv", text("# time_unit: us", "2,1,12,1"), ("y reaches 12, outside",), SIZED),
    Fault("an old file of MATLAB", "a.mat", content(b"MATLAB 5.0 MAT-file" + bytes(99)), ("writematrix",)),
    Fault("an HDF5 table on its side", "a.h5", h5_table(EVENTS.to_array().T), ("shape (4, 2000)",), SIZED),
    Fault("HDF5 in ticks", "a.h5", h5_attributes(time_unit="ticks"), ("declared are ['ticks']", "--time-unit")),
    Fault("a ROS bag", "a.bag", content(b"#ROSBAG V2.0\n" + bytes(99)), ("ROS bag",)),
    Fault("a picture", "a.png", content(b"\x89PNG\r\n\x1a\n" + bytes(99)), ("in no known format",)),
    Fault("text of two orders", "a.csv", content(b"# time_unit: us\n" + UNNAMED), ("t x y p and x y p t",), SIZED),
    Fault("text of two times", "a.csv", text("t_us,time,x,y,p", "1,1,1,1,1"), ("mean t, 't_us' and 'time'",), SIZED),
    Fault("text of two polarities", "a.csv", text("t_us,x,y,p,on", "1,1,1,1,1"), ("mean p, 'p' and 'on'",), SIZED),
    Fault("text of -1, 0 and 1", "a.csv", text("t_us,x,y,p", "1,1,1,-1", "1,1,1,0"), ("0 may mean no change",), SIZED),
    Fault("text with thousands", "a.csv", text("t;x;y;p", "1,000;1;1;1"), ("thousands without a mark",), SIZED),
    Fault("text with decimal commas", "a.csv", text("t;x;y;p", "0,5;1;1;1"), ("decimals with a comma",), SIZED),
    Fault("text in UTF-16", "a.csv", content("t,x,y,p\n1,1,1,1\n".encode("utf-16")), ("save it as UTF-8",), SIZED),
    Fault("a gzipped picture", "a.gz", content(gzip.compress(b"\x89PNG\0")), ("gzipped", "unpack"), SIZED, only=True),
    Fault("a zip of one text", "a.zip", zip_of_text, ("is a zip of ['events.txt']", "unpack it"), SIZED),
    Fault("text, a time beyond 64 bits", "a.csv", text("t_us,x,y,p", f"{2**63},1,1,1"), ("fit 64 bits",), SIZED),
    Fault("npy of x y t p", "a.npy", npy(EVENTS.to_array()[:, [1, 2, 0, 3]]), ("as x y t p, not as t x y p",), SIZED),
    Fault("npz of two times", "a.npz", npz(ts=COLUMNS["t"]), ("mean t, 't' and 'ts'", "leave one of them out")),
    Fault("npz of two units", "a.npz", npz_named(t_s=[1], x=[1], y=[1], p=[1]), ("['s', 'us']",), IN_US),
    Fault("npz of -1, 0 and 1", "a.npz", npz(p=THREE), ("0 may mean no change",), only=True),
    Fault("npz, times of 2^62", "a.npz", npz(t=COLUMNS["t"] + 2**62), ("too far from 0", "check the times")),
    Fault("npz, a time of 2^63 as a float", "a.npz", npz(t=np.full(2_000, 2.0**63)), ("too far from 0",), only=True),
    Fault("HDF5 of -1, 0 and 1", "a.h5", h5(p=THREE), ("0 may mean no change",)),
    Fault("HDF5 of 0 and 255", "a.h5", h5(p=ON * 255), ("0, 255", "Write 1 for positive"), only=True),
    Fault("the same, read as lenient", "a.h5", h5(p=ON * 255), ("0, 255", "Write 1 for positive"), LENIENT),
    Fault("HDF5 of 1 and 2, as lenient", "a.h5", h5(p=ON + 1), ("1, 2", "the other way round"), LENIENT),
    Fault("HDF5 of two times", "a.h5", h5(time=COLUMNS["t"]), ("mean t, 't' and 'time'",), only=True),
    Fault("HDF5, t_offset in seconds", "a.h5", h5_with("t_offset", 49599.3), ("t_offset is 49599.3",)),
    Fault("HDF5, t_offset in whole seconds", "a.h5", h5_with("t_offset", 49599.0), ("another unit than the times",)),
    Fault("HDF5, t_offset as an attribute", "a.h5", h5_attributes(t_offset=0.5), ("t_offset is 0.5",), only=True),
    Fault("HDF5, t_offset of 2^62", "a.h5", h5_with("t_offset", 2**62), ("t_offset is", "too far"), only=True),
    Fault("HDF5, t_offset of -2^63", "a.h5", h5_with("t_offset", np.int64(-(2**63))), ("too far from 0",), only=True),
    Fault("HDF5, t_offset of no number", "a.h5", h5_with("t_offset", NAN), ("t_offset is nan",), only=True),
    Fault("HDF5, whole seconds of 2^62", "a.h5", h5(t=COLUMNS["t"] + 2**62), ("in s",), f"{CONVERT} --time-unit s"),
    Fault("HDF5, times of 2^63 as floats", "a.h5", h5(t=np.full(2_000, 2.0**63)), ("too far from 0",)),
    Fault("HDF5, a height of half a pixel", "a.h5", h5_attributes(height=12.7), ("'12.7'",), only=True),
    Fault("DAT of a start of 2^63", "a.dat", content(dat(ROWS, lines=b"% T0 9223372036854775808\n")), ("2^62",), SIZED),
    Fault("voxels at 2^63", "a.npy", npy(np.zeros((8, 12, 16), np.float32)), ("t0_us",), f"{DECODE} --t0-us {2**63}"),
    Fault("a journal that is a link", "a.h5", h5_and_link, ("is a link", "name another output"), only=True),
    Fault("HDF5, a link to no file", "a.h5", h5_with("events/p", h5py.ExternalLink("b.h5", "p")), ("file b.h5",)),
    Fault("HDF5, links followed to no file", "a.h5", h5_virtual, ("cannot be read from",), f"{BAF} --follow-links"),
    Fault("HDF5, values in another file", "a.h5", h5_of_another, ("values in other.bin", "only if it is asked for")),
    Fault("HDF5, an offset in another file", "a.h5", h5_with("t_offset", h5py.ExternalLink("b.h5", "t")), ("b.h5",)),
    Fault("HDF5, a bit changed", "a.h5", h5_flipped, ("the file is damaged", "record it again"), only=True),
    Fault("HDF5 in which HDF5 seeks for ever", "a.h5", h5_endless, ("HDF5 comes to no end",), BAF, only=True),
    Fault("HDF5 on which HDF5 crashes", "a.h5", h5_crashing, ("HDF5 crashes (SIGSEGV)", "record it again"), BAF),
    Fault("HDF5, a link to nothing", "a.h5", h5_with("events/p", h5py.SoftLink("/gone")), ("not in the file",)),
    Fault("HDF5, a virtual dataset of no file", "a.h5", h5_virtual, ("has its values in gone.h5", "--follow-links")),
    Fault("HDF5, a null dataspace", "a.h5", h5_with("events/p", h5py.Empty("i8")), ("null dataspace", "shape (0,)")),
    Fault("HDF5, a clock without end", "a.h5", clock(0, np.inf), ("t_end_us must be one whole number", "inf")),
    Fault("HDF5, a clock of three starts", "a.h5", clock([0, 1, 2], 9), ("t_start_us must be one whole number",)),
    Fault("HDF5, a clock of no start", "a.h5", clock(np.zeros(0), 9), ("t_start_us must be one whole number",)),
    Fault("HDF5, a clock in words", "a.h5", clock("noon", 9), ("t_start_us must be one whole number", "'noon'")),
    Fault("HDF5, a clock that runs backwards", "a.h5", clock(9, 0), ("which ends before it starts",), only=True),
    Fault("HDF5 of 10^12 rows that are not there", "a.h5", hollow(10**12, chunks=(9,)), ("the file holds 0",)),
    Fault("HDF5 of 10^12 rows in one piece", "a.h5", hollow(10**12), ("declares 1,000,000,000,000 values",)),
    Fault("HDF5 of more rows than ever were", "a.h5", hollow(2**60, chunks=(9,)), ("no recording has more than",)),
    Fault("HDF5, a single number as a column", "a.h5", h5_with("events/t", 5), ("one-dimensional",)),
    Fault("HDF5 of ten thousand groups", "a.h5", crowded, ("more than 10,000 groups",), BAF, only=True),
    Fault("HDF5 of 99 groups in each other", "a.h5", nested, ("more than 32 in each other",)),
    Fault("a sensor of 4 billion pixels", "a.h5", sensor(65_536, 65_536), ("at most 67,108,864 in all",)),
    Fault("the same, given", "a.h5", h5_without_size, ("at most 67,108,864",), f"{BAF} --sensor-size 65536 65536"),
    Fault("windows of a microsecond", "a.h5", AN_HOUR, ("3,599,999,982 windows of 1 us",), f"{BAF} window_us=1"),
    Fault("windows of a thousand days", "a.h5", h5(), ("'window_us'", "86400000000"), f"{BAF} window_us={10**14}"),
    Fault("a billion bins", "a.h5", h5(), ("'num_bins'", "4096"), f"{BAF} num_bins=1000000000"),
    Fault("a line without end", "a.csv", content(b"1" * 70_000), ("a line of more than 65,536 bytes",), SIZED),
    Fault("the same, gzipped", "a.csv.gz", content(gzip.compress(b"1 " * 70_000)), ("a line of more than",), SIZED),
    Fault("a billion maps", "a.yaml", NOWHERE, ("'model.f_maps.0'", "4096"), f"{TRAIN} model.f_maps=[{10**9},8,8]"),
    Fault("a billion neighbours", "a.yaml", NOWHERE, ("'model.context'", "64"), f"{TRAIN} model.context={10**9}"),
    Fault("a billion loaders", "a.yaml", NOWHERE, ("num_workers", "1024"), f"{TRAIN} trainer.num_workers={10**9}"),
    Fault("a billion pairs", "none", nothing, ("'num_train'", "1000000"), f"{SIMULATE} num_train={10**9}"),
    Fault("a pair of ten years", "none", nothing, ("'duration_us'",), f"{SIMULATE} duration_us={10**15}"),
    Fault("a checkpoint of huge maps", "odd", huge_maps, ("config.json: 'f_maps.0'", "4096"), USE),
    Fault("a window of 10^10 events", "a.npy", npy(MANY), ("GB of memory",), DECODE),
    Fault("HDF5 that declares years", "a.h5", h5_attributes(t_start_us=0, t_end_us=2**62), ("declares the clock",)),
    Fault("HDF5 that is being written", "a.h5", h5_locked, ("a program that writes it", "wait until"), only=True),
    Fault("HDF5 of two cameras", "a.h5", h5_of_two_cameras, ("2 streams of events: a, b", "--stream a")),
    Fault("HDF5 of no such camera", "a.h5", h5_of_two_cameras, ("no stream 'c'",), f"{CONVERT} --stream c"),
    Fault("HDF5, a height in words", "a.h5", h5_attributes(height="tall"), ("sensor_size must be",), only=True),
    Fault("HDF5 of two sensors", "a.h5", h5_attributes(geometry="12x16"), ("several sensors", "give the right one")),
    Fault("HDF5 in seconds with an index", "a.h5", h5(ms_to_idx=[0]), ("['s', 'us']",), f"{CONVERT} --time-unit s"),
    Fault("DAT in seconds", "a.dat", content(dat_bytes(EVENTS)), ("['s', 'us']",), f"{CONVERT} --time-unit s"),
    Fault("a folder converted", "a.h5", Path.mkdir, ("is a folder",), CONVERT, only=True),
    Fault("output over its own input", "a.h5", h5(), ("name another file",), "infer --input IN --output IN"),
    Fault("a crop off the sensor", "a.h5", h5(), ("height 12 and width 16", "0 8 4 9"), f"{BAF} --crop 0 8 4 9"),
    Fault("a part before the start", "a.h5", h5(), ("has nothing to", "its clock runs from"), f"{BAF} --to -1"),
    Fault("times that end before they begin", "a.h5", h5(), ("from 0.01", "to 0.005"), f"{BAF} --from 0.01 --to 0.005"),
    Fault("a result where another file is", "a.h5", h5_and_result, ("is there already", "-o"), BAF_UNNAMED, only=True),
    Fault("a method nobody knows", "a.h5", h5(), ("no method 'magic'",), "infer --input IN --output OUT method=magic"),
    Fault("a baseline in strips", "a.h5", h5(), ("strip_rows=8", "method is baf"), BAF + " strip_rows=8"),
    Fault("a baseline of blended windows", "a.h5", h5(), ("overlap=true", "method is baf"), BAF + " overlap=true"),
    Fault("a baseline on a device", "a.h5", h5(), ("device=cpu", "method is baf"), BAF + " device=cpu", only=True),
    Fault("no such checkpoint", "run", nothing, ("no such checkpoint", "deflare train"), USE),
    Fault("a checkpoint folder without weights", "run", Path.mkdir, ("run",), USE),
    Fault("weights cut short", "weights", damaged_weights, ("weights",), USE),
    Fault("weights of another network", "other", of_another_network, ("other",), USE),
    Fault("a malicious pickle as voxels", "a.pt", torch_file(Malicious()), ("a.pt",), DECODE),
    Fault("a malicious pickle as weights", "a.pth", torch_file(Malicious()), ("a.pth",), IMPORT),
    Fault("a plain pickle as weights", "a.pth", content(pickle.dumps({"a": 1})), ("a.pth",), IMPORT),
    Fault("a pickled network as weights", "a.pth", torch_file(NETWORK), ("Linear", "state_dict()"), IMPORT),
    Fault("weights in torch's first format", "a.pth", tar_archive, ("tar archive", "state_dict()"), IMPORT),
    Fault("weights with a nan", "a.pth", weights_of(lambda w: w[LAST].fill_(NAN)), (f"of '{LAST}' are nan",), IMPORT),
    Fault("weights of int8", "a.pth", weights_of(lambda w: w.update({LAST: w[LAST].char()})), ("int8", LAST), IMPORT),
    Fault("weights of complex64 in a checkpoint", "other", of_kind(torch.complex64), ("complex64", "float32"), USE),
    Fault("weights of int8 in a checkpoint", "odd", of_kind(torch.int8), ("safetensors: ", "int8", "as float32"), USE),
    Fault("a checkpoint with one weight missing", "odd", checkpoint_of(WITHOUT), ("is missing", "take both of"), USE),
    Fault("a checkpoint with more weights", "odd", checkpoint_of(WITH_MORE), ("'a' and 1 more are no part",), USE),
    Fault("weights of another shape", "odd", with_last(torch.zeros(9)), ("the shape (9,), not (1,)",), USE),
    Fault("no weights of a shape", "odd", with_last(torch.zeros(0)), ("the shape (0,), not (1,)",), USE),
    Fault("a nan in a checkpoint", "odd", with_last(ONE * NAN), (f"safetensors: 1 of 1 values of '{LAST}'",), USE),
    Fault("weights beyond float32", "odd", with_last(ONE.double() + 1e300), ("nan or infinite", "an earlier"), USE),
    Fault("weights without a header", "odd", header("", 0), ("safetensors: cannot be read", "use another"), USE),
    Fault("weights of a huge header", "odd", header("{}", 2**62), ("a header of 4,611,686,018,427,387,904",), USE),
    Fault("weights that are named twice", "odd", header('{"a": {}, "a": {}}'), ("names 'a' twice",), USE),
    Fault("weights of a deep header", "odd", header("[" * 100_000), ("safetensors: cannot be read",), USE),
    Fault("weights of no known kind", "odd", header(OF_NO_KIND), ("cannot be read", "X9"), USE),
    Fault("truth values as weights", "other", of_kind(torch.bool), ("of the type bool", LAST), USE),
    Fault("weights with one missing", "a.pth", weights_of(lambda w: w.pop(LAST)), ("Missing key", LAST), IMPORT),
    Fault("a state of an optimizer", "a.pth", torch_file({"optimizer": {}}), ("of weights; it holds a",), IMPORT),
    Fault("weights over a checkpoint", "a.pth", weights_of(len), ("run: holds a checkpoint",), "import-weights IN run"),
    Fault("weights as a checkpoint", "a.pth", weights_of(len), ("is a file", "import-weights"), USE),
    Fault("voxels with nan", "a.npy", npy(np.full((8, 12, 16), NAN, np.float32)), ("nan at (0, 0, 0)",), DECODE),
    Fault("voxels too large", "a.npy", npy(np.full((8, 2, 2), 1e9, np.float32)), ("32767", "1000000000.0"), DECODE),
    Fault("voxels without width", "a.npy", npy(np.zeros((8, 4, 0))), ("a.npy: holds no cells",), DECODE),
    Fault("voxels of 28 hours", "a.npy", npy(np.zeros((5_000_000, 1, 1, 1), bool).view("i1")), ("24 hours",), DECODE),
    Fault("voxels as an archive", "a.npy", npz_as_npy, ("a.npy: is not a plain array",), DECODE),
    Fault("voxels in less than no windows", "a.npy", content(NO_WINDOWS), ("a.npy: is not a plain array",), DECODE),
    Fault("sparse voxels", "a.pt", torch_file(torch.zeros(8, 4, 4).to_sparse()), ("a.pt:", "no dense tensor"), DECODE),
    Fault("voxels without values", "a.pt", torch_file(torch.zeros(8, 4, 4, device="meta")), ("without",), DECODE),
    Fault("one voxel, repeated", "a.pt", torch_file(torch.zeros(1).expand(9, 8, 4, 4)), ("repeated",), DECODE),
    Fault("sparse weights", "a.pth", SPARSE, ("dense",), IMPORT),
    Fault("weights without values", "a.pth", UNREAL, ("meta",), IMPORT),
    Fault("one weight, repeated", "a.pth", REPEATED, ("repea",), IMPORT),
    Fault("a weight without axes", "a.pth", weights_of(lambda w: w.update({FIRST: ONE[0]})), ("f_maps [1",), IMPORT),
    Fault("a weight decay of 1e308", "a.yaml", NOWHERE, ("weight_decay",), f"{TRAIN} optimizer.weight_decay=1e308"),
    Fault("voxels of two axes", "a.npy", npy(np.zeros((8, 12), np.float32)), ("a.npy",), DECODE),
    Fault("settings that are no YAML", "a.yaml", content(b"data: [1,"), ("a.yaml",), "train --config IN"),
    Fault("settings of a billion laughs", "a.yaml", text(*LAUGHS), ("a.yaml: stands for more than 100,000",), SET),
    Fault("settings that merge endlessly", "a.yaml", text(*MERGES), ("a.yaml: stands for more than 100,000",), SET),
    Fault("settings that hold themselves", "a.yaml", text("seed: &a [*a]"), ("or holds itself",), SET),
    Fault("settings too deep", "a.yaml", text("seed: " + "[" * 9_999), ("a.yaml: groups lie more than 50 deep",), SET),
    Fault("settings too long", "a.yaml", text("seed: " + "1" * 200_000), ("characters; settings have at most",), SET),
    Fault("settings that say a key twice", "a.yaml", text("seed: 1", "seed: 2"), ("says 'seed' twice",), SET),
    Fault("settings in another code", "a.yaml", content(b"seed: \xff"), ("a.yaml: is no text in UTF-8",), SET),
    Fault("a setting too long", "a.yaml", text("seed: " + "x" * 9_999), ("'seed'", "xx...xx"), SET),
    Fault("a setting that steers a terminal", "a.yaml", text('"\\e[31m\\nred": 1'), (r"'\x1b[31m\nred'",), SET),
    Fault("an integer of 5,000 digits", "a.yaml", text("seed: " + "1" * 5_000), ("a.yaml: is not YAML",), SET),
    Fault("a part of a part, 999 times", "none", nothing, ("there is no setting",), f"{SETTING} {'a.' * 999}b=1"),
    Fault("a list of 9,999 lists", "none", nothing, ("more than 50 deep",), f"{SETTING} seed={'[' * 9_999}"),
    Fault("a device that computes nothing", "none", nothing, ("'meta'", "use auto"), "infer --input GOOD device=meta"),
    Fault("a description too deep", "deep", deep_description, ("config.json: is damaged",), USE),
    Fault("a checkpoint of no step", "odd", checkpoint_with(step="x"), ("config.json: is damaged",), USE),
    Fault("a checkpoint of no training", "odd", checkpoint_with(training=None), ("config.json: is damaged",), USE),
    Fault("a checkpoint of odd metrics", "odd", checkpoint_with(metrics={"loss": []}), ("is damaged",), USE),
    Fault("a setting misspelt", "a.yaml", content(b"methd: baf"), ("did you mean",), SET),
    Fault(
        "a folder whose name YAML reads as a number", "a.yaml",
        text("data: {noisy_dir: 20240501, clean_dir: b}", "validation: {noisy_dir: a, clean_dir: b}"),
        ("'data.noisy_dir': must be text; write it in quotes (received 20240501)",), TRAIN,
    ),
    Fault("a truth value as a number", "a.yaml", content(b"seed: on"), ("'seed': must be a number, not true",), SET),
    Fault("a truth value among numbers", "a.yaml", NOWHERE, ("must be a number",), f"{TRAIN} model.f_maps=[true,8]"),
    Fault("a rate without end", "a.yaml", NOWHERE, ("a finite number",), f"{TRAIN} optimizer.learning_rate=.inf"),
    Fault("a norm that is nan", "a.yaml", NOWHERE, ("received nan",), f"{TRAIN} optimizer.clip_norm=.nan"),
    Fault("a seed beyond 64 bits", "a.yaml", content(b"seed: 9223372036854775808"), ("less than 92233720",), SET),
    Fault("a setting of the wrong kind", "a.yaml", content(b"seed: lots"), ("seed",), SET),
    Fault("an output nobody may write", "a.h5", h5(), ("nowhere",), "convert IN /proc/nowhere/a.h5"),
    Fault("voxels of a header without end", "a.npy", content(ENDLESS_HEADER), ("is not a plain array",), DECODE),
    Fault("voxels with one nan", "a.npy", nan_voxel, ("nan at (3, 4, 5)", "Check the network"), DECODE),
    Fault("no training pairs", "a.yaml", NOWHERE, ("nowhere/noisy", "deflare simulate"), TRAIN),
    Fault("an empty partner", "pair", pair(EVENTS[:0]), ("clean/a.h5: holds no events", "a.h5 2,000;"), VERIFY),
    Fault("the same, trained on", "pair", pair(EVENTS[:0]), ("clean/a.h5: holds no events",), TRAIN_PAIR),
    Fault("a folder that another run trains in", "pair", pair_and_run, ("another run is training there",), TRAIN_PAIR),
    Fault("a recording removed meanwhile", "a.h5", h5(), ("a.h5: no such file",), READ, True, FOUND),
    Fault("a pipe in its place", "a.h5", h5(), ("is a pipe",), READ, True, FOUND, replace_by_pipe),
    Fault("a partner removed meanwhile", "pair", PAIR, ("no such file",), VERIFY, True, CHECKED, remove_partner),
    Fault("the same, trained on", "pair", PAIR, ("no such file",), TRAIN_PAIR, True, OPENED, remove_partner),
    Fault("a partner in milliseconds", "pair", pair(in_thousandths()), ("span 0.1 ms", "one unit of time"), VERIFY),
    Fault("the same, trained on", "pair", pair(in_thousandths()), ("span 0.1 ms", "99.933"), TRAIN_PAIR),
    Fault("a partner cut short", "pair", pair(EVENTS[:300]), ("300 events span", "where the silence is real"), VERIFY),
    Fault("a partner of the same events", "pair", pair(EVENTS), ("hold the same 2,000 events",), VERIFY),
    Fault("the same, trained on", "pair", pair(EVENTS), ("hold the same 2,000 events",), TRAIN_PAIR),
    Fault("too few maps", "a.yaml", NOWHERE, ("one feature count per level",), f"{TRAIN} model.f_maps=[32,64]"),
    Fault("maps of no groups", "a.yaml", NOWHERE, ("[9, 18, 36]", "use multiples"), f"{TRAIN} model.f_maps=[9,18,36]"),
    Fault("a key misspelt", "a.yaml", NOWHERE, ("trainer.max_step", "did you mean"), f"{TRAIN} trainer.max_step=5"),
    Fault("half a list", "a.yaml", NOWHERE, ("trainer.max_steps'", "'[1'", "[8, 16]"), f"{TRAIN} trainer.max_steps=[1"),
    Fault("no date", "a.yaml", NOWHERE, ("'trainer.seed'", "2026-13-45"), f"{TRAIN} trainer.seed=2026-13-45"),
    Fault(
        "a part of a number", "a.yaml", NOWHERE,
        ("'trainer.max_steps.x'", "it is 5 so far", "write trainer.max_steps=VALUE"),
        f"{TRAIN} trainer.max_steps=5 trainer.max_steps.x=3",
    ),
    Fault("other bins", "a.h5", h5(), ("trained with num_bins=8", "another checkpoint"), f"{READ} num_bins=4"),
    Fault("no such GPU", "a.h5", h5(), ("cuda:9", "use auto, cpu or cuda"), f"{READ} device=cuda:9"),
    Fault("a share in percent", "none", nothing, ("'kept'", "less than 1", "received '95'"), "roc --kept 95"),
    Fault("a negative share", "none", nothing, ("'kept'", "greater than 0", "received '-1'"), "roc --kept -1"),
    Fault("no workers", "none", nothing, ("'workers'", "greater than 0"), "simulate --workers 0 --output-dir OUT"),
    Fault("a negative seed", "a.npy", nan_voxel, ("'seed'", "or equal to 0", "received '-1'"), f"{DECODE} --seed -1"),
    Fault(
        "the package's level", "none", nothing,
        ("deflare_core/pretrained", "--set-level", "name checkpoint=FOLDER"),
        f"roc --set-level --config {PROJECT_ROOT / 'configs' / 'test_config.yaml'}",
    ),
    Fault("a suffix of no voxels", "a.h5", h5(), ("out.h5.npz", ".npy, .pt"), "encode IN OUT.npz"),
    Fault("no such notebook", "none", nothing, ("99", "00_quickstart"), "notebook 99"),
    Fault("half a list for a notebook", "none", nothing, ("'num_train'", "'[1'"), "notebook 00 -p num_train [1"),
    Fault("a misspelt parameter", "none", nothing, ("did you mean 'max_steps'",), "notebook 00 -p max_step 5"),
    Fault("a suffix nobody writes", "a.h5", h5(), (".npz",), "convert IN OUT.avi", only=True),
    Fault("an hour of film", "a.h5", AN_HOUR, ("would last 20 hours", "--frame-us 40"), "video IN OUT.mp4", only=True),
    Fault("a film of a narrow sensor", "a.h5", sensor(2_000, 16), ("16,384",), "video IN OUT.mp4", only=True),
    Fault("a film of a burst", "a.h5", burst, ("a.h5: to show 10,000,000,000", "250.0 GB"), "video IN OUT.mp4", True),
    Fault("a sheet of a burst", "a.h5", burst, ("a.h5: to show 10,000,000,000", "250.0 GB"), "sheet IN OUT.png", True),
    Fault("pictures of a burst", "a.h5", burst, ("1,000.0 GB", "take a part of the frame first"), PICTURES, True),
    Fault("a burst to view", "a.h5", burst, ("200.0 GB", "show a shorter stretch"), "view IN --no-browser", True),
    Fault("a burst to deflare", "a.h5", burst, ("to read 10,000,000,000 events at once", "shorter windows"), BAF, True),
    Fault("voxels of 30 years", "a.h5", OF_30_YEARS, ("at most 16,777,216",), "encode IN OUT.npy", only=True),
    Fault("voxels of an hour", "a.h5", hour_of_vga, ("windows would take", "GB free"), "encode IN OUT.npy", only=True),
    Fault("the same as .pt", "a.h5", hour_of_vga, ("would take", "GB"), "encode IN OUT.pt", only=True),
    Fault("a picture over what it shows", "a.png", h5(), ("name another file",), "sheet GOOD IN -o IN", only=True),
    Fault("a window too far", "a.h5", h5(), ("has 5 windows", "number 5"), "pictures IN --window 5", only=True),
    Fault("a film of three", "a.h5", h5(), ("one or two recordings",), "video IN IN IN OUT.mp4"),
    Fault("nothing to view", "a.h5", OF_NOTHING, ("holds no events",), "view IN --no-browser", only=True),
    Fault("four files to view", "a.h5", h5(), ("received 4 names",), "view IN IN IN IN --no-browser"),
    Fault("two sensors to view", "a.h5", h5_attributes(height=99), ("one sensor size",), "view GOOD IN --no-browser"),
]  # fmt: skip


def answer(fault: Fault, folder: Path, command: str = "") -> tuple[int, list[str], list[Path]]:
    """The exit code, the lines on stderr, and the files left behind, of a command on a bad input, else of its own."""
    places = {"IN": folder / fault.file, "OUT": folder / "out.h5", "GOOD": folder / "good.h5"}
    recording(places["GOOD"])
    fault.make(places["IN"])
    words = [
        re.sub("IN|OUT|GOOD", lambda match: str(places[match[0]]), word) for word in (command or fault.command).split()
    ]
    before = set(folder.rglob("*"))
    said = io.StringIO()
    changing = change_at(fault.at, lambda: fault.change(places["IN"])) if fault.at else contextlib.nullcontext()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        changing,
    ):
        code = main(words)
    return code, said.getvalue().strip().splitlines(), sorted(set(folder.rglob("*")) - before)


@contextlib.contextmanager
def change_at(name: str, change: Callable[[], object]) -> Iterator[None]:
    """Let something happen just before the first call of a function, by its dotted name, inside the block."""
    called, changes = resolve_name(name), [change]

    def calling(*arguments: object, **settings: object) -> object:
        if changes:
            changes.pop()()
        return called(*arguments, **settings)

    with mock.patch(name, calling):
        yield


def table() -> str:
    """What each bad input gets, as Markdown."""
    rows = []
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            code, lines, _ = answer(fault, Path(folder))
            said = lines[-1].replace(f"{folder}/", "").replace(f"{PROJECT_ROOT}/", "").replace("|", "\\|")
            said = re.sub(r"[\d.]+ GB (free|are left)", r"N GB \1", said)  # The machine's own.
            rows.append(f"| {fault.name} | `{fault.command.split()[0]}` | {code} | {said} |")
    head = "# Bad inputs and what each gets\n\n"
    head += "Written by `PYTHONPATH=tests python -m support.faults`; tried by `tests/house/test_faults.py`.\n"
    return "\n".join([head, "| input | command | exit code | answer |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    TABLE.write_text(table())
    sys.stdout.write(f"{len(FAULTS)} bad inputs\n")
