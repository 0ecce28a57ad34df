"""Statistics of events: figures counted by hand, and what streams at random times and flickering pixels must give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.recordings import make_events

from deflare_core.events import Events
from deflare_core.streams.statistics import (
    average_blocks,
    count_bursts,
    find_block_variation,
    find_flicker_share,
    find_intervals_us,
    find_isolated,
    find_isolated_rates_hz,
    find_isolated_share,
    find_on_share,
    find_rates_hz,
    find_spectrum,
    share_intervals,
)


def events_of(*rows, sensor_size=(4, 5)) -> Events:
    """Events from rows (t, x, y, p)."""
    return Events.from_array(np.array(rows), sensor_size)


FEW = events_of((0, 0, 0, 1), (100, 1, 0, -1), (300, 0, 0, 1), (400, 0, 0, -1), (1000, 0, 0, 1))


def lamp(hz, duration_us=500_000, pixels=20, seed=0) -> Events:
    """Pixels that fire once up and, half a period later, once down in every period, each with a phase of its own."""
    rng = np.random.default_rng(seed)
    columns = []
    for x in range(pixels):
        up = (np.arange(int(duration_us * hz / 1e6)) + rng.uniform()) * 1e6 / hz
        for times, p in ((up, 1), (up + 5e5 / hz, -1)):
            columns.append(
                np.column_stack([times.astype(int), np.full((len(times), 2), [x, 0]), np.full(len(times), p)])
            )
    rows = np.concatenate(columns)
    return Events.from_array(rows[np.argsort(rows[:, 0], kind="stable")], (1, pixels))


def test_rates_and_on_share_by_hand():
    rates = find_rates_hz(FEW, 2000)
    assert (rates[0, 0], rates[0, 1], rates.sum()) == (2000, 500, 2500), "Four events and one in 2 ms."
    assert find_on_share(FEW) == 0.6, "Three of five are positive."


def test_intervals_by_hand():
    assert find_intervals_us(FEW).tolist() == [300, 100, 600], "The pixel that fired once has none."
    assert find_intervals_us(FEW, same_polarity=True).tolist() == [300, 700], (
        "The negative event between is passed over."
    )


def test_interval_histogram_counts_shares_of_all():
    shares = share_intervals(np.array([5, 20, 30, 200]), np.array([10.0, 100, 1000]))
    assert shares.tolist() == [0.5, 0.25], "The interval below the first edge counts in the total only."


def test_bursts_by_hand():
    assert count_bursts(FEW).tolist() == [2, 1, 1, 1], "Up twice, down, up; then the other pixel's one."


def test_bursts_of_neighbours_are_apart():
    two = events_of((0, 0, 0, 1), (1, 1, 0, 1))
    assert count_bursts(two).tolist() == [1, 1], "Equal polarity at the next pixel is no run."


def test_isolation_by_hand():
    events = events_of((0, 0, 0, 1), (20_000, 0, 0, 1), (25_000, 1, 1, 1), (30_000, 4, 3, 1), (34_000, 1, 1, -1))
    assert find_isolated(events).tolist() == [False, True, False, True, False], "First unknown, near, alone, own pixel."
    assert find_isolated_share(events) == 0.5, "Two of the four whose past is known."
    assert find_isolated(events, radius=0).tolist() == [False, True, True, True, False], "Without neighbours."
    assert find_isolated_rates_hz(events, 50_000).sum() == pytest.approx(2 / 0.04), (
        "Two in the 40 ms after the first 10."
    )


def test_block_means_and_variation_by_hand():
    rates = np.zeros((4, 5))
    rates[:2, :2] = 3
    rates[:, 4] = 100
    assert average_blocks(rates, 2).tolist() == [[3, 0], [0, 0]], "The fifth column fills no block."
    assert find_block_variation(rates, 2) == pytest.approx(np.sqrt(3)), "Mean 3/4, standard deviation 3 sqrt(3)/4."


def test_a_lamp_shows_at_its_own_frequency():
    frequencies = np.arange(20.0, 500, 2)
    spectrum = find_spectrum(lamp(120), 500_000, frequencies)
    assert frequencies[spectrum.argmax()] == 120
    assert spectrum.max() == pytest.approx(120, rel=0.01), "All 120 events of a pixel in step: n^2 / n."
    assert spectrum[frequencies == 240] < 1, "Up and down are half a period apart, so the signed rate has no harmonic."


def test_a_pixel_of_one_polarity_shows_at_its_rate():
    t = (np.arange(60) * 1e6 / 120).astype(int)
    zeros = np.zeros(60, int)
    events = Events.from_columns(t, zeros, zeros, zeros + 1, (1, 1))
    power = find_spectrum(events, 500_000, np.array([90.0, 120.0, 150.0]))
    assert power == pytest.approx([0, 60, 0], abs=0.1)


@pytest.mark.parametrize("signs", [(1,), (-1, 1)])
def test_random_times_give_power_one(signs):
    rng = np.random.default_rng(3)
    events = make_events(seed=3, num=20_000, duration_us=300_000)
    one_sign = Events.from_columns(events.t, events.x, events.y, rng.choice(signs, len(events)), events.sensor_size)
    spectrum = find_spectrum(one_sign, 300_000, np.linspace(5, 500, 60))
    assert spectrum.mean() == pytest.approx(1, rel=0.1)
    assert np.abs(spectrum - 1).max() < 0.5


def test_flicker_share_finds_the_lamp_and_only_at_its_frequency():
    assert find_flicker_share(lamp(120), 500_000, 120) == 1
    assert find_flicker_share(lamp(120), 500_000, 100) == 0


def test_random_times_are_locked_by_chance_only():
    events = make_events(seed=5, num=100_000, sensor_size=(60, 80), duration_us=500_000)
    assert find_flicker_share(events, 500_000, 100) == pytest.approx(0.01, abs=0.008)


def test_a_burst_is_not_locked():
    t = np.arange(20) * 100
    zeros = np.zeros(20, int)
    assert find_flicker_share(Events.from_columns(t, zeros, zeros, zeros + 1, (1, 1)), 100_000, 100) == 0


def test_a_share_of_nothing_is_nan():
    nothing = Events.empty((32, 32))
    shares = [find_on_share(nothing), find_isolated_share(nothing), find_flicker_share(nothing, 100_000, 100)]
    spectrum = find_spectrum(nothing, 100_000, np.array([100.0]))
    assert np.isnan([*shares, *spectrum, *share_intervals(find_intervals_us(nothing))]).all()
    assert len(count_bursts(nothing)) == 0
    assert np.isnan(find_block_variation(find_isolated_rates_hz(nothing, 100_000)))


def test_recordings_too_short_to_tell_are_refused():
    with pytest.raises(ValueError, match="five periods"):
        find_flicker_share(FEW, 1000, 100)
    with pytest.raises(ValueError, match="not longer"):
        find_isolated_rates_hz(FEW, 10_000)


@given(seed=st.integers(0, 99), num=st.integers(0, 300), radius=st.integers(0, 2), within_us=st.integers(1, 5000))
def test_isolation_is_what_its_definition_says(seed, num, radius, within_us):
    events = make_events(seed=seed, num=num, sensor_size=(6, 7))
    t, x, y = (column.astype(int) for column in (events.t, events.x, events.y))
    expected = []
    for i in range(num):
        near = (np.abs(x[:i] - x[i]) <= radius) & (np.abs(y[:i] - y[i]) <= radius) & (t[:i] > t[i] - within_us)
        expected.append(t[i] - t[0] >= within_us and not near.any())
    assert find_isolated(events, radius, within_us).tolist() == expected


@given(seed=st.integers(0, 99), num=st.integers(0, 300))
def test_every_event_is_in_one_burst_and_ends_one_interval(seed, num):
    events = make_events(seed=seed, num=num, sensor_size=(3, 4))
    num_active = len(np.unique(events.y.astype(int) * 4 + events.x))
    assert count_bursts(events).sum() == num
    assert len(find_intervals_us(events)) == num - num_active
