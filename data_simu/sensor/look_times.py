"""Moments: when the sensor looks at the light between key times, because some lamp's brightness bends there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_simu.scene.flicker import Waveform

TOLERANCE = 0.03
"""A brightness, whose mean is 1, that runs straight from key time to key time to within this has no knots between."""


@dataclass(frozen=True, slots=True)
class Moments:
    """The times between two key times at which some lamp's brightness bends, and the key times themselves.

    Parameters
    ----------
    t_us : times of the M knots, increasing, microseconds, `(M,)` float64.
    brightness : each lamp's brightness there, `(M, lamps)` float32; linear between them.
    bends : whether it bends there, `(M, lamps)`.
    keys : which knots the key times are, `(K,)` int64.
    lowest, highest : each lamp's extreme brightness at any time, `(lamps,)` float32.
    """

    t_us: NDArray[np.float64]
    brightness: NDArray[np.float32]
    bends: NDArray[np.bool_]
    keys: NDArray[np.int64]
    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]

    def between(self, first: int, last: int) -> Moments:
        """Those from key time number `first` to key time number `last`, both included."""
        keys = self.keys[first : last + 1]
        part = slice(keys[0], keys[-1] + 1)
        knots = (self.t_us[part], self.brightness[part], self.bends[part])
        return Moments(*knots, keys - keys[0], self.lowest, self.highest)


def find_moments(waveforms: Sequence[Waveform], times_us: NDArray[np.float64]) -> Moments:
    """The moments of lamps with those waveforms from the first of the key times `(K,)` to the last, microseconds."""
    bends = [find_needed_bends(waveform, times_us) for waveform in waveforms]
    t_us = np.unique(np.concatenate([times_us, *bends]))
    brightness = np.empty((len(t_us), len(bends)), np.float32)
    bent = np.zeros(brightness.shape, np.bool_)
    for s, waveform in enumerate(waveforms):
        brightness[:, s] = waveform.at(t_us)
        bent[np.searchsorted(t_us, bends[s]), s] = True
    lowest, highest = (np.array([f(w.values) for w in waveforms], np.float32) for f in (np.min, np.max))
    return Moments(t_us, brightness, bent, np.searchsorted(t_us, times_us), lowest, highest)


def find_needed_bends(waveform: Waveform, times_us: NDArray[np.float64]) -> NDArray[np.float64]:
    """The waveform's bends `(n,)`, microseconds, in those intervals between key times in which it is not straight."""
    bends = waveform.bends_us(times_us[0], times_us[-1])
    chord = np.interp(bends, times_us, waveform.at(times_us))
    interval = np.searchsorted(times_us, bends, side="right") - 1
    worst = np.zeros(len(times_us))
    np.maximum.at(worst, interval, np.abs(waveform.at(bends) - chord))
    return bends[worst[interval] > TOLERANCE]
