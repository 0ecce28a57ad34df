"""Poses: where the camera and everything that it sees are, at many moments at once, ready to be rendered."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_simu.scene.scene import NEAREST_M, Scene
from data_simu.scene.sources import Source
from deflare_core.events import SensorSize

Values = NDArray[np.float32]


class Poses(NamedTuple):
    """A scene at K moments, as 32-bit numbers.

    Parameters
    ----------
    t_us : the moments, microseconds, 64-bit.
    focal : focal length in pixels.
    camera, turn : place (m) and orientation of the camera, `(K, 3)` and `(K, 3, 3)`.
    inverse : reciprocals of the distances from the camera to floor, ceiling, left, right and end, `(K, 5)`.
    boards : `(K, B, 7)`, the farthest first: middle (m), half width, half height, whether round, number of surface.
    lamps : `(K, S, 5)`: place (m), power on the scene, and group of every source.
    stripes : `(K, S, 7)`: the ends of every source's picture (column, row, twice), its radius, radiance and group;
        a radiance of 0 where it is hidden or behind the camera.
    """

    t_us: NDArray[np.float64]
    focal: np.float32
    camera: Values
    turn: Values
    inverse: Values
    boards: Values
    lamps: Values
    stripes: Values


def find_poses(scene: Scene, sensor_size: SensorSize, t_us: NDArray[np.float64]) -> Poses:
    """Where everything in a scene is at moments `(K,)` in microseconds."""
    camera = scene.camera_at(t_us)
    offsets = camera[:, [1, 1, 0, 0, 2]] * np.array([-1, 1, 1, -1, -1])
    lamps = [
        np.column_stack([s.middle_at(t_us), np.full((len(t_us), 2), (s.power_m2, s.group))]) for s in scene.sources
    ]
    stripes = [_stripe(scene, source, sensor_size, t_us) for source in scene.sources]
    return Poses(
        t_us=t_us,
        focal=np.float32(scene.focal_pixels(sensor_size)),
        camera=camera.astype(np.float32),
        turn=scene.turn_at(t_us).astype(np.float32),
        inverse=(1 / np.maximum(scene.planes_m + offsets, 0.05)).astype(np.float32),
        boards=_sorted_boards(scene, t_us),
        lamps=np.stack(lamps, axis=1).astype(np.float32),
        stripes=np.stack(stripes, axis=1).astype(np.float32),
    )


def find_emitters(scene: Scene, sensor_size: SensorSize, t_us: NDArray[np.float64]) -> Values:
    """The points that stand for the sources when their flare is drawn: column, row, flux and group, `(K, E, 4)`.

    Flux is radiance times area in pixels, and 0 where a point is hidden or behind the camera.
    """
    rows = []
    for source in scene.sources:
        offsets = source.emitters()
        points = source.middle_at(t_us)[:, None] + offsets
        x, y, depth = np.moveaxis(scene.project(points, sensor_size, t_us[:, None]), -1, 0)
        pixels = (scene.focal_pixels(sensor_size) / np.maximum(depth, NEAREST_M)) ** 2 * source.area_m2 / len(offsets)
        flux = source.radiance * pixels * scene.visible_share(source, t_us)[:, None] * (depth > NEAREST_M)
        rows.append(np.stack([x, y, flux, np.full(x.shape, source.group)], axis=-1))
    return np.concatenate(rows, axis=1).astype(np.float32)


def _sorted_boards(scene: Scene, t_us: NDArray[np.float64]) -> Values:
    boards = scene.boards_at(t_us)
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
