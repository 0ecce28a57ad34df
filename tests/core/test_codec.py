import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.recordings import make_events, same_events

from deflare_core.codec import apply_voxel, bin_edges_us, events_to_voxel, voxel_to_events
from deflare_core.events import Events
from deflare_core.kernels.event_tensors import EventTensors, decode_tensor

SIZE = (3, 4)


def events_at(*rows):
    """Events from rows (t, x, y, p)."""
    return Events.from_array(np.array(rows, np.int64).reshape(-1, 4), SIZE)


def test_each_event_falls_into_the_bin_of_the_formula():
    rows = [(0, 0, 0, 1), (2_499, 0, 0, 1), (2_500, 1, 2, -1), (17_500, 3, 0, 1), (19_999, 3, 0, -1)]
    voxel = events_to_voxel(events_at(*rows), t0_us=0)
    assert voxel.shape == (8, 3, 4)
    assert voxel.dtype == np.float32
    expected = np.zeros((8, 3, 4))
    expected[0, 0, 0], expected[1, 2, 1], expected[7, 0, 3] = 2, -1, 0
    assert np.array_equal(voxel, expected), "Two positives add, opposite polarities in one cell cancel."


@pytest.mark.parametrize("num_bins", [1, 3, 7, 8, 20])
@pytest.mark.parametrize("duration_us", [20, 1_000, 20_000])
def test_bin_edges_agree_with_the_division(num_bins, duration_us):
    t0_us = 1_234_567
    edges = bin_edges_us(num_bins, duration_us, t0_us)
    t = np.arange(t0_us, t0_us + duration_us)
    assert np.array_equal(np.searchsorted(edges, t, "right") - 1, (t - t0_us) * num_bins // duration_us)


@pytest.mark.parametrize("t0_us", [0, 7_000_000_000, -20_000])
def test_the_origin_is_the_windows_not_the_first_events(t0_us):
    silent_first_15_ms = Events.from_columns([t0_us + 15_000], [2], [1], [1], SIZE)
    voxel = events_to_voxel(silent_first_15_ms, t0_us=t0_us)
    assert voxel[6, 1, 2] == 1, "15 ms after the window's start is bin 6."
    assert voxel.sum() == 1


def test_one_event_and_none():
    assert events_to_voxel(events_at((19_999, 3, 2, -1)), t0_us=0)[7, 2, 3] == -1
    assert not events_to_voxel(Events.empty(SIZE), t0_us=0).any()


def test_a_recording_of_two_seconds_window_by_window():
    events = make_events(num=20_000, duration_us=2_000_000, t_start_us=500)
    voxels = [events_to_voxel(w, t0_us=k * 20_000) for k, w in enumerate(events.windows(0, 101))]
    assert sum(v.sum() for v in voxels) == events.p.sum(dtype=int), "No event is lost between windows."
    k = 57
    inside = (events.t >= k * 20_000) & (events.t < (k + 1) * 20_000)
    bins = (events.t[inside] - k * 20_000) * 8 // 20_000
    expected = np.zeros((8, 12, 16))
    np.add.at(expected, (bins, events.y[inside], events.x[inside]), events.p[inside])
    assert np.array_equal(voxels[k], expected)


@pytest.mark.parametrize("t", [-1, 20_000, 99_999])
def test_an_event_outside_the_window_is_an_error_or_is_counted(t, caplog):
    events = events_at(*sorted([(t, 0, 0, 1), (5, 0, 0, 1)]))
    with pytest.raises(ValueError, match=r"1 events lie outside the window \[0, 20000\) us"):
        events_to_voxel(events, t0_us=0)
    assert events_to_voxel(events, t0_us=0, outside="drop").sum() == 1, "It is left out, never clipped into a bin."
    assert "1 events lie outside" in caplog.text


def test_plain_arrays_and_tensors_give_the_same_voxel():
    events = make_events()
    voxel = events_to_voxel(events, t0_us=0)
    array = events.to_array()
    assert np.array_equal(events_to_voxel(array, sensor_size=(12, 16), t0_us=0), voxel)
    assert np.array_equal(events_to_voxel(events.to_structured(), sensor_size=(12, 16), t0_us=0), voxel)
    from_tensor = events_to_voxel(torch.from_numpy(array), sensor_size=(12, 16), t0_us=0)
    assert isinstance(from_tensor, torch.Tensor)
    assert np.array_equal(from_tensor, voxel)
    assert np.array_equal(events_to_voxel(EventTensors.from_events(events), t0_us=0), voxel)


def test_a_given_output_array_is_filled_and_returned():
    out = np.full((8, 12, 16), np.nan, np.float32)
    voxel = events_to_voxel(make_events(), t0_us=0, out=out)
    assert voxel is out
    assert np.array_equal(out, events_to_voxel(make_events(), t0_us=0))
    with pytest.raises(ValueError, match="out must be a contiguous float32"):
        events_to_voxel(make_events(), t0_us=0, out=np.empty((8, 12, 16)))


def test_the_input_is_not_modified():
    events = make_events()
    before = events.to_array()
    voxel = events_to_voxel(events, t0_us=0)
    voxel_before = voxel.copy()
    apply_voxel(events, voxel, voxel * 0.3, t0_us=0, seed=0)
    voxel_to_events(voxel, t0_us=0, seed=0)
    assert np.array_equal(events.to_array(), before)
    assert np.array_equal(voxel, voxel_before)


voxels = st.lists(st.floats(-40, 40, width=32), min_size=24, max_size=24).map(
    lambda cells: np.array(cells, np.float32).reshape(2, 3, 4)
)


@given(voxels, st.integers(0, 2**62), st.sampled_from([0, 7_000_000_000, -3]))
def test_decoding_and_encoding_again_gives_the_rounded_voxel(voxel, seed, t0_us):
    events = voxel_to_events(voxel, t0_us=t0_us, seed=seed)
    again = events_to_voxel(events, num_bins=2, t0_us=t0_us)
    assert np.array_equal(again, np.rint(voxel)), "L1, L2 and maximum error against the rounded voxel are 0."
    assert (np.diff(events.t) >= 0).all(), "Events come out sorted by time."


def test_decoded_times_are_uniform_within_their_bin():
    voxel = np.zeros((8, 1, 1), np.float32)
    voxel[3] = 30_000
    offsets = voxel_to_events(voxel, t0_us=0, seed=1).t - 7_500
    assert offsets.min() == 0
    assert offsets.max() == 2_499
    counts = np.histogram(offsets, 25, (0, 2_500))[0]
    chi_squared = ((counts - 1_200) ** 2 / 1_200).sum()
    assert chi_squared < 51, "24 degrees of freedom exceed 51 once in a thousand."


def test_the_seed_decides_the_times():
    voxel = events_to_voxel(make_events(), t0_us=0)
    assert same_events(voxel_to_events(voxel, t0_us=0, seed=4), voxel_to_events(voxel, t0_us=0, seed=4))
    assert not same_events(voxel_to_events(voxel, t0_us=0, seed=4), voxel_to_events(voxel, t0_us=0, seed=5))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 40_000])
def test_a_cell_that_cannot_be_events_is_refused_with_its_place(value):
    voxel = np.zeros((8, 3, 4), np.float32)
    voxel[2, 1, 3] = value
    with pytest.raises(ValueError, match=r"the first is .* at \(2, 1, 3\)"):
        voxel_to_events(voxel, t0_us=0, seed=0)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(bins, height, width\); received shape \(3, 4\)"):
        voxel_to_events(np.zeros((3, 4)), t0_us=0, seed=0)
    with pytest.raises(ValueError, match=r"but sensor_size is \(4, 3\)"):
        voxel_to_events(np.zeros((8, 3, 4)), sensor_size=(4, 3), t0_us=0, seed=0)
    with pytest.raises(ValueError, match="sensor_size"):
        events_to_voxel(np.zeros((1, 4)), t0_us=0)
    with pytest.raises(TypeError, match="t0_us"):
        events_to_voxel(make_events())


def test_tensors_are_drawn_as_arrays_are():
    voxel = events_to_voxel(make_events(num=3000), t0_us=0)
    drawn = decode_tensor(torch.from_numpy(voxel), bin_edges_us(8, 20_000, 0), seed=5).to_events()
    assert same_events(drawn, voxel_to_events(voxel, t0_us=0, seed=5))


def test_a_tensor_decodes_to_tensors():
    voxel = torch.from_numpy(events_to_voxel(make_events(), t0_us=0))
    events = voxel_to_events(voxel, t0_us=0, seed=9)
    assert isinstance(events, EventTensors)
    assert torch.equal(events_to_voxel(events, t0_us=0), voxel)


def test_faithful_decode_by_hand():
    """One cell with events + + - +, net 2; another with one event; the third is empty."""
    events = events_at((10, 0, 0, 1), (20, 0, 0, 1), (25, 1, 0, 1), (30, 0, 0, -1), (40, 0, 0, 1))
    voxel = events_to_voxel(events, t0_us=0)
    after = voxel.copy()
    after[0, 0, 0] = 1  # one positive too many
    after[0, 0, 2] = -2  # two that were never recorded
    result = apply_voxel(events, voxel, after, t0_us=0, seed=0)
    assert (~result.kept).sum() == 1, "Exactly one event has to go."
    assert events.p[~result.kept].tolist() == [1]
    assert events.x[~result.kept].tolist() == [0]
    assert result.synthesised.sum() == 2
    invented = result.events[result.synthesised]
    assert (invented.x.tolist(), invented.y.tolist(), invented.p.tolist()) == ([2, 2], [0, 0], [-1, -1])
    assert np.array_equal(events_to_voxel(result.events, t0_us=0), after)


def test_removal_chooses_among_the_cells_events_evenly():
    events = events_at(*[(t, 0, 0, 1) for t in range(10)])
    voxel = events_to_voxel(events, t0_us=0)
    kept = np.zeros(10)
    for seed in range(2_000):
        kept += apply_voxel(events, voxel, voxel * 0.3, t0_us=0, seed=seed).kept
    assert abs(kept.sum() - 6_000) == 0, "Three of ten are kept each time."
    assert np.abs(kept - 600).max() < 100, "No event is favoured: 600 +- 20 each, 100 is five standard deviations."


event_rows = st.lists(
    st.tuples(st.integers(0, 19_999), st.integers(0, 3), st.integers(0, 2), st.sampled_from([-1, 1])), max_size=80
)


@settings(max_examples=200)
@given(event_rows, st.lists(st.integers(-3, 3), min_size=24, max_size=24), st.integers(0, 99))
def test_faithful_decode_keeps_what_it_can(rows, changes, seed):
    events = events_at(*sorted(rows))
    before = events_to_voxel(events, num_bins=2, t0_us=0)
    after = before + np.array(changes, np.float32).reshape(before.shape)
    result = apply_voxel(events, before, after, t0_us=0, seed=seed)
    assert np.array_equal(events_to_voxel(result.events, num_bins=2, t0_us=0), after)
    assert same_events(result.events[~result.synthesised], events[result.kept]), "Kept events pass with their times."
    bins = events.t * 2 // 20_000
    untouched = (after == before)[bins, events.y.astype(int), events.x.astype(int)]
    assert result.kept[untouched].all(), "An unchanged cell passes all its events."
    edits = (~result.kept).sum() + result.synthesised.sum()
    assert edits == np.abs(after - before).sum(), "No edit is made that the output does not demand."


def test_an_unchanged_voxel_changes_nothing():
    events = make_events(num=5_000)
    voxel = events_to_voxel(events, t0_us=0)
    result = apply_voxel(events, voxel, voxel + 0.4, t0_us=0, seed=0)
    assert same_events(result.events, events), "A change of less than half an event is no change."
    assert result.kept.all()
    assert not result.synthesised.any()


def test_an_input_voxel_of_other_events_is_refused():
    events = make_events()
    voxel = events_to_voxel(events, t0_us=0)
    voxel[0, 0, 0] += 1
    with pytest.raises(ValueError, match="not the encoding of the events: 1 cells differ"):
        apply_voxel(events, voxel, voxel, t0_us=0, seed=0)


def test_thousands_of_events_in_one_cell():
    events = events_at(*[(5, 1, 1, 1)] * 20_000, *[(6, 1, 1, -1)] * 15_000)
    voxel = events_to_voxel(events, t0_us=0)
    result = apply_voxel(events, voxel, -voxel, t0_us=0, seed=0)
    assert np.array_equal(events_to_voxel(result.events, t0_us=0), -voxel)
    assert result.kept.sum() == 25_000, "Ten thousand positives go; the rest stays."
