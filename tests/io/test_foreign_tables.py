"""Tables as the tools of this field write them are read right, event by event, or refused with what is wrong."""

import fcntl
import gzip
import zipfile

import h5py
import numpy as np
import pytest
from support.recordings import make_events, same_events

from deflare_core.app.commands import main
from deflare_core.io.reading import Reading, RecordingError
from deflare_core.io.recordings import load_events, open_recording

SIZE = (48, 64)
EVENTS = make_events(num=400, sensor_size=SIZE, duration_us=200_000)
T, X, Y, P = (getattr(EVENTS, name).astype(np.int64) for name in "txyp")
ON = (P > 0).astype(np.int64)
SECONDS = np.array([f"{t / 1e6:.6f}" for t in T.tolist()])
PLAIN = {"events__t": T, "events__x": X, "events__y": Y, "events__p": P}
FAR = 2**53 + 1
"""The first whole number that is no float64."""


def load(path, **reading):
    with open_recording(path, Reading(**{"sensor_size": SIZE, **reading})) as recording:
        return recording.load()


def rows(*columns, separator=","):
    return "".join(f"{separator.join(map(str, row))}\n" for row in zip(*(c.tolist() for c in columns), strict=True))


def text(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def npz(path, **columns):
    with path.open("wb") as file:
        np.savez(file, **columns)
    return path


def npy(path, array):
    with path.open("wb") as file:
        np.save(file, array)
    return path


def h5(path, attributes=(), **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name.replace("__", "/")] = values
        file.attrs.update(dict(attributes))
    return path


def with_times(path, t):
    """A file of the plain events with these times, by the format that its name ends with."""
    if path.suffix == ".h5":
        return h5(path, **PLAIN | {"events__t": t})
    return npz(path, t=t, x=X, y=Y, p=P) if path.suffix == ".npz" else text(path, "t,x,y,p\n" + rows(t, X, Y, P))


def table(*columns, dtype=np.float64):
    return np.column_stack(columns).astype(dtype)


def fields(names, *columns):
    return np.rec.fromarrays(columns, names=names)


# Text

TEXTS = {
    "uzh's ECD": (rows(SECONDS, X, Y, ON, separator=" "), "s"),
    "Prophesee's x,y,p,t without names": (rows(X, Y, ON, T), "us"),
    "x y p t with tabs": (rows(X, Y, ON, T, separator="\t"), "us"),
    "x y t p without names": (rows(X, Y, T, P, separator=" "), "us"),
    "event_utils' names": ("ts,xs,ys,ps\n" + rows(T, X, Y, ON), "us"),
    "dv-processing's names": ("timestamp,x,y,polarity\n" + rows(T, X, Y, ON), "us"),
    "faery's names": ("t,x,y,on\n" + rows(T, X, Y, ON), "us"),
    "faery's header": ("t,x@64,y@48,on\n" + rows(T, X, Y, ON), None),
    "upper case, blanks and CRLF": (("Timestamp, X, Y, Polarity\n" + rows(T, X, Y, P)).replace("\n", "\r\n"), "us"),
    "a byte-order mark": ("\ufefft,x,y,p\n" + rows(T, X, Y, ON), "us"),
    "a comma at the end of each line": ("t,x,y,p,\n" + rows(T, X, Y, ON).replace("\n", ",\n"), "us"),
    "such commas without names": (rows(T, X, Y, ON).replace("\n", ",\n"), "us"),
    "such commas but for the names": ("t,x,y,p\n" + rows(T, X, Y, ON).replace("\n", ",\n"), "us"),
    "pandas' True and False": ("t,x,y,p\n" + rows(T, X, Y, ON.astype(bool)), "us"),
    "pandas' index": (",t,x,y,p\n" + rows(np.arange(400), T, X, Y, P), "us"),
    "a column of words": ("camera,t,x,y,p\n" + rows(np.full(400, "left"), T, X, Y, P), "us"),
    "quoted names": ('"t","x","y","p"\n' + rows(T, X, Y, ON), "us"),
    "Excel's first line": ("sep=;\nt;x;y;p\n" + rows(T, X, Y, ON, separator=";"), "us"),
    "quoted values": ('"t","x","y","p"\n' + rows(*(np.array([f'"{v}"' for v in c]) for c in (T, X, Y, P))), "us"),
    "np.savetxt's numbers": (
        "\n".join(" ".join(f"{v:.18e}" for v in row) for row in zip(T / 1e6, X, Y, ON, strict=True)),
        "s",
    ),
    "v2e's labels in a fifth column": (
        "# time x y p, signal or noise\n" + rows(SECONDS, X, Y, ON, ON, separator=" "),
        "s",
    ),
    "a unit in a comment's names": ("# jAER\n# timestamp(us) x y polarity\n" + rows(T, X, Y, P, separator=" "), None),
    "a unit in brackets": ("time [ms],x,y,p\n" + rows(np.array([f"{t / 1e3:.3f}" for t in T]), X, Y, P), None),
    "a unit in a word": ("time (sec), x [px], y [px], p\n" + rows(SECONDS, X, Y, P), None),
    "the Greek letter for micro": ("t [\u03bcs],x,y,p\n" + rows(T, X, Y, P), None),
    "a word in a comment": ("# time_unit: microseconds\n" + rows(T, X, Y, P), None),
    "nanoseconds": ("t_ns,x,y,p\n" + rows(T * 1000 + 400, X, Y, P), None),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_of_every_tool_is_read(tmp_path, name):
    content, unit = TEXTS[name]
    assert same_events(load(text(tmp_path / "a.csv", content), time_unit=unit), EVENTS)


@pytest.mark.parametrize("first", ["64 48\n", "%geometry:64,48\n", "% geometry 64x48\n", "# height: 48, width: 64\n"])
def test_text_states_its_sensor_as_its_tool_does(tmp_path, first):
    path = text(tmp_path / "a.txt", first + rows(SECONDS, X, Y, ON, separator=" "))
    assert same_events(load(path, time_unit="s", sensor_size=None), EVENTS)
    assert same_events(load(path, time_unit="s"), EVENTS), "The same size may be given as well."


def test_text_in_other_codes_and_gzipped_is_read(tmp_path):
    content = "# Zeit in µs\nt,x,y,p\n" + rows(T, X, Y, ON)
    assert same_events(load(text(tmp_path / "a.csv", content, "latin-1"), time_unit="us"), EVENTS)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content.encode()))
    assert same_events(load(tmp_path / "a.csv.gz", time_unit="us"), EVENTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("t,x,y,p\n" + rows(T, X, Y, P)[:-4], "3 were found at row 400"),
        ("t;x;y;p\n" + rows(np.array(["0,5", "0,6"]), X[:2], Y[:2], ON[:2], separator=";"), "decimals with a comma"),
        (rows(np.sort(X), Y, ON, T * 0 + 1), "fit the orders t x y p and x y p t"),
        (rows(X, Y, ON + 1, T), "found the values 1, 2"),
        (rows(T, X, Y, X), "fit neither t x y p nor another order"),
        ("t,x,y,p\n" + rows(T, X, Y, np.arange(400) % 3 - 1), "0 may mean no change"),
        ("t,time,x,y,p\n" + rows(T, T, X, Y, P), "two columns that mean t, 't' and 'time'"),
        ("t,x,y,p,polarity\n" + rows(T, X, Y, P, P), "two columns that mean p, 'p' and 'polarity'"),
        ("x,y,p,t\n" + rows(X, Y, P, T[::-1]), "--sort"),
    ],
)
def test_text_that_cannot_be_read_says_why(tmp_path, content, message):
    with pytest.raises(RecordingError, match=message):
        load(text(tmp_path / "a.csv", content), time_unit="us")


# Arrays

ARRAYS = {
    "BS-ERGB's names": lambda path: npz(path, x=X, y=Y, timestamp=T, polarity=ON),
    "event_utils' names": lambda path: npz(path, xs=X, ys=Y, ts=T, ps=ON),
    "N-ImageNet's table": lambda path: npz(path, event_data=fields("x,y,t,p", X, Y, T, ON.astype(bool))),
    "a table beside frames": lambda path: npz(
        path, events=table(T, X, Y, P), frames=np.zeros((2, 3)), boxes=np.ones((7, 4))
    ),
    "microseconds as float64": lambda path: npy(path, table(T, X, Y, P)),
    "a table on its side": lambda path: npy(path, table(T, X, Y, P).T),
    "Prophesee's older fields": lambda path: npy(path, fields("ts,x,y,p", T, X, Y, P)),
    "dv-processing's fields": lambda path: npy(path, fields("timestamp,x,y,polarity", T, X, Y, ON)),
    "big-endian numbers": lambda path: npy(path, table(T, X, Y, P, dtype=">i8")),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_tool_are_read(tmp_path, name):
    assert same_events(load(ARRAYS[name](tmp_path / "a")), EVENTS)


def test_one_of_two_tables_is_chosen(tmp_path):
    path = npz(tmp_path / "a.npz", left=table(T, X, Y, P), right=table(T + 5, X, Y, P))
    with pytest.raises(RecordingError, match="2 streams of events: left, right"):
        load(path)
    assert load(path, stream="right").t.tolist() == (T + 5).tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: npy(path, table(X, Y, T, P)), "holds its columns as x y t p"),
        (lambda path: npy(path, table(T, X, Y, P, dtype=np.uint32)), "values 1, 4294967295.* 'lenient'"),
        (lambda path: npy(path, np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [0, 1, 0, 1]])), "fit neither"),
        (lambda path: npy(path, table(T, X, Y, np.arange(400) % 3 - 1)), "0 may mean no change"),
        (lambda path: npz(path, t=T, ts=T, x=X, y=Y, p=P), "two columns that mean t, 't' and 'ts'"),
        (lambda path: npz(path, t=np.full(400, 2**62), x=X, y=Y, p=P), "too far from 0"),
        (lambda path: npz(path, t=np.full(400, 2.0**63), x=X, y=Y, p=P), "too far from 0"),
        (lambda path: npz(path, t=np.full(400, 2**63, np.uint64), x=X, y=Y, p=P), "fit int64"),
    ],
)
def test_arrays_that_cannot_be_read_say_why(tmp_path, make, message):
    path = make(tmp_path / "a")
    with pytest.raises(RecordingError, match=message):
        load(path)


def test_a_zip_of_texts_is_told_from_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("events.txt", "0.000001 1 1 0\n")
    with pytest.raises(RecordingError, match=r"is a zip of \['events.txt'\].* unpack it"):
        load(tmp_path / "a.zip")


# HDF5

LAYOUTS = {
    "v2e's": lambda path: h5(path, events=table(T, X, Y, ON, dtype=np.uint32)),
    "event_utils'": lambda path: h5(path, events__ts=T, events__xs=X, events__ys=Y, events__ps=ON.astype(bool)),
    "one camera in a group": lambda path: h5(
        path, events__davis__t=T, events__davis__x=X, events__davis__y=Y, events__davis__p=P
    ),
    "other names": lambda path: h5(path, events__timestamp=T, events__x=X, events__y=Y, events__polarity=ON),
    "a compound table": lambda path: h5(path, events=fields("x,y,p,t", X, Y, ON, T)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_hdf5_of_every_tool_is_read(tmp_path, name):
    path = LAYOUTS[name](tmp_path / "a.h5")
    with open_recording(path, Reading(SIZE)) as recording:
        assert same_events(recording.load(), EVENTS)
        assert same_events(recording.window(50_000, 70_000), EVENTS.window(50_000, 70_000))
        assert recording.extra_columns == []


def test_mvsec_is_read_in_its_order_and_its_seconds(tmp_path):
    path = h5(tmp_path / "a.hdf5", davis__left__events=table(X, Y, T / 1e6 + 1506117884.0, P))
    assert load(path, time_unit="s").t.tolist() == (T + 1_506_117_884_000_000).tolist()
    with pytest.raises(RecordingError, match="not whole microseconds; give time_unit='s'"):
        load(path)


def test_a_stereo_recording_is_read_from_the_camera_that_is_asked_for(tmp_path):
    both = {name.replace("__", f"__{side}__"): column for side in ("left", "right") for name, column in PLAIN.items()}
    both["events__right__t"] = T + 7
    path = h5(tmp_path / "a.h5", **both)
    assert same_events(load(path), EVENTS), "The left camera's is read unless another is asked for."
    for stream in ("right", "events/right"):
        assert load(path, stream=stream).t.tolist() == (T + 7).tolist()
    with pytest.raises(RecordingError, match="no stream 'middle'; it has events/left, events/right"):
        load(path, stream="middle")


FLOATS = PLAIN | {"events__t": T.astype(float)}


@pytest.mark.parametrize(
    ("columns", "attributes", "offset_us"),
    [
        (PLAIN | {"t_offset": 49_599_300_000}, {}, 49_599_300_000),
        (PLAIN | {"events__t_offset": np.array([49_599_300_000])}, {}, 49_599_300_000),
        (PLAIN, {"t_offset": 49_599_300_000}, 49_599_300_000),
        (PLAIN, {"t_offset": np.array([49_599_300_000])}, 49_599_300_000),
        (FLOATS | {"t_offset": 49_599_300_000.0}, {}, 49_599_300_000),
    ],
)
def test_an_offset_is_added_once_wherever_it_stands(tmp_path, columns, attributes, offset_us):
    path = h5(tmp_path / "a.h5", attributes, **columns)
    assert load(path).t.tolist() == (T + offset_us).tolist()
    assert main(["convert", str(path), str(tmp_path / "b.h5"), "--sensor-size", "48", "64"]) == 0
    assert load_events(tmp_path / "b.h5").t.tolist() == (T + offset_us).tolist(), "A copy says it once, too."


@pytest.mark.parametrize(
    ("columns", "attributes", "message"),
    [
        (PLAIN | {"t_offset": 49599.3}, {}, r"t_offset is 49599\.3"),
        (PLAIN | {"t_offset": 49_599_300_000.5}, {}, "whole number of microseconds"),
        (PLAIN | {"t_offset": 49599.0}, {}, r"t_offset is 49599\.0, which may be in another unit"),
        (PLAIN, {"t_offset": 49599.3}, r"t_offset is 49599\.3"),
        (PLAIN | {"t_offset": 1}, {"t_offset": 2}, "several offsets"),
        (PLAIN | {"t_offset": 2**63 - 1}, {}, "too far from 0"),
        (PLAIN | {"events__ts": T}, {}, "two columns that mean t, 't' and 'ts'"),
        (PLAIN | {"events__p": np.arange(400) % 3 - 1}, {}, "0 may mean no change"),
        (PLAIN | {"events__t": h5py.Empty("i8")}, {}, "null dataspace"),
        (PLAIN | {"events__p": h5py.ExternalLink("gone.h5", "/p")}, {}, "link to /p in the file gone.h5"),
        (PLAIN | {"events__p": h5py.SoftLink("/gone")}, {}, "link to /gone, which is not in the file"),
        ({"events": h5py.ExternalLink("gone.h5", "/events")}, {}, "in the file gone.h5; what is in other"),
    ],
)
def test_hdf5_that_cannot_be_read_says_why(tmp_path, columns, attributes, message):
    with pytest.raises(RecordingError, match=message):
        load(h5(tmp_path / "a.h5", attributes, **columns))


def test_a_mixture_of_polarities_is_found_whatever_part_is_read(tmp_path):
    path = h5(tmp_path / "a.h5", **PLAIN | {"events__p": np.where(T < 190_000, ON, -1)})
    with open_recording(path, Reading(SIZE)) as recording, pytest.raises(RecordingError, match="0 may mean no change"):
        recording.window(0, 20_000)


@pytest.mark.parametrize(
    ("polarities", "positive"),
    [([1, 255], 1), ([1, 2**32 - 1], 1), ([0, 255], None), ([1, 2], None), ([2, 3], None), ([0, 1], 1), ([-1, 1], 1)],
)
def test_the_lenient_rule_never_turns_polarities_round(tmp_path, polarities, positive):
    values = np.where(ON > 0, *sorted(polarities, key=lambda value: value == positive)[::-1])
    for path in (
        h5(tmp_path / "a.h5", **PLAIN | {"events__p": values}),
        npz(tmp_path / "a.npz", t=T, x=X, y=Y, p=values),
    ):
        if positive is None:
            with pytest.raises(RecordingError, match="found the values"):
                load(path, polarity="lenient")
        else:
            assert same_events(load(path, polarity="lenient"), EVENTS)


SIZES = {
    "height and width in arrays of one": {"height": np.array([48]), "width": np.array([64])},
    "height and width in words": {"height": "48", "width": b"64"},
    "Prophesee's geometry": {"geometry": "64x48"},
    "event_utils' resolution": {"sensor_resolution": (48, 64)},
}


@pytest.mark.parametrize("name", SIZES)
def test_hdf5_states_its_sensor_as_its_tool_does(tmp_path, name):
    assert same_events(load(h5(tmp_path / "a.h5", SIZES[name], **PLAIN), sensor_size=None), EVENTS)


@pytest.mark.parametrize(
    "size", [{"height": "tall", "width": 64}, {"height": [1, 2], "width": 64}, {"height": 48.5, "width": 64}]
)
def test_a_statement_of_the_sensor_that_means_nothing_gives_way_to_the_callers(tmp_path, size):
    assert same_events(load(npz(tmp_path / "b", t=T, x=X, y=Y, p=P, height=48, width=64), sensor_size=None), EVENTS)
    tonics = npz(tmp_path / "a.npz", t=T, x=X, y=Y, p=P, sensor_size=[64, 48, 2])
    for path in (h5(tmp_path / "a.h5", size, **PLAIN), tonics):
        assert same_events(load(path), EVENTS)
        with pytest.raises(RecordingError, match="sensor_size must be"):
            load(path, sensor_size=None)


@pytest.mark.parametrize("sensor_size", [(48, 64), None])
def test_a_size_in_an_order_of_its_own_is_turned_as_the_caller_says(tmp_path, sensor_size):
    paths = (
        npz(tmp_path / "a.npz", t=T, x=X, y=Y, p=P, sensor_size=[64, 48]),
        h5(tmp_path / "a.h5", {"sensor_resolution": (64, 48)}, **PLAIN),
    )
    for path in paths:
        if sensor_size:
            assert same_events(load(path, sensor_size=sensor_size), EVENTS)
        else:
            with pytest.raises(RecordingError, match="outside the sensor of height 64 and width 48"):
                load(path, sensor_size=None)
        with pytest.raises(RecordingError, match=r"but \(50, 64\) was asked for"):
            load(path, sensor_size=(50, 64))


def test_two_statements_of_the_sensor_need_the_callers(tmp_path):
    path = h5(tmp_path / "a.h5", {"height": 48, "width": 64, "geometry": "48x64"}, **PLAIN)
    with pytest.raises(RecordingError, match="several sensors"):
        load(path, sensor_size=None)
    assert same_events(load(path), EVENTS)


# Times


@pytest.mark.parametrize(("unit", "factor"), [("s", 10**6), ("ms", 10**3), ("us", 1)])
@pytest.mark.parametrize("suffix", ["h5", "npz", "csv"])
def test_whole_times_are_exact_in_every_unit_and_format(tmp_path, suffix, unit, factor):
    t = np.arange(400) + (FAR if unit == "us" else 2**40)
    path = with_times(tmp_path / f"a.{suffix}", t)
    assert load(path, time_unit=unit).t.tolist() == [value * factor for value in t.tolist()]


def test_fractions_of_seconds_beyond_what_floats_hold_are_exact_in_text(tmp_path):
    t = T + FAR
    seconds = np.array([f"{value // 10**6}.{value % 10**6:06}" for value in t.tolist()])
    assert load(text(tmp_path / "a.txt", rows(seconds, X, Y, P)), time_unit="s").t.tolist() == t.tolist()


@pytest.mark.parametrize("suffix", ["h5", "npz", "csv"])
@pytest.mark.parametrize(("t", "unit"), [(2**62, "s"), (2**63, "us"), (2**62, "us"), (2.0**63, "us"), (2.0**62, "s")])
def test_times_that_would_wrap_are_refused(tmp_path, suffix, t, unit):
    path = with_times(tmp_path / f"a.{suffix}", np.full(400, t, float if isinstance(t, float) else np.uint64))
    with pytest.raises(RecordingError, match=r"too far from 0|fit int64|fit 64 bits"):
        load(path, time_unit=unit)


@pytest.mark.parametrize("t_offset", [2**61, 2**62 - 1000, -(2**62) + 1])
def test_times_that_an_offset_takes_too_far_are_refused(tmp_path, t_offset):
    sign = 1 if t_offset > 0 else -1
    path = h5(tmp_path / "a.h5", t_offset=t_offset, **PLAIN | {"events__t": T + sign * 2**61})
    with pytest.raises(RecordingError, match="too far from 0 to be exact once t_offset is added"):
        load(path)


def test_what_a_message_quotes_of_a_file_is_short(tmp_path, capsys):
    """One piece of a damaged file may be as long as the file."""
    many = {f"{'n' * 90}{k}": T for k in range(99)}
    files = [
        h5(tmp_path / "root.h5", **many),
        h5(tmp_path / "group.h5", **{f"events__{name}": t for name, t in many.items()}),
        h5(tmp_path / "offset.h5", t_offset=T, **PLAIN),
        h5(tmp_path / "offsets.h5", events__t_offset=T, t_offset=X, **PLAIN),
        h5(tmp_path / "clock.h5", {"t_start_us": 0, "t_end_us": 1e300}, **PLAIN),
        h5(tmp_path / "link.h5", **PLAIN | {"events__t": h5py.ExternalLink("f" * 9_000, "g" * 9_000)}),
        h5(tmp_path / "types.h5", **PLAIN | {"events__t": fields(list(many), *many.values())}),
        h5(tmp_path / "table.h5", events=fields(list(many), *many.values())),
        npz(tmp_path / "a.npz", **many),
        text(tmp_path / "a.raw", f"% evt {'9' * 3_000}\n% end\n"),
    ]
    for path in files:
        assert main(["convert", str(path), str(tmp_path / "out.h5"), "--sensor-size", "48", "64"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert len(line.replace(str(path), "")) < 800, f"It is too long: {line}"


def test_a_unit_that_the_file_contradicts_is_refused(tmp_path):
    index = {"events__ms_to_idx": np.searchsorted(T, np.arange(201) * 1000)}
    with pytest.raises(RecordingError, match="ms_to_idx"):
        load(h5(tmp_path / "a.h5", **PLAIN | index), time_unit="ms")
    with pytest.raises(RecordingError, match=r"declared are \['ms', 's'\]"):
        load(npz(tmp_path / "a.npz", t_ms=T, x=X, y=Y, p=P), time_unit="s")


@pytest.mark.parametrize(("word", "factor"), [("nanoseconds", 1000), ("ns", 1000), ("\u00b5s", 1), ("usec", 1)])
def test_a_unit_that_hdf5_states_in_words_holds_for_times_and_their_copy(tmp_path, word, factor):
    path, columns = tmp_path / "a.h5", PLAIN | {"events__t": T * factor}
    with h5py.File(h5(path, **columns), "a") as file:
        file["events/t"].attrs["units"] = word
    assert same_events(load(path), EVENTS)
    h5(path, {"time_unit": word}, **columns)
    assert main(["convert", str(path), str(tmp_path / "b.h5"), "--sensor-size", "48", "64"]) == 0
    assert same_events(load(tmp_path / "b.h5"), EVENTS), "The times of a copy are in microseconds, and so it says."


def test_a_word_that_is_no_unit_is_refused_unless_the_caller_gives_one(tmp_path):
    path = h5(tmp_path / "a.h5", {"time_unit": "ticks"}, **PLAIN)
    with pytest.raises(RecordingError, match=r"declared are \['ticks'\]"):
        load(path)
    assert same_events(load(path, time_unit="us"), EVENTS)


def test_micro_in_a_code_of_one_byte_is_read(tmp_path):
    assert same_events(load(text(tmp_path / "a.csv", "t [\u00b5s],x,y,p\n" + rows(T, X, Y, P), "cp1252")), EVENTS)


@pytest.mark.parametrize("time", ["0,5", "1,000", '"0,5"'])
@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_comma_within_a_number_is_refused_in_any_column(tmp_path, time, separator):
    for row in (f"{time};1;1;1", f"1;1;1;{time}", f"1;1;{time};1"):
        with pytest.raises(RecordingError, match="thousands without a mark"):
            load(text(tmp_path / "a.csv", f"t;x;y;p\n{row}\n".replace(";", separator)), time_unit="s")


def test_windows_of_times_in_seconds_are_those_of_the_whole(tmp_path):
    path = h5(tmp_path / "a.h5", **PLAIN | {"events__t": T / 1e6})
    with open_recording(path, Reading(SIZE, time_unit="s")) as recording:
        assert recording.clock_us == (T[0], T[-1] + 1)
        assert same_events(recording.window(100_000, 120_000), EVENTS.window(100_000, 120_000))


def test_a_virtual_dataset_without_its_source_is_no_recording_of_zeros(tmp_path):
    layout = h5py.VirtualLayout((400,), "i8")
    layout[:] = h5py.VirtualSource("source.h5", "t", (400,))
    h5(tmp_path / "a.h5", events__x=X, events__y=Y, events__p=P)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.create_virtual_dataset("events/t", layout)
    with pytest.raises(RecordingError, match=r"events/t has its values in source\.h5, which cannot be read"):
        load(tmp_path / "a.h5", follow_links=True)
    h5(tmp_path / "source.h5", t=T[:-1])
    with pytest.raises(RecordingError, match=r"t has the shape \(399,\) there"):
        load(tmp_path / "a.h5", follow_links=True)
    h5(tmp_path / "source.h5", t=T)
    assert same_events(load(tmp_path / "a.h5", follow_links=True), EVENTS)


def test_what_is_in_other_files_is_read_only_if_it_is_asked_for(tmp_path):
    h5(tmp_path / "source.h5", **PLAIN | {"secret": T})
    (tmp_path / "secret.bin").write_bytes(T.tobytes())
    layout = h5py.VirtualLayout((400,), "i8")
    layout[:] = h5py.VirtualSource("source.h5", "secret", (400,))
    raw = [("secret.bin", 0, h5py.h5f.UNLIMITED)]
    makers = {
        "a column": lambda file: file.update({"events/t": h5py.ExternalLink("source.h5", "/secret")}),
        "all events": lambda file: file.update({"events": h5py.ExternalLink("source.h5", "/events")}),
        "an offset": lambda file: file.update({"events/t": T, "t_offset": h5py.ExternalLink("source.h5", "/secret")}),
        "a virtual column": lambda file: file.create_virtual_dataset("events/t", layout),
        "storage": lambda file: file.create_dataset("events/t", (400,), "i8", external=raw),
        "a further column": lambda file: file.create_dataset("events/more", (400,), "i8", external=raw),
    }
    for name, make in makers.items():
        path = h5(
            tmp_path / f"{name}.h5", **{} if name == "all events" else {"events__x": X, "events__y": Y, "events__p": P}
        )
        with h5py.File(path, "a") as file:
            make(file)
        with pytest.raises(RecordingError, match=r"(source\.h5|secret\.bin); what is in other files .* --follow-links"):
            load(path)
    for name in ("a column", "all events", "a virtual column"):
        assert same_events(load(tmp_path / f"{name}.h5", follow_links=True), EVENTS), f"{name}, where it is asked for."


def test_a_virtual_dataset_of_the_same_file_is_checked_too(tmp_path):
    for name, size, source in (("short", 399, "t"), ("itself", 400, "/events/t"), ("sound", 400, "t")):
        path = h5(tmp_path / f"{name}.h5", events__x=X, events__y=Y, events__p=P, t=T[:size])
        with h5py.File(path, "a") as file:
            layout = h5py.VirtualLayout((400,), "i8")
            layout[:] = h5py.VirtualSource(".", source, (400,))
            file.create_virtual_dataset("events/t", layout)
    for name in ("short", "itself"):
        with pytest.raises(RecordingError, match=r"events/t has its values in \., which cannot be read"):
            load(tmp_path / f"{name}.h5")
    assert same_events(load(tmp_path / "sound.h5"), EVENTS)


def test_a_file_that_is_being_written_says_so(tmp_path):
    path = h5(tmp_path / "a.h5", **PLAIN)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # As HDF5 does while it writes.
        with pytest.raises(RecordingError, match="is open in a program that writes it"):
            load(path)


def test_polarities_that_are_words_by_number_are_refused(tmp_path):
    words = h5py.enum_dtype({"ON": 0, "OFF": 1}, basetype="i1")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "txy":
            file[f"events/{name}"] = np.arange(3)
        file.create_dataset("events/p", data=np.array([0, 1, 1]), dtype=words)
    with pytest.raises(RecordingError, match=r"holds words by number \(ON 0, OFF 1\), which are not"):
        load_events(tmp_path / "a.h5", Reading(sensor_size=(4, 4)))
