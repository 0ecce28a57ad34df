"""Backdrops: photographs, HDR panoramas and single frames of video as the texture of the scene's wall.

Read are .png, .jpg and .jpeg (sRGB), .hdr (Radiance RGBE, linear) and .npy: a picture `(H, W)` or `(H, W, 3)`, or a
video `(T, H, W)`; fractions are linear, whole numbers are sRGB over the range of their type. A folder may hold
pictures, folders of numbered frames, or both. A backdrop stands still: of a video one random frame is shown, and a
backdrop that moves by itself is out of scope.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_simu.scene.raycast import TEXTURE
from deflare_core.system.input_files import check_input
from deflare_core.system.settings import ConfigError

Picture = NDArray[np.float32]
Loader = Callable[[Path, np.random.Generator], tuple[NDArray[Any], bool]]
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Weights of linear red, green and blue (Rec. 709)."""
SATURATION, BOOST = 0.98, 10.0
MEDIAN_ALBEDO = 0.2
UPRIGHT = 1
"""The orientation, as TIFF and EXIF number it, of a picture whose first row is its top."""
PERIODIC_RATIO = 2.0
"""Largest step from the last row to the first of a periodic picture, in steps between neighbouring rows."""


def draw_backdrop(source: str | Path, rng: np.random.Generator) -> tuple[Picture, str]:
    """A texture `(512, 512)` of a random picture of a folder, or of the file itself, and the picture's path.

    Raises
    ------
    ConfigError
        When the folder holds no pictures or a file cannot be read.
    """
    path = draw_file(Path(source), rng)
    return make_texture(read_picture(path, rng), rng), str(path)


def draw_file(source: Path, rng: np.random.Generator) -> Path:
    """A random picture or video of a folder, every entry as likely, its subfolders among them; or the file itself."""
    if not source.exists():
        raise ConfigError(f"{source}: no such file or folder of pictures.")
    while source.is_dir():
        entries = [entry for entry in sorted(source.iterdir()) if _holds_pictures(entry)]
        if not entries:
            raise ConfigError(f"{source}: holds no pictures; read are {_read_kinds()}.")
        source = entries[rng.integers(len(entries))]
    return source


def read_picture(path: str | Path, rng: np.random.Generator | None = None) -> Picture:
    """Linear luminance `(H, W)` of a picture; what is saturated is lifted where the file can hold no more than white.

    Parameters
    ----------
    path : the file.
    rng : chooses the frame of a video; without it, the first is read.

    Raises
    ------
    ConfigError
        When the file cannot be read.
    """
    path = Path(path)
    values, encoded = read_values(path, rng or np.random.default_rng(0))
    if encoded:
        return boost_saturated(find_luminance(decode_srgb(values)))
    return np.maximum(find_luminance(values.astype(np.float32)), np.float32(0))


def read_values(path: Path, rng: np.random.Generator) -> tuple[NDArray[Any], bool]:
    """The values of a picture, `(H, W)` or `(H, W, channels)`, and whether they are encoded, from 0 to 1."""
    loader = _LOADERS.get(path.suffix.lower())
    if loader is None:
        raise ConfigError(f"{path}: is no picture that is read here; read are {_read_kinds()}.")
    check_input(path, ConfigError)
    try:
        values, encoded = loader(path, rng)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{path}: cannot be read as a picture: {error}") from error
    if values.ndim not in (2, 3) or not values.size or values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ConfigError(
            f"{path}: holds {values.dtype} of shape {values.shape}; a picture is finite numbers (H, W) or (H, W, 3)."
        )
    return values, encoded


def decode_srgb(encoded: NDArray[Any]) -> Picture:
    """Linear light from 0 to 1, float32, of values of any shape from 0 to 1 encoded as sRGB (IEC 61966-2-1)."""
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return linear.astype(np.float32)


def find_luminance(linear: NDArray[Any]) -> Picture:
    """Luminance `(H, W)` float32 of linear colours `(H, W, channels)` or of grey `(H, W)`, which it is already.

    A fourth channel, the opacity, has no say.
    """
    if linear.ndim == 2:
        return linear.astype(np.float32)
    return linear[..., :3].astype(np.float32) @ LUMINANCE if linear.shape[2] >= 3 else linear[..., 0]


def boost_saturated(luminance: Picture) -> Picture:
    """The picture `(H, W)` with what is saturated lifted: L (1 + 9 s^2 (3 - 2 s)), s = (L - 0.98) / 0.02 cut to 0 to 1.

    A white of 1 stands for anything brighter. Up to 0.98 nothing changes, at 1 the value is 10.
    """
    s = np.clip((luminance - SATURATION) / (1 - SATURATION), 0, 1)
    return (luminance * (1 + (BOOST - 1) * s**2 * (3 - 2 * s))).astype(np.float32)


def make_texture(luminance: Picture, rng: np.random.Generator) -> Picture:
    """A periodic texture `(512, 512)` of albedo, median 0.2, from a random crop of at least half of the picture.

    The crop has the picture's shape and is resampled by area to a square. Across an axis on which its ends do not
    meet, the crop and its mirror image take one half each.
    """
    crop = _crop(luminance, rng)
    for axis in (0, 1):
        crop = np.moveaxis(make_rows_periodic(np.moveaxis(crop, axis, 0)), 0, axis)
    return crop * np.float32(MEDIAN_ALBEDO / _middle(crop))


def resample_rows(picture: Picture, num_rows: int) -> Picture:
    """The picture `(H, W)` as `(num_rows, W)`, each row the mean of the area that it covers, at least a row high."""
    step = len(picture) / num_rows
    weights = weigh_areas((np.arange(num_rows) + 0.5) * step, max(step, 1.0), len(picture))
    return (weights / weights.sum(axis=1, keepdims=True)) @ picture


def weigh_areas(centres: NDArray[np.floating], width: float, size: int) -> Picture:
    """The share of each of `size` pixels in boxes of a width (pixels) around centres `(n,)`, `(n, size)` float32.

        pixel      | 0 | 1 | 2 | 3 |        Pixel k reaches from k to k + 1. This box, 2 wide around 1.5, holds
        box          [-------]              pixels 0, 1 and 2 with shares of 1/4, 1/2 and 1/4.

    The shares of a box inside the picture sum to 1.
    """
    pixel = np.arange(size)
    low, high = centres[:, None] - width / 2, centres[:, None] + width / 2
    return (np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) / width).astype(np.float32)


def _crop(luminance: Picture, rng: np.random.Generator) -> Picture:
    share = np.sqrt(rng.uniform(0.5, 1.0))
    height, width = (int(np.ceil(share * n)) for n in luminance.shape)
    row, column = (int(rng.integers(n - m + 1)) for n, m in zip(luminance.shape, (height, width), strict=True))
    return luminance[row : row + height, column : column + width]


def make_rows_periodic(picture: Picture) -> Picture:
    """The picture `(H, W)` resampled to `(512, W)`, whose last row goes over into the first."""
    steps = np.abs(np.diff(picture, axis=0)).mean() if len(picture) > 1 else 0.0
    if np.abs(picture[-1] - picture[0]).mean() <= PERIODIC_RATIO * steps:
        return resample_rows(picture, TEXTURE)
    half = resample_rows(picture, TEXTURE // 2)
    return np.concatenate([half, half[::-1]])


def _middle(picture: Picture) -> float:
    """The median; of what is lit where most is black; 1 where all is."""
    lit = picture[picture > 0]
    return float(np.median(picture)) or (float(np.median(lit)) if lit.size else 1.0)


def _holds_pictures(entry: Path) -> bool:
    if entry.is_dir():
        return any(_holds_pictures(inner) for inner in entry.iterdir())
    return entry.suffix.lower() in _LOADERS and not entry.name.startswith(".")


def _read_kinds() -> str:
    return ", ".join(_LOADERS)


def _load_photograph(path: Path, rng: np.random.Generator) -> tuple[NDArray[Any], bool]:
    with Image.open(path) as photograph:
        # Bits become 0 and 255; palettes and printing inks become red, green, blue and opacity.
        plain = {"L": None, "RGB": None, "RGBA": None, "I;16": None, "1": "L"}.get(photograph.mode, "RGBA")
        return _fractions(np.asarray(photograph.convert(plain) if plain else photograph)), True


def _load_array(path: Path, rng: np.random.Generator) -> tuple[NDArray[Any], bool]:
    """A picture of an array on disk, of which only one frame is read if it is a video."""
    stored = np.load(path, mmap_mode="r")
    if stored.ndim == 3 and stored.shape[2] != 3:
        stored = stored[rng.integers(len(stored))]
    values = np.asarray(stored)
    return _fractions(values), values.dtype.kind in "ui"


def _fractions(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as shares of the largest that their type holds."""
    return values / np.float32(np.iinfo(values.dtype).max) if values.dtype.kind in "ui" else values


def _load_radiance(path: Path, rng: np.random.Generator) -> tuple[NDArray[Any], bool]:
    """Linear colours of a Radiance file, flat or packed in runs, as OpenImageIO reads them."""
    try:
        import OpenImageIO
    except ImportError as error:
        raise ValueError(
            "Radiance files are read through OpenImageIO, which is not installed: pip install OpenImageIO"
        ) from error
    file = OpenImageIO.ImageInput.open(str(path))
    if file is None:
        raise ValueError(OpenImageIO.geterror())
    values = file.read_image("float")
    if file.format_name() != "hdr" or file.spec().get_int_attribute("Orientation", UPRIGHT) != UPRIGHT:
        raise ValueError("this is not a Radiance file whose rows run downwards")
    if values is None:
        raise ValueError(file.geterror())
    return values, False


_LOADERS: dict[str, Loader] = {
    ".png": _load_photograph,
    ".jpg": _load_photograph,
    ".jpeg": _load_photograph,
    ".hdr": _load_radiance,
    ".npy": _load_array,
}
