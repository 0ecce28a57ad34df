"""Pixels whose voltage is a Brownian motion, against what is known of such motions in closed form."""

import numpy as np
import pytest
from simulator.test_simulator_sensor import events_from_intensity, intensity_of, perfect_pixels

from data_simu import SimulationConfig, simulate
from data_simu.config import SensorConfig
from data_simu.scalars import DARK
from data_simu.sensor.firing import NOISE
from data_simu.sensor.sensor import draw_pixels

END_US = 200_000


def stray_pixels(num, noise_hz, threshold=0.2, floor=1.0, **changes):
    """Perfect pixels but for the noise of their voltage, which no light lowers."""
    pixels = perfect_pixels(num, threshold, **changes)
    constants = pixels.constants._replace(is_brownian=True, noise_floor=np.float32(floor))
    return pixels._replace(noise_hz=np.full(num, noise_hz, np.float32), constants=constants)


def test_without_noise_a_ramp_fires_at_the_predicted_times():
    ramp = intensity_of([[0], [2.05]])
    events = events_from_intensity(stray_pixels(1, 0.0), np.array([0.0, 20_500.0]), ramp, 20_500)
    assert np.abs(events.t - np.arange(2_000, 20_500, 2_000)).max() <= 1
    assert (events.p == 1).all()


@pytest.mark.parametrize("step_us", [500.0, 20_000.0])
def test_under_drift_intervals_are_inverse_gaussian(step_us):
    """A slope of 100 per second reaches 0.2 after 2 ms; noise of variance 20 x 0.2^2 per second spreads it by 20 %."""
    t = np.arange(0, END_US + 1, step_us)
    ramp = intensity_of(np.repeat(1e-4 * t[:, None], 200, axis=1))
    events = events_from_intensity(stray_pixels(200, 20.0), t, ramp, END_US)
    order = np.lexsort((events.t, events.x))
    gaps = np.diff(events.t[order])[np.diff(events.x[order].astype(int)) == 0]
    assert (events.p == 1).mean() > 0.999
    assert gaps.mean() == pytest.approx(2_000, rel=0.01)
    assert gaps.std() == pytest.approx(2_000 * np.sqrt(20 * 0.002), rel=0.03), "Its variance is threshold s^2 / m^3."
    skewness = ((gaps - gaps.mean()) ** 3).mean() / gaps.std() ** 3
    assert skewness == pytest.approx(3 * np.sqrt(20 * 0.002), rel=0.2), "Three times the relative deviation."


def test_in_the_dark_noise_fires_at_the_rate_that_is_asked_for():
    """From the middle of two thresholds a motion of variance r x on x off per second takes 1 / r on average to leave.

    The deviation of that time is sqrt(2 / 3) of it, so that n expected ones are n - 1 / 6 after a start there.
    """
    t = np.arange(0, END_US + 1, 4_000.0)
    events = events_from_intensity(stray_pixels(2_000, 12.0), t, np.zeros((len(t), 1, 2_000)), END_US)
    assert len(events) == pytest.approx((12 * 0.2 - 1 / 6) * 2_000, rel=0.05)
    assert (events.p > 0).mean() == pytest.approx(0.5, abs=0.03)


def test_light_lowers_the_noise_down_to_its_floor():
    t, bright = np.arange(0, END_US + 1, 4_000.0), 99 * DARK
    counts = []
    for floor in (0.0, 0.5, 1.0):
        view = np.full((len(t), 1, 2_000), bright)
        counts.append(len(events_from_intensity(stray_pixels(2_000, 40.0, floor=floor), t, view, END_US)))
    # A hundred times the light leaves a tenth of the deviation, or 0.55 of it, and so a hundredth and 0.3 of the rate.
    assert counts[0] < 20, "Of 0.08 expected times nearly none is long enough ago."
    assert counts[1:] == pytest.approx([(8 * 0.3025 - 1 / 6) * 2_000, (8 - 1 / 6) * 2_000], rel=0.05)


def test_a_pixel_is_dead_after_an_event():
    pixels = stray_pixels(50, 50.0, 0.01, refractory_us=700.0)
    ramp = intensity_of(np.outer([0, 5], np.ones(50)))
    events = events_from_intensity(pixels, np.array([0.0, 50_000.0]), ramp, 50_000)
    order = np.lexsort((events.t, events.x))
    assert np.diff(events.t[order])[np.diff(events.x[order].astype(int)) == 0].min() >= 699


def test_a_share_of_the_recordings_has_such_pixels():
    config = SensorConfig(brownian_share=0.5)
    kinds = [draw_pixels(config, (2, 2), np.random.default_rng(seed)).constants for seed in range(40)]
    assert 10 < sum(kind.is_brownian for kind in kinds) < 30
    usual = [draw_pixels(SensorConfig(), (2, 2), np.random.default_rng(seed)).constants for seed in range(40)]
    assert all(a == b for a, b in zip(kinds, usual, strict=True) if not a.is_brownian), "Nothing else is drawn anew."


def test_a_pair_of_such_pixels_repeats_and_names_its_noise():
    small = SimulationConfig(sensor_size=(24, 32), duration_us=30_000, warmup_us=5_000)
    config = small.model_copy(update={"sensor": SensorConfig(brownian_share=1.0, noise_hz=(20, 20))})
    first, second = simulate(config, 3), simulate(config, 3)
    assert np.array_equal(first.flare.t, second.flare.t)
    assert first.plan["sensor"]["model"] == "brownian"
    assert (first.flare_label == NOISE).any()
