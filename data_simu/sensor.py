"""The sensor: from linear intensity to events, exactly in time, for two views of one scene at once.

Each pixel follows the log intensity through one pole whose speed grows with light, and fires when it has moved by a
threshold from where it stood at its last event (Lichtsteiner, Posch and Delbruck, 2008; Hu, Liu and Delbruck, v2e,
2021). Intensities are linear between knots, the pole's answer to a ramp of the log intensity is exact, and an event's
time is the crossing inside the step, so no frame rate shows in the timestamps.

The clean view is `background + sum_s a_s lit_s`, the real one adds `sum_s a_s flare_s`. Both use the same thresholds,
jitter and noise candidates. A pixel whose flare never exceeds a small share of its light is simulated once and its
events are copied, so outside the flare the two recordings are identical event for event.

Every event has a label. Alongside the log intensity, the changes due to the lamps' direct light and due to their flare
run through the same pole; of the three shares of the change that fired an event, the largest names it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from data_simu.config import SensorConfig
from deflare_core.events import Events, SensorSize
from deflare_core.kernels import random_below

BACKGROUND, LIGHT, FLARE, NOISE = 0, 1, 2, 3
DARK = np.float64(0.05)
"""Photocurrent in the dark, in units of the ambient light."""
CLEAN, REAL = 0, 1

# Columns of a pixel's state: the filtered log intensity and where it stood at the last event, the same for the shares
# of light and flare with their unfiltered sums, the end of the dead time, and the jitter of the next threshold.
LEVEL, REFERENCE, LIGHT_SUM, LIGHT_LEVEL, LIGHT_REFERENCE, FLARE_SUM, FLARE_LEVEL, FLARE_REFERENCE = range(8)
DEAD_UNTIL, JITTER = 8, 9
NUM_STATES = 10


@dataclass(frozen=True, slots=True)
class Pixels:
    """The constants of a sensor's pixels.

    Parameters
    ----------
    on, off : thresholds of each pixel, natural logarithm of intensity.
    corner_hz, ceiling_hz : corner frequency at intensity 1, and the highest.
    refractory_us : dead time after an event.
    jitter : relative deviation of a threshold from event to event.
    leak_hz, noise_hz : rates of leak and noise events per pixel in the dark.
    seed : seed of the jitter.
    """

    on: NDArray[np.float64]
    off: NDArray[np.float64]
    corner_hz: float
    ceiling_hz: float
    refractory_us: float
    jitter: float
    leak_hz: float
    noise_hz: float
    seed: int

    def describe(self) -> dict[str, float]:
        """The constants in figures, for the record of a recording."""
        return {
            "threshold_on": round(float(self.on.mean()), 4),
            "threshold_off": round(float(self.off.mean()), 4),
            "corner_hz": round(self.corner_hz, 1),
            "refractory_us": round(self.refractory_us, 1),
            "noise_hz": round(self.noise_hz, 2),
        }


@dataclass(frozen=True, slots=True)
class LabelledEvents:
    """Events and, for each, what caused it: 0 background, 1 light source, 2 flare, 3 noise."""

    events: Events
    label: NDArray[np.uint8]


def draw_pixels(config: SensorConfig, sensor_size: SensorSize, rng: np.random.Generator) -> Pixels:
    """A random sensor."""
    threshold, off_ratio = rng.uniform(*config.threshold), rng.uniform(*config.off_ratio)
    mismatch = rng.uniform(*config.mismatch)
    spread = [np.clip(rng.normal(1, mismatch, sensor_size), 0.5, 2).ravel() for _ in range(2)]
    return Pixels(
        on=threshold * spread[0],
        off=threshold * off_ratio * spread[1],
        corner_hz=rng.uniform(*config.corner_hz),
        ceiling_hz=rng.uniform(*config.ceiling_hz),
        refractory_us=rng.uniform(*config.refractory_us),
        jitter=config.jitter,
        leak_hz=config.leak_hz,
        noise_hz=rng.uniform(*config.noise_hz),
        seed=int(rng.integers(2**62)),
    )


class PairedSensor:
    """A sensor that sees the clean and the real view of a scene at once, key time by key time.

    Parameters
    ----------
    pixels : the pixels' constants.
    sensor_size : (height, width).
    min_flare_share : flare below this share of a pixel's light leaves it untouched.
    """

    def __init__(self, pixels: Pixels, sensor_size: SensorSize, min_flare_share: float) -> None:
        self.pixels, self.sensor_size = pixels, sensor_size
        self.min_flare_share = min_flare_share
        num_pixels = sensor_size[0] * sensor_size[1]
        self._states = np.zeros((2, num_pixels, NUM_STATES))
        self._touched = np.zeros(num_pixels, np.bool_)
        self._fired = np.zeros((2, num_pixels), np.uint32)
        self._parts: tuple[list[tuple[np.ndarray, ...]], ...] = ([], [])
        self._started = False

    def advance(
        self,
        t_us: NDArray[np.float64],
        brightness: NDArray[np.float64],
        views: tuple[NDArray[np.float32], NDArray[np.float32]],
        lit: tuple[NDArray[np.float32], NDArray[np.float32]],
        flare: tuple[NDArray[np.float32], NDArray[np.float32]],
        noise: np.random.Generator | None = None,
    ) -> None:
        """See the scene from one key time to the next.

        Parameters
        ----------
        t_us : times of the knots, the key times first and last, microseconds.
        brightness : brightness of each lamp at the knots, `(knots, lamps)`.
        views, lit, flare : background `(H, W)`, and direct light and flare of each lamp `(lamps, H, W)`, each at the
            two key times.
        noise : generator of the noise events; none for a sensor without noise.
        """
        num_pixels = self._touched.size
        pictures = [p.reshape(*p.shape[:-2], num_pixels) for pair in (views, lit, flare) for p in pair]
        if not self._started:
            _settle(self._states, brightness[0], pictures[0], pictures[2], pictures[4])
            _first_jitter(self._states, self.pixels.jitter, np.uint64(self.pixels.seed))
            self._started = True
        _touch(self._touched, self._states, self._fired, self.min_flare_share, brightness.max(0), *pictures)
        amplitude = _largest_change(brightness, *pictures)
        constants = self.pixels
        pole = (constants.corner_hz, constants.ceiling_hz, constants.refractory_us, constants.jitter, constants.leak_hz)
        timing = (t_us, brightness, *pictures)
        fixed = (constants.on, constants.off, *pole, np.uint64(constants.seed))
        for view in (CLEAN, REAL):
            state = (self._states[view], self._touched, self._fired[view], amplitude)
            found = _see(view, *state, *timing, *fixed)  # type: ignore[call-arg]
            self._parts[view].append(found)
        shared = ~self._touched[self._parts[CLEAN][-1][1]]
        self._parts[REAL].append(tuple(column[shared] for column in self._parts[CLEAN][-1]))
        if noise is not None:
            self._add_noise(t_us, brightness[0], pictures[0], pictures[2], pictures[4], noise)

    def _add_noise(
        self,
        t_us: NDArray[np.float64],
        brightness: NDArray[np.float64],
        view: NDArray[np.float32],
        lit: NDArray[np.float32],
        flare: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> None:
        """Add background activity: one list of candidates, of which each view accepts fewer where it has more light."""
        expected = self.pixels.noise_hz * len(view) * (t_us[-1] - t_us[0]) / 1e6
        num = rng.poisson(expected)
        t, pixel = rng.uniform(t_us[0], t_us[-1], num), rng.integers(0, len(view), num).astype(np.uint32)
        polarity, draw = rng.choice(np.array([-1, 1], np.int8), num), rng.uniform(size=num)
        light = view[pixel] + brightness @ lit[:, pixel]
        extra = np.where(self._touched[pixel], brightness @ flare[:, pixel], 0)
        label = np.full(num, NOISE, np.uint8)
        for part, intensity in zip(self._parts, (light, light + extra), strict=True):
            kept = draw < 1 / np.sqrt(1 + intensity)
            part.append((t[kept], pixel[kept], polarity[kept], label[kept]))

    def recordings(self, t_start_us: int, t_end_us: int) -> tuple[LabelledEvents, LabelledEvents]:
        """The clean and the real recording over `[t_start, t_end)`, sorted by time."""
        clean, real = (self._sorted(view, t_start_us, t_end_us) for view in (CLEAN, REAL))
        return clean, real

    def _sorted(self, view: int, t_start_us: int, t_end_us: int) -> LabelledEvents:
        t, pixel, polarity, label = (np.concatenate(columns) for columns in zip(*self._parts[view], strict=True))
        return sorted_events(t, pixel, polarity, label, self.sensor_size, t_start_us, t_end_us)


def sorted_events(
    t_us: np.ndarray,
    pixel: np.ndarray,
    polarity: np.ndarray,
    label: np.ndarray,
    sensor_size: SensorSize,
    t_start_us: int,
    t_end_us: int,
) -> LabelledEvents:
    """The events inside `[t_start, t_end)` in the order of time, then pixel."""
    t = np.floor(t_us).astype(np.int64)
    inside = np.flatnonzero((t >= t_start_us) & (t < t_end_us))
    order = inside[np.lexsort((pixel[inside], t[inside]))]
    y, x = np.divmod(pixel[order], sensor_size[1])
    events = Events(t[order], x.astype(np.uint16), y.astype(np.uint16), polarity[order].astype(np.int8), sensor_size)
    return LabelledEvents(events, label[order].astype(np.uint8))


def events_from_intensity(
    pixels: Pixels, t_us: NDArray[np.float64], intensity: NDArray[np.float64], t_end_us: int
) -> Events:
    """Events of a sensor that sees `intensity` `(times, H, W)`, linear between the times, up to `t_end_us`.

    The pixels are settled at the first picture. There is no noise.
    """
    height, width = intensity.shape[1:]
    sensor = PairedSensor(pixels, (height, width), min_flare_share=np.inf)
    nothing = np.zeros((0, height, width), np.float32)
    for k in range(len(t_us) - 1):
        pictures = (intensity[k].astype(np.float32), intensity[k + 1].astype(np.float32))
        sensor.advance(t_us[k : k + 2], np.zeros((2, 0)), pictures, (nothing, nothing), (nothing, nothing))
    return sensor.recordings(int(np.floor(t_us[0])), t_end_us)[0].events


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _settle(states, brightness, view, lit, flare):  # type: ignore[no-untyped-def]
    """Start every pixel at rest at its first intensity."""
    for pixel in range(len(view)):
        direct = np.float64(view[pixel])
        extra = 0.0
        for s in range(len(brightness)):
            direct += brightness[s] * lit[s, pixel]
            extra += brightness[s] * flare[s, pixel]
        states[CLEAN, pixel, LEVEL] = states[CLEAN, pixel, REFERENCE] = np.log(direct + DARK)
        states[REAL, pixel, LEVEL] = states[REAL, pixel, REFERENCE] = np.log(direct + extra + DARK)
        states[:, pixel, DEAD_UNTIL] = -1e18


@numba.njit(cache=True, nogil=True)
def _first_jitter(states, deviation, seed):  # type: ignore[no-untyped-def]
    """Draw every pixel's first threshold."""
    for pixel in range(states.shape[1]):
        states[:, pixel, JITTER] = _jitter(deviation, seed, pixel, 0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _touch(touched, states, fired, min_share, highest, view0, view1, lit0, lit1, flare0, flare1):  # type: ignore[no-untyped-def]
    """Mark the pixels that flare reaches; from then on their two views go separate ways."""
    for pixel in range(len(touched)):
        extra, light = 0.0, DARK + min(view0[pixel], view1[pixel])
        for s in range(len(highest)):
            extra += highest[s] * max(flare0[s, pixel], flare1[s, pixel])
            light += highest[s] * min(lit0[s, pixel], lit1[s, pixel])
        if not touched[pixel] and extra > min_share * light:
            touched[pixel] = True
            states[REAL, pixel] = states[CLEAN, pixel]
            fired[REAL, pixel] = fired[CLEAN, pixel]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _largest_change(brightness, view0, view1, lit0, lit1, flare0, flare1):  # type: ignore[no-untyped-def]
    """By how much flicker can change each pixel's light between the key times, as a share of it."""
    num_lamps = brightness.shape[1]
    swing = np.zeros(num_lamps)
    for s in range(num_lamps):
        swing[s] = brightness[:, s].max() - brightness[:, s].min()
    amplitude = np.empty(len(view0), np.float32)
    for pixel in range(len(view0)):
        change, light = 0.0, DARK + view0[pixel]
        for s in range(num_lamps):
            change += swing[s] * (max(lit0[s, pixel], lit1[s, pixel]) + max(flare0[s, pixel], flare1[s, pixel]))
            light += brightness[0, s] * (lit0[s, pixel] + flare0[s, pixel])
        amplitude[pixel] = change / light
    return amplitude


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _answer(level, before, after, decay, lag):  # type: ignore[no-untyped-def]
    """The pole's output at the end of a ramp from `before` to `after`: exact for a linear input."""
    q = lag * (after - before)
    return after - q + (level - before + q) * decay


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _jitter(deviation, seed, pixel, count):  # type: ignore[no-untyped-def]
    """The factor on a pixel's threshold for its next event: 1 plus three uniform draws, scaled to the deviation."""
    total = 0.0
    for k in range(3):
        counter = (np.uint64(pixel) << np.uint64(32)) + np.uint64(count) * np.uint64(3) + np.uint64(k)
        total += random_below(seed, counter, np.uint64(1 << 24)) / 16_777_216.0 - 0.5
    return 1 + 2 * deviation * total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _see(  # type: ignore[no-untyped-def]
    view, states, touched, fired, amplitude, t_us, brightness, view0, view1, lit0, lit1, flare0, flare1,
    on, off, corner_hz, ceiling_hz, refractory_us, jitter, leak_hz, seed,
):  # fmt: skip
    """Carry every pixel of one view from key time to key time and return its events: time, pixel, polarity, label."""
    num_knots, num_lamps = brightness.shape
    room = max(1024, len(view0) // 2)
    t_out, pixel_out = np.empty(room, np.float64), np.empty(room, np.uint32)
    p_out, label_out = np.empty(room, np.int8), np.empty(room, np.uint8)
    used = 0
    span = t_us[-1] - t_us[0]
    for pixel in range(len(view0)):
        if view == REAL and not touched[pixel]:
            continue
        state = states[pixel]
        stride = 1 if amplitude[pixel] > 0.03 else num_knots - 1
        k = 0
        log_before = np.nan
        while k < num_knots - 1:
            nxt = min(k + stride, num_knots - 1)
            u0, u1 = (t_us[k] - t_us[0]) / span, (t_us[nxt] - t_us[0]) / span
            base0 = view0[pixel] + (view1[pixel] - view0[pixel]) * u0 + DARK
            base1 = view0[pixel] + (view1[pixel] - view0[pixel]) * u1 + DARK
            light0, light1, flare_0, flare_1 = 0.0, 0.0, 0.0, 0.0
            for s in range(num_lamps):
                light0 += brightness[k, s] * (lit0[s, pixel] + (lit1[s, pixel] - lit0[s, pixel]) * u0)
                light1 += brightness[nxt, s] * (lit0[s, pixel] + (lit1[s, pixel] - lit0[s, pixel]) * u1)
                if view == REAL:
                    flare_0 += brightness[k, s] * (flare0[s, pixel] + (flare1[s, pixel] - flare0[s, pixel]) * u0)
                    flare_1 += brightness[nxt, s] * (flare0[s, pixel] + (flare1[s, pixel] - flare0[s, pixel]) * u1)
            before, after = base0 + light0 + flare_0, base1 + light1 + flare_1
            middle = 0.5 * (before + after)
            t0, dt = t_us[k], t_us[nxt] - t_us[k]
            lag_us = 1e6 / (2 * np.pi) * (1 / (corner_hz * middle) + 1 / ceiling_hz)
            decay, lag = np.exp(-dt / lag_us), lag_us / dt
            y0 = state[LEVEL]
            log_before = np.log(before) if k == 0 else log_before
            log_after = np.log(after)
            y1 = _answer(y0, log_before, log_after, decay, lag)
            log_before = log_after
            share0, light_before = state[LIGHT_LEVEL], state[LIGHT_SUM]
            light_after = light_before + (light1 - light0) / middle
            share1 = _answer(share0, light_before, light_after, decay, lag)
            flare_share0, flare_before = state[FLARE_LEVEL], state[FLARE_SUM]
            flare_after = flare_before + (flare_1 - flare_0) / middle
            flare_share1 = _answer(flare_share0, flare_before, flare_after, decay, lag)
            state[REFERENCE] -= leak_hz * on[pixel] * dt / 1e6
            now = t0
            while True:
                if state[DEAD_UNTIL] >= now:
                    if state[DEAD_UNTIL] >= t0 + dt:
                        break
                    now = state[DEAD_UNTIL]
                    state[DEAD_UNTIL] = -1e18
                    along = (now - t0) / dt
                    state[REFERENCE] = y0 + (y1 - y0) * along
                    state[LIGHT_REFERENCE] = share0 + (share1 - share0) * along
                    state[FLARE_REFERENCE] = flare_share0 + (flare_share1 - flare_share0) * along
                polarity = 1 if y1 > state[REFERENCE] else -1
                threshold = state[JITTER] * (on[pixel] if polarity > 0 else off[pixel])
                target = state[REFERENCE] + polarity * threshold
                if (y1 - target) * polarity < 0:
                    break
                along = min(max((target - y0) / (y1 - y0) if y1 != y0 else 1.0, (now - t0) / dt), 1.0)
                now = t0 + along * dt
                change = polarity * (y0 + (y1 - y0) * along - state[REFERENCE])
                by_light = polarity * (share0 + (share1 - share0) * along - state[LIGHT_REFERENCE])
                by_flare = polarity * (flare_share0 + (flare_share1 - flare_share0) * along - state[FLARE_REFERENCE])
                by_rest = change - by_light - by_flare
                label = FLARE if by_flare > max(by_light, by_rest) else (LIGHT if by_light > by_rest else BACKGROUND)
                if used == len(t_out):
                    t_out, pixel_out = _grown(t_out), _grown(pixel_out)
                    p_out, label_out = _grown(p_out), _grown(label_out)
                t_out[used], pixel_out[used], p_out[used], label_out[used] = now, pixel, polarity, label
                used += 1
                fired[pixel] += 1
                state[JITTER] = _jitter(jitter, seed, pixel, fired[pixel])
                state[DEAD_UNTIL] = now + refractory_us
            state[LEVEL] = y1
            state[LIGHT_SUM], state[LIGHT_LEVEL] = light_after, share1
            state[FLARE_SUM], state[FLARE_LEVEL] = flare_after, flare_share1
            k = nxt
    return t_out[:used], pixel_out[:used], p_out[:used], label_out[:used]


@numba.njit(cache=True, nogil=True)
def _grown(values):  # type: ignore[no-untyped-def]
    """A copy of the array with twice the room."""
    larger = np.empty(2 * len(values), values.dtype)
    larger[: len(values)] = values
    return larger
