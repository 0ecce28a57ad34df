"""Flare images: pictures against values by hand, directions that stay, and a recording through such a lens."""

import numpy as np
import pytest
from matplotlib.image import imsave

from data_simu.config import OpticsConfig, SimulationConfig
from data_simu.optics.flare_images import (
    centre_picture,
    draw_kernel,
    find_brightest,
    list_flare_images,
    read_kernel,
    read_linear,
)
from data_simu.optics.lens import draw_lens
from data_simu.simulation import simulate
from data_simu.tools import drawn_flares
from deflare_core.system.settings import ConfigError

RNG = np.random.default_rng
SIDE, REACH, CORE = 120, 60, 1.0
ROWS, COLUMNS = np.indices((SIDE, SIDE))


def save(path, values):
    """A grey picture of values from 0 to 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, np.repeat((np.asarray(values) * 255).round().astype(np.uint8)[..., None], 3, axis=2))
    return path


def disc(row, column, radius):
    return (np.hypot(ROWS - row, COLUMNS - column) <= radius).astype(float)


def streak(degrees, row=60, column=60):
    """A light with a thin streak through it, that far from the rows towards the bottom."""
    along = np.deg2rad(degrees)
    across = (ROWS - row) * np.cos(along) - (COLUMNS - column) * np.sin(along)
    return np.maximum(0.6 * (np.abs(across) < 1.2), disc(row, column, 4))


def direction(kernel):
    """The direction of a kernel's light in degrees, from 0 to 180."""
    y, x = np.indices(kernel.shape) - REACH
    moments = [(kernel * value).sum() for value in (x * x - y * y, 2 * x * y)]
    return np.rad2deg(np.arctan2(moments[1], moments[0]) / 2) % 180


@pytest.fixture
def folder(tmp_path):
    """Flare7K's layout with one streak beside the middle and its light source."""
    flare, light = (tmp_path / "Scattering_Flare" / name for name in ("Compound_Flare", "Light_Source"))
    save(flare / "000001.png", streak(20, 50, 66))
    save(light / "000001.png", disc(50, 66, 4))
    return tmp_path


def test_the_gamma_is_undone(tmp_path):
    path = save(tmp_path / "f.png", [[0, 128 / 255], [1, 64 / 255]])
    expected = np.array([[0, (128 / 255) ** 2.2], [1, (64 / 255) ** 2.2]])
    assert read_linear(path) == pytest.approx(expected, rel=1e-5)
    imsave(path, np.array([[[255, 0, 0], [0, 128, 0]]], np.uint8))
    assert read_linear(path) == pytest.approx(np.array([[0.2126, 0.7152 * (128 / 255) ** 2.2]]), rel=1e-5)


def test_the_brightest_place_is_the_middle_of_the_largest_light():
    assert find_brightest((disc(30, 80, 5) + disc(90, 20, 2)).astype(np.float32)) == (30, 80)


def test_the_brightest_place_becomes_the_middle_and_half_the_width_the_reach():
    dot = np.zeros((40, 80), np.float32)
    dot[12, 30] = 1
    for reach in (80, 40, 10):
        kernel = centre_picture(dot, (12, 30), reach)
        assert kernel.shape == (2 * reach + 1,) * 2
        assert np.unravel_index(kernel.argmax(), kernel.shape) == (reach, reach)
    shifted = centre_picture(dot, (12, 10), 40)
    assert np.argwhere(shifted).tolist() == [[40, 60]], "20 pixels of 80 are half of the reach."


def test_two_patches_keep_the_ratio_of_their_light(tmp_path):
    path = save(tmp_path / "f.png", np.maximum(disc(60, 30, 3) * 0.5 + disc(60, 90, 3) * 0.8, disc(60, 60, 3)))
    kernel = read_kernel(path, REACH, CORE, RNG(0))
    patches = sorted(half.sum() for half in _far_parts(kernel) if half.sum() > 1e-3)
    assert len(patches) == 2
    ratio = (round(0.8 * 255) / round(0.5 * 255)) ** 2.2
    assert patches[1] / patches[0] == pytest.approx(ratio, rel=0.02)


def _far_parts(kernel):
    """What lies left, right, above and below, more than 15 pixels from the middle."""
    a, b = REACH - 15, REACH + 16
    return kernel[a:b, :a], kernel[a:b, b:], kernel[:a, a:b], kernel[b:, a:b]


def test_a_kernel_sums_to_one_without_core_and_rim(folder):
    kernel = draw_kernel(folder, REACH, 2.0, RNG(0))
    assert kernel.dtype == np.float32
    assert kernel.shape == (2 * REACH + 1,) * 2
    assert kernel.sum() == pytest.approx(1, rel=1e-4)
    assert (kernel >= 0).all()
    assert kernel[REACH, REACH] == 0
    assert kernel[0].sum() == 0


def test_a_streak_keeps_its_direction_but_for_right_angles_and_mirrors(folder):
    found = {round(direction(draw_kernel(folder, REACH, CORE, RNG(seed))) / 5) * 5 for seed in range(40)}
    assert found == {20, 70, 110, 160}


def test_the_light_source_is_taken_off(folder):
    with_source = draw_kernel(folder, REACH, CORE, RNG(3))
    for path in (folder / "Scattering_Flare" / "Light_Source").iterdir():
        path.unlink()
    without = draw_kernel(folder, REACH, CORE, RNG(3))
    y, x = np.indices(with_source.shape) - REACH
    near = np.hypot(y, x) < 4
    assert with_source[near].sum() < 0.01
    assert without[near].sum() > 0.2


def test_the_same_seed_gives_the_same_lens_of_the_energy_it_is_given(folder):
    config = OpticsConfig(flare_images=str(folder), log10_scatter=(-2, -2), log10_veil=(-3, -3))
    lens, again = (draw_lens(config, (48, 64), RNG(1)) for _ in range(2))
    assert (lens.kernel == again.kernel).all()
    assert lens.kernel.sum() == pytest.approx(0.011, rel=1e-3)
    assert lens.kernel.shape == draw_lens(OpticsConfig(), (48, 64), RNG(1)).kernel.shape


@pytest.mark.parametrize("part", ["", "Scattering_Flare", "Scattering_Flare/Compound_Flare"])
def test_every_folder_of_the_layout_can_be_named(folder, part):
    assert draw_kernel(folder / part, 12, 1.0, RNG(0)).sum() == pytest.approx(1, rel=1e-4)


def test_a_simulation_through_a_flare_image_runs(folder):
    optics = OpticsConfig(flare_images=str(folder))
    config = SimulationConfig(sensor_size=(48, 64), duration_us=20_000, optics=optics)
    pair, again = simulate(config, 1), simulate(config, 1)
    assert len(pair.flare) > 100
    assert (pair.flare.t == again.flare.t).all()


def test_errors_name_the_file(folder):
    flare = folder / "Scattering_Flare" / "Compound_Flare" / "000001.png"
    save(folder / "Scattering_Flare" / "Light_Source" / "000001.png", np.ones((3, 3)))
    with pytest.raises(ConfigError, match=r"Light_Source/000001.png: has \(3, 3\) pixels"):
        draw_kernel(folder, REACH, CORE, RNG(0))
    save(folder / "Scattering_Flare" / "Light_Source" / "000001.png", np.ones((SIDE, SIDE)))
    with pytest.raises(ConfigError, match=r"Compound_Flare/000001.png: holds no flare"):
        draw_kernel(folder, REACH, CORE, RNG(0))
    flare.write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"000001.png: cannot be read"):
        draw_kernel(folder, REACH, CORE, RNG(0))
    flare.unlink()
    with pytest.raises(ConfigError, match=r"holds no flare images; expected are Scattering_Flare/Compound_Flare"):
        draw_kernel(folder, REACH, CORE, RNG(0))


def test_drawn_flares_are_those_of_the_seed_and_have_their_light_in_the_middle(tmp_path):
    paths = [
        drawn_flares.write_flares(tmp_path / name, num=3, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    bytes_of = [[path.read_bytes() for path in folder] for folder in paths]
    assert bytes_of[0] == bytes_of[1], "The same seed draws the same pictures."
    assert not set(bytes_of[0]) & set(bytes_of[2]), "Another seed draws others."
    for path in paths[0]:
        middle = drawn_flares.SIDE // 2
        assert find_brightest(read_linear(path)) == pytest.approx((middle, middle), abs=0.5)
        kernel = read_kernel(path, reach=40, core=3, rng=np.random.default_rng(0))
        assert kernel.sum() == pytest.approx(1, abs=1e-5), "It can be used as the spread of light."


def test_a_streak_is_brightest_along_its_direction():
    radius = np.full(3, 0.1)
    along, beside, across = drawn_flares.draw_streak(radius, np.array([0, 0.3, np.pi / 2]), np.random.default_rng(0))
    assert along > 2 * beside > 2 * across


def test_drawn_flares_are_written_where_a_simulation_looks_for_them(tmp_path):
    drawn_flares.main(["--output-dir", str(tmp_path), "--num", "2"])
    assert len(list_flare_images(tmp_path)) == 2
