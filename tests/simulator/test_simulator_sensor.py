"""The sensor against what can be predicted by hand: event times, rates, the suppression law, causes, noise."""

import numpy as np
import pytest

from data_simu.config import SensorConfig, SimulationConfig
from data_simu.scalars import DARK
from data_simu.scene.flicker import make_mains, make_pulses, make_rectified
from data_simu.sensor.firing import BACKGROUND, FLARE, LIGHT, NOISE
from data_simu.sensor.look_times import find_moments
from data_simu.sensor.pixel import exp_of_negative, jitter, log, shortfall
from data_simu.sensor.sensor import Constants, PairedSensor, Pixels, View, draw_pixels, merge_recording
from data_simu.sensor.tiles import CLEAN, REAL
from data_simu.sensor.time_order import sort_events
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.settings import ConfigError, load_config


def perfect_pixels(num, threshold=0.2, **changes):
    """Pixels without mismatch, jitter, dead time, leak or noise, and far faster than anything they see."""
    perfect = {"corner_hz": 1e9, "ceiling_hz": 1e9, "refractory_us": 0.0, "jitter": 0.0, "leak_per_us": 0.0}
    scalars = {name: np.float32(value) for name, value in (perfect | changes).items()}
    constants = Constants(**scalars, seed=np.uint64(0), noise_seed=np.uint64(1))
    same, nothing = np.full(num, threshold, np.float32), np.zeros(num, np.float32)
    return Pixels(on=same, off=same, start=nothing, noise_hz=nothing, constants=constants)


def first_part(pixels):
    """The same pixels as if they were the first of their sensor."""
    return pixels._replace(constants=pixels.constants._replace(first=0))


def intensity_of(log_intensity):
    """Pictures (times, 1, pixels) whose logarithm, dark current included, is as given."""
    return np.exp(np.asarray(log_intensity, float))[:, None, :] - DARK


def events_from_intensity(pixels, t_us, intensity, t_end_us):
    """Events up to `t_end_us` of a sensor that sees pictures (times, H, W), straight between their times."""
    sensor = PairedSensor(pixels, np.inf, (int(np.floor(t_us[0])), t_end_us))
    direct = np.asarray(intensity, np.float32)[:, None]
    sensor.advance(find_moments([], np.asarray(t_us, np.float64)), View(direct, direct[:, :0]))
    return merge_recording([sensor], CLEAN, intensity.shape[1:]).events


def test_a_ramp_of_the_log_intensity_fires_at_the_predicted_times():
    """A slope of 100 per second and a threshold of 0.2 give an event every 2,000 us."""
    events = events_from_intensity(perfect_pixels(1), np.array([0.0, 20_500.0]), intensity_of([[0], [2.05]]), 20_500)
    assert np.abs(events.t - np.arange(2_000, 20_500, 2_000)).max() <= 1
    assert (events.p == 1).all()


def test_a_falling_ramp_fires_negative_events():
    events = events_from_intensity(perfect_pixels(1), np.array([0.0, 10_000.0]), intensity_of([[1], [0]]), 10_000)
    assert events.p.tolist() == [-1] * len(events)
    assert len(events) in (4, 5), "A fall of 1 crosses a threshold of 0.2 four times, and the fifth time at the end."


def test_halving_the_threshold_doubles_the_events():
    t = np.linspace(0, 100_000, 201)
    swing = intensity_of(1.5 * np.sin(2 * np.pi * t / 50_000)[:, None])
    few, many = (len(events_from_intensity(perfect_pixels(1, c), t, swing, 100_000)) for c in (0.02, 0.01))
    assert many / few == pytest.approx(2, abs=0.03)


def test_a_slow_pixel_smooths_what_a_fast_one_sees():
    t = np.linspace(0, 100_000, 2_001)
    swing = intensity_of(1 + 0.8 * np.sin(2 * np.pi * 500 * t / 1e6)[:, None])
    fast = len(events_from_intensity(perfect_pixels(1), t, swing, 100_000))
    slow = len(events_from_intensity(perfect_pixels(1, corner_hz=5.0), t, swing, 100_000))
    assert slow < 0.5 * fast


def test_the_refractory_time_is_kept():
    pixels = perfect_pixels(1, 0.01, refractory_us=700.0)
    events = events_from_intensity(pixels, np.array([0.0, 50_000.0]), intensity_of([[0], [5]]), 50_000)
    assert np.diff(events.t).min() >= 699


def test_the_pole_follows_a_step_exponentially():
    """With a time constant of 10 ms a step of 1 passes 0.2, 0.4, 0.6, 0.8 at -tau log(1 - y)."""
    corner = 1e6 / (2 * np.pi * 10_000)
    pixels = perfect_pixels(1, corner_hz=1e12, ceiling_hz=corner)
    t = np.concatenate([[0.0, 1e-3], np.arange(20.0, 40_000, 20)])
    picture = intensity_of(np.concatenate([[[0.0]], np.ones((len(t) - 1, 1))]))
    events = events_from_intensity(pixels, t, picture, 40_000)
    expected = -10_000 * np.log(1 - np.array([0.2, 0.4, 0.6, 0.8]))
    assert np.abs(events.t - expected).max() < 10


def advance(sensor, waveforms, times_us, view, keys_at_once=8):
    """Let the sensor see one picture all the time."""
    for first in range(0, len(times_us) - 1, keys_at_once):
        keys = times_us[first : first + keys_at_once + 1]
        still = View(*(np.broadcast_to(part, (len(keys), *part.shape)) for part in view))
        sensor.advance(find_moments(waveforms, keys), still)


def lamp_events(waveform, direct=1.0, flare=0.0, num=400, duration_us=200_000):
    """Both recordings of pixels that see nothing but a lamp of that waveform on a dim ground."""
    sensor = PairedSensor(perfect_pixels(num, 0.15), 0.002, (0, duration_us))
    pictures = np.full((2, 1, num), 0.2, np.float32)
    pictures[1] = direct
    view = (pictures, np.full((1, 1, num), flare, np.float32))
    advance(sensor, [waveform], np.arange(0, duration_us + 1, 4_000.0), view)
    return [merge_recording([sensor], which, (1, num)) for which in (CLEAN, REAL)]


@pytest.mark.parametrize(
    "waveform", [make_mains(120, 0.8, 0, 0.3), make_pulses(200, 0.4, 50, 0), make_rectified(100, 0.1, 0.6)]
)
def test_a_lamps_events_have_their_line_at_its_frequency(waveform):
    found, _ = lamp_events(waveform)
    rate = np.histogram(found.events.t[found.events.p > 0], np.arange(0, 200_001, 500))[0]
    spectrum = np.abs(np.fft.rfft(rate - rate.mean()))
    frequencies = np.fft.rfftfreq(len(rate), 500e-6)
    strongest = frequencies[spectrum > 0.5 * spectrum.max()]
    assert np.abs(strongest / waveform.flicker_hz - np.round(strongest / waveform.flicker_hz)).max() < 0.05
    assert np.abs(strongest - waveform.flicker_hz).min() <= 5
    assert set(found.label) == {LIGHT}, "Every event of a lamp is labelled light source."


def test_events_are_named_after_what_changed_the_light_most():
    clean, real = lamp_events(make_mains(100, 0.8, 0, 0.3), direct=0.001, flare=1.0)
    assert len(clean.events) == 0
    assert set(real.label) == {FLARE}
    clean, real = lamp_events(make_mains(100, 0.8, 0, 0.3), direct=1.0, flare=0.3)
    assert set(clean.label) == set(real.label) == {LIGHT}, "Flare adds the smaller part of each change."


def test_a_moving_background_under_steady_flare_is_background():
    sensor = PairedSensor(perfect_pixels(1), 0.002, (0, 4_000))
    direct = np.array([[[[1.0]], [[0.0]]], [[[9.0]], [[0.0]]]], np.float32)
    view = View(direct, np.ones((2, 1, 1, 1), np.float32))
    sensor.advance(find_moments([make_mains(100, 0, 0, 0)], np.array([0.0, 4_000.0])), view)
    real = merge_recording([sensor], REAL, (1, 1))
    assert len(real.events) == np.floor(np.log((10 + DARK) / (2 + DARK)) / 0.2)
    assert set(real.label) == {BACKGROUND}


def test_a_pixel_that_flare_does_not_reach_is_copied():
    config = SensorConfig(jitter=0.1, refractory_us=(100, 100))
    sensor = PairedSensor(draw_pixels(config, (1, 700), np.random.default_rng(0)), 0.01, (0, 32_000))
    flare = np.zeros((9, 1, 1, 700), np.float32)
    flare[..., :300] = 2.0
    direct = np.ones((9, 2, 1, 700), np.float32)
    direct[1::2] = 2
    sensor.advance(find_moments([make_mains(100, 0.3, 0, 0)], np.arange(9) * 4_000.0), View(direct, flare))
    clean, real = (merge_recording([sensor], view, (1, 700)) for view in (CLEAN, REAL))
    outside = [found.events[found.events.x >= 300].to_array() for found in (clean, real)]
    assert len(outside[0]) > 400
    assert np.array_equal(*outside)
    inside = [found.events[found.events.x < 300].to_array() for found in (clean, real)]
    assert len(inside[1]) < 0.8 * len(inside[0]), "Steady light over a pixel takes contrast away."


@pytest.mark.parametrize("flare", [0.25, 1.0, 3.0])
def test_constant_flare_suppresses_the_background_as_i_over_i_plus_f(flare):
    rng = np.random.default_rng(0)
    t = np.linspace(0, 200_000, 401)
    phase, rate = rng.uniform(0, 2 * np.pi, 300), rng.uniform(5, 25, 300)
    background = np.exp(0.8 * np.sin(2 * np.pi * rate * t[:, None] / 1e6 + phase)) - DARK
    lifted = background + flare
    counts = [
        len(events_from_intensity(perfect_pixels(300, 0.02), t, picture[:, None, :], 200_000))
        for picture in (background, lifted)
    ]
    slope = np.abs(np.diff(np.log(background + DARK), axis=0))
    middle = (background[1:] + background[:-1]) / 2 + DARK
    expected = (slope * middle / (middle + flare)).sum() / slope.sum()
    assert counts[1] / counts[0] == pytest.approx(expected, rel=0.05)


def test_leak_fires_positive_noise_at_its_rate():
    pixels = perfect_pixels(200, 0.2, leak_per_us=0.2 * 50 / 1e6)
    pixels = pixels._replace(start=np.linspace(-1, 1, 200, dtype=np.float32))
    sensor = PairedSensor(pixels, 0.002, (0, 200_000))
    advance(sensor, [], np.arange(51) * 4_000.0, (np.ones((1, 1, 200), np.float32), np.zeros((0, 1, 200), np.float32)))
    found = merge_recording([sensor], CLEAN, (1, 200))
    assert len(found.events) == pytest.approx(0.2 * 50 * 200, rel=0.06)
    assert (found.events.p == 1).all()
    assert np.mean(found.label == NOISE) > 0.9, "Only where a pixel began near its threshold is there another cause."


def test_noise_falls_with_light():
    counts = []
    for level in (0.0, 30.0):
        pixels = perfect_pixels(400)._replace(noise_hz=np.full(400, 50, np.float32))
        sensor = PairedSensor(pixels, 0.002, (0, 1_000_000))
        view = (np.full((1, 20, 20), level, np.float32), np.zeros((0, 20, 20), np.float32))
        advance(sensor, [], np.array([0.0, 1e6]), view)
        found = merge_recording([sensor], CLEAN, (20, 20))
        assert set(found.label) == {NOISE}
        counts.append(len(found.events))
    assert counts[0] == pytest.approx(50 * 400, rel=0.03)
    assert counts[1] == pytest.approx(counts[0] / np.sqrt(31), rel=0.1)


def test_a_sensor_in_parts_is_the_same_sensor():
    pixels = draw_pixels(SensorConfig(jitter=0.1), (4, 100), np.random.default_rng(2))
    t = np.arange(0, 20_001, 2_000.0)
    swing = np.exp(np.sin(np.arange(400) + t[:, None] / 1_500)).reshape(len(t), 4, 100).astype(np.float32)
    whole = events_from_intensity(pixels, t, swing, 20_000)
    assert len(whole) > 1_000
    part = events_from_intensity(first_part(pixels.part(200, 400)), t, swing[:, 2:], 20_000)
    assert not np.array_equal(part.t, whole[whole.y >= 2].t), "Jitter depends on where in the sensor a pixel is."
    without_jitter = pixels.constants._replace(jitter=np.float32(0))
    steady = pixels._replace(constants=without_jitter, noise_hz=np.zeros(400, np.float32))
    whole = events_from_intensity(steady, t, swing, 20_000)
    part = events_from_intensity(first_part(steady.part(200, 400)), t, swing[:, 2:], 20_000)
    assert np.array_equal(part.t, whole[whole.y >= 2].t)


def test_events_are_put_in_the_order_of_time_then_pixel():
    rng = np.random.default_rng(0)
    t, code = rng.integers(-50, 150, 5_000).astype(np.int32), rng.integers(0, 99, 5_000).astype(np.uint32)
    inside = (t >= 0) & (t < 100)
    expected = sorted(zip(t[inside].tolist(), code[inside].tolist(), strict=True))
    found = sort_events(t, code, 0, 100)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected


def test_logarithm_and_exponential_are_good_to_32_bits():
    x = np.exp(np.linspace(-6, 16, 999)).astype(np.float32)
    assert np.abs([log(v) for v in x] - np.log(x.astype(float))).max() < 1e-6
    z = -np.linspace(0, 79, 999).astype(np.float32)
    assert np.abs(np.array([exp_of_negative(v) for v in z]) / np.exp(z.astype(float)) - 1).max() < 1e-5
    assert exp_of_negative(np.float32(0)) == 1
    z = np.exp(np.linspace(-14, 4, 999)).astype(np.float32)
    behind = np.array([shortfall(v, exp_of_negative(-v)) for v in z])
    assert np.abs(behind / (-np.expm1(-z.astype(float)) / z) - 1).max() < 3e-5


def test_jitter_has_the_deviation_it_is_given():
    draws = np.array([jitter(np.float32(0.02), np.uint64(7), pixel, n) for pixel in range(300) for n in range(30)])
    assert draws.mean() == pytest.approx(1, abs=1e-3)
    assert draws.std() == pytest.approx(0.02, rel=0.05)


def test_events_do_not_depend_on_the_length_of_the_steps():
    """Pulses on slow and fast pixels under flare: long steps from bend to bend, or 40 times shorter ones."""
    rng = np.random.default_rng(3)
    for corner_hz in (30.0, 300.0):
        pixels = perfect_pixels(300, 0.2, corner_hz=corner_hz, ceiling_hz=5_000.0, refractory_us=400.0)
        pixels = pixels._replace(start=rng.uniform(-1, 1, 300).astype(np.float32))
        view = (rng.uniform(0.2, 2, (2, 1, 300)).astype(np.float32), np.full((1, 1, 300), 1.5, np.float32))
        counts, labels = [], []
        for step_us in (4_000.0, 100.0):
            sensor = PairedSensor(pixels, 0.002, (0, 60_000))
            advance(sensor, [make_pulses(90, 0.4, 60, 0.1)], np.arange(0, 60_001, step_us), view)
            real = merge_recording([sensor], REAL, (1, 300))
            counts.append(len(real.events))
            labels.append(np.bincount(real.label, minlength=4))
        assert counts[0] > 2_000
        assert counts[0] == pytest.approx(counts[1], rel=0.02), f"{counts} events at a corner of {corner_hz} Hz."
        assert np.abs(labels[0] - labels[1]).max() < 0.02 * counts[1], f"Labels {labels} depend on the steps."
        assert labels[0][BACKGROUND] < 300, "Nothing but the lamp changes, once a pixel has fired from where it began."


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sensor.noise_hz=[0, 3]", r"'sensor\.noise_hz': must be \[lowest, highest\] above 0.*received \[0, 3\]"),
        ("sensor.refractory_us=[-5, 3]", "above 0, since its logarithm is drawn"),
        ("sensor.threshold=[0.5, 0.1]", r"'sensor\.threshold': must be \[lowest, highest\], received \[0\.5, 0\.1\]"),
        ("sensor.corner_hz=[0, 5]", r"'sensor\.corner_hz\.0'.*greater than 0"),
        ("scene.num_objects=[-1, 2]", r"'scene\.num_objects\.0'.*greater than or equal to 0"),
        ("sources.flicker_shares={mains: -1}", r"'sources\.flicker_shares\.mains'"),
        ("sources.flicker_shares={mains: 0}", r"'sources\.flicker_shares': must hold at least one share above 0"),
        ("sources.flicker_shares={}", "at least one share above 0"),
        ("scene.families=[]", r"'scene\.families'.*at least 1 item"),
        ("optics.blades=[]", r"'optics\.blades'.*at least 1 item"),
        ("optics.blades=[5, 2]", r"'optics\.blades\.1': must be 0, a circle, or at least 3 blades \(received 2\)"),
        ("sources.mains_hz=[]", r"'sources\.mains_hz'.*at least 1 item"),
        ("sources.mains_hz=[0]", r"'sources\.mains_hz\.0'.*greater than 0"),
        ("sources.pwm_hz=[]", r"'sources\.pwm_hz'.*at least 1 item"),
        ("sources.pwm_hz=[90, -1]", r"'sources\.pwm_hz\.1'.*greater than 0"),
        ("seed=-1", "'seed'.*greater than or equal to 0"),
    ],
)
def test_a_range_that_nothing_can_be_drawn_from_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        load_config(SimulationConfig, PROJECT_ROOT / "configs/simu_config.yaml", [setting])


def test_bounds_of_zero_switch_noise_off():
    config = load_config(SimulationConfig, PROJECT_ROOT / "configs/simu_config.yaml", ["sensor.noise_hz=[0, 0]"])
    pixels = draw_pixels(config.sensor, (8, 8), np.random.default_rng(0))
    assert pixels.noise_hz.max() == 0, "Without hot pixels among so few, nothing fires by itself."
