"""A recording out of order is sorted, in whatever format it is, and never where that would mix what is far apart."""

import numpy as np
import pytest
from support.recordings import make_events, same_events

from deflare_core.app.commands import main
from deflare_core.events import Events
from deflare_core.io import sorting
from deflare_core.io.convert import convert
from deflare_core.io.reading import Reading, RecordingError
from deflare_core.io.recordings import load_events, open_recording
from deflare_core.io.sorting import sort_by_time

SIZE = (12, 16)
EVENTS = make_events(num=2_000, duration_us=100_000)
SHUFFLED = np.random.default_rng(0).permutation(2_000)


def sorted_stably(table, order):
    """The rows as any sort that keeps rows of one time in their order must give them."""
    rows = table[order]
    return rows[np.argsort(rows[:, 0], kind="stable")]


@pytest.mark.parametrize("at_once", [1, 7, 1 << 6])
@pytest.mark.parametrize("piece", [1, 13, 2_000])
def test_rows_are_in_the_order_of_their_times_and_rows_of_one_time_in_theirs(monkeypatch, piece, at_once):
    monkeypatch.setattr(sorting, "SAMPLE_EVENTS", 3)
    monkeypatch.setattr(sorting, "SAMPLES_AT_ONCE", at_once)
    t = np.random.default_rng(1).integers(0, 200, 2_000)
    tables = ({"t": t[k : k + piece], "k": np.arange(2_000)[k : k + piece]} for k in range(0, 2_000, piece))
    rows = np.concatenate(list(sort_by_time(tables)))
    assert rows["t"].tolist() == np.sort(t).tolist()
    assert rows["k"].tolist() == np.argsort(t, kind="stable").tolist()


def test_no_rows_are_no_rows():
    assert list(sort_by_time(iter([]))) == []
    assert list(sort_by_time(iter([{"t": np.empty(0, np.int64)}]))) == []


def shuffled(path):
    """The events of the recording in another order, in the format of the path's suffix, with labels in HDF5."""
    table = EVENTS.to_array()[SHUFFLED]
    if path.suffix == ".npy":
        np.save(path, table)
    elif path.suffix == ".csv":
        np.savetxt(path, table, "%d", ",", header="t_us,x,y,p", comments="")
    else:
        import h5py

        with h5py.File(path, "w") as file:
            for k, name in enumerate("txyp"):
                file[f"events/{name}"] = table[:, k]
            file["events/label"] = SHUFFLED.astype(np.uint16)
    return path


@pytest.mark.parametrize("target", ["out.h5", "out.npz", "out.csv"])
@pytest.mark.parametrize("source", ["in.h5", "in.npy", "in.csv"])
def test_a_recording_out_of_order_is_refused_until_it_is_sorted(tmp_path, source, target):
    path, out = shuffled(tmp_path / source), tmp_path / target
    with pytest.raises(RecordingError, match=r"must not go backwards.*--sort"):
        convert(path, out, Reading(SIZE), progress=False)
    assert main(["convert", str(path), str(out), "--sensor-size", "12", "16", "--sort"]) == 0
    expected = Events.from_array(sorted_stably(EVENTS.to_array(), SHUFFLED), SIZE)
    assert same_events(load_events(out), expected)


def test_labels_stay_with_their_events(tmp_path):
    convert(shuffled(tmp_path / "in.h5"), tmp_path / "out.h5", Reading(SIZE), sort=True, progress=False)
    with open_recording(tmp_path / "out.h5") as recording:
        labels, found = recording.column("label", 0, 100_000), recording.load()
    original = EVENTS.to_array()[labels]
    assert (original == found.to_array()).all(), "A label is the number of its event before they were mixed."


def test_few_events_of_another_order_are_not_sorted_by_their_pixels(tmp_path, capsys):
    """Six events x y t p, whose times fit a sensor: as t x y p they would be out of order, and sorted by x."""
    few = np.array([[5, 3, 10, 1], [2, 7, 11, 0], [9, 1, 11, 1], [4, 4, 11, 0], [1, 8, 11, 1], [7, 2, 11, 1]])
    np.savetxt(tmp_path / "a.csv", few, "%d", ",", header="time_unit: us")
    np.save(tmp_path / "a.npy", few)
    for name in ("a.csv", "a.npy"):
        words = ["convert", str(tmp_path / name), str(tmp_path / "b.h5"), "--sensor-size", "12", "16"]
        assert main(words) == main([*words, "--sort"]) == 1
        assert "fit the orders t x y p and x y t p" in capsys.readouterr().err


def test_what_is_moved_is_counted_and_said(tmp_path, caplog):
    """Of five events the third comes 30 us after a newer one, and the fifth 50 us."""
    np.savez(tmp_path / "in.npz", t=[0, 50, 20, 60, 10], x=[1] * 5, y=[1] * 5, p=[1] * 5)
    convert(tmp_path / "in.npz", tmp_path / "out.h5", Reading(SIZE), sort=True, progress=False)
    assert "in.npz: 2 of 5 events came after newer ones and are put in order, by up to 50 us." in caplog.text
    assert load_events(tmp_path / "out.h5").t.tolist() == [0, 10, 20, 50, 60]


def test_a_clock_that_wraps_is_not_sorted(tmp_path, capsys):
    t = (EVENTS.t + 2**32 - 50_000).astype(np.uint32)
    np.savez(tmp_path / "in.npz", t=t, x=EVENTS.x, y=EVENTS.y, p=EVENTS.p, sensor_size=SIZE)
    assert main(["convert", str(tmp_path / "in.npz"), str(tmp_path / "out.h5"), "--sort"]) == 1
    assert "in.npz: the clock goes back by 4,295.0 s" in (said := capsys.readouterr().err)
    assert "divide the recording there" in said
    assert not (tmp_path / "out.h5").exists()


def test_no_advice_turns_columns_of_another_order_into_events(tmp_path):
    x_y_p_t = EVENTS.to_array()[::-1][:, [1, 2, 3, 0]]
    np.savetxt(tmp_path / "a.csv", x_y_p_t, "%d", ",", header="time_unit: us")
    words = ["convert", str(tmp_path / "a.csv"), str(tmp_path / "b.h5"), "--sensor-size", "12", "16"]
    assert main(words) == main([*words, "--polarity", "lenient"]) == 1, "Its times go back."
    for more in ([], ["--polarity", "lenient"]):
        assert main([*words, "--sort", *more]) == 0
        expected = Events.from_array(sorted_stably(EVENTS.to_array(), np.arange(2_000)[::-1]), SIZE)
        assert same_events(load_events(tmp_path / "b.h5"), expected), "Times are never pixels."
