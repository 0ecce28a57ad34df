"""Sources and scenes: waveforms, where lamps are drawn, what hides them, and pictures that change smoothly."""

from dataclasses import replace

import numpy as np
import pytest

from data_simu.config import SceneConfig, SimulationConfig, SourceConfig
from data_simu.scene.flicker import draw_waveform, make_mains, make_pulses
from data_simu.scene.poses import find_poses
from data_simu.scene.raycast import PYRAMID
from data_simu.scene.row_bands import measure_band_flows, plan_bands
from data_simu.scene.scene import FAMILIES, draw_scene
from data_simu.scene.sources import draw_sources
from data_simu.scene.textures import build_pyramid, draw_textures
from data_simu.sensor.look_times import find_moments
from data_simu.simulation import render_scene, render_scene_rows

SIZE = (60, 80)


def scene_of(seed, **changes):
    """A scene with one group of sources, drawn from a seed."""
    config = SceneConfig(**changes)
    return draw_scene(config, SourceConfig(num_sources=(1, 1)), np.random.default_rng(seed))


def test_waveforms_have_mean_one_and_repeat():
    rng = np.random.default_rng(0)
    for _ in range(40):
        waveform = draw_waveform(SourceConfig(), 100.0, rng)
        period_us = 1e6 / waveform.flicker_hz if waveform.flicker_hz else 1e4
        t = np.linspace(0, period_us, 20_001)[:-1]
        assert waveform.at(t).mean() == pytest.approx(1, rel=0.01), waveform.kind
        assert np.allclose(waveform.at(t), waveform.at(t + period_us), atol=0.02 * (1 + waveform.depth))
        assert waveform.at(t).min() >= 0


def test_bends_are_where_the_waveform_bends():
    waveform = draw_waveform(SourceConfig(flicker_shares={"pwm": 1.0}), 100.0, np.random.default_rng(0))
    bends = waveform.bends_us(0, 50_000)
    assert len(bends) == pytest.approx(4 * 0.05 * waveform.flicker_hz, abs=4)
    knots = np.concatenate([[0], bends, [50_000]])
    between = np.sort(np.random.default_rng(1).uniform(0, 50_000, 500))
    assert np.allclose(np.interp(between, knots, waveform.at(knots)), waveform.at(between), atol=1e-6)


def test_lamps_on_one_mains_share_its_frequency():
    config = SourceConfig(num_sources=(4, 4), flicker_shares={"mains": 1.0})
    planes = np.array([1.5, 5, 5, 5, 50], np.float32)
    _, waveforms = draw_sources(config, ("bulb",), 1.0, planes, np.random.default_rng(0))
    assert len({w.flicker_hz for w in waveforms}) == 1
    assert len({w.phase for w in waveforms}) == 4


@pytest.mark.parametrize(("shares", "expected"), [({}, {"constant", "pwm"}), ({"mains": 1.0}, {"constant"})])
@pytest.mark.parametrize("kind", ["headlights", "tail lights"])
def test_lights_of_cars_do_not_flicker_with_the_mains(kind, shares, expected):
    config = SourceConfig(num_sources=(8, 8), **({"flicker_shares": shares} if shares else {}))
    planes = np.array([1.5, 5, 5, 5, 50], np.float32)
    kinds = [draw_sources(config, (kind,), 1.0, planes, np.random.default_rng(seed))[1] for seed in range(5)]
    assert {waveform.kind for waveforms in kinds for waveform in waveforms} == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lamp_in_view_is_drawn_where_its_picture_is(family):
    seen = 0
    for seed in range(30):
        scene = scene_of(seed, families=(family,), num_objects=(0, 0))
        source = scene.sources[0]
        x, y, depth = scene.project(source.middle_at(0), SIZE, 0)
        if len(scene.sources) == 1 and depth > 0.2 and 2 < x < 77 and 2 < y < 57:
            lit = render_scene(scene, SIZE, 0)[1]
            row, column = np.unravel_index(lit.argmax(), SIZE)
            reach = scene.focal_pixels(SIZE) * (source.radius_m + np.linalg.norm(source.half_axis_m)) / depth
            assert np.hypot(row - y, column - x) <= reach + 1.5
            seen += 1
    assert seen > 3


@pytest.mark.parametrize("family", ["street", "tunnel", "room"])
def test_everything_stands_between_the_walls(family):
    """A pole of 5 m does not pass through a ceiling, nor does a car's light shine in a house."""
    nearest = np.full(4, np.inf)
    for seed in range(60):
        config = SourceConfig(num_sources=(3, 3))
        scene = draw_scene(SceneConfig(families=(family,)), config, np.random.default_rng(seed))
        floor, ceiling, left, right, _ = scene.planes_m
        places = np.array([source.position_m for source in scene.sources])
        middle, size = np.split(scene.boards[:, :5], [3], axis=1)
        low = np.vstack([places, middle - np.pad(size, ((0, 0), (0, 1)))])
        high = np.vstack([places, middle + np.pad(size, ((0, 0), (0, 1)))])
        gaps = floor - high[:, 1], low[:, 1] + ceiling, low[:, 0] + left, right - high[:, 0]
        nearest = np.minimum(nearest, [gap.min() for gap in gaps])
    assert (nearest > -1e-5).all(), f"Beyond floor, ceiling, left and right wall by {nearest} m."


def test_a_board_in_front_hides_a_lamp():
    scene = scene_of(3, families=("room",), num_objects=(1, 1))
    lamp = replace(scene.sources[0], position_m=np.array([0, 0, 5], np.float32), velocity_m_s=np.zeros(3, np.float32))
    shares = []
    for z, x in ((3.0, 0.0), (6.0, 0.0), (3.0, 2.0)):
        board = np.array([[x, 0, z, 0.5, 0.5, 0]], np.float32)
        moved = replace(scene, sources=(lamp,), boards=board, boards_m_s=np.zeros((1, 3), np.float32))
        shares.append(moved.visible_share(lamp, 0))
    assert shares == [0, 1, 1], "In front, behind, beside."


def test_a_band_of_rows_is_that_part_of_the_picture():
    scene = scene_of(5)
    poses = find_poses(scene, SIZE, np.array([0.0, 10_000.0]))
    whole = render_scene(scene, SIZE, 10_000)
    for first in (0, 20, 40):
        part = np.empty((len(whole), 20, SIZE[1]), np.float32)
        render_scene_rows(scene, poses, 1, part, first, SIZE[0])
        assert np.allclose(part, whole[:, first : first + 20], rtol=1e-4)


def test_pictures_change_smoothly_with_motion():
    """Half the motion gives about half of even the largest change: no edge jumps from one pixel to the next."""
    for seed in range(4):
        scene = scene_of(seed, families=("street",), num_objects=(6, 6))
        step_us = 100_000 / measure_band_flows(SimulationConfig(sensor_size=SIZE), scene, [(0, SIZE[0])]).max()
        first, half, whole = (render_scene(scene, SIZE, share * step_us)[0] for share in (0, 0.5, 1))
        changes = [np.sort(np.abs(picture - first), axis=None) for picture in (half, whole)]
        assert changes[0][-5] < 0.65 * changes[1][-5], "Only the four corners, where three planes meet, may jump."


def test_key_times_follow_the_fastest_motion_of_each_band():
    config = SimulationConfig(sensor_size=(480, 640))
    scene = scene_of(101, families=("street",), speed_m_s=(10, 10), turn_deg_s=(0, 0), num_objects=(0, 0))
    bands = plan_bands(config, scene)
    assert all((band.times_us[0], band.times_us[-1]) == (-20_000, 100_000) for band in bands)
    assert [band.first for band in bands[1:]] == [band.last for band in bands[:-1]]
    assert (bands[0].first, bands[-1].last) == (0, 480)
    near_horizon = next(band for band in bands if band.last > 240)
    counts = [len(band.times_us) for band in (near_horizon, bands[-1])]
    assert counts[1] > 1.5 * counts[0], "The road before the camera moves fastest."


def test_flow_is_that_of_a_plane_by_hand():
    """Ahead at 10 m/s towards a wall 5 m away: a pixel r off the centre moves by r * 10 / 5 a second."""
    scene = scene_of(0, families=("wall",), num_objects=(0, 0))
    planes = scene.planes_m.copy()
    planes[4] = 5
    still = replace(scene, planes_m=planes, camera_m_s=np.array([0, 0, 10], np.float32), camera_rad_s=np.zeros(3))
    flow = still.flow((61, 81), 0, 20)
    assert flow[0, 0] == pytest.approx(np.hypot(30, 40) * 2, rel=0.01)
    assert flow.min() < 25


def test_textures_keep_their_mean_from_level_to_level():
    pyramid = draw_textures(("facade",), np.random.default_rng(0))[0]
    assert len(pyramid) == PYRAMID
    assert pyramid[-1] == pytest.approx(pyramid[: 512 * 512].mean(), rel=1e-3)
    assert build_pyramid(np.ones((512, 512), np.float32)).sum() == PYRAMID


def test_every_family_differs_from_seed_to_seed():
    for family in FAMILIES:
        a, b = (render_scene(scene_of(seed, families=(family,)), SIZE, 0) for seed in (0, 1))
        # In the dark there is nothing but a faint ambient light, which differs.
        assert np.abs(a[0] - b[0]).mean() > (0.005 if family == "dark" else 0.02)
        assert np.isfinite(a).all()
        assert (a >= 0).all()


def test_a_lamp_that_is_straight_between_key_times_has_no_knots_between():
    slow, fast = make_mains(100, 0.2, 0, 0.1), make_pulses(500, 0.3, 50, 0.2)
    times_us = np.arange(0, 20_001, 1_000.0)
    moments = find_moments([slow, fast], times_us)
    assert not moments.bends[:, 0].any(), "A fifth of the mean bends by less than 3 % within a millisecond."
    assert moments.bends[:, 1].sum() == pytest.approx(4 * 0.02 * 500, abs=2)
    part = moments.between(3, 4)
    assert (part.t_us[0], part.t_us[-1]) == (3_000, 4_000)
    assert np.allclose(part.brightness[:, 1], fast.at(part.t_us))
