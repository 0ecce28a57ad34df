"""Filters and baselines on constructed streams: each where it must act, and where it must not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from support.recordings import make_events, same_events

from deflare_core.codec import events_to_voxel
from deflare_core.config import InferenceConfig
from deflare_core.events import Events
from deflare_core.scores.metrics import score_voxels
from deflare_core.streams.baselines import BASELINES, find_baseline
from deflare_core.streams.comb_filter import find_mains_hz, remove_flicker
from deflare_core.streams.filters import find_focused, find_supported
from deflare_core.streams.matching import find_matched

SIZE = (12, 16)


def stream(rows):
    """Events from rows `(t, x, y, p)`, sorted by time."""
    return Events.from_array(np.array(sorted(rows), np.int64).reshape(-1, 4), SIZE)


def block(times_and_polarities, columns=range(4, 10), rows=range(4, 9)):
    """A block of pixels that all fire the same."""
    return [(t, x, y, p) for t, p in times_and_polarities for x in columns for y in rows]


def test_only_neighbours_of_the_time_before_support_an_event():
    events = stream([(0, 3, 3, 1), (0, 9, 9, 1), (5_000, 4, 3, 1), (5_000, 9, 9, 1), (30_000, 3, 4, 1)])
    kept = {(int(t), int(x)) for t, x, k in zip(events.t, events.x, find_supported(events), strict=True) if k}
    assert kept == {(5_000, 4)}, "Not the first of them, not a pixel by itself, not after more than 10 ms."


def test_support_reaches_over_no_edge():
    assert not find_supported(stream([(0, 15, 0, 1), (1, 0, 1, 1)])).any(), "Rows do not wrap around."


@pytest.mark.parametrize("variant", ["a", "b"])
def test_polarity_focus_removes_noise_and_keeps_an_edge(variant):
    edge = block([(1_000, 1), (1_500, 1), (12_000, -1)])
    events = stream([*edge, (3_000, 0, 0, 1), (4_000, 14, 1, -1)])
    kept = events[find_focused(events, 0, variant)]
    assert not ((kept.x == 0) | (kept.x == 14)).any(), "Lone events go."
    assert len(kept) > 0.75 * len(edge), "An edge that brightens and darkens once stays, but for its corners."


def test_flicker_stays_under_a_and_goes_under_b():
    flicker = stream(block([(2_000 * k, 1 if k % 2 else -1) for k in range(1, 8)]))
    assert find_focused(flicker, 0, "a").mean() > 0.75, "Everything around changes as often."
    assert find_focused(flicker, 0, "b").mean() == 0, "Six changes in a window are flicker."


def test_windows_of_polarity_focus_are_independent():
    flicker = block([(2_000 * k, 1 if k % 2 else -1) for k in range(1, 8)])
    edge = [(t + 20_000, x, y, p) for t, x, y, p in block([(1_000, 1)])]
    both = stream([*flicker, *edge])
    kept = both[find_focused(both, 0, "b")]
    assert len(kept) > 0
    assert kept.t.min() >= 20_000
    with pytest.raises(ValueError, match="before the first window"):
        find_focused(both, 20_000, "a")


def test_a_flickering_pixel_is_silenced_and_an_edge_is_not():
    period_us = 10_000
    lamp = [
        (k * period_us + at + j * 10, 5, 5, p)
        for k in range(30)
        for at, p in ((1_200, 1), (6_200, -1))
        for j in (0, 1, 2)
    ]
    burst = [(101_300 + 200 * j, 9, 9, 1) for j in range(5)]
    filtered = remove_flicker(stream(lamp + burst), 100.0)
    late = (filtered.x == 5) & (filtered.t > 5 * period_us)
    assert late.sum() <= 0.1 * 25 * 6, "After five periods nine of ten events of a steady lamp are gone."
    at_edge = (filtered.x == 9) & (filtered.t < 103_000)
    assert at_edge.sum() == 5, "What comes once passes."
    assert np.isin(filtered.t[at_edge], [row[0] for row in burst]).all(), "With its own timestamps."
    first = (filtered.x == 5) & (filtered.t < period_us)
    assert first.sum() >= 5, "In the first period there is nothing to compare with."


def test_another_frequency_passes_the_comb():
    lamp = [(int(k * 10_000 / 1.37) + at, 5, 5, p) for k in range(40) for at, p in ((1_200, 1), (4_900, -1))]
    assert len(remove_flicker(stream(lamp), 100.0)) > 0.5 * len(lamp)


def test_the_comb_is_the_published_transfer_function():
    rng = np.random.default_rng(4)
    t = np.append(0, np.sort(rng.integers(0, 150, 119)) * 1_000 + 400)
    p = rng.choice([-1, 1], 120)
    impulses = np.bincount(t // 1_000, weights=p)
    r1, r2, one = 0.6, 1 - 0.4 / 10, [1.0]
    first_zeros, first_poles = [*one, *[0] * 9, -1], [*one, *[0] * 9, -r1]
    numerator, denominator = np.convolve(first_zeros, [1, -r2]), np.convolve(first_poles, [1, -1])
    expected, total = [], 0.0
    for change in lfilter(numerator, denominator, impulses):
        total, fired = total + change, 0
        while abs(total) >= 0.7:
            fired, total = fired + np.sign(total), total - np.sign(total)
        expected.append(fired)
    found = remove_flicker(stream([(at, 5, 5, sign) for at, sign in zip(t, p, strict=True)]), 100.0)
    cell = np.maximum(found.t - 1, 0) // 1_000
    assert np.abs(expected).sum() > 50, "Else the case says nothing."
    assert np.bincount(cell, weights=found.p, minlength=len(expected)).tolist() == expected


def test_the_comb_can_be_set_to_another_frequency():
    lamp = stream([(k * 20_000 + at, 5, 5, p) for k in range(40) for at, p in ((1_200, 1), (9_900, -1))])
    late = {
        name: (find_baseline(name).function(lamp, (0, 800_000), 0).t > 100_000).sum() for name in ("efr", "efr_50hz")
    }
    assert late["efr_50hz"] < 0.2 * 70, "It takes out what the setting says."
    assert late["efr"] > 0.5 * 70, "100 Hz is not the frequency of this lamp."
    for name in ("efr_0hz", "efr_hz", "median"):
        with pytest.raises(ValueError, match=f"no method '{name}'.*such as efr_50hz"):
            find_baseline(name)


def test_input_and_empty_do_what_they_are_called():
    events = make_events(1, 50, SIZE)
    assert same_events(BASELINES["input"](events, (0, 20_000), 0), events)
    assert same_events(BASELINES["empty"](events, (0, 20_000), 0), Events.empty(SIZE))


def test_pixels_are_filtered_by_themselves():
    alone = stream([(k * 3_000, 5, 5, 1 if k % 3 else -1) for k in range(30)])
    other = make_events(1, 300, SIZE, duration_us=90_000)
    other = other[(other.x != 5) | (other.y != 5)]
    both = stream([*alone.to_array().tolist(), *other.to_array().tolist()])
    found = remove_flicker(both, 100.0)
    assert same_events(found[(found.x == 5) & (found.y == 5)], remove_flicker(alone, 100.0))


@pytest.mark.parametrize("flicker_hz", [100.0, 120.0])
def test_the_mains_frequency_is_found(flicker_hz):
    lamp = [(int(k * 1e6 / flicker_hz) + at, 5, 5, p) for k in range(60) for at, p in ((0, 1), (4_000, -1))]
    assert find_mains_hz(stream(lamp)) == flicker_hz
    assert find_mains_hz(Events.empty(SIZE)) == 100.0


def test_encoding_and_decoding_costs_times_only():
    events = make_events(3, 4_000, SIZE, duration_us=60_000)
    again = BASELINES["encode_decode"](events, (0, 60_000), 0)
    for t0_us in (0, 20_000, 40_000):
        voxels = [events_to_voxel(e.window(t0_us, t0_us + 20_000), t0_us=t0_us) for e in (again, events)]
        perfect = {"mse": 0, "pmse_2": 0, "pmse_4": 0, "r_f1": 1, "t_f1": 1, "tp_f1": 1}
        assert score_voxels(*voxels) == perfect, "Every voxel score is that of the input itself."
    assert find_matched(again, events).mean() < 0.1


@settings(deadline=None)
@given(seed=st.integers(0, 1000), num=st.integers(0, 300), name=st.sampled_from(sorted(BASELINES)))
def test_every_baseline_gives_valid_events_again_and_again(seed, num, name):
    events = make_events(seed, num, SIZE, t_start_us=40_000, duration_us=60_000)
    before = events.to_array().copy()
    found = BASELINES[name](events, (40_000, 100_000), 1)
    checked = Events(found.t, found.x, found.y, found.p, found.sensor_size)
    assert same_events(checked, BASELINES[name](events, (40_000, 100_000), 1)), "The same input gives the same output."
    assert np.array_equal(before, events.to_array()), "The input stays as it was."
    if name in ("input", "empty", "baf", "pfd_a", "pfd_b"):
        assert find_matched(found, events).sum() == len(found), "A filter invents nothing."


def test_the_help_of_infer_names_every_baseline():
    about = InferenceConfig.model_fields["method"].description
    missing = [name for name in BASELINES if name not in about]
    assert not missing, f"The help of `deflare infer` does not name {missing}."
    assert [find_baseline(name).name for name in (*BASELINES, "efr_50hz")] == [*BASELINES, "efr_50hz"]
