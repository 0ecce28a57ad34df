"""Statistics of a stream of events: rates, intervals, bursts, flicker and noise, as plain numbers and arrays.

All of them depend on the length of a recording, which decides which pixels are busy and which intervals fit in. So
compare only stretches of equal length. A share of nothing is nan.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deflare_core.events import Events
from deflare_core.kernels.numba_cache import CompiledLater
from deflare_core.system.errors import DeflareError

INTERVAL_EDGES_US = np.geomspace(10, 1e6, 51)
"""Ten bins a decade from 10 us to 1 s."""
BUSY = 12
"""Events from which on a pixel has enough of them to tell a frequency."""
LOCKED_BY_CHANCE = 0.01
"""Share of pixels without flicker that count as locked to it."""


def count_events(events: Events) -> NDArray[np.int64]:
    """The number of events at each pixel, of both polarities, int64 `(H, W)`."""
    height, width = events.sensor_size
    return np.bincount(_pixel(events), minlength=height * width).reshape(height, width)


def find_rates_hz(events: Events, duration_us: int) -> NDArray[np.float64]:
    """Events per second of every pixel of a recording of that length, float64 `(H, W)`."""
    return count_events(events).astype(np.float64) * (1e6 / duration_us)


def find_on_share(events: Events) -> float:
    """The share of positive events."""
    return float((events.p > 0).mean()) if len(events) else np.nan


def find_intervals_us(events: Events, same_polarity: bool = False) -> NDArray[np.int64]:
    """The times from each event to the next one of its pixel, int64 `(M,)` microseconds, pixel by pixel.

    With `same_polarity` the next one of the same pixel and polarity counts; others between them are passed over.
    """
    group = 2 * _pixel(events) + (same_polarity & (events.p > 0))
    order = np.argsort(group, kind="stable")
    return np.diff(events.t[order])[np.diff(group[order]) == 0]


def share_intervals(
    intervals: NDArray[np.int64], edges: NDArray[np.float64] = INTERVAL_EDGES_US
) -> NDArray[np.float64]:
    """The share of all intervals that falls into each bin, float64 `(bins,)`; those outside the edges are in no bin.

    Intervals `(N,)` and increasing edges `(bins + 1,)` are in microseconds.
    """
    counts = np.histogram(intervals, edges)[0]
    return counts / len(intervals) if len(intervals) else np.full(len(counts), np.nan)


def count_bursts(events: Events) -> NDArray[np.int64]:
    """How many events of one polarity follow each other at a pixel: int64 `(runs,)`, pixel by pixel."""
    group = 2 * _pixel(events) + (events.p > 0)
    order = np.argsort(group // 2, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.diff(starts, append=len(order))


def find_spectrum(events: Events, duration_us: int, frequencies_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """The power of the busy pixels' signed event rate at each frequency, float64; events at random times give 1.

    It is the sum over pixels of `|sum_i p_i exp(-2 pi i f t_i)|^2`, less what a constant rate would give, over the
    number of events: each pixel by itself, since lamps on three phases would cancel. Events are signed because a lamp
    that brightens and dims once a period fires one polarity in one half of it and one in the other; unsigned, it
    would show at twice its frequency. Pixels with fewer than `BUSY` events are left out; nan without others. Of
    frequencies `(F,)` lines blur over `1e6 / duration_us`, the recording's length from its first event on.
    """
    t, p, first = _busy_pixels(events)
    if not len(t):
        return np.full(len(frequencies_hz), np.nan)
    seconds = (t - events.t[0]) / 1e6
    return _sum_power(seconds, p, first, duration_us / 1e6, np.asarray(frequencies_hz, np.float64)) / len(t)


def find_locked_pixels(events: Events, duration_us: int, flicker_hz: float) -> NDArray[np.bool_]:
    """Which pixels are locked to a frequency, bool `(H, W)`; of pixels that are not busy none is.

    A pixel is locked where the directions of its `sum_i p_i exp(2 pi i f t_i)`, one for each period with events, agree
    more than they would by chance once in a hundred (Rayleigh's test, `exp(-n R^2) < 0.01`). Every period counts once:
    the burst of a passing edge is short against a period and so would look locked to any frequency.

    Raises
    ------
    DeflareError
        When `duration_us` is less than five periods, too short to tell whether a pixel is locked.
    """
    if duration_us * flicker_hz < 5e6:
        raise DeflareError(f"{duration_us} us is less than five periods of {flicker_hz} Hz; give a longer recording.")
    busy = count_events(events) >= BUSY
    if busy.any():
        t, p, first = _busy_pixels(events)
        level = np.log(1 / LOCKED_BY_CHANCE)
        busy[busy] = _find_locked((t - events.t[0]) / 1e6, p, first, float(flicker_hz), level)
    return busy


def find_flicker_share(events: Events, duration_us: int, flicker_hz: float) -> float:
    """The share of the busy pixels' events that are at locked pixels; nan without busy pixels."""
    locked, counts = find_locked_pixels(events, duration_us, flicker_hz), count_events(events)
    num_busy = counts[counts >= BUSY].sum()
    return float(counts[locked].sum() / num_busy) if num_busy else np.nan


def find_isolated(events: Events, radius: int = 1, within_us: int = 10_000) -> NDArray[np.bool_]:
    """Whether no other event was near each one in the time before, as is true of noise; bool `(N,)`.

    One that is at most `radius` columns and rows away is near, also at the same pixel. Events of the first `within_us`
    are not isolated, since the time before them was not recorded.
    """
    # As if everything had fired at the first event: until within_us later nothing counts as isolated.
    start_us = int(events.t[0]) if len(events) else 0
    newest_us = find_newest(events.t, events.x, events.y, *events.sensor_size, radius, True, start_us)
    return events.t - newest_us >= within_us


def find_isolated_share(events: Events, radius: int = 1, within_us: int = 10_000) -> float:
    """The share of isolated events among those after the first `within_us`; see `find_isolated`."""
    if not len(events):
        return np.nan
    num_known = int((events.t >= events.t[0] + within_us).sum())
    return float(find_isolated(events, radius, within_us).sum() / num_known) if num_known else np.nan


def find_isolated_rates_hz(
    events: Events, duration_us: int, radius: int = 1, within_us: int = 10_000
) -> NDArray[np.float64]:
    """Isolated events per second of every pixel of a recording longer than `within_us`, float64 `(H, W)`."""
    if duration_us <= within_us:
        raise DeflareError(f"{duration_us} us is not longer than the {within_us} us that an event is isolated for.")
    return find_rates_hz(events[find_isolated(events, radius, within_us)], duration_us - within_us)


def average_blocks(pictures: Any, block: int = 16) -> Any:
    """The means of pictures `(..., H, W)` over each whole block of pixels, `(..., H // block, W // block)`.

    Pictures are an array or a tensor of floating-point numbers; what fills no block is left out.
    """
    rows, columns = (size // block for size in pictures.shape[-2:])
    whole = pictures[..., : rows * block, : columns * block]
    return whole.reshape(*pictures.shape[:-2], rows, block, columns, block).mean((-3, -1))


def find_block_variation(rates: NDArray[np.float64], block: int = 16) -> float:
    """The coefficient of variation of a picture `(H, W)` over its blocks: standard deviation over mean.

    That of a sensor with equal pixels is not 0 but one over the root of the number of events in a block.
    """
    means = average_blocks(rates, block)
    return float(means.std() / means.mean()) if means.size and means.any() else np.nan


def _pixel(events: Events) -> NDArray[np.int64]:
    """The place of each event's pixel in a picture laid out row by row."""
    return events.y.astype(np.int64) * events.sensor_size[1] + events.x


def _busy_pixels(events: Events) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.int64]]:
    """The busy pixels' times and polarities, pixel by pixel, and where each pixel begins and the last ends."""
    pixel = _pixel(events)
    counts = np.bincount(pixel, minlength=1)
    order = np.argsort(pixel, kind="stable")
    order = order[counts[pixel[order]] >= BUSY]
    return events.t[order], events.p[order], np.append(0, np.cumsum(counts[counts >= BUSY]))


@CompiledLater
def _sum_power(seconds, p, first, duration_s, frequencies_hz):  # type: ignore[no-untyped-def]
    """The sum over pixels of the power at each frequency, less the part that is due to a constant rate."""
    power = np.zeros(len(frequencies_hz))
    for k in range(len(frequencies_hz)):
        omega = 2 * np.pi * frequencies_hz[k]
        half = omega * duration_s / 2
        # The mean of exp(i omega t) over the recording: what each event of a constant rate adds on average.
        size = np.sin(half) / half if half else 1.0
        mean_real, mean_imag = size * np.cos(half), size * np.sin(half)
        for pixel in range(len(first) - 1):
            real, imag = 0.0, 0.0
            for i in range(first[pixel], first[pixel + 1]):
                real += p[i] * (np.cos(omega * seconds[i]) - mean_real)
                imag += p[i] * (np.sin(omega * seconds[i]) - mean_imag)
            power[k] += real * real + imag * imag
    return power


@CompiledLater
def _find_locked(seconds, p, first, flicker_hz, level):  # type: ignore[no-untyped-def]
    """Whether n R^2 of each pixel's directions, one for each period with events, exceeds the level.

    Events of pixel k are `first[k]` to `first[k + 1]`. One walk over them sums the events of a period; where the next
    period begins, the sum's direction (length 1) joins those of the periods before:

        period        0         |     1     |  2  |        3
        events        +   + -   |   +    -  |     |   +  +    -
        sum           a         |   b       |     |   c
        directions    a/|a|     + b/|b|           + c/|c|         n = 3
    """
    locked = np.zeros(len(first) - 1, np.bool_)
    for pixel in range(len(first) - 1):
        total_real, total_imag, num = 0.0, 0.0, 0
        real, imag, period = 0.0, 0.0, -1
        # One step more than there are events, to add the direction of the last period.
        for i in range(first[pixel], first[pixel + 1] + 1):
            is_end = i == first[pixel + 1]
            now = -1 if is_end else np.int64(np.floor(flicker_hz * seconds[i]))
            size = np.sqrt(real * real + imag * imag)
            if now != period and size > 0:
                total_real, total_imag, num = total_real + real / size, total_imag + imag / size, num + 1
                real, imag = 0.0, 0.0
            period = now
            if not is_end:
                angle = 2 * np.pi * flicker_hz * seconds[i]
                real, imag = real + p[i] * np.cos(angle), imag + p[i] * np.sin(angle)
        locked[pixel] = num > 0 and total_real * total_real + total_imag * total_imag > level * num
    return locked


@CompiledLater
def find_newest(t, x, y, height, width, radius, counts_own, start_us):  # type: ignore[no-untyped-def]
    """The time of the last event before each one at the pixels within a radius; start_us if there was none.

    The pixel's own events count, too, if `counts_own` is set.
    """
    newest_us = np.empty(len(t), np.int64)
    # The time of each pixel's last event. A rim around the map saves asking where the sensor ends:
    #
    #     . . . . . .      .  the rim, as wide as the radius: always start_us
    #     . o o o o .      o  the sensor
    #     . . . . . .
    last_us = np.full((height + 2 * radius, width + 2 * radius), start_us)
    for i in range(len(t)):
        row, column = np.int64(y[i]) + radius, np.int64(x[i]) + radius
        if not counts_own:
            last_us[row, column] = start_us  # Only for this look: below it gets the event's own time.
        newest_us[i] = last_us[row - radius : row + radius + 1, column - radius : column + radius + 1].max()
        last_us[row, column] = t[i]
    return newest_us
