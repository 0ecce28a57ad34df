"""Flicker: the brightness of a source over time, as a waveform that is linear between knots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_simu.config import SourceConfig


@dataclass(frozen=True, slots=True)
class Waveform:
    """A brightness that repeats every period and is linear between its knots; its mean is 1.

    Parameters
    ----------
    kind : "constant", "mains" (sine with harmonics), "rectified" (half sines with dead time) or "pwm" (pulses).
    flicker_hz : repetitions per second; 0 if constant.
    phase : where in its period the waveform is at time 0, from 0 to 1.
    knots : places of the bends within the period, from 0 to 1, `(n,)` float64.
    values : brightness at the knots, `(n,)` float64.
    """

    kind: str
    flicker_hz: float
    phase: float
    knots: NDArray[np.float64]
    values: NDArray[np.float64]

    def at(self, t_us: NDArray[np.float64]) -> NDArray[np.float64]:
        """The brightness at times of any shape, microseconds, in the same shape."""
        return np.interp(self.phase + t_us * self.flicker_hz / 1e6, self.knots, self.values, period=1)

    def bends_us(self, t_start_us: float, t_end_us: float) -> NDArray[np.float64]:
        """The times between two times at which the waveform bends, `(n,)` float64, microseconds."""
        if not self.flicker_hz:
            return np.empty(0)
        period_us = 1e6 / self.flicker_hz
        periods = np.arange(np.floor(t_start_us / period_us) - 1, np.ceil(t_end_us / period_us) + 2)
        times = ((periods[:, None] + self.knots - self.phase) * period_us).ravel()
        return times[(times > t_start_us) & (times < t_end_us)]

    @property
    def depth(self) -> float:
        """The largest deviation from the mean, relative to it."""
        return float(np.abs(self.values - 1).max())

    def describe(self) -> dict[str, object]:
        """The waveform in figures, for the record of a recording."""
        return {"flicker": self.kind, "flicker_hz": round(self.flicker_hz, 3), "depth": round(self.depth, 3)}


def draw_waveform(config: SourceConfig, mains_hz: float, rng: np.random.Generator) -> Waveform:
    """A random waveform of a kind drawn by the configured shares.

    `mains_hz` is the flicker frequency that all lamps on the mains share; the phase is random.
    """
    kinds = list(config.flicker_shares)
    shares = np.array(list(config.flicker_shares.values()))
    kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
    if kind == "constant":
        return Waveform(kind, 0.0, 0.0, np.zeros(1), np.ones(1))
    if kind == "pwm":
        return make_pulses(rng.choice(config.pwm_hz), rng.uniform(0.15, 0.9), rng.uniform(20, 150), rng.uniform())
    if kind == "mains":
        return make_mains(mains_hz, rng.uniform(0.05, 0.9), rng.uniform(-0.2, 0.2), rng.uniform())
    return make_rectified(mains_hz, rng.uniform(0.05, 0.4), rng.uniform())


def make_mains(hz: float, depth: float, second_harmonic: float, phase: float) -> Waveform:
    """A lamp on mains power: 1 + depth (cos + second harmonic), never below 0."""
    knots = np.linspace(0, 1, count_knots(depth), endpoint=False)
    angle = 2 * np.pi * knots
    values = np.maximum(1 + depth * (np.cos(angle) + second_harmonic * np.cos(2 * angle)), 0)
    return Waveform("mains", float(hz), phase, knots, values / values.mean())


def count_knots(depth: float) -> int:
    """Knots in a period for which a sine of that depth is straight between to 3 % of the mean."""
    return int(np.clip(np.ceil(np.pi * np.sqrt(depth / 0.06)), 6, 12))


def make_rectified(hz: float, dead_share: float, phase: float) -> Waveform:
    """A rectified lamp without storage: half a sine, then darkness for a share of the period."""
    lit = np.linspace(0, 1 - dead_share, 9)
    values = np.append(np.sin(np.pi * lit / (1 - dead_share)), 0.0)
    knots = np.append(lit, 1 - 1e-9)
    return Waveform("rectified", float(hz), phase, knots, values / np.trapezoid(values, knots))


def make_pulses(hz: float, duty: float, edge_us: float, phase: float) -> Waveform:
    """A pulse-width modulated lamp: on for `duty` of the period, with edges of finite rise time."""
    edge = min(edge_us * hz / 1e6, 0.4 * duty, 0.4 * (1 - duty))
    knots = np.array([0.0, edge, duty, duty + edge])
    return Waveform("pwm", float(hz), phase, knots, np.array([0.0, 1.0, 1.0, 0.0]) / duty)


def make_flashes(rng: np.random.Generator, hz: tuple[float, float] = (6, 12)) -> Waveform:
    """A few flashes at random times and of random brightness, as of a glint on water, which repeat at that rate."""
    num = int(rng.integers(2, 9))
    starts = (np.arange(num) + rng.uniform(0.05, 0.5, num)) / num
    widths = rng.uniform(0.1, 0.45, num) / num
    knots = (starts[:, None] + widths[:, None] * [0, 0.4, 1]).ravel()
    values = (np.exp(rng.normal(0, 0.5, num))[:, None] * [0, 1, 0]).ravel()
    values += 0.02
    mean = float(np.trapezoid(np.append(values, values[0]), np.append(knots, knots[0] + 1)))
    return Waveform("flashes", float(rng.uniform(*hz)), float(rng.uniform()), knots, values / mean)
