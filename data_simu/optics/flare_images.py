"""Flare images: photographed or rendered flares of Flare7K's folder layout as the spread of a source's light.

    Scattering_Flare/Compound_Flare/*.png    a flare with its light source, on black
    Scattering_Flare/Light_Source/*.png      the light source alone, under the same name; may be missing

Dai et al., "Flare7K: A phenomenological nighttime flare removal dataset", NeurIPS 2022, whose pictures are encoded with
a gamma of 2.2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from data_simu.optics.soft_mask import make_soft_mask
from data_simu.scene.backdrop import find_luminance, read_values, weigh_areas
from deflare_core.system.settings import ConfigError

Image = NDArray[np.float32]
GAMMA = 2.2
FOLDERS = ("Scattering_Flare/Compound_Flare", "Compound_Flare", ".")
LIGHT_FOLDER = "Light_Source"
NEARLY = 0.98
"""Share of the largest value from which on a place counts as the brightest."""


def draw_kernel(source: str | Path, reach: int, core: float, rng: np.random.Generator) -> Image:
    """The spread of light of a random flare image of a folder, `(2 reach + 1)` square; see `read_kernel`.

    Raises
    ------
    ConfigError
        When the folder holds no flare images or a file cannot be used.
    """
    files = list_flare_images(source)
    return read_kernel(files[rng.integers(len(files))], reach, core, rng)


def list_flare_images(source: str | Path) -> list[Path]:
    """The flare images of a folder by name: Flare7K's, its `Scattering_Flare`, or one that holds them itself."""
    for folder in FOLDERS:
        files = sorted(Path(source, folder).glob("*.png"))
        if files:
            return files
    raise ConfigError(f"{source}: holds no flare images; expected are {FOLDERS[0]}/*.png in it, or *.png.")


def read_kernel(path: str | Path, reach: int, core: float, rng: np.random.Generator) -> Image:
    """The spread of light of a flare image, `(2 reach + 1)` square, summing to 1, without its core.

    Half the picture's width becomes the reach, and its brightest place the middle; beyond the picture is no light.

    Parameters
    ----------
    path : the flare with its light source; the picture of the same name in the folder `Light_Source` is subtracted.
    reach : how far the light is followed, pixels.
    core : radius within which it belongs to the direct picture, pixels.
    rng : chooses one of the eight turns by right angles and mirror images.

    Raises
    ------
    ConfigError
        When a file cannot be read, or holds no flare.
    """
    path = Path(path)
    picture = read_linear(path)
    light = _light_source(path, picture)
    flare = picture if light is None else np.maximum(picture - light, np.float32(0))
    kernel = _turn(centre_picture(flare, find_brightest(picture if light is None else light), reach), rng)
    kernel = kernel * make_soft_mask(reach, core)
    if not kernel.sum() > 0:
        raise ConfigError(f"{path}: holds no flare outside its light source.")
    return kernel / kernel.sum()


def read_linear(path: Path) -> Image:
    """Linear luminance `(H, W)`, from 0 to 1, of a picture encoded with a gamma of 2.2."""
    values, _ = read_values(path, np.random.default_rng(0))
    return find_luminance(values**GAMMA)


def find_brightest(picture: Image) -> tuple[float, float]:
    """Row and column of the middle of the largest connected bright region of a picture `(H, W)`.

    Bright is what has at least 98 % of the brightest pixel's value.
    """
    regions, num = scipy.ndimage.label(picture >= NEARLY * picture.max())
    areas = np.bincount(regions.ravel(), minlength=num + 1)[1:]
    row, column = scipy.ndimage.center_of_mass(regions == 1 + areas.argmax())
    return float(row), float(column)


def centre_picture(picture: Image, place: tuple[float, float], reach: int) -> Image:
    """The picture `(H, W)` resampled by area to `(2 reach + 1, 2 reach + 1)`, with a place (row, column) in the middle.

    Half the picture's width becomes the reach.
    """
    step = picture.shape[1] / (2 * reach)
    offsets = np.arange(-reach, reach + 1) * step + 0.5
    rows, columns = (weigh_areas(at + offsets, max(step, 1.0), n) for at, n in zip(place, picture.shape, strict=True))
    return np.asarray(rows @ picture @ columns.T, np.float32)


def _light_source(path: Path, picture: Image) -> Image | None:
    """The light source that belongs to a flare, if there is one."""
    light_path = path.parent.parent / LIGHT_FOLDER / path.name
    if not light_path.exists():
        return None
    light = read_linear(light_path)
    if light.shape != picture.shape:
        raise ConfigError(f"{light_path}: has {light.shape} pixels, its flare {picture.shape}.")
    return light


def _turn(kernel: Image, rng: np.random.Generator) -> Image:
    """The kernel turned by a random multiple of 90 degrees and mirrored every other time."""
    turned = np.rot90(kernel, int(rng.integers(4)))
    return turned[:, ::-1] if rng.integers(2) else turned
