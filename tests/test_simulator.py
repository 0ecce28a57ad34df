"""The simulator against what can be predicted by hand: event times, rates, the suppression law, geometry, energy."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_simu import SimulationConfig, render, simulate, write_dataset
from data_simu.config import OpticsConfig, SensorConfig, SourceConfig
from data_simu.flicker import draw_waveform, mains, pulses, rectified
from data_simu.optics import add_shifted, draw_lens, flare_kernel, ghosts_of, veil_kernel
from data_simu.pairs import pair_files, pair_seed
from data_simu.scene import draw_scene
from data_simu.sensor import DARK, FLARE, LabelledEvents, PairedSensor, Pixels, draw_pixels, events_from_intensity
from data_simu.simulation import set_up
from data_simu.targets import make_target
from deflare_core.config import make_config
from deflare_core.dataset import verify_folders
from deflare_core.events import Events
from deflare_core.recordings import RecordingError

SMALL = SimulationConfig(sensor_size=(48, 64), duration_us=60_000, num_train=2, num_test=1)


def perfect_pixels(num, threshold=0.2, **changes):
    """Pixels without mismatch, jitter, dead time, leak or noise, and far faster than anything they see."""
    constants = {
        "corner_hz": 1e9,
        "ceiling_hz": 1e9,
        "refractory_us": 0.0,
        "jitter": 0.0,
        "leak_hz": 0.0,
        "noise_hz": 0.0,
    }
    return Pixels(on=np.full(num, threshold), off=np.full(num, threshold), seed=0, **(constants | changes))


def intensity_of(log_intensity):
    """Pictures (times, 1, pixels) whose logarithm, dark current included, is as given."""
    return np.exp(np.asarray(log_intensity, float))[:, None, :] - DARK


@pytest.fixture(scope="module")
def pair():
    return simulate(SMALL, 1)


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


def lamp_events(waveform, num=400, duration_us=200_000):
    """Events of pixels that see nothing but a lamp of that waveform."""
    sensor = PairedSensor(perfect_pixels(num, 0.15), (1, num), 0.002)
    edges = np.arange(0, duration_us + 1, 4_000.0)
    dark, lit = np.full((1, num), 0.2, np.float32), np.ones((1, 1, num), np.float32)
    for start, end in pairwise(edges):
        knots = np.unique(np.concatenate([[start, end], waveform.bends_us(start, end)]))
        sensor.advance(knots, waveform.at(knots)[:, None], (dark, dark), (lit, lit), (0 * lit, 0 * lit))
    return sensor.recordings(0, duration_us)[0]


@pytest.mark.parametrize("waveform", [mains(120, 0.8, 0, 0.3), pulses(200, 0.4, 50, 0), rectified(100, 0.1, 0.6)])
def test_a_lamps_events_have_their_line_at_its_frequency(waveform):
    found = lamp_events(waveform)
    rate = np.histogram(found.events.t[found.events.p > 0], np.arange(0, 200_001, 500))[0]
    spectrum = np.abs(np.fft.rfft(rate - rate.mean()))
    frequencies = np.fft.rfftfreq(len(rate), 500e-6)
    strongest = frequencies[spectrum > 0.5 * spectrum.max()]
    assert np.abs(strongest / waveform.flicker_hz - np.round(strongest / waveform.flicker_hz)).max() < 0.05
    assert np.abs(strongest - waveform.flicker_hz).min() <= 5
    assert set(found.label) == {1}, "Every event of a lamp is labelled light source."


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


def test_without_flare_input_and_target_are_one(pair):
    perfect_lens = SMALL.model_copy(update={"optics": OpticsConfig(strength=0)})
    found = simulate(perfect_lens, 1)
    assert all(np.array_equal(getattr(found.flare, name), getattr(found.clean, name)) for name in "txyp")
    assert not (found.flare_label == FLARE).any()
    assert len(found.clean) > 0


def test_outside_the_flare_the_recordings_are_identical_event_for_event():
    weak = OpticsConfig(strength=0.02)
    config = SMALL.model_copy(update={"target": "physical", "min_flare_share": 0.05, "optics": weak})
    setup = set_up(config, 1)
    found = simulate(config, 1)
    share = np.zeros(config.sensor_size)
    for t_us in np.linspace(-config.warmup_us, config.duration_us, 30):
        ideal, real = render(config, 1, t_us)
        share = np.maximum(share, (real - ideal) / (np.minimum(ideal, 1e9) + DARK))
    quiet = share * max(lamp.waveform.values.max() for lamp in setup.scene.lamps) ** 2 < 0.01
    assert 0 < quiet.sum() < quiet.size, "This scene has pixels that flare reaches and pixels that it does not."
    cut = [e[quiet[e.y.astype(int), e.x.astype(int)]] for e in (found.flare, found.clean)]
    assert np.array_equal(cut[0].to_array(), cut[1].to_array())


@pytest.mark.parametrize("target", ["physical", "snapped", "subset"])
def test_no_target_holds_an_event_that_flare_caused(target):
    found = simulate(SMALL.model_copy(update={"target": target}), 1)
    assert (found.flare_label == FLARE).sum() > 100, "The input of this seed has flare."
    assert not (found.clean_label == FLARE).any()
    assert len(found.flare_label) == len(found.flare)
    assert len(found.clean_label) == len(found.clean)


def test_a_subset_target_is_a_subset_and_a_snapped_one_shares_more_times_than_the_physical():
    found = {t: simulate(SMALL.model_copy(update={"target": t}), 1) for t in ("physical", "snapped", "subset")}
    rows = {kind: set(map(tuple, f.clean.to_array().tolist())) for kind, f in found.items()}
    given = set(map(tuple, found["subset"].flare.to_array().tolist()))
    assert rows["subset"] <= given
    assert len(found["snapped"].clean) == len(found["physical"].clean), "Snapping moves events, it removes none."
    assert len(rows["snapped"] & given) > len(rows["physical"] & given)


def test_snapping_by_hand():
    def labelled(*rows):
        events = Events.from_array(np.array(rows), (1, 3))
        return LabelledEvents(events, np.zeros(len(rows), np.uint8))

    clean = labelled((1_000, 0, 0, 1), (2_000, 0, 0, 1), (3_000, 1, 0, 1), (9_000, 2, 0, -1))
    real = labelled((1_400, 0, 0, 1), (2_900, 1, 0, -1), (9_000, 0, 0, 1), (20_000, 2, 0, -1))
    snapped = make_target("snapped", clean, real).events
    assert sorted(map(tuple, snapped.to_array().tolist())) == [
        (1_400, 0, 0, 1),  # 400 us away: moved
        (2_000, 0, 0, 1),  # its only candidate is 7 ms away
        (3_000, 1, 0, 1),  # the candidate has the other polarity
        (9_000, 2, 0, -1),  # 11 ms away
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_scene(pair):
    again, other = simulate(SMALL, 1), simulate(SMALL, 2)
    assert pair.flare.to_array().tobytes() == again.flare.to_array().tobytes()
    assert pair.clean_label.tobytes() == again.clean_label.tobytes()
    assert pair.plan == again.plan
    assert other.plan["scene"] != pair.plan["scene"]
    assert len(other.flare) != len(pair.flare)


def test_events_are_sorted_and_inside_the_clock(pair):
    for events in (pair.flare, pair.clean):
        assert (np.diff(events.t) >= 0).all()
        assert events.t[0] >= 0
        assert events.t[-1] < SMALL.duration_us
    assert pair.clock_us == (0, SMALL.duration_us)


def test_the_spread_of_light_has_the_energy_it_is_given():
    rng = np.random.default_rng(0)
    assert flare_kernel(64, 6, rng).sum() == pytest.approx(1, rel=1e-4)
    assert veil_kernel(64, 1.1).sum() == pytest.approx(1, rel=1e-4)
    config = OpticsConfig(log10_scatter=(-2, -2), log10_veil=(-3, -3), strength=2)
    lens = draw_lens(config, (48, 64), rng)
    assert lens.kernel.sum() == pytest.approx(2 * (0.01 + 0.001), rel=1e-3)
    assert lens.kernel[64, 64] == 0, "The core belongs to the direct picture."


def test_blades_make_the_star_they_should():
    """An even number of blades gives as many spikes, an odd one twice as many."""
    for blades, spikes in ((6, 6), (5, 10)):
        kernel = flare_kernel(96, blades, np.random.default_rng(3))
        angle = np.arange(720) * np.pi / 360
        ring = np.mean(
            [
                kernel[np.round(96 + r * np.sin(angle)).astype(int), np.round(96 + r * np.cos(angle)).astype(int)]
                for r in range(25, 60)
            ],
            axis=0,
        )
        spectrum = np.abs(np.fft.rfft(ring - ring.mean()))
        harmonics = spectrum[[spikes, spikes - 1, spikes + 1]]
        assert harmonics[0] > 1.5 * harmonics[1:].max(), f"{blades} blades: no {spikes} spikes."


def test_a_shifted_sprite_keeps_its_sum_and_its_centre():
    sprite = np.zeros((9, 9), np.float32)
    sprite[3:6, 3:6] = 1 / 9
    picture = np.zeros((30, 40), np.float32)
    add_shifted(picture, sprite, 17.3, 11.6, np.float32(2))
    rows, columns = np.indices(picture.shape)
    assert picture.sum() == pytest.approx(2, rel=1e-5)
    assert (picture * columns).sum() / 2 == pytest.approx(17.3, abs=1e-4)
    assert (picture * rows).sum() / 2 == pytest.approx(11.6, abs=1e-4)


def test_a_ghost_of_negative_magnification_moves_opposite_to_its_source():
    lens = draw_lens(OpticsConfig(), (48, 64), np.random.default_rng(5))
    ghost = replace(lens.ghosts[0], magnification=-0.5, energy=1.0)
    only_ghost = replace(lens, kernel=np.zeros((3, 3), np.float32), ghosts=(ghost,))
    centres = []
    for x in (40.0, 44.0):
        picture = np.zeros((48, 64), np.float32)
        only_ghost.add_flare(picture, x, 23.5, 100.0)
        centres.append((picture * np.arange(64)).sum() / picture.sum())
    assert centres[1] - centres[0] == pytest.approx(-2, abs=0.05)


def test_a_ghost_by_hand():
    """A plane plate before the sensor: light crosses the plate three times instead of once."""
    ((magnification, radius, energy),) = ghosts_of(np.zeros(2), np.array([0.1, 1.0]), np.array([1.0, 1.5, 1.0]))
    assert magnification == pytest.approx((1.0 + 3 * 0.1 / 1.5) / (1.0 + 0.1 / 1.5))
    assert radius == pytest.approx(60)
    assert energy == pytest.approx(0.25**2 * 0.2**4)


def test_waveforms_have_mean_one_and_repeat():
    rng = np.random.default_rng(0)
    for _ in range(40):
        waveform = draw_waveform(SourceConfig(), rng)
        period_us = 1e6 / waveform.flicker_hz if waveform.flicker_hz else 1e4
        t = np.linspace(0, period_us, 20_001)[:-1]
        assert waveform.at(t).mean() == pytest.approx(1, rel=0.01), waveform.kind
        assert np.allclose(waveform.at(t), waveform.at(t + period_us), atol=0.02 * (1 + waveform.depth))
        assert waveform.at(t).min() >= 0


def test_a_lamp_in_view_is_drawn_where_its_picture_is():
    config = make_config(SimulationConfig, {"sensor_size": [60, 80]}, ["sources.num_sources=[1,1]"])
    seen = 0
    for seed in range(12):
        scene = draw_scene(config.scene, config.sources, np.random.default_rng(seed))
        x, y, radius = scene.lamp_image(scene.lamps[0], (60, 80), 0)
        if radius > 0 and 2 < x < 77 and 2 < y < 57:
            _, lit = scene.render((60, 80), 0)
            row, column = np.unravel_index(lit[0].argmax(), (60, 80))
            assert np.hypot(row - y, column - x) <= radius + 1.5
            seen += 1
    assert seen > 3


def test_a_data_set_is_complete_repeatable_and_continues(tmp_path):
    manifest = json.loads(write_dataset(SMALL, tmp_path / "a", workers=2, progress=False).read_text())
    report = verify_folders(tmp_path / "a/background_with_flare_events", tmp_path / "a/background_with_light_events")
    assert (report.num_pairs, report.problems) == (2, [])
    assert [entry["split"] for entry in manifest["recordings"]] == ["train", "train", "test"]
    victim = tmp_path / "a/background_with_flare_events/composed_00001_bg_flare.h5"
    before, kept = victim.read_bytes(), (victim.parent / "composed_00000_bg_flare.h5").stat().st_mtime_ns
    victim.unlink()
    again = json.loads(write_dataset(SMALL, tmp_path / "a", workers=1, progress=False).read_text())
    assert victim.read_bytes() == before, "A recording made again alone is the same to the byte."
    assert (victim.parent / "composed_00000_bg_flare.h5").stat().st_mtime_ns == kept, "Finished pairs are kept."
    assert again == manifest
    with pytest.raises(RecordingError, match="made with another configuration"):
        write_dataset(SMALL.model_copy(update={"target": "subset"}), tmp_path / "a", progress=False)


def test_training_and_test_seeds_never_meet():
    config = SMALL.model_copy(update={"num_train": 500, "num_test": 50})
    seeds = [file.seed for file in pair_files(config, Path("anywhere"))]
    assert len(set(seeds)) == 550
    assert pair_seed(0, "train", 3) != pair_seed(1, "train", 3)


def test_noise_falls_with_light():
    config = SensorConfig(leak_hz=0, noise_hz=(50, 50))
    counts = []
    for level in (0.01, 30.0):
        pixels = draw_pixels(config, (20, 20), np.random.default_rng(0))
        sensor = PairedSensor(pixels, (20, 20), 0.002)
        view, nothing = np.full((20, 20), level, np.float32), np.zeros((0, 20, 20), np.float32)
        sensor.advance(
            np.array([0.0, 1e6]),
            np.zeros((2, 0)),
            (view, view),
            (nothing, nothing),
            (nothing, nothing),
            np.random.default_rng(1),
        )
        counts.append(len(sensor.recordings(0, 1_000_000)[0].events))
    assert counts[0] == pytest.approx(50 * 400, rel=0.03)
    assert counts[1] == pytest.approx(counts[0] / np.sqrt(31), rel=0.1)
