"""Recorded backgrounds: events of a camera in place of what a drawn scene would fire.

The lamps and their flare are then simulated over a plain grey of constant light, by pixels without noise of their own,
and `composition.compose_events` puts them over the recording, which brings its edges and its noise. A pixel's light is
not recorded, so the grey is as bright as a surface of albedo 0.2 under the scene's ambient light.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_simu.config import SimulationConfig
from deflare_core.events import SensorSize
from deflare_core.io.formats import SUFFIX_FORMATS
from deflare_core.io.recordings import Recording, RecordingError, open_recording

ALBEDO = 0.2


class Recorded(NamedTuple):
    """A part of a recording that is the background of a pair.

    Parameters
    ----------
    t_us, pixel, p : N events from time 0 on: microseconds int64, place row by row int32, polarity int8, `(N,)` each.
    weights : the background's share of each pixel's light, without and with flare, `(2, H * W)` float32.
    phase : where each pixel begins to count which of its events are left, from 0 to 1, `(H * W,)` float32.
    light : the background's light, the same everywhere.
    plan : the file, and which part of it this is.
    """

    t_us: NDArray[np.int64]
    pixel: NDArray[np.int32]
    p: NDArray[np.int8]
    weights: NDArray[np.float32]
    phase: NDArray[np.float32]
    light: np.float32
    plan: dict[str, Any]


def draw_recorded(config: SimulationConfig, ambient: float, rng: np.random.Generator) -> Recorded | None:
    """A random part of a random recording of `config.backgrounds`, or for the other pairs none; weights are all 1.

    Raises
    ------
    RecordingError
        When there are no recordings, or one is smaller or shorter than the pair.
    """
    if config.backgrounds is None or rng.random() >= config.background_share:
        return None
    paths = list_recordings(Path(config.backgrounds))
    path = paths[rng.integers(len(paths))]
    height, width = config.sensor_size
    with open_recording(path, progress=False) as recording:
        check_fit(recording, config)
        first_us, end_us = recording.clock_us
        start_us = int(rng.integers(first_us, end_us - config.duration_us + 1))
        row, column = (int(rng.integers(has - need + 1)) for has, need in _both(recording.sensor_size, (height, width)))
        events = recording.window(start_us, start_us + config.duration_us)
    y, x = events.y.astype(np.int32) - row, events.x.astype(np.int32) - column
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return Recorded(
        t_us=events.t[inside] - start_us,
        pixel=y[inside] * width + x[inside],
        p=events.p[inside],
        weights=np.ones((2, height * width), np.float32),
        phase=rng.random(height * width, np.float32),
        light=np.float32(ALBEDO * ambient),
        plan={"file": str(path), "start_us": start_us, "row": row, "column": column},
    )


def list_recordings(source: Path) -> list[Path]:
    """The recordings of a folder by name, of every format that is read; or the file itself."""
    if not source.exists():
        raise RecordingError(f"{source}: no such file or folder of recordings; set `backgrounds` to one.")
    if source.is_file():
        return [source]
    paths = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIX_FORMATS and path.name[0] != ".")
    if not paths:
        raise RecordingError(f"{source}: holds no recordings ({', '.join(sorted(SUFFIX_FORMATS))}).")
    return paths


def check_backgrounds(config: SimulationConfig) -> None:
    """Raise a RecordingError unless each recording of `config.backgrounds` can be the background of a pair."""
    if config.backgrounds is not None and config.background_share:
        for path in list_recordings(Path(config.backgrounds)):
            with open_recording(path, progress=False) as recording:
                check_fit(recording, config)


def check_fit(recording: Recording, config: SimulationConfig) -> None:
    """Raise a RecordingError unless a recording is at least as large and as long as a pair."""
    has, need = recording.sensor_size, config.sensor_size
    if has[0] < need[0] or has[1] < need[1]:
        raise RecordingError(
            f"{recording.path}: its sensor of {has[1]}x{has[0]} is smaller than a pair, {need[1]}x{need[0]}; take it "
            f"out of {config.backgrounds}, or set sensor_size=[{min(has[0], need[0])},{min(has[1], need[1])}]."
        )
    start_us, end_us = recording.clock_us
    if end_us - start_us < config.duration_us:
        raise RecordingError(
            f"{recording.path}: its {end_us - start_us} us are shorter than a pair, {config.duration_us} us; take it "
            f"out of {config.backgrounds}, or set a lower duration_us."
        )


def weigh(
    recorded: Recorded, direct: NDArray[np.float32], flare: NDArray[np.float32], min_flare_share: float
) -> Recorded:
    """The recording with its share of the light at pixels that get `direct` light of lamps and `flare`, `(H, W)` each.

    Less than the smallest share counts as nothing: there the recording stays as it is, in both views or in the one.
    """
    without = recorded.light + direct
    with_flare = without + np.where(flare > min_flare_share * without, flare, 0)
    weights = np.stack([recorded.light / without, recorded.light / with_flare]).reshape(2, -1)
    return recorded._replace(weights=np.where(weights < 1 - min_flare_share, weights, 1).astype(np.float32))


def _both(has: SensorSize, need: SensorSize) -> list[tuple[int, int]]:
    return list(zip(has, need, strict=True))
