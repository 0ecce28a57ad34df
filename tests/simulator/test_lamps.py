"""Broad lamps: how large their pictures are, where they lie, what hides them, and that alone they are no flare."""

from dataclasses import replace

import numpy as np
import pytest

from data_simu.config import OpticsConfig, SceneConfig, SimulationConfig, SourceConfig
from data_simu.optics.flare import render_flare
from data_simu.optics.lens import draw_lens
from data_simu.scene.flicker import make_flashes
from data_simu.scene.lamp_pictures import REACH, SHAPES, draw_lamp_picture
from data_simu.scene.lamps import KINDS, draw_lamps
from data_simu.scene.poses import find_emitters, find_poses, find_width
from data_simu.scene.raycast import PYRAMID
from data_simu.scene.scene import draw_scene
from data_simu.scene.source import Source
from data_simu.scene.sparkles import draw_sparkles
from data_simu.scene.textures import build_pyramid
from data_simu.simulation import render_scene, simulate

SIZE = (120, 160)
RNG = np.random.default_rng
PLANES = np.array([1.5, 5, 5, 5, 50], np.float32)


def draw_plain(shape, seed=0):
    """The pyramid of a lamp of a shape whose edge is hard and whose face is even."""
    inside = SHAPES[shape](RNG(seed))
    return build_pyramid(np.clip(0.5 + inside / 0.008, 0, 1), darkest=0.0)


def scene_with(picture, half_axis, second_axis, place=(0, 0, 5)):
    """A camera that stands still before a lamp of radiance 1 in the dark."""
    scene = draw_scene(SceneConfig(families=("dark",), still_share=1.0), SourceConfig(num_sources=(1, 1)), RNG(0))
    axes = [np.array(axis, np.float32) for axis in (half_axis, second_axis)]
    still = np.zeros(3, np.float32)
    lamp = Source("lamp", 0, np.array(place, np.float32), still, axes[0], float(np.linalg.norm(axes[0])), 1.0,
                  second_axis_m=axes[1], picture=picture, num_cells=4)  # fmt: skip
    textures = np.concatenate([scene.textures, picture])
    return replace(scene, sources=(lamp,), waveforms=scene.waveforms[:1], textures=textures)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("half_m", [0.02, 0.2, 1.0])
def test_a_lamp_has_as_many_pixels_as_its_area_says(shape, half_m):
    """From 0.6 to 29 pixels of half a side: the light of the picture is radiance times area times focal^2 / depth^2."""
    scene = scene_with(draw_plain(shape), (half_m, 0, 0), (0, half_m, 0))
    light = render_scene(scene, SIZE, 0)[1].sum()
    expected = scene.sources[0].area_m2 * (scene.focal_pixels(SIZE) / 5) ** 2
    assert light == pytest.approx(expected, rel=0.08), f"{shape}: {light} pixels, the area says {expected}."
    flux = find_emitters(scene, SIZE, np.array([0.0]))[0, :, 2].sum()
    assert flux == pytest.approx(expected, rel=0.02), f"Flare is made of {flux} pixels, the area says {expected}."


def test_a_tilted_lamp_is_as_much_smaller_as_its_cosine():
    flat, tilted = (
        (find_emitters(scene, SIZE, np.array([0.0]))[0, :, 2].sum(), render_scene(scene, SIZE, 0)[1].sum())
        for axis in ((0, 0.3, 0), (0, 0.15, 0.3 * np.sqrt(0.75)))
        for scene in [scene_with(draw_plain("disc"), (0.3, 0, 0), axis)]
    )
    assert tilted[1] / flat[1] == pytest.approx(0.5, rel=0.05)
    assert tilted[0] / flat[0] == pytest.approx(0.5, rel=0.05), "So does what makes its flare."


def test_a_tube_turned_by_30_degrees_lies_on_its_line():
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    lit = render_scene(scene_with(draw_plain("tube", 1), (c, s, 0), (-s, c, 0)), SIZE, 0)[1]
    rows, columns = np.nonzero(lit > 0.5)
    slope = np.polyfit(columns, rows, 1)[0]
    assert slope == pytest.approx(np.tan(np.pi / 6), abs=0.03)
    assert np.hypot(np.ptp(rows), np.ptp(columns)) == pytest.approx(2 * REACH * 0.9 * 160 / 5, rel=0.1)


def test_a_board_hides_the_part_of_a_lamp_that_it_covers():
    scene = scene_with(draw_plain("disc"), (0.5, 0, 0), (0, 0.5, 0))
    board = np.array([[-2, 0, 3, 2, 2, 0]], np.float32)
    mapping = np.vstack([scene.mapping, scene.mapping[-1:]])
    half = replace(scene, boards=board, boards_m_s=np.zeros((1, 3), np.float32), mapping=mapping)
    whole, seen = (render_scene(s, SIZE, 0)[1] for s in (scene, half))
    assert seen[:, :78].sum() < 0.01 * whole.sum()
    assert np.allclose(seen[:, 83:], whole[:, 83:])
    emitters = find_emitters(half, SIZE, np.array([0.0]))[0]
    assert emitters[:, 2].sum() == pytest.approx(seen.sum(), rel=0.1), "What is hidden makes no flare either."


def test_larger_lamps_are_dimmer_and_as_large_as_asked():
    config = SourceConfig(broad_mrad=(10, 100), size_power=(1, 1))
    for seed in range(60):
        for lamp in draw_lamps(config, 0, 1000.0, PLANES, RNG(seed)):
            radius = 1e3 * lamp.radius_m
            assert 0 < lamp.radiance <= 1000
            assert lamp.picture.shape == (PYRAMID,)
            assert lamp.picture.max() <= 1
            assert radius <= 3.0 * 100 * 30, lamp.kind
    small, large = (
        [s.radiance for seed in range(40) for s in draw_lamps(SourceConfig(broad_mrad=mrad), 0, 1.0, PLANES, RNG(seed))]
        for mrad in ((7, 7), (90, 90))
    )
    assert np.median(small) > 5 * np.median(large)


def test_every_kind_of_lamp_is_drawn_and_hangs_between_the_walls():
    kinds = set()
    for seed in range(150):
        lamps = draw_lamps(SourceConfig(outside_share=0.5), 0, 100.0, PLANES, RNG(seed))
        kinds |= {lamp.kind for lamp in lamps}
        for lamp in lamps:
            x, y, z = lamp.position_m
            assert -PLANES[2] < x < PLANES[3]
            assert -PLANES[1] < y < PLANES[0]
            assert 0 < z < PLANES[4]
    assert kinds == set(KINDS)


@pytest.mark.parametrize("shape", SHAPES)
def test_pictures_of_lamps_end_within_their_margin(shape):
    for seed in range(6):
        picture = draw_lamp_picture(shape, RNG(seed))
        rim = np.concatenate(
            [picture[:8].ravel(), picture[-8:].ravel(), picture[:, :8].ravel(), picture[:, -8:].ravel()]
        )
        assert picture.max() > 0.1, f"{shape}, seed {seed}: nothing is lit."
        assert rim.max() < 0.15, f"{shape}, seed {seed}: a rim of {rim.max()} would be cut."


def test_a_large_lamp_through_a_perfect_lens_is_light_and_no_flare():
    config = SimulationConfig(
        sensor_size=SIZE,
        duration_us=30_000,
        warmup_us=10_000,
        scene=SceneConfig(families=("dark",), still_share=1.0),
        sources=SourceConfig(num_sources=(1, 1), broad_share=1.0, broad_mrad=(80, 80), flicker_shares={"rectified": 1}),
        optics=OpticsConfig(perfect_share=1.0),
    )
    labels = np.zeros(4, int)
    for seed in range(5):
        pair = simulate(config, seed)
        labels += np.bincount(pair.flare_label, minlength=4)
        assert np.array_equal(pair.flare.to_array(), pair.clean.to_array()), "Through a perfect lens both are the same."
    assert labels[2] == 0
    assert labels[1] > 20 * labels[0], f"Events by cause: {labels.tolist()}."


def test_perfect_lenses_are_drawn_by_their_share():
    perfect = [
        draw_lens(OpticsConfig(perfect_share=0.5), (24, 32), RNG(seed)).plan["scatter"] == 0 for seed in range(60)
    ]
    assert 15 < sum(perfect) < 45


def test_partial_lenses_lack_one_or_two_of_their_flaws():
    lenses = [draw_lens(OpticsConfig(partial_share=1.0), (24, 32), RNG(seed)) for seed in range(60)]
    flaws = {(lens.plan["scatter"] > 0, lens.plan["veil"] > 0, len(lens.ghosts) > 0) for lens in lenses}
    assert len(flaws) == 6, f"One or two of three can be chosen in six ways: {flaws}."
    assert {sum(kinds) for kinds in flaws} == {1, 2}
    assert all(lens.kernel.any() == (lens.plan["scatter"] + lens.plan["veil"] > 0) for lens in lenses)


def test_what_sparkles_makes_no_flare():
    kinds = set()
    for seed in range(30):
        sources, waveform = draw_sparkles(0, 1000.0, PLANES, RNG(seed))
        kinds |= {source.kind for source in sources}
        assert not any(source.flares for source in sources)
        t_us = np.linspace(0, 1e6 / waveform.flicker_hz if waveform.flicker_hz else 1, 20_001)[:-1]
        assert waveform.at(t_us).mean() == pytest.approx(1, rel=0.02)
    assert kinds == {"spark", "glint", "indicator", "screen"}
    scene = scene_with(draw_plain("disc"), (0.3, 0, 0), (0, 0.3, 0))
    dim = replace(scene, sources=(replace(scene.sources[0], flares=False),))
    assert not find_emitters(dim, SIZE, np.array([0.0]))[..., 2].any()
    assert make_flashes(RNG(0)).values.min() > 0


def test_a_rolled_camera_sees_the_scene_turned():
    upright, rolled = (
        draw_scene(SceneConfig(still_share=1.0, roll_deg=roll), SourceConfig(), RNG(4)) for roll in ((0, 0), (90, 90))
    )
    place = upright.project(np.array([1.0, 0, 5]), SIZE, 0) - [79.5, 59.5, 0]
    turned = rolled.project(np.array([1.0, 0, 5]), SIZE, 0) - [79.5, 59.5, 0]
    assert np.allclose(np.abs(turned[:2]), np.abs(place[1::-1]), atol=1e-6)


def test_a_scene_without_boards_or_stripes_has_arrays_with_rows():
    """A GPU's loops are compiled for the types of arrays, and an empty one has a type of its own."""
    scene = scene_with(draw_plain("disc"), (0.3, 0, 0), (0, 0.3, 0))
    assert not len(scene.boards)
    poses = find_poses(scene, SIZE, np.array([0.0, 1000.0]))
    assert all(array.size for array in poses if isinstance(array, np.ndarray))
    bare = replace(scene, sources=())
    assert not render_scene(bare, SIZE, 0)[1].any()


def test_the_flare_of_a_broad_lamp_is_as_smooth_as_that_of_many_squares():
    """Squares of an eighth of the lamp give what four times as many give: the same light, and no point stands out."""
    picture = draw_plain("square")
    scene = scene_with(picture, (1.0, 0, 0), (0, 1.0, 0))
    lamp = scene.sources[0]
    lens = draw_lens(OpticsConfig(num_ghosts=(0, 0)), SIZE, RNG(2))
    flares = []
    for cells in (8, 16):
        divided = replace(scene, sources=(replace(lamp, num_cells=cells),))
        width = find_width(divided, divided.sources[0], SIZE)
        flares.append(render_flare(divided, lens.see_broad([width]), SIZE, 0)[0])
    assert flares[0].sum() == pytest.approx(flares[1].sum(), rel=0.03)
    inside = (slice(45, 75), slice(65, 95))
    assert np.abs(flares[0][inside] / flares[1][inside] - 1).max() < 0.25
    points = render_flare(replace(scene, sources=(replace(lamp, num_cells=8),)), lens, SIZE, 0)[0]
    assert np.abs(points[inside] / flares[1][inside] - 1).max() > 0.5, "Points alone do stand out."
