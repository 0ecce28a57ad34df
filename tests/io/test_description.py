"""`deflare info` says what a file is, what is odd about it, and a command that mends it when it is followed."""

import re
import shlex

import h5py
import numpy as np
import pytest
from support.camera_bytes import evt3_bytes
from support.recordings import make_events, same_events

from deflare_core.app.commands import main
from deflare_core.io.recordings import load_events, save_events

EVENTS = make_events(num=400, t_start_us=1_000_000, duration_us=200_000)
T, X, Y, P = EVENTS.to_array().T


def tell(capsys, path, *words):
    """What the command says of a file, by name; of several lines of one name, all."""
    assert main(["info", str(path), *words]) == 0, capsys.readouterr().err
    said = {}
    for line in capsys.readouterr().out.splitlines():
        said.setdefault(line[:10].strip(), []).append(line[10:])
    return {name: values[0] if len(values) == 1 else values for name, values in said.items()}


def mend(command, folder, **values):
    """Follow the command that would mend a file, with what the user alone knows in place of words in capitals."""
    for name, value in {"NEW.h5": str(folder / "new.h5"), "HEIGHT WIDTH": "12 16", **values}.items():
        command = command.replace(name, value)
    assert main(shlex.split(command)[1:]) == 0
    return load_events(folder / "new.h5")


def test_a_recording_of_ours_is_told_and_nothing_is_odd(tmp_path, capsys):
    save_events(tmp_path / "a.h5", EVENTS, source="test", clock_us=(1_000_000, 1_200_000))
    said = tell(capsys, tmp_path / "a.h5")
    assert said["format"] == "an HDF5 file: t, x, y, p in events, clock [1000000, 1200000) us"
    assert said["sensor"] == "12 x 16 (height, width)"
    assert said["events"] == "400"
    assert said["clock"] == f"from {T[0]:,} us to {T[-1]:,} us"
    assert said["duration"] == f"{(T[-1] - T[0]) / 1e6:.6f} s"
    assert said["rate"] == f"{400 / (T[-1] - T[0]) * 1e6:,.0f} events a second"
    assert said["polarity"] == f"-1: {(P == -1).sum()}, 1: {(P == 1).sum()}"
    assert said["odd"] == "nothing"
    assert "mend" not in said


def test_text_that_says_little_is_told_and_mended(tmp_path, capsys):
    np.savetxt(tmp_path / "a.csv", EVENTS.to_array()[::-1][:, [1, 2, 3, 0]], "%d", ",")
    said = tell(capsys, tmp_path / "a.csv")
    assert said["format"] == "a text table: columns x, y, p, t"
    assert said["sensor"] == "not stated"
    assert said["reach"] == "y up to 11, x up to 15"
    unit, sensor, order = said["odd"]
    assert f"in s {T[-1] - T[0]} s, in ms {(T[-1] - T[0]) / 1e3:g} s" in unit, "How long it would last tells the unit."
    assert sensor == "its sensor is not stated"
    assert re.match("time goes back 3[0-9]+ times, by up to [0-9,]+ us", order)
    mended = mend(said.get("or", said["mend"]), tmp_path, UNIT="us")
    assert np.array_equal(mended.t, T)
    assert sorted(map(tuple, mended.to_array().tolist())) == sorted(map(tuple, EVENTS.to_array().tolist()))


def test_what_an_option_mends_needs_no_other_file(tmp_path, capsys):
    np.savetxt(tmp_path / "a b.csv", EVENTS.to_array()[:, [1, 2, 3, 0]], "%d", ",")
    command = tell(capsys, tmp_path / "a b.csv", "--time-unit", "us")["mend"]
    assert command == f"deflare infer -i '{tmp_path / 'a b.csv'}' --time-unit us --sensor-size HEIGHT WIDTH"
    words = shlex.split(command.replace("HEIGHT WIDTH", "12 16"))[1:]
    assert main([*words, "-o", str(tmp_path / "out.h5"), "--method", "input"]) == 0
    assert same_events(load_events(tmp_path / "out.h5"), EVENTS)


def test_seconds_are_told_and_mended(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", ts=T / 1e6, xs=X, ys=Y, ps=P, sensor_size=(12, 16))
    said = tell(capsys, tmp_path / "a.npz")
    assert said["format"] == "an npz archive: ts, xs, ys, ps"
    assert said["odd"].startswith("its unit of time is not stated (s is taken here)")
    assert same_events(mend(said.get("or", said["mend"]), tmp_path, UNIT="s"), EVENTS)


@pytest.mark.parametrize(("p", "odd"), [(np.where(P > 0, 1, 255), "1, 255"), (np.arange(400) % 3 - 1, "-1, 0, 1")])
def test_strange_polarities_are_told_and_mended_only_where_that_is_right(tmp_path, capsys, p, odd):
    np.savez(tmp_path / "a.npz", t=T, x=X, y=Y, p=p, sensor_size=(12, 16))
    said = tell(capsys, tmp_path / "a.npz")
    assert f"found the values {odd}" in said["odd"]
    if 0 in p:
        assert "mend" not in said, "Nobody knows what an event of 0 is."
    else:
        assert same_events(mend(said.get("or", said["mend"]), tmp_path), EVENTS)


@pytest.mark.parametrize(
    ("changes", "odd"),
    [
        ({"t": T % 100_000 + np.where(np.arange(400) < 200, 5 * 10**9, 0)}, "its clock goes back by 5,000"),
        ({"t": T + np.where(np.arange(400) < 200, 0, 10**7)}, "there is a silence of 10.0 s"),
        ({"t": T // 1000 * 1000}, "all times are whole milliseconds"),
        ({"x": X + 1}, "events lie outside the sensor of height 12 and width 16"),
        ({"x": X + 0.5}, "400 values of x and y are no whole numbers"),
        ({"p": np.where(P > 0, "up", "down")}, "Polarity must be 0/1, -1/+1 or False/True; found the values down, up"),
        ({"p": np.ones(400)}, "all its events have one polarity"),
        ({name: np.empty(0, int) for name in "txyp"}, "it holds no events"),
    ],
)
def test_what_is_odd_is_told(tmp_path, capsys, changes, odd):
    np.savez(tmp_path / "a.npz", **{"t": T, "x": X, "y": Y, "p": P, "sensor_size": (12, 16), **changes})
    said = tell(capsys, tmp_path / "a.npz")
    assert said["odd"].startswith(odd)
    assert "mend" not in said, "No option mends it."


def test_the_command_that_mends_says_again_what_was_said(tmp_path, capsys):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        for side in ("left", "right"):
            for name, column in zip("txyp", (T / 1e6, X, Y, P), strict=True):
                file[f"{side}/{name}"] = column[::-1]
    said = tell(capsys, tmp_path / "two.h5", "--stream", "right", "--time-unit", "s")
    assert said["format"] == "an HDF5 file: t, x, y, p in right"
    assert "--time-unit s --stream right" in said["mend"]
    assert mend(said.get("or", said["mend"]), tmp_path).t.tolist() == T.tolist()


def test_a_camera_file_is_told(tmp_path, capsys):
    (tmp_path / "a.raw").write_bytes(evt3_bytes(EVENTS))
    said = tell(capsys, tmp_path / "a.raw")
    assert (said["format"], said["events"], said["odd"]) == (
        "a Prophesee RAW file: EVT3, its last word is an event",
        "400",
        "nothing",
    )


def test_coarse_times_are_told(tmp_path, caplog):
    np.savez(tmp_path / "a.npz", t=(T / 1e6 + 999).astype(np.float32), x=X, y=Y, p=P, sensor_size=(12, 16))
    assert main(["convert", str(tmp_path / "a.npz"), str(tmp_path / "b.h5"), "--time-unit", "s"]) == 0
    assert "its times are float32 and can be 61 us off" in caplog.text, "2^-14 s, between 512 and 1024."


def test_what_cannot_be_read_at_all_gets_the_usual_answer(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("Dear diary\n")
    assert main(["info", str(tmp_path / "a.csv")]) == 1
    assert "a.csv: is text, but line 1 holds neither numbers" in capsys.readouterr().err
