"""The lens against geometry and energy that can be predicted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from data_simu.config import OpticsConfig
from data_simu.optics.ghosts import draw_ghost_sprite, find_ghosts
from data_simu.optics.lens import draw_flare_kernel, draw_lens, make_veil_kernel
from data_simu.scene.rendering import add_sprite


def test_the_spread_of_light_has_the_energy_it_is_given():
    rng = np.random.default_rng(0)
    assert draw_flare_kernel(64, 1.0, 6, rng).sum() == pytest.approx(1, rel=1e-4)
    assert make_veil_kernel(64, 1.0, 1.1).sum() == pytest.approx(1, rel=1e-4)
    config = OpticsConfig(log10_scatter=(-2, -2), log10_veil=(-3, -3), scatter_strength=2)
    lens = draw_lens(config, (48, 64), rng)
    assert lens.kernel.sum() == pytest.approx(2 * (0.01 + 0.001), rel=1e-3)
    assert lens.kernel[48, 48] == 0, "The core belongs to the direct picture."
    assert (lens.kernel >= 0).all()


def test_the_flare_of_a_source_has_the_energy_of_its_lens():
    lens = draw_lens(OpticsConfig(), (48, 64), np.random.default_rng(4))
    only_scatter = replace(lens, ghosts=())
    picture = np.zeros((200, 200), np.float32)
    only_scatter.add_flare(picture, 99.6, 100.3, 1000.0)
    assert picture.sum() == pytest.approx(1000 * (lens.plan["scatter"] + lens.plan["veil"]), rel=2e-3)


def test_blades_make_the_star_they_should():
    """An even number of blades gives as many spikes, an odd one twice as many."""
    for blades, spikes in ((6, 6), (5, 10)):
        kernel = draw_flare_kernel(96, 1.0, blades, np.random.default_rng(3))
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
    add_sprite(picture, sprite, 17.3, 11.6, np.float32(2))
    rows, columns = np.indices(picture.shape)
    assert picture.sum() == pytest.approx(2, rel=1e-5)
    assert (picture * columns).sum() / 2 == pytest.approx(17.3, abs=1e-4)
    assert (picture * rows).sum() / 2 == pytest.approx(11.6, abs=1e-4)


def test_what_moves_by_a_fraction_of_a_pixel_changes_by_a_fraction():
    lens = draw_lens(OpticsConfig(), (48, 64), np.random.default_rng(1))
    pictures = []
    for x in (20.0, 20.01, 21.0):
        picture = np.zeros((48, 64), np.float32)
        lens.add_flare(picture, x, 15.5, 1e4)
        pictures.append(picture)
    small, large = (np.abs(p - pictures[0]).sum() for p in pictures[1:])
    assert 0 < small < 0.02 * large


def test_a_ghost_of_negative_magnification_moves_opposite_to_its_source():
    lens = draw_lens(OpticsConfig(), (48, 64), np.random.default_rng(5))
    ghost = replace(lens.ghosts[0], magnification=-0.5, energy=1.0)
    only_ghost = replace(lens, kernel=np.zeros((3, 3), np.float32), ghosts=(ghost,))
    assert len(ghost.sprite) < 30, "It fits into the picture."
    centres = []
    for x in (40.0, 44.0):
        picture = np.zeros((48, 64), np.float32)
        only_ghost.add_flare(picture, x, 23.5, 100.0)
        centres.append((picture * np.arange(64)).sum() / picture.sum())
    assert centres[1] - centres[0] == pytest.approx(-2, abs=0.05)


def test_ghosts_lie_on_the_line_through_the_centre():
    lens = draw_lens(OpticsConfig(), (480, 640), np.random.default_rng(2))
    for ghost in lens.ghosts[:3]:
        picture = np.zeros((480, 640), np.float32)
        lone = replace(ghost, sprite=draw_ghost_sprite(4, 0, 0), magnification=np.sign(ghost.magnification) * 0.5)
        replace(lens, kernel=np.zeros((3, 3), np.float32), ghosts=(lone,)).add_flare(picture, 400.0, 300.0, 1.0)
        row, column = (picture * np.indices(picture.shape)).sum((1, 2)) / picture.sum()
        assert (row - 239.5) / (column - 319.5) == pytest.approx((300 - 239.5) / (400 - 319.5), rel=1e-3)


def test_a_ghost_by_hand():
    """A plane plate before the sensor: light crosses the plate three times instead of once."""
    ((magnification, radius, energy),) = find_ghosts(np.zeros(2), np.array([0.1, 1.0]), np.array([1.0, 1.5, 1.0]))
    assert magnification == pytest.approx((1.0 + 3 * 0.1 / 1.5) / (1.0 + 0.1 / 1.5))
    assert radius == pytest.approx(60)
    assert energy == pytest.approx(0.2**4)


def test_a_preset_switches_off_what_it_names():
    rng = np.random.default_rng
    assert draw_lens(OpticsConfig(ghost_strength=0), (48, 64), rng(0)).ghosts == ()
    lens = draw_lens(OpticsConfig(scatter_strength=0), (48, 64), rng(0))
    assert not lens.kernel.any()
    assert len(lens.ghosts) > 0


def test_the_same_flare_on_a_smaller_sensor_is_a_smaller_picture():
    shares = []
    for size in ((120, 160), (240, 320)):
        lens = draw_lens(OpticsConfig(), size, np.random.default_rng(3))
        y, x = np.indices(lens.kernel.shape) - (len(lens.kernel) - 1) / 2
        near = np.hypot(y, x) < 0.1 * size[1]
        shares.append(lens.kernel[near].sum() / lens.kernel.sum())
    assert shares[0] == pytest.approx(shares[1], abs=0.12)
