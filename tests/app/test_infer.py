"""`deflare infer` as a person meets it: what it says, where it writes, and the parts of a recording that it takes."""

import re
import shlex

import h5py
import numpy as np
import pytest
from support.recordings import make_events, same_events

from deflare_core.app import infer
from deflare_core.app.advice import advise_on_speed
from deflare_core.app.arguments import find_parameters
from deflare_core.app.commands import COMMANDS, main
from deflare_core.config import InferenceConfig
from deflare_core.deflaring.journal import FIRST_LINE
from deflare_core.deflaring.summary import Peak, find_peaks
from deflare_core.events import Events
from deflare_core.io.recordings import load_events, save_events
from deflare_core.system.devices import pick_device
from deflare_core.windows import Clock

CLOCK: Clock = (7_000_000_000, 7_000_100_000)


@pytest.fixture
def recording(tmp_path):
    """A recording of 0.1 s that starts at 7,000 s."""
    save_events(tmp_path / "in.h5", make_events(num=4_000, t_start_us=CLOCK[0], duration_us=100_000), source="test")
    return tmp_path / "in.h5"


def deflare(*words) -> int:
    return main(["infer", *map(str, words)])


def test_it_says_what_happened_in_the_words_of_a_person(tmp_path, capsys):
    events = make_events(num=1_000, duration_us=20_000)
    later = Events(events.t + 20_000, events.x, events.y, events.p, events.sensor_size)
    save_events(tmp_path / "in.h5", Events.concatenate([events, later]), source="test", clock_us=(0, 100_000))
    assert deflare("-i", tmp_path / "in.h5", "-o", tmp_path / "out.h5", "--method", "empty") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{tmp_path / 'out.h5'}: 2,000 of 2,000 events removed (100.0%), in 2 of 5 windows; 0 added"
    assert said[1] == "  most of it from 0 to 0.04 s (100%)"
    assert said[2] == "  events a second: 20,000 before, 0 after", "2,000 events in 0.1 s."
    assert re.fullmatch(r"  0\.10 s of recording in .* s: .* s of recording per second of work", said[3])


@pytest.mark.parametrize(
    ("removed", "peaks"),
    [
        ([0, 9, 4, 10, 0, 5, 5, 1, 0, 6], [(3, 4, 10), (5, 7, 10), (1, 2, 9)]),
        ([7, 7, 7], [(0, 3, 21)]),
        ([0, 0], []),
        ([], []),
    ],
    ids=["three of four", "all alike", "none", "no window"],
)
def test_the_stretches_with_most_removed_are_found(removed, peaks):
    """Windows of 20 ms from 7,000 s on; from half of the most on a window counts, and neighbours are one stretch."""
    starts = range(CLOCK[0], CLOCK[0] + 20_000 * len(removed), 20_000)
    found = find_peaks(np.array(removed, np.int64), starts)
    assert found == tuple((CLOCK[0] + 20_000 * a, CLOCK[0] + 20_000 * b, num) for a, b, num in peaks)
    assert str(Peak(7_000_060_000, 7_000_080_500, 1)) == "7000.06 to 7000.0805 s"


def test_a_network_that_removes_most_events_asks_to_look(tmp_path, recording, monkeypatch, capsys):
    monkeypatch.setattr("deflare_core.deflaring.summary.MUCH", -1.0)  # The network here removes next to nothing.
    monkeypatch.chdir(tmp_path)
    sized = ["--sensor-size", "12", "16"]
    assert deflare("-i", "in.h5", "-o", "out 1.h5", "--quiet", "device=cpu", *sized) == 0
    told = capsys.readouterr()
    assert told.out == "", "--quiet says nothing but warnings."
    assert told.err.startswith("deflare infer: warning: out 1.h5: unusually much was removed")
    command = shlex.split(told.err.split("`")[1])
    assert command == ["deflare", "view", "in.h5", "out 1.h5", *sized]
    assert command[1] in {row.name for row in COMMANDS}, "There is such a command."
    assert deflare("-i", "in.h5", "-o", "out.h5", "--crop", 0, 0, 8, 8, "device=cpu") == 0
    assert "--method input" in capsys.readouterr().err, "A viewer cannot show a crop beside its whole frame."
    assert deflare("-i", "in.h5", "-o", "none.h5", "--method", "empty") == 0
    assert "unusually" not in capsys.readouterr().err, "Of a filter that is usual."


def test_without_an_output_it_writes_next_to_the_input_and_replaces_nothing(tmp_path, recording, capsys):
    words, output = ["-i", recording, "--method", "input"], tmp_path / "in_deflared.h5"
    assert deflare(*words) == 0
    assert same_events(load_events(output), load_events(recording))
    (tmp_path / ".in_deflared.h5.journal").write_bytes(FIRST_LINE)  # As of a run killed when its output was complete.
    assert deflare(*words) == 0
    assert not list(tmp_path.glob(".*")), "Nothing hidden is left."
    assert "skipped" in capsys.readouterr().out, "The same work is not done twice."
    before = output.read_bytes()
    assert deflare("-i", recording, "--method", "empty") == 1
    assert f"{output}: is there already" in capsys.readouterr().err
    assert output.read_bytes() == before, "What is there stays."
    assert deflare("-i", recording, "--method", "empty", "-o", output) == 0
    assert len(load_events(output)) == 0, "A file that is named is replaced."


def test_without_an_output_the_recordings_of_a_folder_go_to_one_next_to_it(tmp_path, recording, monkeypatch, capsys):
    (tmp_path / "all").mkdir()
    for name in ("a.h5", "b.h5", "c.h5"):
        save_events(tmp_path / "all" / name, make_events(), source="test")
    monkeypatch.chdir(tmp_path / "all")
    assert deflare("-i", ".", "--method", "input") == 0
    assert {path.name for path in (tmp_path / "all_deflared").iterdir()} == {"a.h5", "b.h5", "c.h5"}
    assert "2 of 3: " in capsys.readouterr().out, "It says which of how many."
    assert deflare("-i", ".", "--method", "empty") == 1
    assert capsys.readouterr().err.count("is there already") == 3


def test_from_and_to_take_a_part_of_the_clock(tmp_path, recording):
    assert (
        deflare("-i", recording, "-o", tmp_path / "out.h5", "--method", "input", "--from", 7000.03, "--to", 7000.05)
        == 0
    )
    expected = load_events(recording).window(7_000_030_000, 7_000_050_000)
    assert same_events(load_events(tmp_path / "out.h5"), expected)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["events"].attrs["t_start_us"] == 7_000_030_000
        assert file["events"].attrs["t_end_us"] == 7_000_050_000
    assert deflare("-i", recording, "-o", tmp_path / "end.h5", "--method", "input", "--from", 7000.09, "--to", 8e3) == 0
    assert same_events(load_events(tmp_path / "end.h5"), load_events(recording).window(7_000_090_000, CLOCK[1]))


def test_the_part_of_a_clock_comes_out_as_within_the_whole(tmp_path, recording):
    """From the border of a window on, and for all windows whose neighbours are in the part too."""
    assert deflare("-i", recording, "-o", tmp_path / "all.h5", "device=cpu") == 0
    assert deflare("-i", recording, "-o", tmp_path / "part.h5", "--to", 7000.06, "device=cpu") == 0
    whole, part = (load_events(tmp_path / name).window(CLOCK[0], 7_000_040_000) for name in ("all.h5", "part.h5"))
    assert same_events(whole, part)


def test_crop_takes_a_part_of_the_frame(tmp_path, recording):
    assert deflare("-i", recording, "-o", tmp_path / "out.h5", "--method", "input", "--crop", 2, 5, 4, 3) == 0
    events = load_events(recording)
    inside = (events.y >= 2) & (events.y < 6) & (events.x >= 5) & (events.x < 8)
    expected = Events(events.t[inside], events.x[inside] - 5, events.y[inside] - 2, events.p[inside], (4, 3))
    assert 0 < len(expected) < len(events)
    assert same_events(load_events(tmp_path / "out.h5"), expected), "Pixels count from the crop's top left corner."


def test_a_part_with_other_options_is_other_work(tmp_path, recording, capsys):
    for words in ([], ["--to", 7000.05], ["--crop", 0, 0, 4, 4]):
        assert deflare("-i", recording.parent, "-o", tmp_path / "out", "--method", "input", *words) == 0
        assert "skipped" not in capsys.readouterr().out
    assert deflare("-i", recording.parent, "-o", tmp_path / "out", "--method", "input", *words) == 0
    assert "skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--crop", 0, 0, 13, 16], "must lie within the sensor of height 12 and width 16; received 0 0 13 16"),
        (["--crop", 2, 0, 0, 4], "must lie within"),
        (["--crop", -1, 0, 4, 4], "must lie within"),
        (["--from", 8000], "has nothing from 8000.000000 s; its clock runs from 7000.0"),
        (["--from", 7000.05, "--to", 7000.05], "has nothing from 7000.050000 s to 7000.050000 s"),
        (["--to", "nan"], "to"),
        (["--from", "1e300"], "from"),
    ],
)
def test_a_part_that_is_not_there_is_refused(tmp_path, recording, words, reason, capsys):
    assert deflare("-i", recording, "-o", tmp_path / "out.h5", "--method", "input", *words) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert len(error.splitlines()) == 1, "The error is one line."
    assert not (tmp_path / "out.h5").exists()


def test_what_would_be_quicker_depends_on_what_is_asked():
    cpu = pick_device("cpu")
    assert "GPU" in advise_on_speed(InferenceConfig(device="cpu"), cpu) or "cuda" in advise_on_speed(
        InferenceConfig(), cpu
    )
    assert "overlap=false" in advise_on_speed(InferenceConfig(overlap=True), cpu)
    assert "GPU" not in advise_on_speed(InferenceConfig(method="baf"), cpu), "A filter runs on the processor alone."
    flags = {f"--{name}" for name in find_parameters(infer.infer).options.model_fields}
    assert set(re.findall(r"--\w+", advise_on_speed(InferenceConfig(), cpu))) <= flags, "There are such options."
