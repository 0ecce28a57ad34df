"""Realism: rows counted by hand, recordings that must and must not match, and the three files."""

import csv

import matplotlib.image
import numpy as np
import pytest
from support.recordings import make_events, same_events

from data_simu.config import SceneConfig, SimulationConfig, SourceConfig
from data_simu.pairs import derive_seed
from data_simu.simulation import set_up, simulate
from data_simu.tools.realism import (
    FLICKER_HZ,
    STATISTICS,
    compare_figure,
    compare_recordings,
    cut_beginning,
    cut_stretches,
    draw_realism,
    find_flickering,
    find_shortest_us,
    main,
    measure_figures,
    simulate_scenes,
    write_realism,
)
from deflare_core.events import Events
from deflare_core.io.recordings import save_events

SMALL = SimulationConfig(
    sensor_size=(48, 64),
    duration_us=80_000,
    warmup_us=5_000,
    scene=SceneConfig(families=("wall",)),
    sources=SourceConfig(num_sources=(1, 1), flicker_shares={"mains": 1.0}),
)


def busy(seed, num=20_000, duration_us=80_000) -> Events:
    """Events at random on a sensor of a few blocks, many to a pixel."""
    return make_events(seed=seed, num=num, sensor_size=(32, 48), duration_us=duration_us)


@pytest.fixture(scope="module")
def simulated():
    return simulate_scenes(SMALL, 2, seed=0, workers=1)


def test_a_value_matches_within_twice_the_range_by_hand():
    inside = [compare_figure("a", "rate", value, [4.0, 10.0]).inside for value in (1.9, 2.0, 7.0, 20.0, 20.1)]
    assert inside == [False, True, True, True, False], "From half of 4 to twice 10."


def test_stretches_are_whole_and_of_equal_length():
    events = busy(0, num=5000, duration_us=100_000)
    parts = list(cut_stretches(events, 30_000))
    assert len(parts) == 3, "The last 10 ms fill no stretch."
    assert all(part.t[-1] - part.t[0] < 30_000 for part in parts)
    assert sum(map(len, parts)) == (events.t < events.t[0] + 90_000).sum()


def test_the_shortest_recording_sets_the_length():
    short = busy(1, duration_us=60_000)
    assert find_shortest_us({"a": busy(0)}, {"b": short}) == short.duration_us + 1
    with pytest.raises(ValueError, match="50 ms"):
        find_shortest_us({"a": busy(0, duration_us=20_000)}, {"b": busy(1)})
    with pytest.raises(ValueError, match="received 1 and 0"):
        find_shortest_us({"a": busy(0)}, {})


def test_figures_are_means_over_stretches():
    """A quiet half and one three times as busy: the rate is that of both halves together."""
    quiet, loud = busy(0, 5000, 60_000), busy(1, 15_000, 60_000)
    loud = Events(loud.t + 60_000, loud.x, loud.y, loud.p, loud.sensor_size)
    figures = measure_figures(Events.concatenate([quiet, loud]), 59_990)
    assert figures["rate per pixel, Hz"] == pytest.approx(20_000 / 32 / 48 / 0.12, rel=0.01)
    assert figures["ON share"] == pytest.approx(0.5, abs=0.02)


def test_flicker_is_looked_for_in_two_seconds_at_most():
    start, lasting_us = cut_beginning(busy(0, 5000, 3_000_000))
    assert lasting_us == 2_000_000
    assert start.duration_us == pytest.approx(2_000_000, rel=0.01)
    short = busy(0, 500)
    assert cut_beginning(short)[1] == short.duration_us + 1
    assert same_events(cut_beginning(short)[0], short)


def test_no_flicker_is_no_less_than_chance():
    burst = Events.from_columns(np.arange(60) * 1000, *np.zeros((2, 60), int), np.ones(60), (32, 32))
    assert measure_figures(burst, 50_000)["locked to 120 Hz, share"] == 0.01, "A steady pixel is not locked."


def test_a_recording_is_inside_itself(simulated):
    rows = compare_recordings(simulated, simulated)
    assert {row.recording for row in rows} == set(simulated)
    assert {row.quantity for row in rows} == {*STATISTICS, *FLICKER_HZ}
    assert all(row.inside for row in rows)


def test_ten_times_the_rate_is_outside():
    rows = compare_recordings({"loud": busy(0, num=100_000)}, {"quiet": busy(1, num=10_000)})
    verdicts = {row.quantity: row.inside for row in rows}
    assert not verdicts["rate per pixel, Hz"]
    assert not verdicts["interval, median, us"]
    assert verdicts["ON share"], "What the rate does not change still matches."


def test_quantities_that_are_not_there_are_left_out():
    few = busy(0, num=40)
    quantities = {row.quantity for row in compare_recordings({"few": few}, {"many": busy(1)})}
    assert "rate per pixel, Hz" in quantities
    assert "locked to 120 Hz, share" not in quantities, "No pixel is busy."


def test_scenes_are_those_of_a_data_set_and_one_with_a_lamp(simulated):
    names = list(simulated)
    assert names == ["simulated 0", "simulated 1", "simulated, lamp at 120 Hz"]
    assert same_events(simulated["simulated 1"], simulate(SMALL, derive_seed(0, "train", 1)).flare)
    scene = set_up(SMALL, derive_seed(0, "train", find_flickering(SMALL, 0, 2))).scene
    assert scene.waveforms[0].flicker_hz == pytest.approx(120, rel=0.002)


def test_without_lamps_at_120_hz_there_is_no_such_scene():
    config = SMALL.model_copy(update={"sources": SourceConfig(flicker_shares={"constant": 1.0})})
    assert find_flickering(config, 0, 0) is None


def test_the_figure_draws_every_recording(simulated):
    figure = draw_realism({"real": busy(0)}, simulated)
    panels = figure.axes
    assert [len(axes.lines) for axes in panels] == [4, 4, 4, 4, 1, 4], "Three simulated and one real; balance: points."
    assert len(panels[4].collections) == 4


def test_the_three_files_are_complete(tmp_path):
    path = tmp_path / "camera.h5"
    save_events(path, busy(0, num=30_000), source="test")
    rows = write_realism(tmp_path / "out", [path], SMALL, num_simulated=1, seed=0, workers=1)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["realism.csv", "realism.md", "realism.png"]
    with (tmp_path / "out" / "realism.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["quantity"], float(row["value"])) for row in read] == [(row.quantity, row.value) for row in rows]
    text = (tmp_path / "out" / "realism.md").read_text()
    outside = [row for row in rows if not row.inside]
    assert text.count("\n- camera: ") == len(outside) > 0, "Events at random are not like a scene's."
    assert all(f"- camera: {row.quantity} is" in text for row in outside)
    picture = matplotlib.image.imread(tmp_path / "out" / "realism.png")
    assert np.ptp(picture[..., :3]) == 1, "Something is drawn."


def test_the_command_refuses_a_call_without_recordings(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--output-dir", str(tmp_path)])
    assert "RECORDING" in capsys.readouterr().err
