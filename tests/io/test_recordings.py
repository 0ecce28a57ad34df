from dataclasses import replace

import h5py
import hdf5plugin
import numpy as np
import pytest
from support.recordings import make_events, same_events

from deflare_core.events import Events
from deflare_core.io import recordings
from deflare_core.io.chunks import CHUNK_EVENTS
from deflare_core.io.convert import convert
from deflare_core.io.reading import Reading
from deflare_core.io.recordings import RecordingError, load_events, open_recording, open_together, save_events
from deflare_core.io.writer import RecordingWriter
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.limits import HOUR_US


def write_h5(path, attributes=None, group="events", **columns):
    with h5py.File(path, "w") as file:
        events = file.create_group(group)
        for name, values in columns.items():
            events[name] = values
        events.attrs.update({"height": 12, "width": 16} if attributes is None else attributes)
    return path


def plain(events, **changes):
    return {name: getattr(events, name) for name in "txyp"} | changes


@pytest.mark.parametrize("t_start_us", [0, 7_000_000_000, 1_700_000_000_000_000, -40_000])
def test_a_recording_comes_back_as_it_was_written(tmp_path, t_start_us):
    events = make_events(t_start_us=t_start_us, duration_us=90_000)
    save_events(tmp_path / "a.h5", events, source="test")
    assert same_events(load_events(tmp_path / "a.h5"), events)


def test_the_written_layout_follows_dsec(tmp_path):
    events = make_events(t_start_us=2 * HOUR_US + 3_000, duration_us=9_000)
    save_events(tmp_path / "a.h5", events, source="a camera")
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["events"]
        assert int(group["t_offset"][()]) == 2 * HOUR_US, "The offset is the start floored to a whole hour."
        stored, index = group["t"][:], group["ms_to_idx"][:]
        assert (group.attrs["height"], group.attrs["width"], group.attrs["source"]) == (12, 16, "a camera")
    for ms in range(len(index)):
        assert index[ms] == np.searchsorted(stored, ms * 1000), "ms_to_idx points at the first event of a millisecond."


def test_a_dsec_file_is_read_with_its_offset_added_once(tmp_path):
    events = make_events(t_start_us=0, duration_us=50_000)
    blosc = hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
    with h5py.File(tmp_path / "dsec.h5", "w") as file:
        for name, dtype in zip("txyp", (np.uint32, np.uint16, np.uint16, np.uint8), strict=True):
            values = getattr(events, name)
            file.create_dataset(f"events/{name}", data=np.maximum(values, 0).astype(dtype), **blosc)
        file["ms_to_idx"] = np.searchsorted(events.t, np.arange(51) * 1000).astype(np.uint64)
        file["t_offset"] = np.int64(50_000_000_000)
    found = load_events(tmp_path / "dsec.h5", Reading(sensor_size=(12, 16)))
    assert np.array_equal(found.t, events.t + 50_000_000_000)
    assert np.array_equal(found.p, events.p), "DSEC stores polarity as 0 and 1."
    with open_recording(tmp_path / "dsec.h5", Reading(sensor_size=(12, 16))) as recording:
        window = recording.window(50_000_020_000, 50_000_040_000)
    assert same_events(window, found.window(50_000_020_000, 50_000_040_000))


@pytest.mark.parametrize("indexed", [True, False])
def test_a_window_read_from_disk_is_the_window_of_the_whole(tmp_path, indexed):
    events = make_events(num=3 * CHUNK_EVENTS, duration_us=300_000, sensor_size=(4, 4))
    path = tmp_path / "a.h5"
    if indexed:
        save_events(path, events, source="test")
    else:
        write_h5(path, attributes={"height": 4, "width": 4}, **plain(events))
    with open_recording(path) as recording:
        for start in (-20_000, 0, 1, 99_999, 250_000, 299_000, 400_000):
            expected = events.window(start, start + 20_000)
            assert same_events(recording.window(start, start + 20_000), expected), f"The window at {start} us differs."


@pytest.mark.parametrize(("at", "piece"), [(3, 100), (4, 4), (5, 4), (8, 4), (9, 10)])
def test_a_time_out_of_order_is_found_in_a_piece_and_between_two(tmp_path, monkeypatch, at, piece):
    monkeypatch.setattr(recordings, "PIECE_EVENTS", piece)
    t, nothing = np.arange(10) * 1000 + 5000, np.zeros(10, np.uint16)
    pixels = {"x": nothing, "y": nothing, "p": np.ones(10, np.int8)}
    for times, name in ((t, "good.h5"), (np.where(np.arange(10) == at, 0, t), "bad.h5")):
        write_h5(tmp_path / name, {"height": 4, "width": 4}, t=times, **pixels)
    with open_recording(tmp_path / "good.h5") as recording:
        recording.check_order()
        assert recording.count_before(np.array([0, 5000, 9001, 99_000]), scan=True).tolist() == [0, 0, 5, 10]
    with open_recording(tmp_path / "bad.h5") as recording:
        found = f"bad.h5: Time must not go backwards: event {at} is at 0 us, the one before it at {t[at - 1]} us"
        for read in (recording.check_order, lambda: recording.count_before(t, scan=True)):
            with pytest.raises(RecordingError, match=found):
                read()


def test_an_index_that_does_not_fit_the_times_is_refused(tmp_path):
    events = make_events(duration_us=90_000)
    path = write_h5(tmp_path / "a.h5", **plain(events, ms_to_idx=np.zeros(50, np.int64)))
    with open_recording(path) as recording, pytest.raises(RecordingError, match="ms_to_idx does not fit"):
        recording.window(40_000, 60_000)


def test_a_recording_written_in_pieces_is_the_recording_written_at_once(tmp_path):
    events = make_events(num=2000, duration_us=90_000)
    save_events(tmp_path / "whole.h5", events, source="test")
    with RecordingWriter(tmp_path / "pieces.h5", events.sensor_size, source="test") as writer:
        for k in range(9):
            writer.append(events.window(k * 10_000, (k + 1) * 10_000))
    assert (tmp_path / "whole.h5").read_bytes() != b""
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / "pieces.h5") as pieces:
        for name in ("t", "x", "y", "p", "ms_to_idx", "t_offset"):
            assert np.array_equal(whole["events"][name][()], pieces["events"][name][()]), f"{name} differs."


def test_pieces_must_follow_each_other(tmp_path):
    events = make_events()
    with pytest.raises(ValueError, match="cannot follow"), RecordingWriter(tmp_path / "a.h5", (12, 16), source="") as w:
        w.append(events[100:])
        w.append(events[:100])
    assert list(tmp_path.iterdir()) == [], "A recording that failed must leave nothing behind."


def test_extra_columns_and_the_clock_are_kept(tmp_path):
    events = make_events(num=300, t_start_us=15_000, duration_us=5_000)
    labels = np.arange(300).astype(np.uint8)
    save_events(tmp_path / "a.h5", events, source="test", clock_us=(0, 20_000), columns={"label": labels})
    with open_recording(tmp_path / "a.h5") as recording:
        assert recording.clock_us == (0, 20_000), "A silent beginning belongs to the recording."
        assert recording.extra_columns == ["label"]
        inside = (events.t >= 16_000) & (events.t < 18_000)
        assert np.array_equal(recording.column("label", 16_000, 18_000), labels[inside])


@pytest.mark.parametrize("num", [0, 1])
def test_recordings_of_no_event_and_of_one(tmp_path, num):
    events = make_events(num=num, t_start_us=123_456)
    save_events(tmp_path / "a.h5", events, source="test")
    with open_recording(tmp_path / "a.h5") as recording:
        assert same_events(recording.load(), events)
        assert same_events(recording.window(0, 10**9), events)


def test_the_same_events_give_the_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        save_events(tmp_path / name, make_events(seed=3), source="test")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_damaged_chunk_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    save_events(path, make_events(num=60_000), source="test")
    with h5py.File(path) as file:
        chunk = file["events/x"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"a\.h5: the file is damaged"):
        load_events(path)


def test_a_size_that_contradicts_the_file_is_refused(tmp_path):
    save_events(tmp_path / "a.h5", make_events(), source="test")
    message = r"the sensor is \(12, 16\) .* but \(10, 10\) was asked for.* correct them or that statement"
    with pytest.raises(RecordingError, match=message):
        load_events(tmp_path / "a.h5", Reading(sensor_size=(10, 10)))


def test_output_is_complete_or_absent(tmp_path):
    target = tmp_path / "file"
    target.write_text("before")
    with pytest.raises(KeyboardInterrupt), complete_or_absent(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "before"
    with complete_or_absent(target) as temporary:
        temporary.write_text("after")
    assert target.read_text() == "after"
    assert list(tmp_path.iterdir()) == [target], "No temporary file may remain."


def test_events_outside_the_declared_clock_are_refused(tmp_path):
    save_events(tmp_path / "a.h5", make_events(duration_us=50_000), source="test", clock_us=(0, 20_000))
    with open_recording(tmp_path / "a.h5") as recording, pytest.raises(RecordingError, match="declares"):
        recording.clock_us  # noqa: B018 - reading it is the test


def test_lenient_polarity_reads_the_records_rule(tmp_path):
    path = write_h5(tmp_path / "a.h5", t=[0, 1], x=[0, 0], y=[0, 0], p=[1, 5])
    assert load_events(path, Reading(polarity="lenient")).p.tolist() == [1, -1]
    assert isinstance(load_events(path, Reading(polarity="lenient")), Events)


@pytest.mark.parametrize(
    ("clock", "declares", "starts"),
    [
        ({}, False, [0, 20_000]),
        ({"t_start_us": 0}, False, [0, 20_000]),
        ({"t_start_us": 5_000}, False, [0, 20_000]),
        ({"t_end_us": 90_000}, False, [0, 20_000]),
        ({"t_start_us": 0, "t_end_us": 60_000}, True, [0, 20_000, 40_000]),
        ({"t_start_us": 5_000, "t_end_us": 45_000}, True, [5_000, 25_000]),
        ({"t_start_us": 12_345, "t_end_us": 30_001}, True, [12_345]),
    ],
)
def test_windows_start_at_a_declared_clock_or_on_the_grid_of_whole_windows(tmp_path, clock, declares, starts):
    attributes = {"height": 12, "width": 16, **clock}
    path = write_h5(tmp_path / "a.h5", attributes, t=[12_345, 30_000], x=[0, 0], y=[0, 0], p=[1, 0])
    with open_recording(path) as recording:
        assert recording.declares_clock == declares, "A clock is declared by its start and its end together."
        assert list(recording.window_starts(20_000)) == starts, "Windows cover the clock."
        if not declares:
            assert recording.clock_us == (12_345, 30_001), "An undeclared clock is that of the events."


@pytest.mark.parametrize("declared", ["t_start_us", "t_end_us"])
def test_half_a_clock_is_not_copied_as_a_whole_one(tmp_path, declared):
    attributes = {"height": 12, "width": 16, declared: 0}
    path = write_h5(tmp_path / "a.h5", attributes, t=[12_345, 30_000], x=[0, 0], y=[0, 0], p=[1, 0])
    convert(path, tmp_path / "b.h5", progress=False)
    with open_recording(tmp_path / "b.h5") as recording:
        assert not recording.declares_clock, "What the source does not declare, its copy does not either."


def test_a_result_beside_its_input_is_read_as_it_states(tmp_path):
    (tmp_path / "in.csv").write_text("t,x,y,p\n1,2,3,1\n5,2,3,0\n")
    reading = Reading((12, 16), time_unit="ms")
    with open_recording(tmp_path / "in.csv", reading) as recording:
        save_events(tmp_path / "out.h5", recording.load(), source="test")
    files = {"before": tmp_path / "in.csv", "after": tmp_path / "out.h5"}
    with open_together(files, reading) as opened:
        assert [recording.load().t.tolist() for recording in opened.values()] == [[1_000, 5_000]] * 2
    with open_together(files, replace(reading, polarity="lenient")) as opened:
        assert all(recording.load().p.tolist() == [1, -1] for recording in opened.values())
