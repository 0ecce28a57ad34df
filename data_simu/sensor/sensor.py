"""The sensor: from linear intensity to events, exactly in time, for two views of one scene at once.

Each pixel follows the log intensity through one pole whose speed grows with light, fires when it has moved by a
threshold since it was armed, is dead for a while, and is armed again where it then stands (Lichtsteiner, Posch and
Delbruck, 2008; Hu, Liu and Delbruck, v2e, 2021). Pictures are linear between key times, the lamps' brightness between
the knots of its waveform, and an event's time is the crossing inside a step: no frame rate shows in the timestamps.

The clean view is `background + sum_s a_s direct_s`, the real one adds `sum_s a_s flare_s`. Both use the same
thresholds, jitter and noise candidates; a noise event happens less often where there is light (v2e). A pixel whose
flare never exceeds a small share of its light is simulated once and its events are copied, so outside the flare the
two recordings are identical event for event.

Every event has a label. Alongside the log intensity, the changes due to the lamps' direct light and due to their flare
run through the same pole; of the shares of the move that fired an event, the largest names it.

A share of the sensors has pixels of other physics, without a pole and with noise in the voltage: see `brownian`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_simu.config import Range, SensorConfig
from data_simu.scalars import DARK
from data_simu.sensor import tiles
from data_simu.sensor.firing import LABEL_SHIFT, PIXEL_SHIFT, TIME_SHIFT
from data_simu.sensor.look_times import Moments
from data_simu.sensor.tiles import CLEAN, CODE, REAL
from data_simu.sensor.time_order import sort_events
from deflare_core.events import Events, SensorSize

AT_ONCE_HZ = np.float32(1e9)
"""Corner frequency of a pixel that follows the light without lag."""
Picture = NDArray[np.float32]


class Constants(NamedTuple):
    """What is the same for all pixels of a sensor, as numbers that compiled loops take as they are.

    Parameters
    ----------
    corner_hz, ceiling_hz : corner frequency at intensity 1, and the highest.
    refractory_us : dead time after an event.
    jitter : standard deviation of a threshold from event to event, relative.
    leak_per_us : drift of a pixel towards positive events, logarithm of intensity per microsecond.
    seed, noise_seed : seeds of the jitter and of the noise.
    first : number of the first pixel, where these are a part of a sensor.
    is_brownian : whether the pixels are those of `brownian`, which take the noise rates for their voltage's, and:
    dark : the light that darkness counts as.
    noise_floor : share of the voltage's noise in the dark that stays however much light there is.
    light_leak_per_us : drift towards positive events at intensity 1, which grows with the light.
    """

    corner_hz: np.float32
    ceiling_hz: np.float32
    refractory_us: np.float32
    jitter: np.float32
    leak_per_us: np.float32
    seed: np.uint64
    noise_seed: np.uint64
    first: int = 0
    is_brownian: bool = False
    dark: np.float32 = DARK
    noise_floor: np.float32 = np.float32(0)
    light_leak_per_us: np.float32 = np.float32(0)


class Pixels(NamedTuple):
    """The pixels of a sensor, as 32-bit numbers.

    Parameters
    ----------
    on, off : thresholds of each pixel `(N,)`, natural logarithm of intensity.
    start : where each pixel stands at first, from -1 (about to fire negative) to 1 (positive), `(N,)`.
    noise_hz : rate of noise events of each pixel in the dark, `(N,)`.
    constants : what is the same for all.
    """

    on: Picture
    off: Picture
    start: Picture
    noise_hz: Picture
    constants: Constants

    def part(self, first: int, last: int) -> Pixels:
        """The pixels from `first` to before `last`."""
        columns = {name: getattr(self, name)[first:last] for name in ("on", "off", "start", "noise_hz")}
        return self._replace(constants=self.constants._replace(first=self.constants.first + first), **columns)

    def without_noise(self) -> Pixels:
        """The same pixels without noise and leaks, midway between their thresholds at first.

        So nothing but light moves them, and each event has its cause from the first on.
        """
        quiet = self.constants._replace(leak_per_us=np.float32(0), light_leak_per_us=np.float32(0))
        nothing = np.zeros_like(self.noise_hz)
        return self._replace(noise_hz=nothing, start=nothing, constants=quiet)

    def describe(self) -> dict[str, float | str]:
        """The constants in figures, for the record of a recording."""
        model = {"model": "brownian"} if self.constants.is_brownian else {}
        return model | {
            "threshold_on": round(float(self.on.mean()), 4),
            "threshold_off": round(float(self.off.mean()), 4),
            "mismatch": round(float(self.on.std() / self.on.mean()), 4),
            "corner_hz": round(float(self.constants.corner_hz), 1),
            "ceiling_hz": round(float(self.constants.ceiling_hz), 1),
            "refractory_us": round(float(self.constants.refractory_us), 1),
            "noise_hz": round(float(self.noise_hz.mean()), 3),
        }


class LabelledEvents(NamedTuple):
    """N events and what caused each, `(N,)`: 0 background, 1 light source, 2 flare, 3 noise."""

    events: Events
    label: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class View:
    """What the sensor sees at some key times, at mean brightness of the lamps.

    Parameters
    ----------
    direct : the background, then each lamp's picture with all that it lights, `(keys, 1 + lamps, H, W)` float32.
    flare : what the real lens adds for each lamp, `(keys, lamps, H, W)` float32.
    """

    direct: Picture
    flare: Picture


def draw_pixels(config: SensorConfig, sensor_size: SensorSize, rng: np.random.Generator) -> Pixels:
    """The pixels of a random sensor of size (height, width)."""
    num = sensor_size[0] * sensor_size[1]
    threshold, off_ratio = rng.uniform(*config.threshold), rng.uniform(*config.off_ratio)
    mismatch = rng.uniform(*config.mismatch)
    on, off = (np.clip(1 + mismatch * rng.standard_normal(num, np.float32), 0.5, 2) for _ in range(2))
    start = 2 * rng.random(num, np.float32) - 1
    noise_hz = draw_log(config.noise_hz, rng) * np.exp(config.noise_spread * rng.standard_normal(num, np.float32))
    hot = rng.random(num) < config.hot_share
    noise_hz[hot] += [draw_log(config.hot_hz, rng) for _ in range(int(hot.sum()))]
    constants = Constants(
        corner_hz=np.float32(rng.uniform(*config.corner_hz)),
        ceiling_hz=np.float32(rng.uniform(*config.ceiling_hz)),
        refractory_us=np.float32(draw_log(config.refractory_us, rng)),
        jitter=np.float32(config.jitter),
        leak_per_us=np.float32(config.leak_hz * threshold / 1e6),
        seed=np.uint64(rng.integers(2**62)),
        noise_seed=np.uint64(rng.integers(2**62)),
    )
    if rng.random() < config.brownian_share:
        constants = constants._replace(
            corner_hz=AT_ONCE_HZ,
            ceiling_hz=AT_ONCE_HZ,
            is_brownian=True,
            noise_floor=np.float32(rng.uniform(*config.brownian_floor)),
            light_leak_per_us=np.float32(rng.uniform(*config.brownian_leak_hz) * threshold / 1e6),
        )
    on, off = np.float32(threshold) * on, np.float32(threshold * off_ratio) * off
    return Pixels(on, off, start, noise_hz.astype(np.float32), constants)


def draw_log(bounds: Range, rng: np.random.Generator) -> float:
    """A random number between two positive bounds, as likely in each octave; 0 where both are 0."""
    low, high = bounds
    return float(low * (high / low) ** rng.random()) if low else 0.0


class PairedSensor:
    """A sensor, or a part of one, that sees the clean and the real view of a scene at once, as time goes on.

    Parameters
    ----------
    pixels : the pixels' constants.
    min_flare_share : flare below this share of a pixel's light leaves it untouched.
    clock_us : start and end of the recording; what happens before or after is seen but not recorded.
    """

    def __init__(self, pixels: Pixels, min_flare_share: float, clock_us: tuple[int, int]) -> None:
        self.pixels, self.clock_us = pixels, clock_us
        self.min_flare_share = np.float32(min_flare_share)
        num_pixels = len(pixels.on)
        resting = tiles.rest_all(pixels)
        self._states = np.stack([resting, resting])
        self._touched = np.zeros(num_pixels, np.bool_)
        self._visible: NDArray[np.bool_] | None = None
        self._outs = tuple((np.empty(num_pixels, np.int64), np.array([0, *clock_us], np.int64)) for _ in (CLEAN, REAL))

    def advance(self, moments: Moments, view: View) -> None:
        """See the scene from the first key time to the last.

        A pixel that flare reaches within them is touched from the first one on. The lamps that flicker visibly
        somewhere are looked up once for all of them, so they should not be many: eight are a good number.
        """
        if self._visible is None:
            self._visible = np.zeros((2, self._states.shape[1], view.flare.shape[1]), np.bool_)
        timing = (moments.t_us, moments.brightness, moments.bends, moments.keys, moments.lowest, moments.highest)
        state = (self._states, self._touched, self._visible)
        pictures = _flatten(view)
        self._outs = tiles.see(self.pixels.constants, DARK, self.min_flare_share, state, timing, pictures, self._outs)

    def read_events(self, view: int) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
        """Times `(N,)` and codes `(N,)` of the events of the clean (0) or the real view (1), in no particular order."""
        events, cursor = self._outs[view]
        found = events[: cursor[0]]
        return (found >> TIME_SHIFT).astype(np.int32), (found & CODE).astype(np.uint32)


def merge_recording(parts: Sequence[PairedSensor], view: int, sensor_size: SensorSize) -> LabelledEvents:
    """The N events and labels that all parts of a sensor recorded, in the order of time, then pixel.

    `view` is 0 for the ideal lens, 1 for the real one.
    """
    columns = zip(*(part.read_events(view) for part in parts), strict=True)
    t_us, codes = (np.concatenate(column) for column in columns)
    t, code = sort_events(t_us, codes, *parts[0].clock_us)
    return label_events(t, code, sensor_size)


def label_events(t_us: NDArray[np.int64], code: NDArray[np.uint32], sensor_size: SensorSize) -> LabelledEvents:
    """The events that times and codes of pixel, label and polarity, `(N,)` each, stand for; see `firing`."""
    y, x = np.divmod(code >> PIXEL_SHIFT, np.uint32(sensor_size[1]))
    p = (2 * (code & 1).astype(np.int8) - 1).astype(np.int8)
    label = (code >> LABEL_SHIFT & 3).astype(np.uint8)
    return LabelledEvents(Events(t_us, x.astype(np.uint16), y.astype(np.uint16), p, sensor_size), label)


def _flatten(view: View) -> tuple[Picture, Picture]:
    """The view with one axis for all pixels."""
    num_pixels = view.direct[0, 0].size
    direct, flare = (np.ascontiguousarray(part) for part in (view.direct, view.flare))
    return direct.reshape(*direct.shape[:2], num_pixels), flare.reshape(*flare.shape[:2], num_pixels)
