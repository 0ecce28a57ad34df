"""Cameras' files: the right events of every format, by hand and as other readers have them, and oddities in them."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.camera_bytes import (
    HEAD2,
    aedat4,
    base3,
    change2,
    change3,
    dat,
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
from support.recordings import list_rows, make_events, same_events

import deflare_core.io.camera_files as camera_files
from deflare_core.events import Events
from deflare_core.io.arrival import LATE_US, put_in_order
from deflare_core.io.convert import convert
from deflare_core.io.description import describe
from deflare_core.io.formats import AEDAT4, DAT, ES, EVT, find_format, read_stream
from deflare_core.io.oddities import Oddities
from deflare_core.io.reading import Reading, RecordingError
from deflare_core.io.recordings import load_events

SIZE = (12, 16)


def read(path, data, **reading):
    """The events of a file of these bytes."""
    path.write_bytes(data)
    size, pieces = read_stream(path, Reading(**reading))
    return Events.concatenate([Events.empty(size), *pieces])


def warned(caplog):
    """What was logged, without the path that each line begins with."""
    return [record.getMessage().split(": ", 1)[1] for record in caplog.records if record.levelno == logging.WARNING]


ENCODERS = {
    "EVT2": evt2_bytes,
    "EVT3": evt3_bytes,
    "DAT": dat_bytes,
    "ES": lambda events: es(list_rows(events)),
    "AEDAT4": lambda events: aedat4({("A", "events"): [list_rows(events)[:100], [], list_rows(events)[100:]]}),
}
FORMAT_OF = {"EVT2": EVT, "EVT3": EVT, "DAT": DAT, "ES": ES, "AEDAT4": AEDAT4}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("piece_bytes", [1 << 20, 120])
def test_camera_files_are_read_event_by_event(tmp_path, monkeypatch, caplog, name, piece_bytes):
    monkeypatch.setattr(camera_files, "PIECE_BYTES", piece_bytes)
    events = make_events(t_start_us=4_096_000, duration_us=90_000)
    path = tmp_path / "a.bin"
    assert same_events(read(path, ENCODERS[name](events)), events), "However it is cut into pieces."
    assert find_format(path) is FORMAT_OF[name]
    assert convert(path, tmp_path / "out.h5", progress=False) == len(events)
    assert same_events(load_events(tmp_path / "out.h5"), events)
    assert warned(caplog) == [], "Nothing is odd about it."


def test_a_file_that_was_cut_says_what_can_be_known_of_it(tmp_path, caplog):
    path, head = tmp_path / "a.raw", b"% evt 3.0\n% geometry 64x12\n% end\n"
    words = [high3(0), low3(9), 5, change3(3, 1), base3(2, 0), 4 << 12 | 1, 5 << 12 | 4, low3(11), 7]
    last = ["a time", "a time", "a row w", "an event", "the start of", "a vector", "a vector", "a time", "a row w"]
    for length, expected in enumerate(last, 1):
        caplog.clear()
        read(path, evt3(words[:length], head))
        assert f"its last word is {expected}" in str(describe(path, Reading())), f"Of {length} words."
        is_known = expected.endswith((" w", " of"))
        said = f"1 of {length} words announce events that do not follow: the file may be cut short, its last word is "
        assert len([line for line in warned(caplog) if line.startswith(said)]) == is_known
    for data, expected in ((evt2([time2(0), change2(5, 1, 1, 1)]), "an event"), (evt2([time2(0)]), "a time")):
        path.write_bytes(data)
        assert f"EVT2, its last word is {expected}" in str(describe(path, Reading()))


# Clocks


def test_evt2_times_are_right_whatever_the_clock_does(tmp_path, caplog):
    path, near_full = tmp_path / "a.raw", (1 << 34) - 128
    back = [time2(6400), change2(6401, 1, 1, 1), time2(6400 - 128), time2(6464), change2(6465, 2, 1, 1)]
    assert read(path, evt2(back)).t.tolist() == [6401, 6465], "A word that steps back moves no later event."
    full = [word for t in (near_full, near_full + 192) for word in (time2(t), change2(t, 1, 1, 1))]
    assert read(path, evt2(full)).t.tolist() == [near_full, near_full + 192], "The words where it is full are missing."
    assert warned(caplog) == []
    early = [change2(5, 1, 1, 1), time2(3_000_000_000), change2(3_000_000_001, 2, 1, 0)]
    assert list_rows(read(path, evt2(early))) == [(3_000_000_001, 2, 1, -1)]
    late = [*back[:2], time2(6400 - 128), change2(6300, 3, 1, 1), *back[3:]]
    assert read(path, evt2(late)).t.tolist() == [6300, 6401, 6465]
    assert warned(caplog) == [
        "1 of 2 events before the first time of the file are left out.",
        "1 of 3 events came after newer ones and are put in order, by up to 101 us.",
    ]


def test_evt3_times_are_right_whatever_the_clock_does(tmp_path, caplog):
    path = tmp_path / "a.raw"
    start = [high3(4094 << 12), low3(7), 5, change3(1, 1)]
    assert read(path, evt3(start)).t.tolist() == [(4094 << 12) + 7], "The first upper half is as it stands there."
    full = [*start, high3(2 << 12), low3(9), change3(2, 1)]
    assert read(path, evt3(full)).t.tolist() == [(4094 << 12) + 7, (4098 << 12) + 9], "4095 and 0 are missing."
    glitch = [high3(5 << 12), low3(811), low3(800), 6, change3(2, 1), low3(805), change3(3, 0)]
    assert read(path, evt3(glitch)).t.tolist() == [21_280, 21_285]
    turn = [high3(5 << 12), low3(100), 5, change3(1, 1), high3(6 << 12), change3(2, 1), high3(6 << 12), low3(7)]
    turn += [high3(6 << 12), change3(3, 1)]
    assert read(path, evt3(turn)).t.tolist() == [20_580, 24_576, 24_583], "A new upper half begins at its start."
    around = [*start[:2], high3(1 << 24), 5, change3(1, 1), high3(4095 << 12), high3(1 << 24), low3(8), change3(2, 1)]
    assert read(path, evt3(around)).t.tolist() == [1 << 24, (1 << 24) + 8], "One that steps back where it is full."
    assert warned(caplog) == []
    early = [3, change3(1, 1), base3(2, 1), 4 << 12 | 3, high3(9 << 12), low3(1), change3(4, 1)]
    assert list_rows(read(path, evt3(early))) == [((9 << 12) + 1, 4, 3, 1)]
    late = [high3(5 << 12), low3(811), 6, change3(1, 1), low3(800), change3(2, 1), high3(4 << 12), change3(3, 1)]
    assert list_rows(read(path, evt3(late))) == [(16_384, 3, 6, 1), (21_280, 2, 6, 1), (21_291, 1, 6, 1)]
    lost = [high3(5 << 12), low3(4000), 6, change3(1, 1), low3(100), change3(2, 1), low3(4000), low3(7), change3(3, 1)]
    lost += [high3(8 << 12), change3(4, 1)]
    assert read(path, evt3(lost)).t.tolist() == [24_480, 24_676, 28_679, 32_768], "Upper halves 6 and 7 are missing."
    assert warned(caplog) == [
        "3 of 4 events before the first time of the file are left out.",
        "2 of 3 events came after newer ones and are put in order, by up to 4907 us.",
        "2 of 6 lower halves of the time began again where an upper half is missing, which is added.",
    ]


def test_a_clock_that_jumps_is_named_and_one_that_is_set_back_refused(tmp_path, caplog):
    path = tmp_path / "a.raw"
    ahead = [time2(640), change2(640, 1, 1, 1), time2(5_000_640), change2(5_000_640, 2, 1, 1)]
    assert read(path, evt2(ahead)).t.tolist() == [640, 5_000_640]
    far = [high3(0), low3(1), 5, change3(1, 1), high3(10_000_000), low3(1), change3(2, 1)]
    assert read(path, evt3(far)).t.tolist() == [1, 9_998_337], "More than half a round of 16.8 s is a jump ahead too."
    assert warned(caplog) == [
        "1 of 2 time words jump by more than a second, first by +5.000 s to 5000640 us.",
        "1 of 2 time words jump by more than a second, first by +9.998 s to 9998336 us.",
    ]
    with pytest.raises(RecordingError, match=r"goes back by 5\.000000 s, to 640 us, at event 2: it was set back"):
        read(path, evt2([*ahead, *ahead]))
    with pytest.raises(RecordingError, match=r"goes back by 0\.200000 s, to 200000 us, at event 1"):
        read(tmp_path / "a.dat", dat([(400_000, 1, 1, 1), (200_000, 1, 1, 1)]))
    with pytest.raises(RecordingError, match=r"goes back by 0\.200000 s, to 200000 us, at event 1"):
        read(tmp_path / "a.aedat4", aedat4({("A", "events"): [[(400_000, 1, 1, 1)], [(200_000, 1, 1, 1)]]}))


def test_a_file_that_is_refused_is_described_and_may_be_sorted(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(evt2([time2(2_000_000), change2(2_000_000, 1, 1, 1), time2(0), change2(5, 2, 1, 0)]))
    found = describe(path, Reading())
    assert [oddity.what for oddity in found.oddities][:2] == [
        "1 of 2 time words jump by more than a second, first by -2.000 s to 0 us",
        "time goes back 1 times, by up to 1,999,995 us",
    ]
    assert (found.layout, found.sensor_size, found.tally.num_events) == ("EVT2, its last word is an event", SIZE, 2)
    convert(path, tmp_path / "b.h5", sort=True, progress=False)
    assert list_rows(load_events(tmp_path / "b.h5")) == [(5, 2, 1, -1), (2_000_000, 1, 1, 1)]


@pytest.mark.parametrize("encode", [dat, lambda events: aedat4({("A", "events"): [events[:3], events[3:]]})])
def test_events_that_come_late_are_put_in_order_and_counted(tmp_path, caplog, encode):
    given_rows = [(1_000, 1, 1, 1), (1_020, 2, 1, 1), (1_017, 3, 1, -1), (1_020, 4, 1, 1), (1_000, 5, 1, 1)]
    assert list_rows(read(tmp_path / "a", encode(given_rows))) == [given_rows[k] for k in (0, 4, 2, 1, 3)]
    assert warned(caplog) == ["2 of 5 events came after newer ones and are put in order, by up to 20 us."]


@given(st.lists(st.integers(0, 3_000), max_size=200), st.lists(st.integers(0, 200), max_size=30), st.data())
def test_late_events_are_put_in_order_however_the_file_is_cut(steps, cuts, data):
    late = data.draw(st.lists(st.integers(0, 15_000), min_size=len(steps), max_size=len(steps)))
    t = np.cumsum(np.array(steps, np.int64)) - np.array(late, np.int64)
    t = np.maximum(t, np.maximum.accumulate(t) - LATE_US) if len(t) else t
    numbers = np.arange(len(t)) % 16
    pieces = [(t[part], numbers[part], numbers[part], t[part]) for part in np.split(np.arange(len(t)), sorted(cuts))]
    found = [np.concatenate([[], *parts]) for parts in zip(*put_in_order(pieces, Oddities(Path())), strict=True)]
    order = np.argsort(t, kind="stable")
    assert all((column == right[order]).all() for column, right in zip(found, (t, numbers, numbers, t), strict=False))


def test_dat_counts_on_where_32_bits_are_full_and_from_its_start(tmp_path):
    full = dat([((1 << 32) - 10, 1, 1, 1), ((1 << 32) + 10, 1, 1, 1)])
    assert read(tmp_path / "a.dat", full).t.tolist() == [(1 << 32) - 10, (1 << 32) + 10]
    started = dat([(10, 1, 1, 1)], lines=b"% Height 12\n% Width 16\n% T0 500\n")
    assert read(tmp_path / "a.dat", started).t.tolist() == [510]


@given(st.lists(st.integers(-1_000_000, 1_000_000), max_size=60), st.integers(0, (1 << 34) - 1))
def test_a_clock_of_few_bits_is_followed_wherever_it_steps_by_less_than_half_a_round(steps, start):
    times = (start + np.cumsum([0, *steps])) & ~63
    clock = camera_files.Clock(28)
    parts = np.array_split(times // 64 % (1 << 28), 3)
    assert (np.concatenate([clock.unwrap(part) for part in parts]) == times // 64).all()


# Words


def test_a_vector_of_evt3_has_an_event_for_each_bit(tmp_path):
    words = [high3(4096), low3(1), 5, base3(1, 1), 4 << 12 | 0b100000000001, 5 << 12 | 0b10, change3(9, 0)]
    events = read(tmp_path / "a.raw", evt3(words))
    assert list_rows(events) == [(4097, 1, 5, 1), (4097, 12, 5, 1), (4097, 14, 5, 1), (4097, 9, 5, -1)]


def test_events_beyond_the_edge_are_counted_or_too_many(tmp_path, caplog):
    few = [high3(4096), low3(1), *[word for k in range(300) for word in (k % 12, change3(k % 16, 1))]]
    few += [5, base3(14, 1), 4 << 12 | 0b111]
    assert len(read(tmp_path / "a.raw", evt3(few))) == 302
    assert warned(caplog) == [
        "1 of 303 events beyond the sensor's edge are left out (x from 0 to 16, y from 0 to 11 on 16 x 12 pixels)."
    ]
    with pytest.raises(RecordingError, match=r"1 of 1 events beyond .* y from -88 to -88"):
        read(tmp_path / "a.es", es([(1, 1, -88, 1)]))
    with pytest.raises(RecordingError, match=r"1 of 3 events beyond .* give the sensor size of the camera"):
        read(tmp_path / "a.raw", evt3([high3(4096), low3(1), *few[-3:]]))


def test_events_of_another_sort_or_camera_are_left_out(tmp_path, caplog):
    words = [high3(4096), low3(1), 1 << 12 | 7, change3(1, 1), 1 << 11 | 8, change3(2, 1), 9, change3(3, 1)]
    assert list_rows(read(tmp_path / "a.raw", evt3(words))) == [(4097, 3, 9, 1)]
    assert warned(caplog) == ["2 of 3 events that name no pixel of this camera are left out."]


def test_words_of_other_kinds_are_passed_over_and_strange_ones_counted(tmp_path, caplog):
    others = [10 << 28 | 5, 14 << 28 | 5, 15 << 28 | 5]
    words = [time2(64), *others, change2(64, 1, 1, 1)] * 100
    assert len(read(tmp_path / "a.raw", evt2(words))) == 100
    assert warned(caplog) == [], "Triggers and monitoring are no events, and nothing odd."
    assert len(read(tmp_path / "a.raw", evt2([*words, 9 << 28]))) == 100
    assert warned(caplog) == ["1 of 501 words are of no kind of the format and are passed over."]
    with pytest.raises(RecordingError, match=r"words are of no kind .* or its header names another format"):
        read(tmp_path / "a.raw", evt3_bytes(make_events(), HEAD2))


@pytest.mark.parametrize("is_legacy", [True, False])
@pytest.mark.parametrize("endianness", [b"", b";endianness=legacy", b";endianness=little"])
def test_evt21_is_read_in_either_order_of_its_halves(tmp_path, is_legacy, endianness):
    header = b"% format EVT21;height=12;width=64" + endianness + b"\n% end\n"
    words = [(time2(640), 0), (change2(641, 32, 3, 1), 0x80000001), (change2(642, 0, 4, 0), 0b110), (14 << 28, 5)]
    events = read(tmp_path / "a.raw", evt21(words, is_legacy, header))
    assert list_rows(events) == [(641, 32, 3, 1), (641, 63, 3, 1), (642, 1, 4, -1), (642, 2, 4, -1)]
    assert events.sensor_size == (12, 64)


# Headers


@pytest.mark.parametrize(
    "header",
    [
        b"% evt 2.0\n% geometry 16x12\n% end\n",
        b"% Date 2024-01-01 00:00:00\n% format EVT2;height=12;width=16\n% end\n",
        b"% evt 2.0\n% format EVT2;width=16;height=12\n% geometry 16x12\n",
        b"% format EVT2\n% Height 12\n% Width 16\n",
        b"% evt 2.0\r\n% geometry: 16x12\r\n% end\r\n",
        "% integrator_name Prophésée\n% evt 2.0\n% geometry 16x12\n% end\n".encode(),
    ],
)
def test_every_way_to_state_the_sensor_is_heeded(tmp_path, header):
    events = make_events(t_start_us=0x25 << 6)
    data = evt2_bytes(events, header)
    assert same_events(read(tmp_path / "a.raw", data), events), "Though the first byte of the data is a %."


def test_a_header_that_contradicts_itself_is_refused(tmp_path):
    with pytest.raises(RecordingError, match=r"its header says width twice, 16 and 640"):
        read(tmp_path / "a.raw", evt2_bytes(make_events(), b"% format EVT2;height=12;width=16\n% geometry 640x12\n"))
    with pytest.raises(RecordingError, match=r"its header says evt twice, 2 and 3"):
        read(tmp_path / "a.raw", evt2_bytes(make_events(), b"% evt 3.0\n% format EVT2;height=12;width=16\n"))


def test_a_raw_file_without_geometry_needs_the_sensor_size(tmp_path):
    events = make_events(t_start_us=64)
    data = evt2_bytes(events, b"% evt 2.0\n")
    with pytest.raises(RecordingError, match=r"give sensor_size=\(height, width\)"):
        read(tmp_path / "a.raw", data)
    with pytest.raises(RecordingError, match=r"events beyond .* give the sensor size of the camera"):
        read(tmp_path / "a.raw", data, sensor_size=(4, 4))
    assert same_events(read(tmp_path / "a.raw", data, sensor_size=SIZE), events)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", [0, 12])
def test_dat_of_both_types_and_versions_is_read(tmp_path, version, kind):
    given_rows = [(1_000, 1, 2, 1), (1_010, 15, 11, -1)]
    assert list_rows(read(tmp_path / "a.dat", dat(given_rows, version, kind))) == given_rows
    unversioned = dat(given_rows, version, kind).replace(b"%% Version %d\n" % version, b"")
    assert list_rows(read(tmp_path / "a.dat", unversioned)) == given_rows, "The bits show the version."


def test_of_an_atis_camera_changes_are_read_and_exposures_passed_over(tmp_path):
    on, exposed, off = [5 << 2 | 0b10, 3, 0, 4, 0], [1 << 2 | 0b01, 3, 0, 4, 0], [1 << 2, 7, 0, 8, 0]
    data = es([], kind=2) + bytes([0b11111110, *on, *exposed, *off])
    assert list_rows(read(tmp_path / "a.es", data)) == [(131, 3, 7, 1), (133, 7, 3, -1)]


# Several streams


def test_of_several_cameras_one_must_be_chosen(tmp_path):
    left, right = make_events(seed=1), make_events(seed=2)
    path = tmp_path / "a.aedat4"
    for names in ((("LEFT", "events"), ("RIGHT", "events")), (("A", "LEFT"), ("A", "RIGHT"))):
        data = aedat4(dict(zip(names, ([list_rows(left)], [list_rows(right)]), strict=True)))
        assert same_events(read(path, data, stream="LEFT"), left)
        assert same_events(read(path, data, stream="RIGHT"), right)
        with pytest.raises(RecordingError, match=r"a\.aedat4: holds 2 streams of events: LEFT, RIGHT; choose one"):
            read(path, data)


@pytest.mark.parametrize("compression", range(5))
def test_aedat4_of_every_compression_is_read_up_to_the_table_that_closes_it(tmp_path, compression):
    events = make_events(num=50)
    data = aedat4({("A", "events"): [list_rows(events)]}, compression=compression, closing=b"a table of packets")
    assert same_events(read(tmp_path / "a.aedat4", data), events)


def test_aedat4_that_is_cut_short_anywhere_says_what_is_whole(tmp_path):
    rows = list_rows(make_events(num=50))
    streams = {("A", "events"): [rows[:30], rows[30:]], ("B", "events"): [rows]}
    closed, last_us = aedat4(streams), rows[-1][0]
    first = len(aedat4({**streams, ("B", "events"): []}, closing=b""))
    one_packet = f"before it 30 events up to {rows[29][0]:,} us are whole. Copy"
    for name, cut, said in (
        ("in another stream", closed[: first + 99], f"before it 50 events up to {last_us:,} us are whole. Copy"),
        ("in a head", closed[: first + 5], f"before it 50 events up to {last_us:,} us are whole. Copy"),
        ("between packets", closed[:first], f"{len(closed) - 5 - first:,} bytes of its packets are missing"),
        ("in a packet", closed[: first - 1], one_packet),
    ):
        with pytest.raises(RecordingError, match=f"the file is cut short: .*{said}"):
            read(tmp_path / f"{name}.aedat4", cut, stream="A")


def test_aedat4_that_was_never_closed_is_read_as_far_as_it_is_whole(tmp_path, caplog):
    rows = list_rows(events := make_events(num=50))
    data = aedat4({("A", "events"): [rows[:30], rows[30:]]}, closing=b"")
    assert same_events(read(tmp_path / "a.aedat4", data), events)
    assert warned(caplog) == [
        "2 of 2 packets were found in a recording that was never closed, and may lack its end: 50 events up to "
        f"{rows[-1][0]:,} us."
    ]
    with pytest.raises(
        RecordingError, match=r"before it 30 events up to .* are whole.*head -c \d+ OLD > NEW"
    ) as refusal:
        read(tmp_path / "b.aedat4", data[:-1])
    num_bytes = int(re.search(r"head -c (\d+)", str(refusal.value))[1])
    assert same_events(read(tmp_path / "b.aedat4", data[:num_bytes]), events[:30])


def test_a_container_without_events_says_what_it_holds(tmp_path):
    with pytest.raises(RecordingError, match="holds no events, only streams of imu"):
        read(tmp_path / "a.aedat4", aedat4({("A", "imu"): []}, identifier="IMUS"))


# Damage


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_camera_files_that_end_inside_an_event_are_refused(tmp_path, encode):
    with pytest.raises(RecordingError, match=r"a\.bin: the file is (cut short|damaged)"):
        read(tmp_path / "a.bin", encode(make_events(t_start_us=64)).removesuffix(b"table")[:-1])
