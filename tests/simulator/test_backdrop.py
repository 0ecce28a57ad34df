"""Backdrops: files against values by hand, textures that repeat and follow from the seed, and a recording of one."""

import sys

import numpy as np
import pytest
from matplotlib.image import imsave
from PIL import Image

from data_simu.config import SceneConfig, SimulationConfig, SourceConfig
from data_simu.scene.backdrop import (
    boost_saturated,
    draw_backdrop,
    make_rows_periodic,
    make_texture,
    read_picture,
    read_values,
    resample_rows,
)
from data_simu.scene.raycast import PYRAMID, TEXTURE
from data_simu.scene.scene import draw_scene
from data_simu.simulation import simulate
from deflare_core.system.settings import ConfigError

RNG = np.random.default_rng


def photograph(path, height=60, width=80, seed=0):
    """A file of coloured noise."""
    imsave(path, RNG(seed).random((height, width, 3)))
    return path


def rgbe(path, pixels, packed):
    """A Radiance file of pixels `(H, W, 4)`, flat or packed in runs."""
    rows = []
    for row in pixels:
        lines = [
            bytes([128 + len(row), line[0]]) if (line == line[0]).all() else bytes([len(row), *line]) for line in row.T
        ]
        rows.append(bytes([2, 2, 0, len(row)]) + b"".join(lines) if packed else row.tobytes())
    size = f"-Y {pixels.shape[0]} +X {pixels.shape[1]}\n".encode()
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n" + size + b"".join(rows))
    return path


def test_an_srgb_picture_becomes_linear_luminance(tmp_path):
    colours = np.array([[[0, 0, 0], [128, 128, 128]], [[255, 0, 0], [10, 0, 188]]], np.uint8)
    imsave(tmp_path / "p.png", colours)
    read = read_picture(tmp_path / "p.png")
    assert read.dtype == np.float32
    assert read[0, 0] == 0
    assert read[0, 1] == pytest.approx(0.2158605, rel=1e-5), "sRGB 128."
    assert read[1, 0] == pytest.approx(0.2126, rel=1e-5)
    assert read[1, 1] == pytest.approx(0.2126 * 10 / 255 / 12.92 + 0.0722 * 0.5028865, rel=1e-4)


@pytest.mark.parametrize(
    ("mode", "value", "shape", "expected"),
    [
        ("1", 1, (2, 3), 1),
        ("L", 51, (2, 3), 0.2),
        ("LA", (51, 128), (2, 3, 4), 0.2),
        ("P", 2, (2, 3, 4), 0.2),
        ("RGB", (51, 51, 51), (2, 3, 3), 0.2),
        ("RGBA", (51, 51, 51, 128), (2, 3, 4), 0.2),
        ("I;16", 13_107, (2, 3), 0.2),
    ],
)
def test_photographs_of_every_kind_are_shares_of_the_largest_value(tmp_path, mode, value, shape, expected):
    photograph = Image.new(mode, (3, 2), value)
    if mode == "P":
        photograph.putpalette([0, 0, 0, 255, 0, 0, 51, 51, 51])
    photograph.save(tmp_path / "p.png")
    values, encoded = read_values(tmp_path / "p.png", RNG(0))
    assert (values.shape, values.dtype, encoded) == (shape, np.float32, True)
    assert values[..., :3] == pytest.approx(expected), "Opacity has no say, and no kind is read on another scale."


def test_a_photograph_is_read_as_it_is_stored_not_as_it_was_held(tmp_path):
    stored = Image.fromarray(np.array([[0, 255, 0], [255, 255, 0]], np.uint8))
    held = stored.getexif()
    held[274] = 6
    stored.save(tmp_path / "p.png", exif=held)
    assert read_values(tmp_path / "p.png", RNG(0))[0].tolist() == [[0, 1, 0], [1, 1, 0]]


def test_what_is_saturated_is_lifted_smoothly():
    given = np.array([0.0, 0.5, 0.98, 0.985, 0.99, 1.0], np.float32)
    expected = [0, 0.5, 0.98, 0.985 * (1 + 9 * 0.25**2 * 2.5), 0.99 * 5.5, 10]
    assert boost_saturated(given) == pytest.approx(expected, rel=1e-4)
    fine = boost_saturated(np.linspace(0.97, 1, 1000, dtype=np.float32))
    assert (np.diff(fine) > 0).all()


def test_a_white_pixel_of_a_photograph_shines_and_one_of_a_linear_file_is_what_it_is(tmp_path):
    imsave(tmp_path / "p.png", np.full((2, 2, 3), 255, np.uint8))
    np.save(tmp_path / "p.npy", np.full((2, 2), 1.0))
    assert read_picture(tmp_path / "p.png") == pytest.approx(np.full((2, 2), 10.0), rel=1e-5)
    assert (read_picture(tmp_path / "p.npy") == 1).all()


@pytest.mark.parametrize("packed", [False, True])
def test_a_radiance_file_by_hand(tmp_path, packed):
    pixels = RNG(0).integers(0, 256, (3, 9, 4)).astype(np.uint8)
    pixels[..., 3] = 140
    pixels[..., 0] = 200
    read = read_picture(rgbe(tmp_path / "p.hdr", pixels, packed))
    expected = (pixels[..., :3] * 2.0 ** (140 - 136)) @ [0.2126, 0.7152, 0.0722]
    assert read == pytest.approx(expected, rel=1e-5)
    assert read.max() > 1000, "Beyond white."


def test_radiance_files_of_other_orders_and_colours_are_refused(tmp_path):
    rgbe(tmp_path / "p.hdr", np.full((4, 9, 4), 130, np.uint8), packed=True)
    right = (tmp_path / "p.hdr").read_bytes()
    Image.new("L", (3, 2)).save(tmp_path / "p.png")
    others = {
        "rows upwards": right.replace(b"-Y", b"+Y"),
        "CIE XYZ": right.replace(b"rgbe\n", b"xyze\n"),
        "the last byte is missing": right[:-1],
        "another format": (tmp_path / "p.png").read_bytes(),
    }
    for content in others.values():
        (tmp_path / "p.hdr").write_bytes(content)
        with pytest.raises(ConfigError, match=r"p.hdr: cannot be read as a picture: \w+"):
            read_picture(tmp_path / "p.hdr")


def test_a_radiance_file_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenImageIO", None)
    with pytest.raises(ConfigError, match=r"p.hdr: .*pip install OpenImageIO"):
        read_picture(rgbe(tmp_path / "p.hdr", np.full((4, 9, 4), 130, np.uint8), packed=True))


def test_a_video_gives_one_of_its_frames(tmp_path):
    frames = np.arange(5)[:, None, None] * np.ones((5, 4, 6), np.float32)
    np.save(tmp_path / "video.npy", frames)
    levels = {float(read_picture(tmp_path / "video.npy", RNG(seed)).mean()) for seed in range(40)}
    assert levels == {0, 1, 2, 3, 4}
    for k in range(3):
        (tmp_path / "film").mkdir(exist_ok=True)
        photograph(tmp_path / "film" / f"{k:04d}.png", seed=k)
    (tmp_path / "empty").mkdir()
    names = {draw_backdrop(tmp_path, RNG(seed))[1].removeprefix(f"{tmp_path}/") for seed in range(40)}
    assert names == {"video.npy", *(f"film/{k:04d}.png" for k in range(3))}


def test_an_eight_bit_array_is_encoded_as_a_photograph(tmp_path):
    np.save(tmp_path / "p.npy", np.full((2, 2), 128, np.uint8))
    assert read_picture(tmp_path / "p.npy") == pytest.approx(np.full((2, 2), 0.2158605), rel=1e-5)


def test_resampling_takes_means_of_areas_and_goes_straight_between_pixels():
    rows = np.array([[1.0], [3.0], [5.0]], np.float32)
    assert resample_rows(rows, 2).ravel() == pytest.approx([(1 + 1.5) / 1.5, (1.5 + 5) / 1.5])
    assert resample_rows(rows, 6).ravel() == pytest.approx([1, 1.5, 2.5, 3.5, 4.5, 5])


def test_a_texture_repeats_has_its_albedo_and_follows_from_the_seed():
    picture = RNG(0).random((90, 120)).astype(np.float32).cumsum(axis=0).cumsum(axis=1) + 1
    texture = make_texture(picture, RNG(1))
    assert texture.shape == (TEXTURE, TEXTURE)
    assert texture.dtype == np.float32
    assert np.median(texture) == pytest.approx(0.2, rel=1e-4)
    for across in (texture, texture.T):
        assert np.abs(across[-1] - across[0]).max() <= np.abs(np.diff(across, axis=0)).max()
    assert (make_texture(picture, RNG(1)) == texture).all()
    assert (make_texture(picture, RNG(2)) != texture).any()


def test_only_a_picture_whose_ends_do_not_meet_is_mirrored():
    turn = np.arange(TEXTURE) * 2 * np.pi / TEXTURE
    wave, ramp = ((2 + f)[:, None].astype(np.float32) * np.ones(3, np.float32) for f in (np.sin(turn), turn))
    assert make_rows_periodic(wave) == pytest.approx(wave)
    mirrored = make_rows_periodic(ramp)
    assert (mirrored == mirrored[::-1]).all()
    assert mirrored[:256] == pytest.approx((ramp[::2] + ramp[1::2]) / 2, rel=1e-5)


def test_black_pictures_have_textures_too():
    assert (make_texture(np.zeros((20, 20), np.float32), RNG(0)) == 0).all()
    mostly = np.zeros((20, 20), np.float32)
    mostly[:, ::3] = 0.01
    assert np.isfinite(make_texture(mostly, RNG(0))).all()


def test_the_wall_shows_the_picture(tmp_path):
    np.save(tmp_path / "p.npy", np.where(np.arange(40) < 20, 1.0, 100.0) * np.ones((30, 1)))
    config = SceneConfig(backdrops=str(tmp_path), families=("street",))
    scene, again = (draw_scene(config, SourceConfig(), RNG(7)) for _ in range(2))
    assert scene.family == "wall"
    assert scene.describe()["backdrop"] == str(tmp_path / "p.npy")
    assert (scene.textures == again.textures).all()
    shown = scene.textures[3 * PYRAMID : 3 * PYRAMID + TEXTURE**2]
    counts = [int(np.isclose(shown, level, rtol=0.01).sum()) for level in (shown.min(), shown.max())]
    assert sum(counts) > 0.95 * TEXTURE**2, "Two levels, and what lies between pixels."


def test_a_simulation_before_a_photograph_runs(tmp_path):
    photograph(tmp_path / "p.jpg")
    config = SimulationConfig(
        sensor_size=(48, 64), duration_us=20_000, scene=SceneConfig(backdrops=str(tmp_path / "p.jpg"))
    )
    pair, again = simulate(config, 1), simulate(config, 1)
    assert len(pair.flare) > 100
    assert (pair.flare.t == again.flare.t).all()
    assert pair.plan["scene"]["backdrop"].endswith("p.jpg")


def test_without_backdrops_the_seed_gives_what_it_gave():
    scene = draw_scene(SceneConfig(), SourceConfig(), RNG(0))
    assert scene.backdrop is None
    assert "backdrop" not in scene.describe()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.png", b"nonsense"),
        ("p.jpg", b""),
        ("p.npy", b"nonsense"),
        ("p.hdr", b"#?RADIANCE\n\n-Y 2 +X\n"),
        ("p.hdr", b"#?RADIANCE\n\n-Y 2 +X 9\n\x02\x02\x00\x09\x89"),
        ("p.exr", b"nonsense"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name}: .*read"):
        draw_backdrop(tmp_path / name, RNG(0))


def test_arrays_that_are_no_pictures_and_empty_folders_are_refused(tmp_path):
    np.save(tmp_path / "bad.npy", np.array([[1.0, np.nan]]))
    with pytest.raises(ConfigError, match=r"bad.npy: holds float64 of shape \(1, 2\)"):
        read_picture(tmp_path / "bad.npy")
    np.save(tmp_path / "bad.npy", np.zeros(5))
    with pytest.raises(ConfigError, match=r"bad.npy: holds"):
        read_picture(tmp_path / "bad.npy")
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match=r"none: holds no pictures; read are .png, .jpg"):
        draw_backdrop(tmp_path / "none", RNG(0))
    with pytest.raises(ConfigError, match=r"gone: no such file"):
        draw_backdrop(tmp_path / "gone", RNG(0))
