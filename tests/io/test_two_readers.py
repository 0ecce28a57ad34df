"""Every format read here and by another reader: the same events, whatever the file holds."""

import csv
import zipfile

import h5py
import hdf5plugin  # noqa: F401 - h5py reads Blosc through it.
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.camera_bytes import (
    HEAD2,
    HEAD3,
    aedat4,
    base3,
    change2,
    change3,
    dat_bytes,
    es,
    evt2,
    evt2_bytes,
    evt3,
    evt3_bytes,
    evt21,
    high3,
    low3,
    time2,
)
from support.evt_by_hand import decode_evt2, decode_evt3, decode_evt21
from support.recordings import list_rows, make_events, same_events

import deflare_core.io.camera_files as camera_files
from deflare_core.events import Events
from deflare_core.io.convert import convert
from deflare_core.io.formats import AEDAT4, DAT, ES, EVT, FORMATS, HDF5, NPY, NPZ, TEXT, read_stream
from deflare_core.io.reading import Reading, RecordingError
from deflare_core.io.recordings import load_events, save_events

SIZE = (12, 16)


def by_h5py(path):
    """The rows of a file that follows DSEC's convention."""
    with h5py.File(path) as file:
        group = file["events"]
        t = group["t"][:] + group["t_offset"][()]
        return list(zip(t.tolist(), *(group[name][:].tolist() for name in "xyp"), strict=True))


def by_zipfile(path):
    """The rows of an archive, each of whose members is a column."""
    with zipfile.ZipFile(path) as archive:
        columns = [np.lib.format.read_array(archive.open(f"{name}.npy")).tolist() for name in "txyp"]
    return list(zip(*columns, strict=True))


def by_numpy(path):
    """The rows of a structured array."""
    return [tuple(row) for row in np.load(path)[["t", "x", "y", "p"]].tolist()]


def by_csv(path):
    """The rows of lines of numbers below a line of names."""
    with path.open() as file:
        table = csv.reader(line for line in file if line[0] != "#")
        names = next(table)
        assert names == ["t", "x", "y", "p"]
        return [tuple(map(int, row)) for row in table]


def by_faery(kind):
    """A reader by faery of files of a kind."""

    def read(path):
        faery = pytest.importorskip("faery")
        found = np.concatenate(list(faery.events_stream_from_file(path, dimensions_fallback=(16, 12), file_type=kind)))
        return list_rows(Events.from_columns(found["t"], found["x"], found["y"], found["p"], SIZE))

    return read


def converted(suffix):
    """A writer of files of a suffix."""

    def write(path, events):
        save_events(path.with_name("a.h5"), events, source="test")
        convert(path.with_name("a.h5"), path.with_suffix(suffix), progress=False)
        path.with_suffix(suffix).rename(path)

    return write


def encoded(encode):
    """A writer of the bytes that a function makes of events."""
    return lambda path, events: path.write_bytes(encode(events))


READERS = [
    (HDF5, lambda path, events: save_events(path, events, source="test"), by_h5py),
    (NPZ, converted(".npz"), by_zipfile),
    (NPY, converted(".npy"), by_numpy),
    (TEXT, converted(".csv"), by_csv),
    (EVT, encoded(evt2_bytes), by_faery("evt")),
    (EVT, encoded(evt3_bytes), by_faery("evt")),
    (EVT, encoded(evt2_bytes), lambda path: decode_evt2(path.read_bytes()[len(HEAD2) :])),
    (EVT, encoded(evt3_bytes), lambda path: decode_evt3(path.read_bytes()[len(HEAD3) :])),
    (DAT, encoded(dat_bytes), by_faery("dat")),
    (ES, encoded(lambda events: es(list_rows(events))), by_faery("es")),
    (AEDAT4, encoded(lambda events: aedat4({("A", "events"): [list_rows(events)]}, closing=b"")), by_faery("aedat")),
]
"""For each format what writes a file of it, and another reader."""


def test_every_format_has_a_second_reader():
    assert {form.name for form, _, _ in READERS} == {form.name for form in FORMATS}


@pytest.mark.parametrize(("form", "write", "read"), READERS, ids=lambda value: getattr(value, "name", ""))
def test_two_readers_agree_on_every_format(tmp_path, form, write, read):
    for seed, num, start in ((0, 1, 0), (1, 400, 3), (2, 300, 1 << 20)):
        events = make_events(seed, num, t_start_us=start, duration_us=1_000_000)
        write(tmp_path / "file", events)
        found = load_events(tmp_path / "file", Reading(SIZE))
        assert same_events(found, events)
        assert read(tmp_path / "file") == list_rows(events), f"{form.name} of {num} events."


@pytest.mark.parametrize("suffix", [".dat", ".es", ".aedat4"])
def test_what_faery_writes_is_read(tmp_path, suffix):
    faery = pytest.importorskip("faery")
    events = make_events(num=400, t_start_us=1_000)
    table = np.empty(len(events), [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), (("p", "on"), "?")])
    for name in "txy":
        table[name] = getattr(events, name)
    table["p"] = events.p > 0
    faery.events_stream_from_array(table, (16, 12)).to_file(tmp_path / f"a{suffix}")
    found = load_events(tmp_path / f"a{suffix}")
    start_us = events.t[0] if suffix == ".es" else 0  # Its times count from the first event.
    assert list_rows(found) == [(t - start_us, x, y, p) for t, x, y, p in list_rows(events)]
    assert found.sensor_size == SIZE


# Any words


def read_here(path, data, piece_bytes):
    """The rows that are read here, decoding so many bytes at once, or the kind of error."""
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(camera_files, "PIECE_BYTES", piece_bytes)
        try:
            size, pieces = read_stream(path, Reading())
            return list_rows(Events.concatenate([Events.empty(size), *pieces]))
        except RecordingError:
            return RecordingError


def check_words(path, data, word_bytes, num_at_once, right):
    """Compare what is read here with the right rows; what is refused is a clock that goes far back."""
    whole, cut = (read_here(path, data, piece_bytes) for piece_bytes in (1 << 18, num_at_once * word_bytes))
    assert whole == cut, "Pieces are no part of the format."
    if whole is not RecordingError:
        assert whole == sorted(right, key=lambda row: row[0])


WIDE = [b"% evt " + version + b"\n% geometry 2048x2048\n% end\n" for version in (b"2.0", b"2.1", b"3.0")]
BIT, COLUMN, ROW, SHORT = st.integers(0, 1), st.integers(0, 15), st.integers(0, 11), st.integers(1, 9)
STEPS = st.lists(st.one_of(st.integers(0, 300), st.integers(-4_000, 9_000)), min_size=80, max_size=80)
FULL2, FULL3 = (1 << 34) - 2_000, (1 << 24) - 2_000
"""Times shortly before the counters of EVT2 and EVT3 are full."""


@settings(max_examples=60)
@given(st.lists(st.tuples(COLUMN, ROW, BIT, BIT), min_size=5, max_size=80), STEPS, st.sampled_from([0, FULL2]), SHORT)
def test_any_words_of_evt2_are_read_as_by_hand(tmp_path_factory, changes, steps, t, num_at_once):
    words = []
    for (x, y, p, is_said), step in zip(changes, steps, strict=False):
        t = max(0, t + step)
        words += [*[time2(t)][:is_said], change2(t, x, y, p)]
    path, data = tmp_path_factory.getbasetemp() / "words2.raw", evt2(words, WIDE[0])
    check_words(path, data, 4, num_at_once, decode_evt2(data[len(WIDE[0]) :]))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(ROW, BIT, st.integers(0, 2**16 - 1), BIT), min_size=5, max_size=80), STEPS, st.booleans(), SHORT
)
def test_any_words_of_evt21_are_read_as_by_hand(tmp_path_factory, changes, steps, is_legacy, num_at_once):
    t, words = 6_400, [(time2(6_400), 0)] * 9
    for (y, p, mask, is_said), step in zip(changes, steps, strict=False):
        t = max(0, t + step)
        words += [*[(time2(t), 0)][:is_said], (change2(t, 0, y, p), mask)]
    path = tmp_path_factory.getbasetemp() / "words21.raw"
    check_words(path, evt21(words, is_legacy, WIDE[1]), 8, num_at_once, decode_evt21(words))


WORDS3 = st.one_of(
    ROW,
    st.builds(change3, COLUMN, BIT),
    st.builds(base3, st.integers(0, 7), BIT),
    st.integers(0, 15).map(lambda mask: 4 << 12 | mask),
    st.integers(0, 255).map(lambda mask: 5 << 12 | mask),
    st.sampled_from(["high", "low", "both", 1 << 12 | 5, 2_050, 10 << 12, 14 << 12, 7 << 12, 15 << 12]),
)


@settings(max_examples=100)
@given(st.lists(WORDS3, min_size=20, max_size=80), STEPS, st.sampled_from([0, FULL3]), SHORT)
def test_any_words_of_evt3_are_read_as_by_hand(tmp_path_factory, words, steps, t, num_at_once):
    file = []
    for word, step in zip(words, steps, strict=False):
        t = max(0, t + step)
        file += {"high": [high3(t)], "low": [low3(t)], "both": [high3(t), low3(t)]}.get(word, [word])
    path, data = tmp_path_factory.getbasetemp() / "words3.raw", evt3(file, WIDE[2])
    check_words(path, data, 2, num_at_once, decode_evt3(data[len(WIDE[2]) :]))


@settings(max_examples=60)
@given(st.sampled_from([*WIDE, HEAD2, b""]), st.binary(max_size=400).filter(lambda data: not HDF5.is_of(data)))
def test_any_bytes_give_sound_events_or_an_error(tmp_path_factory, head, data):
    read_here(tmp_path_factory.getbasetemp() / "any.raw", head + data, 1 << 18)
