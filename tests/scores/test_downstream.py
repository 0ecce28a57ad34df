"""What comes after deflaring: a bar and dots that move as is known, corners at known places, pictures by hand."""

import numpy as np
import pytest
from support.recordings import make_events

from data_simu import SimulationConfig
from data_simu.simulation import set_up
from deflare_core.events import Events
from deflare_core.scores.corners import draw_newest, find_corners, match_corners
from deflare_core.scores.downstream import Truth, compare_streams, summarise_outcomes, tabulate_outcomes
from deflare_core.scores.ego_motion import carry_events, estimate_rate, find_rates, list_edges_us, stack_events
from deflare_core.scores.intensity import integrate_events, measure_similarity, normalise_picture

SIZE = (60, 80)
FAR_FOCAL = 400.0
"""At so narrow a field of view, a turn about y by 1 rad/s moves all pixels by about this to the left in a second."""
SPAN_US = (0, 50_000)


def make_moving_dots(columns_s: float, rows_s: float, num=400) -> Events:
    """Dots at random places that all move at one speed for 50 ms; each fires where it comes to another pixel."""
    rng = np.random.default_rng(0)
    t = np.arange(*SPAN_US, 500)[:, None]
    x = np.rint(rng.uniform(0, 80, num) + columns_s * t / 1e6)
    y = np.rint(rng.uniform(0, 60, num) + rows_s * t / 1e6)
    fires = (np.diff(x, axis=0, prepend=x[:1]) != 0) | (np.diff(y, axis=0, prepend=y[:1]) != 0)
    t, p = np.broadcast_to(t, x.shape), np.broadcast_to(rng.choice([-1, 1], num), x.shape)
    fires &= (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0])
    return Events.from_columns(t[fires], x[fires], y[fires], p[fires], SIZE)


def test_a_pixel_is_the_sum_of_its_steps_that_leak():
    events = Events.from_columns([0, 1000, 2000, 3000], [1, 1, 0, 0], [0, 0, 1, 1], [1, 1, -1, 1], (2, 3))
    picture = integrate_events(events, 3000, leak_us=1000)
    assert picture[0, 1] == pytest.approx(np.exp(-3) + np.exp(-2)), "Two steps up, three and two time constants ago."
    assert picture[1, 0] == pytest.approx(-np.exp(-1)), "What happens at the time itself is still to come."
    assert np.count_nonzero(picture) == 2


def test_a_picture_is_normalised_between_its_percentiles():
    picture = normalise_picture(np.arange(101.0).reshape(1, 101))
    assert picture[0, :2].tolist() == [0, 0]
    assert picture[0, 50] == 0.5
    assert picture[0, -2:].tolist() == [1, 1]
    assert (normalise_picture(np.full((3, 4), 7.0)) == 0.5).all(), "A flat picture has neither black nor white."
    dot = np.zeros((20, 30))
    dot[3, 4] = 2
    assert normalise_picture(dot)[3, 4] == 1, "A single dot is seen, although both percentiles miss it."


def test_structural_similarity_by_hand():
    rng = np.random.default_rng(0)
    picture = rng.random((20, 30))
    assert measure_similarity(picture, picture) == pytest.approx(1)
    assert measure_similarity(picture, 1 - picture) < 0, "The negative is unlike."
    flat = measure_similarity(np.zeros((9, 9)), np.ones((9, 9)))
    assert flat == pytest.approx(0.01**2 / (1 + 0.01**2)), "Of flat pictures, only the means count."
    assert measure_similarity(picture, picture + 0.01) > measure_similarity(picture, picture + 0.1)


@pytest.mark.parametrize(("columns_s", "rows_s"), [(200, 0), (-250, 0), (0, 150), (160, -120)])
def test_moving_dots_tell_how_the_camera_turns(columns_s, rows_s):
    events = make_moving_dots(columns_s, rows_s)
    rate = estimate_rate(events, FAR_FOCAL, SPAN_US) * FAR_FOCAL
    assert rate[0] == pytest.approx(rows_s, abs=10)
    assert rate[1] == pytest.approx(-columns_s, abs=10)


def test_a_bar_is_one_column_when_it_is_carried_along_its_motion():
    t = np.repeat(np.arange(0, 50_000, 1000), SIZE[0])
    y = np.tile(np.arange(SIZE[0]), 50)
    events = Events.from_columns(t, 20 + t // 5000, y, np.ones(len(t)), SIZE)
    rate = np.array([0, -200 / 1e6, 0])
    sums = stack_events(events, rate, 1e6, 25_000)
    assert np.count_nonzero(sums.sum(0) > 1) <= 3, "At 200 pixels a second; rounding leaves a pixel aside."
    assert sums.sum() >= 50 * (SIZE[0] - 1), "All events count but those of the last row."


def test_a_lamp_that_flickers_does_not_hide_the_motion():
    moving = make_moving_dots(200, 0)
    t = np.repeat(np.arange(0, 50_000, 500), 25)
    x, y = np.tile(np.arange(25) % 5 + 40, 100), np.tile(np.arange(25) // 5 + 30, 100)
    lamp = np.column_stack([t, x, y, np.where(t % 1000, 1, -1)])
    both = np.concatenate([moving.to_array(), lamp])
    events = Events.from_array(both[np.argsort(both[:, 0], kind="stable")], SIZE)
    assert estimate_rate(events, FAR_FOCAL, SPAN_US)[1] * FAR_FOCAL == pytest.approx(-200, abs=10)


def test_no_events_tell_of_no_motion():
    assert estimate_rate(Events.empty(SIZE), FAR_FOCAL, SPAN_US).tolist() == [0, 0, 0]


def test_points_of_a_scene_are_carried_where_the_simulator_sees_them():
    config = SimulationConfig(sensor_size=SIZE)
    scene = set_up(config, 1).scene
    scene.camera_m_s[:] = 0
    scene.camera_rad_s[:] = np.deg2rad([20, -40, 15])
    points_m = np.array([[1.0, 0.5, 10], [-2, 1, 8], [0.5, -1.5, 9]])
    before, after = (np.rint(scene.project(points_m, SIZE, t_us)[:, :2]) for t_us in (0.0, 20_000.0))
    edges_us = np.array([0, 20_000])
    (rate,) = find_rates(scene.turn_at(edges_us), edges_us)
    events = Events.from_columns(np.zeros(3), *before.T, np.ones(3), SIZE)
    carried = carry_events(events, rate, scene.focal_pixels(SIZE), 20_000)
    assert np.abs(np.transpose(carried) - after).max() < 1.1, "Both places are rounded to whole pixels."
    assert np.rad2deg(rate) == pytest.approx([20, -40, 15], abs=0.5)


def test_spans_are_about_50_ms():
    assert list_edges_us((1000, 101_000)).tolist() == [1000, 51_000, 101_000]
    assert list_edges_us((0, 10_000)).tolist() == [0, 10_000], "A short recording is one span."


def test_a_square_has_four_corners():
    y, x = np.nonzero(np.pad(np.ones((20, 20)), 20))
    twice = (np.tile(column, 2) for column in (x, y))
    events = Events.from_columns(np.zeros(800), *twice, np.ones(800), SIZE)
    expected = np.array([[20, 20], [20, 39], [39, 20], [39, 39]])
    found = find_corners(events, 1)
    assert len(found) == 4
    assert np.abs(found - expected).max() <= 2
    assert match_corners(found, expected).tolist() == [0, 1, 2, 3]
    assert not len(find_corners(Events.empty(SIZE), 1))


def test_a_lamp_is_no_brighter_than_three_steps():
    events = Events.from_columns(np.arange(50), np.zeros(50), np.zeros(50), np.ones(50), (1, 4))
    assert draw_newest(events, 50)[0].tolist() == [3, 0, 0, 0]


def test_corners_match_one_to_one():
    true = np.array([[10, 10], [30, 30]])
    found = np.array([[10, 12], [10, 11], [33, 30], [50, 50]])
    assert match_corners(found, true).tolist() == [-1, 0, -1, -1], "The nearer one, and none that is 3 pixels away."
    assert match_corners(found, true[:0]).tolist() == [-1] * 4


def make_truth() -> Truth:
    once = make_moving_dots(200, 0)
    clean = Events.from_columns(*(np.repeat(getattr(once, name), 4) for name in "txyp"), SIZE)
    rates = np.array([[0, -200 / FAR_FOCAL, 0]])
    return Truth(clean, SPAN_US, np.random.default_rng(0).uniform(0.5, 2, SIZE).astype(np.float32), rates, FAR_FOCAL)


@pytest.mark.parametrize(("clock_us", "looks_us"), [((1000, 51_000), [21_000, 41_000]), ((0, 7000), [7000])])
def test_corners_are_looked_for_every_20_ms_and_once_at_least(clock_us, looks_us):
    truth = Truth(Events.empty(SIZE), clock_us, np.ones(SIZE, np.float32), np.zeros((1, 3)), FAR_FOCAL)
    assert list(truth.looks_us) == looks_us
    assert compare_streams({"clean": truth.clean}, truth)["clean"].num_true == 0


def test_every_stream_is_followed_and_tabulated():
    truth = make_truth()
    noise = make_events(1, 40_000, SIZE, duration_us=50_000)
    streams = {"input": noise, "nothing": Events.empty(SIZE), "clean": truth.clean}
    pair = compare_streams(streams, truth)
    scores = summarise_outcomes([pair, pair])
    assert scores["clean"]["corner_precision"] == scores["clean"]["corner_recall"] == 1
    assert scores["clean"]["turning_error"] < 2
    assert scores["nothing"]["turning_error"] == pytest.approx(np.rad2deg(0.5)), "No events, no motion."
    assert np.isnan(scores["nothing"]["corner_precision"])
    assert scores["nothing"]["corner_recall"] == 0
    assert scores["input"]["corner_precision"] < 0.7, "Noise has other corners."
    table = tabulate_outcomes([pair])
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| input", "| nothing", "| clean"]
    assert "| nothing | " in table
    assert " 28.6 | 0% | - | 0% |" in table
