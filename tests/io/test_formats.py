import hashlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.recfunctions import repack_fields
from support.camera_bytes import dat_bytes, evt3_bytes
from support.recordings import list_rows, make_events, same_events

from deflare_core.app.commands import main
from deflare_core.config import ModelConfig
from deflare_core.events import Events
from deflare_core.inference import deflare_recording
from deflare_core.io.convert import convert
from deflare_core.io.formats import FORMATS, TEXT, find_format, read_stream
from deflare_core.io.reading import PIECE_EVENTS, Reading, RecordingError
from deflare_core.io.recordings import load_events, open_recording, save_events
from deflare_core.model import build_model
from deflare_core.system.errors import DeflareError
from deflare_core.system.places import PROJECT_ROOT

SIZE = (12, 16)
ARRAY_SUFFIXES = (".h5", ".npz", ".npy", ".csv", ".txt")


def digest(events):
    columns = b"".join(np.ascontiguousarray(getattr(events, name)).tobytes() for name in "txyp")
    return hashlib.sha256(columns + repr(events.sensor_size).encode()).hexdigest()


def text(path, content):
    path.write_text(content)
    return path


# The same three events by hand, in every way a text or array may say them.

THREE = [(1_000_000, 3, 1, 1), (1_000_250, 0, 11, 0), (2_500_000, 15, 0, 1)]


def assert_is_three(events):
    assert events.t.tolist() == [1_000_000, 1_000_250, 2_500_000]
    assert (events.x.tolist(), events.y.tolist()) == ([3, 0, 15], [1, 11, 0])
    assert events.p.tolist() == [1, -1, 1], "0 is a negative event."


@pytest.mark.parametrize(
    ("content", "time_unit"),
    [
        ("1.000000 3 1 1\n1.000250 0 11 0\n2.500000 15 0 1\n", "s"),
        ("1000,3,1,1\n1000.25,0,11,-1\n2500,15,0,1", "ms"),
        ("1000000;3;1;1\n1000250;0;11;0\n2500000;15;0;1\n", "us"),
        ("t,x,y,p\n1000000,3,1,1\n1000250,0,11,0\n2500000,15,0,1\n", "us"),
        ("x y polarity timestamp\n3 1 1 1\n0 11 0 1.00025\n15 0 1 2.5\n", "s"),
        ("x,y,p,t_us,label\n3,1,1,1000000,7\n0,11,0,1000250,7\n15,0,1,2500000,7\n", None),
        ("# time_unit: ms\n# p x y t\n1\t3\t1\t1000\n\n0\t0\t11\t1000.25\n# half way\n1\t15\t0\t2500\n", None),
        ("% time_unit=s, height=12, width=16\n1.0 3 1 1\n1.00025 0 11 0\n2.5 15 0 1\n", None),
    ],
)
def test_text_is_read_by_its_names_and_its_declared_unit(tmp_path, content, time_unit):
    path = text(tmp_path / "events.txt", content)
    assert find_format(path) is TEXT
    assert_is_three(load_events(path, Reading(SIZE, time_unit=time_unit)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_plain_arrays_hold_t_x_y_p(tmp_path, dtype, order):
    np.save(tmp_path / "a.npy", np.array(THREE, dtype, order=order))
    assert_is_three(load_events(tmp_path / "a.npy", Reading(SIZE)))


def test_arrays_of_seconds_need_their_unit(tmp_path):
    t, x, y, p = np.array(THREE, np.float64).T
    np.savez(tmp_path / "a.npz", t=t / 1e6, x=x, y=y, p=p)
    with pytest.raises(RecordingError, match="not whole microseconds; give time_unit='s'"):
        load_events(tmp_path / "a.npz", Reading(SIZE))
    assert_is_three(load_events(tmp_path / "a.npz", Reading(SIZE, time_unit="s")))
    np.savez(tmp_path / "b.npz", t=np.array([1, 2], np.uint32), x=[0, 0], y=[0, 0], p=[1, 1])
    assert load_events(tmp_path / "b.npz", Reading(SIZE, time_unit="s")).t.tolist() == [1_000_000, 2_000_000]


def test_structured_arrays_are_read_in_any_order_of_fields(tmp_path):
    fields = np.array(THREE, [("t", "<f8"), ("x", "<u2"), ("y", "<i4"), ("p", "?")])
    np.save(tmp_path / "a.npy", fields)
    reversed_fields = np.array(THREE, [("t", "<i8"), ("x", "<i4"), ("y", "<i4"), ("p", "<i4")])[["p", "y", "x", "t"]]
    np.savez_compressed(tmp_path / "a.npz", events=repack_fields(reversed_fields), sensor_size=SIZE)
    assert_is_three(load_events(tmp_path / "a.npy", Reading(SIZE)))
    assert_is_three(load_events(tmp_path / "a.npz"))


# HDF5 layouts of others


def write_group(file, name, events):
    for column in "txyp":
        file[f"{name}/{column}"] = getattr(events, column)


def test_a_stereo_recording_is_read_from_its_left_camera(tmp_path):
    left, right = make_events(seed=1), make_events(seed=2)
    with h5py.File(tmp_path / "m3ed.h5", "w") as file:
        write_group(file, "prophesee/left", left)
        write_group(file, "prophesee/right", right)
        file["prophesee/left/calib/resolution"] = [16, 12]
    assert digest(load_events(tmp_path / "m3ed.h5")) == digest(left), "Its calibration states width and height."


def test_a_compound_table_is_read_window_by_window(tmp_path):
    events = make_events(num=5000, duration_us=100_000)
    with h5py.File(tmp_path / "metavision.hdf5", "w") as file:
        file["CD/events"] = events.to_structured()
        file["EXT_TRIGGER/events"] = np.zeros(3, [("p", "i2"), ("t", "i8"), ("id", "i2")])
        file.attrs["geometry"] = "16x12"
    with open_recording(tmp_path / "metavision.hdf5") as recording:
        assert digest(recording.load()) == digest(events)
        assert same_events(recording.window(40_000, 60_000), events.window(40_000, 60_000))
        assert recording.extra_columns == []


def test_columns_at_the_root_are_read_and_two_unnamed_cameras_are_refused(tmp_path):
    events = make_events()
    with h5py.File(tmp_path / "root.h5", "w") as file:
        write_group(file, "", events)
    assert same_events(load_events(tmp_path / "root.h5", Reading(SIZE)), events)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        write_group(file, "a", events)
        write_group(file, "b", events)
    with pytest.raises(RecordingError, match="2 streams of events: a, b; choose one, as in --stream a"):
        load_events(tmp_path / "two.h5", Reading(SIZE))


def test_a_missing_compression_plugin_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("events")
        for name in "xyp":
            group[name] = np.zeros(4, np.int16)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((4,))
        plist.set_filter(36559, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(group.id, b"t", h5py.h5t.STD_I64LE, h5py.h5s.create_simple((4,)), plist)
    with pytest.raises(RecordingError, match="events/t is compressed with HDF5 filter 36559"):
        load_events(tmp_path / "a.h5", Reading(SIZE))


# The one interface


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv"])
def test_every_format_opens_as_a_recording(tmp_path, suffix):
    events = make_events(num=3000, t_start_us=1_700_000_000_000_000, duration_us=90_000)
    save_events(tmp_path / "a.h5", events, source="test")
    convert(tmp_path / "a.h5", tmp_path / f"a{suffix}", progress=False)
    with open_recording(tmp_path / f"a{suffix}", Reading(SIZE)) as recording:
        copy = recording._file.filename
        assert (len(recording), recording.sensor_size) == (3000, SIZE)
        assert recording.clock_us == (events.t[0], events.t[-1] + 1)
        for start in range(int(events.t[0]) - 20_000, int(events.t[-1]) + 20_000, 20_000):
            expected = events.window(start, start + 20_000)
            assert same_events(recording.window(start, start + 20_000), expected), f"The window at {start} us differs."
    with pytest.raises(FileNotFoundError):
        open(copy)  # noqa: PTH123, SIM115 - the temporary copy must be gone


def test_pieces_join_without_a_seam(tmp_path):
    events = make_events(num=2 * PIECE_EVENTS + 7, duration_us=3_000_000)
    np.save(tmp_path / "a.npy", events.to_structured())
    assert [len(piece) for piece in read_stream(tmp_path / "a.npy", Reading(SIZE))[1]] == [
        PIECE_EVENTS,
        PIECE_EVENTS,
        7,
    ]
    assert digest(load_events(tmp_path / "a.npy", Reading(SIZE))) == digest(events)


def test_inference_reads_text_as_it_reads_hdf5(tmp_path):
    events = make_events(num=2000, t_start_us=1_000_015_000, duration_us=90_000)
    save_events(tmp_path / "a.h5", events, source="test")
    convert(tmp_path / "a.h5", tmp_path / "a.csv", progress=False)
    model = build_model(ModelConfig(f_maps=(8, 16), num_levels=2), seed=0)
    deflare_recording(model, tmp_path / "a.csv", tmp_path / "out.h5", progress=False)
    assert digest(load_events(tmp_path / "out.h5")) == digest(events), "The untrained network gives every event back."


@pytest.mark.parametrize("wrong", ["a.h5", "a.raw", "a.dat", "a.aedat4", "a.csv", "a.bin", "noname"])
@pytest.mark.parametrize("right", ["b.h5", "b.npz", "b.npy", "b.csv", "b.raw", "b.dat"])
def test_a_recording_is_told_by_its_content_whatever_its_name(tmp_path, right, wrong):
    events = make_events()
    camera = {"b.raw": evt3_bytes, "b.dat": dat_bytes}
    if right in camera:
        (tmp_path / wrong).write_bytes(camera[right](events))
    else:
        save_events(tmp_path / "first.h5", events, source="test")
        convert(tmp_path / "first.h5", tmp_path / right, progress=False)
        (tmp_path / right).rename(tmp_path / wrong)
    assert digest(load_events(tmp_path / wrong, Reading(SIZE))) == digest(events)


# Conversion


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(0, 300), st.integers(0, 10**15), st.sampled_from(ARRAY_SUFFIXES))
def test_conversion_there_and_back_changes_no_event(tmp_path_factory, seed, num, t_start_us, suffix):
    folder = tmp_path_factory.mktemp("convert")
    events = make_events(seed, num, t_start_us=t_start_us, duration_us=1_000_000)
    save_events(folder / "a.h5", events, source="test")
    there = folder / f"there{suffix}"
    assert convert(folder / "a.h5", there, progress=False) == num
    assert convert(there, folder / "back.h5", Reading(SIZE), progress=False) == num
    assert digest(load_events(folder / "back.h5")) == digest(events)


def test_conversion_keeps_labels_clock_and_attributes(tmp_path):
    events, labels = make_events(t_start_us=5_000, duration_us=5_000), np.arange(500, dtype=np.uint16)
    options = {"clock_us": (0, 20_000), "attributes": {"lens": "wide", "gain": 2.5}, "columns": {"label": labels}}
    save_events(tmp_path / "a.h5", events, source="a camera", **options)
    convert(tmp_path / "a.h5", tmp_path / "b.h5", progress=False)
    with open_recording(tmp_path / "a.h5") as before, open_recording(tmp_path / "b.h5") as after:
        assert before.attributes == after.attributes, "Source, lens and gain are said again."
        assert after.clock_us == (0, 20_000)
        assert np.array_equal(after.column("label", 0, 20_000), labels)
        assert digest(after.load()) == digest(events)


@pytest.mark.parametrize("suffix", ARRAY_SUFFIXES)
def test_the_same_events_convert_to_the_same_bytes(tmp_path, suffix):
    save_events(tmp_path / "a.h5", make_events(), source="test")
    for folder in ("one", "two"):
        convert(tmp_path / "a.h5", tmp_path / folder / f"a{suffix}", progress=False)
    assert (tmp_path / "one" / f"a{suffix}").read_bytes() == (tmp_path / "two" / f"a{suffix}").read_bytes()


def test_a_conversion_that_fails_leaves_what_was_there(tmp_path):
    source = text(tmp_path / "a.csv", "# time_unit: us\n" + "1,1,1,1\n" * (PIECE_EVENTS + 3) + "0,1,1,1\n")
    for target in (tmp_path / "b.h5", tmp_path / "b.npz"):
        target.write_text("before")
        with pytest.raises(RecordingError, match=f"must not go backwards.*events counted from {PIECE_EVENTS}"):
            convert(source, target, Reading(SIZE), progress=False)
        assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.h5", "b.npz"], "No part may remain."


def test_conversion_refuses_other_targets(tmp_path):
    save_events(tmp_path / "a.h5", make_events(), source="test")
    with pytest.raises(ValueError, match=r"must end in one of \.h5"):
        convert(tmp_path / "a.h5", tmp_path / "a.raw")
    with pytest.raises(ValueError, match="is the recording itself"):
        convert(tmp_path / "a.h5", tmp_path / "a.h5")


# Several streams in one file


def test_the_only_stream_is_read_and_one_of_several_must_be_chosen():
    assert Reading().choose_stream(["left"]) == "left"
    assert Reading(stream="right").choose_stream(["left", "right"]) == "right"
    with pytest.raises(DeflareError, match="2 streams of events: left, right; choose one, as in --stream left"):
        Reading().choose_stream(["left", "right"])
    with pytest.raises(DeflareError, match="no stream 'top'; it has left, right"):
        Reading(stream="top").choose_stream(["left", "right"])


# What cannot be read


def test_an_unknown_unit_is_refused(tmp_path):
    path = text(tmp_path / "a.csv", "1,1,1,1\n")
    with pytest.raises(DeflareError, match="time_unit must be 's', 'ms', 'us' or 'ns'; received 'min'"):
        load_events(path, Reading(SIZE, time_unit="min"))


def test_a_failed_opening_leaves_no_temporary_copy(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = text(tmp_path / "a.csv", "# time_unit: us\n2,1,1,1\n1,1,1,1\n")
    with pytest.raises(RecordingError, match="must not go backwards"):
        open_recording(path, Reading(SIZE))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_readme_lists_the_formats():
    """Its table is made of the rows in formats.FORMATS."""
    rows = ["| format | endings | holds | written by |", "|---|---|---|---|"]
    for form in FORMATS:
        endings = ", ".join(form.endings.split())
        commands = "`deflare infer`, `convert`" if form.read is None else "`deflare convert`" if form.write else ""
        rows.append(f"| {form.name} | {endings} | {form.holds} | {commands} |")
    page = (PROJECT_ROOT / "deflare_core/io/README.md").read_text()
    assert "\n".join(rows) in page, "Put these rows there:\n" + "\n".join(rows)


def test_an_unknown_polarity_rule_is_refused(tmp_path):
    with pytest.raises(DeflareError, match="polarity must be 'strict' or 'lenient'; received 'Strict'"):
        load_events(text(tmp_path / "a.csv", "# time_unit: us\n1,1,1,7\n"), Reading(SIZE, polarity="Strict"))


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".npy", ".csv"])
@pytest.mark.parametrize("bug", [TypeError, ValueError, KeyError, RuntimeError])
def test_an_error_of_the_program_is_not_damage_of_the_file(tmp_path, monkeypatch, suffix, bug):
    save_events(tmp_path / "a.h5", make_events(), source="test")
    convert(tmp_path / "a.h5", tmp_path / f"b{suffix}", progress=False)

    def broken(*_, **__):
        raise bug("a bug")

    monkeypatch.setattr(Events, "from_columns", broken)
    with pytest.raises(bug) as caught:
        load_events(tmp_path / f"b{suffix}", Reading(SIZE))
    assert not isinstance(caught.value, DeflareError), "It shows where it was made."


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("kind", ["timedelta64", "datetime64"])
def test_dates_and_durations_carry_their_unit(tmp_path, unit, kind):
    t = np.array([0, 3_000_000_000], "timedelta64[ns]").astype(f"timedelta64[{unit}]")
    t = t if kind == "timedelta64" else np.datetime64("1970-01-02", unit) + t
    start_us = 0 if kind == "timedelta64" else 86_400_000_000
    np.savez(tmp_path / "a.npz", t=t, x=[1, 2], y=[3, 4], p=[0, 1])
    table = np.zeros(2, [("t", t.dtype), ("x", "u2"), ("y", "u2"), ("p", "?")])
    table["t"], table["x"], table["y"], table["p"] = t, [1, 2], [3, 4], [0, 1]
    np.save(tmp_path / "a.npy", table)
    for name in ("a.npz", "a.npy"):
        events = load_events(tmp_path / name, Reading((12, 16)))
        assert list_rows(events) == [(start_us, 1, 3, -1), (start_us + 3_000_000, 2, 4, 1)]
    with pytest.raises(RecordingError, match="the unit of time must be one"):
        load_events(tmp_path / "a.npz", Reading((12, 16), time_unit="us" if unit != "us" else "s"))


def test_archives_of_evimo2_are_read_in_seconds(tmp_path):
    xy = np.array([[1, 3], [15, 11]], np.uint16)
    np.savez(tmp_path / "a.npz", events_t=[0.000_005, 2.25], events_xy=xy, events_p=[0, 1], K=np.eye(3))
    assert list_rows(load_events(tmp_path / "a.npz", Reading((12, 16)))) == [(5, 1, 3, -1), (2_250_000, 15, 11, 1)]
    np.savez(tmp_path / "a.npz", events_t=[0.1], events_xy=[[1, 2, 3]], events_p=[1])
    with pytest.raises(RecordingError, match=r"events_xy, \(N, 2\); its shape is \(1, 3\)"):
        load_events(tmp_path / "a.npz", Reading((12, 16)))


def test_three_arrays_of_evimo2_are_one_recording_by_the_name_of_each(tmp_path, capsys):
    folder = tmp_path / "scene"
    folder.mkdir()
    for name, values in {"t": [0.000_005, 2.25], "xy": np.array([[1, 3], [15, 11]], np.uint16), "p": [0, 1]}.items():
        np.save(folder / f"dataset_events_{name}.npy", values)
    for path in folder.iterdir():
        assert list_rows(load_events(path, Reading((12, 16)))) == [(5, 1, 3, -1), (2_250_000, 15, 11, 1)]
    words = ["infer", "-i", str(folder), "-o", str(tmp_path / "out"), "--method", "input", "--sensor-size", "12", "16"]
    assert main([*words, "--quiet"]) == 0, capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dataset_events_t.npy.h5"]
    np.save(folder / "other_events_p.npy", make_events(num=9).to_structured())
    assert len(load_events(folder / "other_events_p.npy", Reading(SIZE))) == 9, "A table is a recording of its own."
