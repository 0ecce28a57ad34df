"""Scores without a reference: a flickering block and a passing edge whose counts are known, and methods end to end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.recordings import make_events, same_events

from deflare_core.config import ModelConfig
from deflare_core.deflaring.method import BaselineMethod, NetworkMethod
from deflare_core.events import Events
from deflare_core.model import build_model
from deflare_core.scores.no_reference import deflare_by_all, score_without_truth, tabulate_without_truth
from deflare_core.streams.baselines import BASELINES
from deflare_core.streams.statistics import find_locked_pixels

HZ, DURATION_US = 100.0, 400_000
BLOCK, ROWS, COLUMNS, PERIODS = 4, 8, 40, 40


def block_and_edge() -> Events:
    """A block of 4 x 4 pixels that fires up and down each 10 ms, beside an edge that fires once at every other pixel.

    The edge crosses columns 4 to 39 of all 8 rows, a column each 10 ms from 1 ms on; all events lie in 400 ms.
    """
    rows = [
        (10_000 * k + offset, x, y, p)
        for k in range(PERIODS)
        for offset, p in ((2_000, 1), (7_000, -1))
        for x in range(BLOCK)
        for y in range(BLOCK)
    ]
    rows += [(10_000 * (x - BLOCK) + 1_000, x, y, 1) for x in range(BLOCK, COLUMNS) for y in range(ROWS)]
    return Events.from_array(np.array(sorted(rows)), (ROWS, COLUMNS))


SCENE = block_and_edge()
IN_BLOCK = (SCENE.x < BLOCK) & (SCENE.y < BLOCK)
NUM_FLICKER, NUM_MOVING = 2 * PERIODS * BLOCK**2, (COLUMNS - BLOCK) * ROWS


def scores_of(after: Events, span_us=None) -> dict[str, float]:
    return score_without_truth(SCENE, after, DURATION_US, HZ, span_us)


def test_the_block_is_locked_and_nothing_else():
    expected = np.zeros((ROWS, COLUMNS), bool)
    expected[:BLOCK, :BLOCK] = True
    assert np.array_equal(find_locked_pixels(SCENE, DURATION_US, HZ), expected)
    assert not find_locked_pixels(SCENE[~IN_BLOCK], DURATION_US, HZ).any(), "A pixel with one event is not busy."
    assert not find_locked_pixels(Events.empty((3, 5)), DURATION_US, HZ).any(), "Without events nothing is locked."


def test_the_identity_changes_no_figure():
    scores = scores_of(SCENE)
    assert (scores["kept"], scores["removed"], scores["invented"]) == (1, 0, 0)
    for name in ("num", "power", "locked"):
        assert scores[f"{name}_before"] == scores[f"{name}_after"]
    for name in ("flicker", "moving"):
        assert scores[f"{name}_rate_before_hz"] == scores[f"{name}_rate_after_hz"]
        assert scores[f"{name}_kept"] == 1
    assert scores["flicker_rate_before_hz"] == NUM_FLICKER / 0.4
    assert scores["moving_rate_before_hz"] == NUM_MOVING / 0.4
    assert scores["locked_before"] == 1, "The edge leaves no pixel busy."
    assert scores["power_before"] > 20, "Eighty events in step have far more power than one each."


def test_without_the_block_the_lamp_is_silent_and_the_edge_whole():
    scores = scores_of(SCENE[~IN_BLOCK])
    assert scores["flicker_rate_after_hz"] == 0
    assert scores["flicker_kept"] == 0
    assert scores["moving_kept"] == 1
    assert scores["moving_rate_after_hz"] == NUM_MOVING / 0.4
    assert scores["kept"] == NUM_MOVING / (NUM_MOVING + NUM_FLICKER)
    assert scores["invented"] == 0
    assert np.isnan(scores["power_after"]), "Without busy pixels there is no power to tell."
    assert np.isnan(scores["locked_after"])


def test_pixels_are_told_apart_on_the_input():
    even = IN_BLOCK & (np.cumsum(IN_BLOCK) % 41 == 0)
    scores = scores_of(SCENE[even | ~IN_BLOCK])
    assert np.isnan(scores["locked_after"]), "What is left of the lamp is too little to be busy."
    assert scores["flicker_rate_after_hz"] == even.sum() / 0.4, "It counts as flicker all the same."


def test_deleting_everything_keeps_nothing():
    scores = scores_of(Events.empty(SCENE.sensor_size))
    assert (scores["kept"], scores["moving_kept"], scores["flicker_rate_after_hz"]) == (0, 0, 0)
    assert np.isnan(scores["invented"]), "No events have no share."


def test_an_event_moved_by_a_microsecond_is_removed_and_invented():
    t = SCENE.t.copy()
    first = int(np.flatnonzero(~IN_BLOCK)[0])
    last_of_its_time = int(np.flatnonzero(SCENE.t == SCENE.t[first])[-1])
    t[last_of_its_time] += 1
    scores = scores_of(Events(t, SCENE.x, SCENE.y, SCENE.p, SCENE.sensor_size))
    assert scores["invented"] == pytest.approx(1 / len(SCENE))
    assert scores["removed"] == pytest.approx(1 / len(SCENE))
    assert scores["moving_kept"] == pytest.approx(1 - 1 / NUM_MOVING)
    assert scores["moving_rate_after_hz"] == scores["moving_rate_before_hz"], "It is still counted where it is."


def test_moving_events_are_counted_in_the_span_only():
    span_us = (0, 100_000)
    outside = SCENE.t >= span_us[1]
    scores = scores_of(SCENE[~outside], span_us)
    assert scores["moving_rate_before_hz"] == 10 * ROWS / 0.1, "Ten columns are crossed in a tenth of a second."
    assert scores["moving_kept"] == 1, "What is lost later is not counted."
    assert scores["flicker_kept"] == 0.25, "Flicker is counted in the whole recording."


@pytest.mark.parametrize(
    ("after", "settings", "message"),
    [
        (Events.empty((3, 5)), (DURATION_US, HZ), "do not compare"),
        (SCENE, (DURATION_US, HZ, (5, 5)), "no time"),
        (SCENE, (40_000, HZ), "five periods"),
    ],
)
def test_what_cannot_be_scored_is_said(after, settings, message):
    with pytest.raises(ValueError, match=message):
        score_without_truth(SCENE, after, *settings)


@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_kept_events_add_up(seed, share):
    rng = np.random.default_rng(seed)
    chosen = rng.uniform(size=len(SCENE)) < share
    scores = scores_of(SCENE[chosen])
    num_kept = scores["flicker_kept"] * NUM_FLICKER + scores["moving_kept"] * NUM_MOVING
    assert num_kept == pytest.approx(chosen.sum()), "Every pixel is either flickering or moving."
    assert scores["kept"] + scores["removed"] == pytest.approx(1)
    assert not chosen.any() or scores["invented"] == 0


def test_the_table_has_a_row_for_each_method_and_finds_the_mains():
    text = tabulate_without_truth(SCENE, {"input": SCENE, "still": SCENE[~IN_BLOCK]})
    assert "at 100 Hz" in text
    lines = text.splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")] == [
        "| method",
        "| ---",
        "| input",
        "| still",
    ]
    assert "| still | 18.4% | 81.6% | 0.0% | - | - | 0.0 | 0.0% | 0.7 | 100.0% |" in lines
    with pytest.raises(ValueError, match="no methods"):
        tabulate_without_truth(SCENE, {})


def test_every_method_runs_on_a_recording_without_a_truth():
    recording = make_events(3, 6000, duration_us=100_000, t_start_us=1_234_567)
    methods = [
        *map(BaselineMethod, BASELINES),
        NetworkMethod(build_model(ModelConfig(f_maps=(8, 16), num_levels=2), 0)),
    ]
    outputs = deflare_by_all(recording, methods, seed=0)
    assert list(outputs) == [*BASELINES, "network"]
    assert same_events(outputs["network"], recording), "The untrained network is the identity."
    scores = score_without_truth(recording, outputs["encode_decode"], 100_000, HZ)
    assert scores["invented"] > 0.9, "Decoded events have times of their own."
    assert tabulate_without_truth(recording, outputs).count("\n| ") == 2 + len(outputs)
    with pytest.raises(ValueError, match="no events"):
        deflare_by_all(Events.empty((3, 5)), [], seed=0)
