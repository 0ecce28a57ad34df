"""The simulation on a GPU: a pair of recordings as tensors that never leave it.

A processor prepares what a seed stands for (`prepare`, in any process); the GPU renders, senses, sorts and makes the
target (`simulate_on`). The loops are in `cuda_kernels`. Every draw is the CPU's, so the same seed is the same scene,
lens and sensor there; events differ in the last bits of rounding, and because a GPU decides pixel by pixel, not tile
by tile, where flicker shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import cuda
from numpy.typing import NDArray

from data_simu.config import SimulationConfig
from data_simu.gpu import cuda_kernels
from data_simu.optics.flare import plan_flare_times
from data_simu.optics.lens import Lens
from data_simu.recorded import Recorded
from data_simu.scalars import DARK
from data_simu.scene.poses import Poses, find_emitters, find_poses
from data_simu.scene.row_bands import measure_band_flows, plan_key_times
from data_simu.sensor.firing import FLARE, LABEL_SHIFT, PIXEL_SHIFT, TIME_SHIFT
from data_simu.sensor.look_times import find_moments
from data_simu.sensor.sensor import Pixels
from data_simu.sensor.tiles import CLEAN, CODE, REAL
from data_simu.simulation import set_up
from deflare_core.kernels.event_tensors import EventTensors
from deflare_core.system.errors import DeflareError

ROOM = 24
"""Events that a pixel has room for at first; those with more are simulated again."""


class Preparation(NamedTuple):
    """What a seed stands for, as arrays (or tensors) for the GPU.

    Parameters
    ----------
    config, plan : the configuration, and what was drawn as plain figures.
    pixels, poses : the sensor, and where everything is at each key time.
    mapping, textures, ambient : the scene's surfaces and light; see `rendering`.
    moments : knots' times, brightness, bends, lowest and highest brightness, and the first knot of each key time;
        shapes as of `look_times.Moments`.
    spots, places, sprites : the pictures that make the flare, `(F, spots, 5)` float32, `(sprites, 2)` int32 and one
        float32 after the other; see `cuda_kernels.render_flare`.
    mixes : for each key time the flare before it, and how far it is towards the next, `(K, 2)`.
    recorded : the recording that is the background, if any.
    """

    config: SimulationConfig
    plan: dict[str, Any]
    pixels: Pixels
    poses: Poses
    mapping: NDArray[np.float32]
    textures: NDArray[np.float32]
    ambient: np.float32
    moments: tuple[NDArray[Any], ...]
    spots: NDArray[np.float32]
    places: NDArray[np.int32]
    sprites: NDArray[np.float32]
    mixes: NDArray[np.float32]
    recorded: Recorded | None = None


class TensorPair(NamedTuple):
    """A pair of recordings as tensors on one device; labels and plan as in `simulation.Pair`."""

    flare: EventTensors
    clean: EventTensors
    flare_label: torch.Tensor
    clean_label: torch.Tensor
    clock_us: tuple[int, int]
    plan: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CodedEvents:
    """Events in the order of time, then pixel.

    Parameters
    ----------
    t_us : times `(N,)`, int64, microseconds.
    code : pixel, label and polarity `(N,)`, int64; see `firing`.
    """

    t_us: torch.Tensor
    code: torch.Tensor

    def select(self, which: torch.Tensor) -> CodedEvents:
        """Those of the `(M,)` indices, or of the `(N,)` mask, `which`."""
        return CodedEvents(self.t_us[which], self.code[which])


def prepare(config: SimulationConfig, seed: int) -> Preparation:
    """What a seed stands for; no GPU is needed.

    Raises
    ------
    DeflareError
        When the scene has more groups of light sources than a GPU's thread has room for.
    """
    setup = set_up(config, seed)
    scene = setup.scene
    if len(scene.waveforms) > cuda_kernels.MOST_GROUPS:
        raise DeflareError(
            f"sources.num_sources: {len(scene.waveforms)} groups of light sources were drawn, a GPU takes at most "
            f"{cuda_kernels.MOST_GROUPS}; lower the range or simulate on the CPU."
        )
    times_us = plan_key_times(config, float(measure_band_flows(config, scene, [(0, config.sensor_size[0])])[0]))
    flare_us = plan_flare_times(config, scene)
    moments = find_moments(scene.waveforms, times_us)
    knots = (moments.t_us, moments.brightness, moments.bends, moments.lowest, moments.highest, moments.keys)
    first = np.clip(np.searchsorted(flare_us, times_us, side="right") - 1, 0, len(flare_us) - 2)
    along = (times_us - flare_us[first]) / (flare_us[first + 1] - flare_us[first])
    places, sprites = _pack(setup.lens.sprites)
    return Preparation(
        config=config,
        plan=setup.describe(config, seed),
        pixels=setup.pixels,
        poses=find_poses(scene, config.sensor_size, times_us),
        mapping=scene.mapping,
        textures=scene.textures,
        ambient=np.float32(scene.ambient),
        moments=knots,
        spots=_list_spots(setup.lens, find_emitters(scene, config.sensor_size, flare_us)),
        places=places,
        sprites=sprites,
        mixes=np.column_stack([first, along]).astype(np.float32),
        recorded=setup.recorded,
    )


def simulate_on(prepared: Preparation, device: torch.device | str = "cuda") -> TensorPair:
    """The pair of recordings of a preparation, on that GPU; the same preparation gives the same events.

    Numba's simulator (NUMBA_ENABLE_CUDASIM=1) runs it on the "cpu", for tests.
    """
    config = prepared.config
    with torch.cuda.device(device) if torch.device(device).type == "cuda" else torch.no_grad():
        direct, flare = render_pictures(prepared, torch.device(device))
        clean, real = sense_events(prepared, direct, flare)
        if prepared.recorded is not None:
            clean, real = (compose(prepared, view, seen) for view, seen in ((CLEAN, clean), (REAL, real)))
        target = make_target(config.target, clean, real, config.sensor_size)
    clock_us = (0, config.duration_us)
    views = [_decode(found, config.sensor_size) for found in (real, target)]
    return TensorPair(views[0][0], views[1][0], views[0][1], views[1][1], clock_us, prepared.plan)


def render_pictures(prepared: Preparation, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The scene at its K key times and the flare at its F, linear intensity, float32.

    The scene is `(K, 1 + groups, H * W)`, the flare `(F, groups, H * W)`.
    """
    (height, width), groups = prepared.config.sensor_size, prepared.moments[1].shape[1]
    num_pixels = height * width
    direct = torch.empty((len(prepared.poses.t_us), 1 + groups, num_pixels), device=device)
    flare = torch.empty((len(prepared.spots), groups, num_pixels), device=device)
    scene = _move(device, (prepared.poses, prepared.mapping, prepared.textures, prepared.ambient))
    _launch(cuda_kernels.render, device, (num_pixels, len(direct)), _as_array(direct), height, width, *scene)
    if prepared.recorded is not None:
        direct[:, 0] = float(prepared.recorded.light)
    lens = _move(device, (prepared.spots, prepared.places, prepared.sprites))
    _launch(cuda_kernels.render_flare, device, (num_pixels, len(flare)), _as_array(flare), width, *lens)
    return direct, flare


def sense_events(prepared: Preparation, direct: torch.Tensor, flare: torch.Tensor) -> tuple[CodedEvents, CodedEvents]:
    """What the sensor makes of the pictures: the events of the clean and of the real view.

    `direct` is `(K, 1 + groups, H * W)` and `flare` `(F, groups, H * W)`, float32, as of `render_pictures`.
    """
    config, device = prepared.config, direct.device
    num_pixels = direct.shape[2]
    pixels, moments, mixes = _move(device, (prepared.pixels, prepared.moments, prepared.mixes))
    touched = torch.empty(num_pixels, dtype=torch.bool, device=device)
    shown = torch.empty((2, num_pixels), dtype=torch.uint8, device=device)
    pictures = (_as_array(direct), _as_array(flare), mixes)
    ahead = (_as_array(touched), _as_array(shown), *pictures, moments[3], moments[4], DARK)
    _launch(cuda_kernels.look_ahead, device, (num_pixels,), *ahead, np.float32(config.min_flare_share))
    clock_us = _move(device, np.array([0, config.duration_us]))
    kernel = cuda_kernels.sense_brownian if prepared.pixels.constants.is_brownian else cuda_kernels.sense
    seen = (clock_us, pixels, DARK, _as_array(touched), _as_array(shown), moments, *pictures)
    # A first pass gives every pixel of both views the same room. Those few that fire more are simulated again.
    which = torch.arange(2 * num_pixels, device=device)
    events, counts = _sense(kernel, which, ROOM * torch.arange(2 * num_pixels + 1, device=device), seen)
    crowded = which[counts > ROOM]
    room = torch.cat([counts.new_zeros(1), counts[crowded].cumsum(0)])
    more, _ = _sense(kernel, crowded, room, seen)
    more_views = torch.repeat_interleave(crowded // num_pixels, counts[crowded])
    fits = torch.arange(ROOM, device=device) < torch.where(counts <= ROOM, counts, 0)[:, None]
    few = zip(events.view(2, num_pixels, ROOM), fits.view(2, num_pixels, ROOM), strict=True)
    found = [torch.cat([rows[fit], more[more_views == view]]) for view, (rows, fit) in enumerate(few)]
    clean = _sort(found[CLEAN])
    # Where flare does not reach, the real view has the clean view's events.
    shared = found[CLEAN][~touched[(found[CLEAN] & CODE) >> PIXEL_SHIFT]]
    return clean, _sort(torch.cat([found[REAL], shared]))


def compose(prepared: Preparation, view: int, layer: CodedEvents) -> CodedEvents:
    """What lamps and flare fire in a view, put over the recorded background; see `composition.compose_events`."""
    recorded, device = prepared.recorded, layer.t_us.device
    assert recorded is not None
    t_us, pixel, p, weights, phase = (as_tensor(values).to(device) for values in recorded[:5])
    t = torch.cat([t_us, layer.t_us])
    code = torch.cat([pixel.long() << PIXEL_SHIFT | (p > 0).long(), layer.code])
    # Stable, so that recorded events come first where times are equal.
    order = torch.sort(code >> PIXEL_SHIFT << TIME_SHIFT | t, stable=True).indices
    is_recorded = order < len(t_us)
    t, code = t[order], code[order]
    first = torch.searchsorted(code >> PIXEL_SHIFT, torch.arange(len(phase) + 1, device=device))
    kept = torch.empty_like(is_recorded)
    arrays = [_as_array(values) for values in (first, t, is_recorded, weights[view].contiguous(), phase, kept)]
    _launch(cuda_kernels.compose, device, (len(phase),), *arrays, np.float32(prepared.pixels.constants.refractory_us))
    return _sort(t[kept] << TIME_SHIFT | code[kept])


def make_target(kind: str, clean: CodedEvents, real: CodedEvents, sensor_size: tuple[int, int]) -> CodedEvents:
    """The target of that kind, N events of the clean or the real view; see `targets`."""
    if kind == "physical":
        return clean
    wanted = real.select((real.code >> LABEL_SHIFT & 3) != FLARE)
    return wanted if kind == "subset" else snap(clean, wanted, sensor_size)


def snap(clean: CodedEvents, wanted: CodedEvents, sensor_size: tuple[int, int]) -> CodedEvents:
    """The N clean events, each at the time of its partner among the wanted ones, if it has one within 5 ms."""
    device, num_keys = clean.t_us.device, 2 * sensor_size[0] * sensor_size[1]
    keys = torch.arange(num_keys + 1, device=device)
    ordered, firsts = [], []
    for found in (clean, wanted):
        key = (found.code >> PIXEL_SHIFT) * 2 + (found.code & 1)
        key, order = torch.sort(key, stable=True)
        ordered.append(found.select(order))
        firsts.append(torch.searchsorted(key, keys))
    moved = torch.empty_like(ordered[0].t_us)
    arrays = [_as_array(values) for values in (*firsts, ordered[0].t_us, ordered[1].t_us, moved)]
    _launch(cuda_kernels.snap, device, (num_keys,), *arrays)
    return _sort(moved << TIME_SHIFT | ordered[0].code)


def _sense(
    kernel: Any, which: torch.Tensor, offsets: torch.Tensor, seen: tuple[Any, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The events and their counts of some pixels, those of each from its offset on."""
    events = torch.empty(int(offsets[-1]), dtype=torch.int64, device=which.device)
    counts = torch.empty(len(which), dtype=torch.int64, device=which.device)
    if len(which):
        threads = (_as_array(which), _as_array(offsets))
        _launch(kernel, which.device, (len(which),), *threads, *seen, _as_array(events), _as_array(counts))
    return events, counts


def _sort(events: torch.Tensor) -> CodedEvents:
    """The events, each a time above a code, in the order of time, then code."""
    ordered = torch.sort(events).values
    return CodedEvents(ordered >> TIME_SHIFT, ordered & CODE)


def _decode(found: CodedEvents, sensor_size: tuple[int, int]) -> tuple[EventTensors, torch.Tensor]:
    """The events and labels that codes stand for."""
    pixel = found.code >> PIXEL_SHIFT
    x, y = (values.int() for values in (pixel % sensor_size[1], pixel // sensor_size[1]))
    p = (2 * (found.code & 1) - 1).to(torch.int8)
    return EventTensors(found.t_us, x, y, p, sensor_size), (found.code >> LABEL_SHIFT & 3).to(torch.uint8)


def _list_spots(lens: Lens, emitters: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every picture that the lens makes of every emitter `(K, E, 5)`, `(K, spots, 5)`; see `render_flare`."""
    x, y, flux, group, width = np.moveaxis(emitters, -1, 0)
    rows = [
        np.stack([column, row, weight, group, sprite], axis=-1)
        for sprite, (column, row, weight) in zip(lens.number_sprites(width), lens.find_spots(x, y, flux), strict=True)
    ]
    return np.concatenate(rows, axis=1).astype(np.float32)


def _pack(pictures: list[NDArray[np.float32]]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Square pictures one behind the other, and where each begins and its side."""
    sizes = [picture.size for picture in pictures]
    starts = np.cumsum([0, *sizes[:-1]])
    places = np.column_stack([starts, [len(picture) for picture in pictures]]).astype(np.int32)
    return places, np.concatenate([picture.ravel() for picture in pictures])


def map_arrays(change: Callable[[Any], Any], value: Any) -> Any:
    """The value with `change` applied to each array and tensor in a nest of tuples."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return change(value)
    if isinstance(value, tuple):
        parts = [map_arrays(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def as_tensor(values: NDArray[Any] | torch.Tensor) -> torch.Tensor:
    """The values as a tensor of the same shape, type and memory."""
    return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(values))


def _move(device: torch.device, value: Any) -> Any:
    """The value with all of its arrays on a device, as numba's kernels take them."""
    return map_arrays(lambda values: _as_array(as_tensor(values).to(device, non_blocking=True)), value)


def _as_array(tensor: torch.Tensor) -> Any:
    """The tensor as numba's kernels take it: on the CPU, for its simulator, as a numpy array."""
    return tensor.numpy() if tensor.device.type == "cpu" else cuda.as_cuda_array(tensor)


def _launch(kernel: Any, device: torch.device, size: tuple[int, ...], *arguments: Any) -> None:
    """Start a kernel with a thread for each pixel (and key time), in order with torch's own work."""
    stream = cuda.external_stream(torch.cuda.current_stream().cuda_stream) if device.type == "cuda" else 0
    threads = cuda_kernels.THREADS
    blocks = (-(-size[0] // threads), *size[1:])
    kernel[blocks, (threads, *(1 for _ in size[1:])), stream](*arguments)
