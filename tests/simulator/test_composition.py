"""Flare composed over a background in the domain of events, against hand-computed cases and what must always hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.recordings import make_events, same_events

from data_simu.composition import integrate_events, rethreshold_events, thin_events, unite_events
from deflare_core.events import Events

SIZE = (12, 16)
ONE_PIXEL = (1, 1)
CLOCK_US = np.array([0, 20_000])

recordings = st.builds(make_events, seed=st.integers(0, 2**32 - 1), num=st.integers(0, 300))


def on_one_pixel(times_us, polarities=1) -> Events:
    """Events of a sensor of one pixel."""
    t = np.asarray(times_us, np.int64)
    zeros = np.zeros(len(t))
    return Events.from_columns(t, zeros, zeros, np.broadcast_to(polarities, len(t)), ONE_PIXEL)


def constant(value, shape=ONE_PIXEL):
    """A picture of one value."""
    return np.full(shape, value, np.float32)


def ratio_of(*values, shape=ONE_PIXEL):
    """Pictures of one value each."""
    return np.stack([constant(value, shape) for value in values])


def all_compositions(background, flare, seed=0):
    """What each function makes of one pair of recordings."""
    rng = np.random.default_rng(seed)
    size = background.sensor_size
    return {
        "union": unite_events(background, flare),
        "thinned": thin_events(background, flare, rng),
        "integrated": integrate_events(background, flare, rng.random(size, np.float32)),
        "rethresholded": rethreshold_events(background, rng.random((2, *size), np.float32), CLOCK_US, 0.2),
    }


def test_union_puts_the_background_first_at_equal_times():
    merged = unite_events(on_one_pixel([1, 5, 5], 1), on_one_pixel([0, 5, 9], -1))
    assert merged.t.tolist() == [0, 1, 5, 5, 5, 9]
    assert merged.p.tolist() == [-1, 1, 1, 1, -1, -1]


@given(recordings)
def test_union_with_nothing_is_the_recording(events):
    nothing = Events.empty(SIZE)
    assert same_events(unite_events(events, nothing), events)
    assert same_events(unite_events(nothing, events), events)


def test_thinning_keeps_the_published_shares():
    """2,000 background events and 100 of flare on one pixel: A = 100 / (400 + 100) = 0.2."""
    background, flare = on_one_pixel(np.arange(2_000), 1), on_one_pixel(np.arange(100), -1)
    runs = [thin_events(background, flare, np.random.default_rng(seed)) for seed in range(50)]
    assert np.mean([(run.p > 0).sum() for run in runs]) == pytest.approx(0.8 * 2_000, rel=0.01)
    assert np.mean([(run.p < 0).sum() for run in runs]) == pytest.approx(0.2 * 100, rel=0.1)


def test_thinning_counts_each_pixel_by_itself():
    """A pixel with events of one recording only keeps them all: A is 0 without flare and 1 without background."""
    background = Events.from_columns([0, 1], [0, 0], [0, 0], [1, 1], (1, 2))
    flare = Events.from_columns([0, 1], [1, 1], [0, 0], [-1, -1], (1, 2))
    assert same_events(thin_events(background, flare, np.random.default_rng(0)), unite_events(background, flare))


@given(recordings, st.integers(0, 2**32 - 1))
def test_thinning_without_flare_changes_nothing(background, seed):
    assert same_events(thin_events(background, Events.empty(SIZE), np.random.default_rng(seed)), background)


def test_half_the_weight_takes_two_background_events_for_one():
    fired = integrate_events(on_one_pixel([1, 2, 3, 4, 5]), Events.empty(ONE_PIXEL), constant(0.5))
    assert fired.t.tolist() == [2, 4]
    assert fired.p.tolist() == [1, 1]


def test_a_weight_of_a_third_fires_at_every_third_event():
    """The tolerance takes up what the float32 weight lacks to one third."""
    fired = integrate_events(on_one_pixel(np.arange(1, 10), -1), Events.empty(ONE_PIXEL), constant(1 / 3))
    assert fired.t.tolist() == [3, 6, 9]
    assert fired.p.tolist() == [-1, -1, -1]


def test_background_and_flare_add_up_by_their_weights():
    """With w = 0.25: 0.25 + 0.75 fires at 2; then -0.75, -0.5 and -1.25 fires at 5."""
    background, flare = on_one_pixel([1, 4], 1), on_one_pixel([2, 3, 5], [1, -1, -1])
    fired = integrate_events(background, flare, constant(0.25))
    assert fired.t.tolist() == [2, 5]
    assert fired.p.tolist() == [1, -1]


def test_opposite_polarities_of_equal_weight_cancel():
    fired = integrate_events(on_one_pixel([1, 3, 5], 1), on_one_pixel([2, 4, 6], -1), constant(0.5))
    assert len(fired) == 0


@settings(deadline=None)
@given(recordings, recordings)
def test_all_the_weight_on_one_recording_gives_it_back(background, flare):
    assert same_events(integrate_events(background, flare, constant(1, SIZE)), background)
    assert same_events(integrate_events(background, flare, constant(0, SIZE)), flare)


@settings(deadline=None)
@given(recordings, st.floats(0, 0.0019))
def test_negligible_light_keeps_the_events_as_they_are(background, ratio):
    assert same_events(rethreshold_events(background, ratio_of(ratio, 0, shape=SIZE), CLOCK_US, 0.2), background)


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1, 1]), max_size=50), st.floats(0.05, 0.5))
def test_firing_again_without_light_gives_the_same_events(polarities, threshold):
    background = on_one_pixel(10 * np.arange(1, len(polarities) + 1), polarities)
    fired = rethreshold_events(background, ratio_of(0, 0), CLOCK_US, threshold, min_ratio=0.0)
    assert same_events(fired, background)


def test_only_lit_pixels_fire_again():
    background = make_events(num=2_000)
    ratio = np.zeros((2, *SIZE), np.float32)
    ratio[:, :, :8] = 3
    fired = rethreshold_events(background, ratio, CLOCK_US, 0.2)
    assert same_events(fired[fired.x >= 8], background[background.x >= 8])
    assert 0 < (fired.x < 8).sum() < (background.x < 8).sum() / 2


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_steady_light_suppresses_by_one_over_one_plus_the_ratio(ratio):
    """Pixels brighten or darken by 30 steps of 0.01 at random times; r = 1 halves their events."""
    rng = np.random.default_rng(0)
    num_pixels, num_steps = 400, 30
    t = rng.integers(0, 20_000, num_pixels * num_steps)
    x = np.repeat(np.arange(num_pixels), num_steps)
    p = np.repeat(rng.choice([-1, 1], num_pixels), num_steps)
    order = np.argsort(t)
    background = Events.from_columns(t[order], x[order], 0 * x, p[order], (1, num_pixels))
    fired = rethreshold_events(background, ratio_of(ratio, ratio, shape=(1, num_pixels)), CLOCK_US, 0.01)
    assert len(fired) / len(background) == pytest.approx(1 / (1 + ratio), rel=0.07)
    assert (fired.p == p[fired.x * num_steps]).all()


def test_steady_light_fires_where_the_logarithm_of_the_sum_moves():
    """Six steps of 0.2 take B from 1 to 3.32; with r = 1, y rises by log(4.32 / 2) = 0.770: three events."""
    background = on_one_pixel(1_000 * np.arange(1, 7))
    fired = rethreshold_events(background, ratio_of(1, 1), CLOCK_US, 0.2)
    y = np.log((np.exp(0.2 * np.arange(7)) + 1) / 2)
    crossings_us = np.interp([0.2, 0.4, 0.6], y, 1_000 * np.arange(7))
    np.testing.assert_array_equal(fired.t, np.rint(crossings_us))
    assert fired.p.tolist() == [1, 1, 1]


@pytest.mark.parametrize(("dark", "bright"), [(1.0, 10.0), (0.1, 1.0), (5.0, 50.0)])
def test_a_flare_that_brightens_tenfold_over_a_still_background(dark, bright):
    """Floor(log((1 + bright) / (1 + dark)) / threshold) events, evenly along the one stretch of y."""
    fired = rethreshold_events(Events.empty(ONE_PIXEL), ratio_of(dark, bright), CLOCK_US, 0.2)
    rise = np.log((1 + bright) / (1 + dark))
    num = int(rise / 0.2)
    assert num > 0
    assert (fired.p == 1).all()
    np.testing.assert_array_equal(fired.t, np.rint(20_000 * 0.2 * np.arange(1, num + 1) / rise))


def test_a_flare_that_comes_and_goes_fires_both_ways():
    fired = rethreshold_events(Events.empty(ONE_PIXEL), ratio_of(0, 10, 0), np.array([0, 10_000, 20_000]), 0.2)
    num = int(np.log(11) / 0.2)
    assert (fired.p > 0).sum() == num
    assert (fired.p < 0).sum() == num
    assert (np.diff(fired.p) <= 0).all()


def test_light_that_is_lit_already_when_the_clock_starts_fires_nothing():
    assert len(rethreshold_events(Events.empty(ONE_PIXEL), ratio_of(50, 50), CLOCK_US, 0.2)) == 0


def test_one_picture_is_steady_light():
    background = make_events(num=1_000)
    once = rethreshold_events(background, ratio_of(1, shape=SIZE), CLOCK_US[:1], 0.1)
    assert same_events(once, rethreshold_events(background, ratio_of(1, 1, shape=SIZE), CLOCK_US, 0.1))


def test_many_steps_one_way_stay_finite():
    """B falls to exp(-2,000) under steady light: y comes to rest and nothing overflows."""
    fired = rethreshold_events(on_one_pixel(np.arange(10_000), -1), ratio_of(1, 1), CLOCK_US, 0.2)
    assert len(fired) == int(np.log(2) / 0.2)


@settings(deadline=None, max_examples=30)
@given(recordings, recordings, st.integers(0, 100))
def test_compositions_are_valid_sorted_and_repeatable(background, flare, seed):
    again = all_compositions(background, flare, seed)
    for name, events in all_compositions(background, flare, seed).items():
        assert same_events(Events(events.t, events.x, events.y, events.p, events.sensor_size), again[name])
        assert events.sensor_size == SIZE


@pytest.mark.parametrize("compose", [unite_events, lambda b, f: thin_events(b, f, np.random.default_rng(0))])
def test_different_sensors_are_named(compose):
    with pytest.raises(ValueError, match=r"\(12, 16\) and \(3, 4\)"):
        compose(Events.empty(SIZE), Events.empty((3, 4)))


def test_weights_that_do_not_fit_are_refused():
    nothing = Events.empty(SIZE)
    with pytest.raises(ValueError, match=r"\(12, 16\) and \(3, 4\)"):
        integrate_events(nothing, Events.empty((3, 4)), constant(1, SIZE))
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(12, 16\)"):
        integrate_events(nothing, nothing, constant(1, (3, 4)))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        integrate_events(nothing, nothing, constant(1.5, SIZE))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"brightness_ratio": ratio_of(1, 1, shape=(3, 4))}, r"\(2, 3, 4\).*\(12, 16\)"),
        ({"brightness_ratio": ratio_of(1, -1, shape=SIZE)}, "finite and at least 0"),
        ({"brightness_ratio": ratio_of(1, np.nan, shape=SIZE)}, "finite and at least 0"),
        ({"times_us": np.array([0])}, "one time for each of the 2"),
        ({"times_us": np.array([5, 5])}, "increasing"),
        ({"thresholds": 0.0}, "above 0"),
    ],
)
def test_light_that_does_not_fit_is_refused(changes, message):
    fitting = {"brightness_ratio": ratio_of(1, 1, shape=SIZE), "times_us": CLOCK_US, "thresholds": 0.2}
    with pytest.raises(ValueError, match=message):
        rethreshold_events(Events.empty(SIZE), **(fitting | changes))
