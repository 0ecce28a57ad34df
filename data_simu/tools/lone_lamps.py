"""Lone lamps: one lamp before a wall through a perfect lens, to measure how much of it a method takes for flare.

    python -m data_simu.tools.lone_lamps --checkpoint runs/train/checkpoints/best.pt

prints for each lamp what the method keeps of its events and of the wall's. None of them is flare.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_simu.config import OpticsConfig, SceneConfig, SensorConfig, SimulationConfig, SourceConfig
from data_simu.optics.lens import draw_lens
from data_simu.scene.flicker import Waveform, make_mains, make_pulses, make_rectified
from data_simu.scene.lamp_pictures import HARDEST, REACH, X, Y
from data_simu.scene.lamps import DIMMING_MRAD
from data_simu.scene.scene import Scene, draw_scene
from data_simu.scene.source import Source
from data_simu.scene.textures import build_pyramid
from data_simu.sensor.sensor import LabelledEvents, draw_pixels, merge_recording
from data_simu.sensor.tiles import REAL
from data_simu.simulation import Setup, record
from deflare_core.deflaring.method import Method
from deflare_core.events import BACKGROUND, LIGHT
from deflare_core.inference import deflare_recording, load_method
from deflare_core.io.recordings import load_events, save_events
from deflare_core.streams.matching import find_matched
from deflare_core.system.places import PRETRAINED

WIDTH = 640
"""Columns of the sensor on which a lamp has its size in pixels; on another its size is the same share of the width."""
DEPTH_M = 3.0
RADIANCE = 2_000.0
DIMMING = 1.4
"""Radiance of a small lamp over the ambient light, and the power of size by which a larger one is dimmer."""
PAN_DEG_S = 15.0
STEADY = Waveform("constant", 0.0, 0.0, np.zeros(1), np.ones(1))


class LoneLamp(NamedTuple):
    """A lamp of the table.

    Parameters
    ----------
    name : what it is, in words.
    half_length, half_width : in pixels; equal ones are a disc.
    waveform : its flicker.
    turn_deg : its angle in the picture.
    pans : whether the camera pans.
    """

    name: str
    half_length: float
    half_width: float
    waveform: Waveform
    turn_deg: float = 0.0
    pans: bool = True


def list_lone_lamps() -> list[LoneLamp]:
    """Discs from 2 to 40 pixels and a tube of 240 x 30, with several kinds of flicker, at several angles."""
    rectified, mains = make_rectified(100, 0.15, 0.2), make_mains(100, 0.6, 0.1, 0.2)
    pulses = make_pulses(244, 0.5, 60, 0.2)
    lamps = [_disc(radius, "rectified 100 Hz", rectified) for radius in (2, 8, 14, 15, 16, 24, 40)]
    lamps += [_disc(radius, "PWM 244 Hz", pulses) for radius in (8, 24, 40)]
    lamps += [_disc(24, "mains 100 Hz", mains), _disc(40, "steady", STEADY)]
    lamps += [
        _disc(12, "rectified 100 Hz", rectified)._replace(name="disc 12, rectified 100 Hz, camera still", pans=False),
        _disc(40, "rectified 100 Hz", rectified)._replace(name="disc 40, rectified 100 Hz, camera still", pans=False),
    ]
    for words, waveform in (("mains 100 Hz", mains), ("rectified 100 Hz", rectified)):
        lamps += [
            LoneLamp(f"tube 240 x 30 at {turn}, {words}", 120, 15, waveform, turn) for turn in (0, 20, 30, 45, 90)
        ]
    return lamps


def _disc(radius: float, words: str, waveform: Waveform) -> LoneLamp:
    return LoneLamp(f"disc {radius}, {words}", radius, radius, waveform)


def draw_lone_lamps(
    lamps: Sequence[LoneLamp] | None = None, config: SimulationConfig | None = None, seed: int = 0, workers: int = 1
) -> Iterator[tuple[str, LabelledEvents]]:
    """The name and the events of each lamp, one after the other, with what caused each event; none is flare.

    Parameters
    ----------
    lamps : which lamps; all of `list_lone_lamps` by default.
    config : size of the sensor and length of the recordings; 640x480 and 60 ms by default.
    seed : of the wall and the pixels, which are the same for all lamps.
    workers : threads.
    """
    config = config or SimulationConfig(duration_us=60_000)
    pixels = draw_pixels(SensorConfig(), config.sensor_size, np.random.default_rng(seed))
    lens = draw_lens(OpticsConfig(perfect_share=1.0), config.sensor_size, np.random.default_rng(seed))
    for lamp in list_lone_lamps() if lamps is None else lamps:
        setup = Setup(hang_lamp(lamp, seed), lens, pixels)
        yield lamp.name, merge_recording(record(config, setup, workers), REAL, config.sensor_size)


def hang_lamp(lamp: LoneLamp, seed: int) -> Scene:
    """A wall with one lamp before it, seen by a camera that pans or stands still."""
    rng = np.random.default_rng(seed)
    scene = draw_scene(SceneConfig(families=("wall",), num_objects=(0, 0)), SourceConfig(num_sources=(1, 1)), rng)
    half_m = lamp.half_length / scene.focal_pixels((1, WIDTH)) * DEPTH_M / REACH
    turn = np.deg2rad(lamp.turn_deg)
    axes = [half_m * np.array(axis) for axis in ((np.cos(turn), np.sin(turn), 0), (-np.sin(turn), np.cos(turn), 0))]
    picture = build_pyramid(_draw_picture(lamp), darkest=0.0)
    radius_m = float(2 * half_m * np.sqrt(picture[-1] / np.pi))
    dimming = max(1e3 * radius_m / DEPTH_M / DIMMING_MRAD, 1.0) ** -DIMMING
    still = np.zeros(3, np.float32)
    across, down = (axis.astype(np.float32) for axis in axes)
    source = Source(
        "lone lamp", 0, np.array([0, 0, DEPTH_M], np.float32), still, across, radius_m,
        scene.ambient * RADIANCE * dimming, second_axis_m=down, picture=picture,
    )  # fmt: skip
    planes = scene.planes_m.copy()
    planes[4] = 1.2 * DEPTH_M
    return replace(
        scene,
        planes_m=planes,
        textures=np.concatenate([scene.textures, picture]),
        camera_m_s=still,
        camera_rad_s=np.array([0, np.deg2rad(PAN_DEG_S * lamp.pans), 0], np.float32),
        sources=(source,),
        waveforms=(lamp.waveform,),
    )


def _draw_picture(lamp: LoneLamp) -> NDArray[np.float32]:
    """A disc, or a tube with round ends, with hard edges."""
    radius = np.float32(REACH * lamp.half_width / lamp.half_length)
    inside = radius - np.hypot(np.maximum(np.abs(X) - (np.float32(REACH) - radius), 0), Y)
    return np.clip(0.5 + inside / np.float32(HARDEST), 0, 1).astype(np.float32)


class KeptLamp(NamedTuple):
    """What a method keeps of one lamp: number of its events, and the shares kept of them and of the wall's."""

    name: str
    num_events: int
    light: float
    background: float


def measure_kept(method: Method, recordings: Iterable[tuple[str, LabelledEvents]]) -> Iterator[KeptLamp]:
    """What the method keeps of each recording, one after the other; 1 of what has no events."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.h5", Path(folder) / "out.h5"
        for name, (events, label) in recordings:
            save_events(source, events, source=name)
            deflare_recording(method, source, target, progress=False)
            kept = find_matched(load_events(target), events)
            light, background = (float(kept[label == c].mean()) if c in label else 1.0 for c in (LIGHT, BACKGROUND))
            yield KeptLamp(name, int((label == LIGHT).sum()), light, background)


def write_kept(kept: Iterable[KeptLamp]) -> None:
    """Write a table to the standard output, a row as soon as it is known."""
    rows = [("lamp", "events", "light kept", "wall kept")]
    lights = []
    for lamp in kept:
        rows.append((lamp.name, f"{lamp.num_events:,}", f"{lamp.light:.1%}", f"{lamp.background:.1%}"))
        lights.append(lamp.light)
        _write_rows(rows)
        rows = []
    _write_rows([("least, mean", "", f"{min(lights):.1%}", f"{np.mean(lights):.1%}")])


def _write_rows(rows: Iterable[tuple[str, str, str, str]]) -> None:
    for name, *values in rows:
        sys.stdout.write(f"{name:42}" + "".join(f"{value:>12}" for value in values) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Show what a network keeps of lone lamps, none of which has flare."""
    parser = argparse.ArgumentParser(prog="python -m data_simu.tools.lone_lamps", description=main.__doc__)
    parser.add_argument("--checkpoint", type=Path, default=PRETRAINED, help="default: the network that comes along")
    parser.add_argument("--level", type=float, help="decision level (default: the network's own)")
    parser.add_argument("--device", default="auto", help="where the network computes (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="threads that simulate (default: %(default)s)")
    given = parser.parse_args(arguments)
    method = load_method(checkpoint=given.checkpoint, device=given.device, level=given.level)
    write_kept(measure_kept(method, draw_lone_lamps(workers=given.workers)))


if __name__ == "__main__":
    main()
