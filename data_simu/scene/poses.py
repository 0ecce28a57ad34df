"""Poses: where the camera and everything that it sees are, at many moments at once, ready to be rendered."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_simu.scene.raycast import TEXTURE
from data_simu.scene.scene import NEAREST_M, Scene
from data_simu.scene.source import Source
from deflare_core.events import SensorSize

Values = NDArray[np.float32]
OUT_OF_SIGHT = (0.0, 0.0, -1e3, 1.0, 1.0, 0.0)
"""A board that stands for none; see `_stack`."""
WIDTHS = (1, 3, 5, 7, 11, 15, 21, 31, 45)
"""Widths in pixels for which a lens has kernels of its own: each serves those that are a fifth larger or smaller."""
LEAST_HALF_PIXELS = 2.0
"""Half the side of the smallest picture of a lamp."""


class Poses(NamedTuple):
    """A scene at K moments, as 32-bit numbers.

    Parameters
    ----------
    t_us : the moments, microseconds, 64-bit.
    focal : focal length in pixels.
    camera, turn : place (m) and orientation of the camera, `(K, 3)` and `(K, 3, 3)`.
    inverse : reciprocals of the distances from the camera to floor, ceiling, left, right and end, `(K, 5)`.
    boards : `(K, B, 7)`, the farthest first: middle (m), half width, half height, whether round, number of surface.
    lamps : `(K, L, 5)`: place (m), power on the scene, and group of every point from which a source lights it.
    stripes : `(K, S, 7)`: the ends of every stripe's picture (column, row, twice), its radius, radiance and group;
        a radiance of 0 where it is hidden or behind the camera.
    faces : `(K, F, 17)`: of every source with a picture the map from a ray `(u, v, 1)` to its place on the picture and
        the reciprocal of its distance (three rows of three), radiance, group, first texel, texels per pixel and metre,
        and the columns and rows that it can reach (least and most of either).
    """

    t_us: NDArray[np.float64]
    focal: np.float32
    camera: Values
    turn: Values
    inverse: Values
    boards: Values
    lamps: Values
    stripes: Values
    faces: Values


def find_poses(scene: Scene, sensor_size: SensorSize, t_us: NDArray[np.float64]) -> Poses:
    """Where everything in a scene is at moments `(K,)` in microseconds."""
    camera = scene.camera_at(t_us)
    offsets = camera[:, [1, 1, 0, 0, 2]] * np.array([-1, 1, 1, -1, -1])
    lamps = [
        np.column_stack([s.middle_at(t_us) + offset, np.full((len(t_us), 2), (s.power_m2 / len(points), s.group))])
        for s in scene.sources if s.power_m2 for points in [s.light_points()] for offset in points
    ]  # fmt: skip
    stripes = [_stripe(scene, source, sensor_size, t_us) for source in scene.sources if source.picture is None]
    faces = [_face(scene, source, sensor_size, t_us) for source in scene.sources if source.picture is not None]
    return Poses(
        t_us=t_us,
        focal=np.float32(scene.focal_pixels(sensor_size)),
        camera=camera.astype(np.float32),
        turn=scene.turn_at(t_us).astype(np.float32),
        inverse=(1 / np.maximum(scene.planes_m + offsets, 0.05)).astype(np.float32),
        boards=_sorted_boards(scene, t_us),
        lamps=_stack(lamps, len(t_us), 5),
        stripes=_stack(stripes, len(t_us), 7),
        faces=_stack(faces, len(t_us), 17),
    )


def find_emitters(scene: Scene, sensor_size: SensorSize, t_us: NDArray[np.float64]) -> Values:
    """The points that stand for the sources when their flare is drawn: column, row, flux, group and width, `(K, E, 5)`.

    Flux is radiance times area in pixels, and 0 where a point is hidden or behind the camera. A point of a broad lamp
    stands for a square so many pixels wide.
    """
    rows = []
    for source in scene.sources:
        if not source.flares:
            continue
        offsets, parts = source.emitters()
        points = source.middle_at(t_us)[:, None] + offsets
        x, y, depth = np.moveaxis(scene.project(points, sensor_size, t_us[:, None]), -1, 0)
        pixels = (scene.focal_pixels(sensor_size) / np.maximum(depth, NEAREST_M)) ** 2 * source.area_m2 / parts
        flux = source.radiance * pixels * _visible(scene, source, points, t_us) * (depth > NEAREST_M)
        group, width = np.full(x.shape, source.group), np.full(x.shape, find_width(scene, source, sensor_size))
        rows.append(np.stack([x, y, flux, group, width], axis=-1))
    rows = rows or [np.zeros((len(t_us), 1, 5))]
    return np.concatenate(rows, axis=1).astype(np.float32)


def find_width(scene: Scene, source: Source, sensor_size: SensorSize) -> int:
    """Pixels across the square that a point of a source stands for, one of `WIDTHS`, as it first appears."""
    if source.picture is None:
        return 1
    depth = max(float(source.position_m[2]), NEAREST_M)
    side = 2 * np.linalg.norm(source.half_axis_m) / source.num_cells * scene.focal_pixels(sensor_size) / depth
    return WIDTHS[int(np.argmin(np.abs(np.log(np.array(WIDTHS) / max(side, 1e-3)))))]


def _visible(scene: Scene, source: Source, points: NDArray[np.float64], t_us: NDArray[np.float64]) -> Any:
    """The share of the light of each of a source's points `(K, n, 3)` that comes to the camera, `(K, n)` or `(K, 1)`.

    A stripe is hidden as a whole, and seen at full breadth from everywhere.
    """
    if source.picture is None:
        return scene.visible_share(source, t_us)[:, None]
    shown = scene.uncovered_share(points, source.radius_m / source.num_cells, t_us[:, None])
    return shown * _find_slant(scene, source, t_us)[:, None]


def _find_slant(scene: Scene, source: Source, t_us: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosine between a picture's normal and the way to the camera `(K,)`: 1 where it is seen from the front."""
    normal = np.cross(source.half_axis_m.astype(float), source.second_axis_m)
    way = source.middle_at(t_us) - scene.camera_at(t_us)
    return np.abs(way @ normal) / np.maximum(np.linalg.norm(way, axis=1) * np.linalg.norm(normal), 1e-9)


def _stack(rows: list[NDArray[np.float64]], num_moments: int, width: int) -> Values:
    """Rows `(K, width)` of several things as one array `(K, n, width)`; of none, one of zeros, which shows nothing.

    An array without rows would be of another type to a GPU's loops, which would then be compiled for it.
    """
    return np.stack(rows or [np.zeros((num_moments, width))], axis=1).astype(np.float32)


def _sorted_boards(scene: Scene, t_us: NDArray[np.float64]) -> Values:
    boards = scene.boards_at(t_us)
    if not boards.shape[1]:
        boards = np.broadcast_to(OUT_OF_SIGHT, (len(t_us), 1, 6))
    surfaces = np.broadcast_to(5 + np.arange(boards.shape[1]), boards.shape[:2])[..., None]
    order = np.argsort(-boards[..., 2], axis=1, kind="stable")[..., None]
    return np.take_along_axis(np.concatenate([boards, surfaces], axis=2), order, axis=1).astype(np.float32)


def _stripe(scene: Scene, source: Source, sensor_size: SensorSize, t_us: NDArray[np.float64]) -> NDArray[np.float64]:
    """A source's picture at every moment `(K, 7)`."""
    middle = source.middle_at(t_us)
    ends = [scene.project(middle + k * source.half_axis_m, sensor_size, t_us) for k in (-1, 1)]
    depth = np.minimum(ends[0][:, 2], ends[1][:, 2])
    radius = scene.focal_pixels(sensor_size) * source.radius_m / np.maximum(depth, NEAREST_M)
    radiance = source.radiance * scene.visible_share(source, t_us) * (depth > NEAREST_M)
    group = np.full(len(t_us), source.group)
    return np.column_stack([ends[0][:, :2], ends[1][:, :2], radius, radiance, group])


def _face(scene: Scene, source: Source, sensor_size: SensorSize, t_us: NDArray[np.float64]) -> NDArray[np.float64]:
    """A source's picture at every moment `(K, 17)`."""
    height, width = sensor_size
    focal = scene.focal_pixels(sensor_size)
    turn, middle = scene.turn_at(t_us), source.middle_at(t_us)
    seen = np.einsum("kji,kj->ki", turn, middle - scene.camera_at(t_us))
    # One of less than two pixels is drawn larger and fainter, or it would fall between pixels.
    half_m, depth = np.linalg.norm(source.half_axis_m), np.maximum(seen[:, 2], NEAREST_M)
    larger = np.maximum(LEAST_HALF_PIXELS * depth / (focal * half_m), 1)
    axes = [np.einsum("kji,j->ki", turn, axis) * larger[:, None] for axis in (source.half_axis_m, source.second_axis_m)]
    columns = np.stack([*axes, seen], axis=-1)
    lit = (seen[:, 2] > NEAREST_M) & (np.abs(np.linalg.det(columns)) > 1e-9)
    columns[~lit] = np.eye(3)
    corners = np.stack([seen + a * axes[0] + b * axes[1] for a in (-1, 1) for b in (-1, 1)], axis=1)
    ahead = np.maximum(corners[..., 2:], 1e-6)
    places = corners[..., :2] / ahead * focal + [(width - 1) / 2, (height - 1) / 2]
    # A corner behind the camera may reach anywhere.
    near = corners[..., 2].min(axis=1, keepdims=True) < NEAREST_M
    low = np.where(near, -1, np.clip(places.min(axis=1), -1, max(sensor_size) + 1))
    high = np.where(near, max(sensor_size), np.clip(places.max(axis=1), -1, max(sensor_size)))
    slant = np.maximum(_find_slant(scene, source, t_us), 0.04)
    sharpness = TEXTURE / (2 * half_m * larger * focal * np.sqrt(slant))
    what = np.full((len(t_us), 2), (source.group, scene.picture_start(source.group)))
    radiance = source.radiance * lit / larger**2
    reach = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
    return np.column_stack([np.linalg.inv(columns).reshape(-1, 9), radiance, what, sharpness, reach])
