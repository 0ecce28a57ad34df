import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deflare_core.events import Events
from deflare_core.scores.distances import FARTHEST, find_nearest, measure_distances, score_distances

SIZE, WINDOW = (11, 21), 20_000


def events(*rows):
    """Events `(t, x, y, p)` on a sensor of 11 x 21 pixels."""
    return Events.from_array(np.array(sorted(rows), np.int64).reshape(-1, 4), SIZE)


def distances(estimate, truth, t0_us=0):
    return measure_distances(estimate, truth, t0_us, WINDOW)


def test_distances_along_each_axis_by_hand():
    one = events((0, 0, 0, 1))
    assert distances(one, one).to_truth.tolist() == [0]
    assert distances(one, events((0, 2, 0, 1))).to_truth[0] == pytest.approx(10), "Two of twenty columns are 10."
    assert distances(one, events((0, 0, 3, 1))).to_truth[0] == pytest.approx(30), "Three of ten rows are 30."
    assert distances(one, events((4_000, 0, 0, 1))).to_truth[0] == pytest.approx(20), "4 of 20 ms are 20."
    assert distances(one, events((0, 0, 0, -1))).to_truth[0] == pytest.approx(100), "Polarities are 100 apart."
    both = distances(one, events((4_000, 2, 3, -1))).to_estimate[0]
    assert both == pytest.approx(np.sqrt(20**2 + 10**2 + 30**2 + 100**2)), "Together they add up in squares."


def test_the_window_has_its_own_origin():
    early, late = events((100_000, 0, 0, 1)), events((110_000, 0, 0, 1))
    assert distances(early, late, 100_000).to_truth[0] == pytest.approx(50)


def test_the_other_polarity_counts_where_it_is_nearer():
    far = events((0, 0, 0, 1), (0, 20, 10, -1))
    near_other = events((0, 20, 10, 1))
    assert distances(near_other, far).to_truth[0] == pytest.approx(100), "100 to the other, 141 to the same polarity."


def test_the_gaussian_score_by_hand():
    scores = score_distances(distances(events((100, 0, 0, 1), (0, 20, 0, 1)), events((0, 0, 0, 1))))
    assert scores["gauss"] == pytest.approx((1 - np.exp(-(0.5**2) / 0.4) + 1) / 2), "0.1 ms of 20 are 0.5, 100 is far."
    assert scores["gauss_back"] == pytest.approx(1 - np.exp(-(0.5**2) / 0.4))
    assert scores["gauss_both"] == pytest.approx((scores["gauss"] + scores["gauss_back"]) / 2)


def test_each_direction_is_seen():
    truth = events((0, 0, 0, 1), (0, 4, 0, 1))
    some = score_distances(distances(events((0, 0, 0, 1)), truth))
    assert (some["chamfer"], some["chamfer_back"], some["chamfer_both"]) == pytest.approx((0, 10, 5))
    assert some["gauss"] == 0, "Deleting events costs nothing in the published direction."
    assert some["gauss_back"] == pytest.approx((1 - np.exp(-(20**2) / 0.4)) / 2)


def test_an_empty_stream_is_as_far_as_can_be():
    nothing, truth = events(), events((0, 0, 0, 1))
    scores = score_distances(distances(nothing, truth))
    assert (scores["chamfer"], scores["chamfer_back"]) == (0, FARTHEST)
    assert set(score_distances(distances(nothing, nothing)).values()) == {0.0}


def test_sensors_must_agree():
    with pytest.raises(ValueError, match="one sensor size"):
        distances(events(), Events.empty((3, 4)))


places = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from([0, 8]), st.integers(0, 9)), min_size=1, max_size=30
)


@given(places, places)
def test_nearest_is_what_comparing_all_gives(one, other):
    one, other = np.array(one, np.float64), np.array(other, np.float64)
    expected = np.sqrt(((one[:, None] - other[None]) ** 2).sum(2)).min(1)
    assert np.allclose(find_nearest(one, other), expected), "The search must be exact."
