# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The other pixel: its voltage is a Brownian motion that drifts with the logarithm of the light.

After Lin et al., DVS-Voltmeter (ECCV 2022): within a step the voltage is dV = m dt + s dW with

    m    slope of log(light), a leak, and a leak that grows with the light
    s    a share that falls with the square root of the light, as photons' shot noise does, and one that heat keeps up

and an event is where it first passes a threshold. There is no lag and no list of noise events: noise is the voltage
that passes a threshold by itself. What is drawn is exact for steps of any length with one threshold near: the end of a
step is normal; between its ends the motion is a bridge, which passes a level that both are below with the chance
exp(-2 a b / variance), a and b the distances of the ends from it; and the time of the first passage follows an inverse
Gaussian distribution. Draws depend on pixel and time of the step, so both views share them where they step alike.

The rows of a pixel's state are those of `firing`; two mean something else here.
"""

from __future__ import annotations

import math

import numpy as np

from data_simu.scalars import HALF, ONE, TWO, ZERO, F
from data_simu.sensor.firing import (
    BACKGROUND,
    DEAD_US,
    DOWN,
    DRAWN,
    FIRED,
    FLARE,
    FLARE_MOVED,
    FLARE_RAMP,
    LIGHT,
    LIGHT_MOVED,
    LIGHT_RAMP,
    MIDDLE,
    MOVED,
    NOISE,
    NOISE_HZ,
    OFF,
    ON,
    RAMP,
    UP,
    emit,
    kernel,
)
from data_simu.sensor.pixel import exp_of_negative, jitter, log, uniform

STRAYED = DRAWN
"""How far noise and leaks have moved the voltage since the pixel was armed; it has no noise events to count."""
TURN, PER_US = F(2 * np.pi), F(1e-6)
CERTAIN = F(-16)
"""The logarithm of a chance that is too small to draw for."""
SMALLEST = F(1e-12)
FIRST_US = np.int64(1) << np.int64(32)
"""Times are counted from here, so that none is negative."""
DRAWS = np.uint64(8)
"""Numbers that are drawn from one arming to the next, at most."""


@kernel
def walk(work, n, i, pixel, t_us, dt_us, constants, events, cursor):
    """Let pixel `i` of the `n`, number `pixel` of the sensor part, do all that it does in a step.

    share of the step   0 .......... now ........ now + dead time .......... 1
    the pixel             strays     fires, dead  is armed again and strays from there
    """
    now, start, ramp = ZERO, work[MOVED * n + i] - work[RAMP * n + i], work[RAMP * n + i]
    middle, dead_us = work[MIDDLE * n + i], work[DEAD_US * n + i]
    if dead_us >= dt_us:
        work[DEAD_US * n + i] = dead_us - dt_us
        return
    if dead_us > ZERO:
        now, start = dead_us / dt_us, ZERO
        rearm(work, n, i, now)
    light_leaked = constants.light_leak_per_us * middle * dt_us
    drift, leaked = ramp + light_leaked, constants.leak_per_us * dt_us + light_leaked
    deviation = constants.noise_floor + (ONE - constants.noise_floor) * math.sqrt(constants.dark / middle)
    rate = work[NOISE_HZ * n + i] * PER_US * work[ON * n + i] * work[OFF * n + i]
    variance = rate * deviation * deviation * dt_us
    seed = constants.noise_seed + np.uint64(np.int64(t_us) + FIRST_US)
    drawn, number = np.uint64(0), constants.first + pixel
    while True:
        rest = ONE - now
        spread = variance * rest
        end = start + drift * rest + math.sqrt(spread) * normal(seed, number, drawn)
        up, down = work[UP * n + i], work[DOWN * n + i]
        passed = find_passed(start, end, up, down, spread, seed, number, drawn)
        if passed == 0:
            work[MOVED * n + i] = end
            work[STRAYED * n + i] += end - start - (drift - leaked) * rest
            break
        level = up if passed > 0 else down
        passage = rest * first_passage(abs(level - start), abs(end - level), spread, seed, number, drawn)
        at = now + passage
        strayed = work[STRAYED * n + i] + level - start - (drift - leaked) * passage
        label = find_cause(work, n, i, at, level, strayed)
        emit(t_us + np.float64(at) * np.float64(dt_us), number, label, passed > 0, events, cursor)
        work[FIRED * n + i] += ONE
        factor = jitter(constants.jitter, constants.seed, number, work[FIRED * n + i])
        work[UP * n + i], work[DOWN * n + i] = factor * work[ON * n + i], -factor * work[OFF * n + i]
        now, start = at + constants.refractory_us / dt_us, ZERO
        if now >= ONE:
            work[DEAD_US * n + i] = max((now - ONE) * dt_us, F(1e-3))
            break
        rearm(work, n, i, now)
        drawn += DRAWS


@kernel
def rearm(work, n, i, now):
    """Let the pixel measure from where it is at that share of the step."""
    work[DEAD_US * n + i] = work[STRAYED * n + i] = ZERO
    work[LIGHT_MOVED * n + i] = (ONE - now) * work[LIGHT_RAMP * n + i]
    work[FLARE_MOVED * n + i] = (ONE - now) * work[FLARE_RAMP * n + i]


@kernel
def find_passed(start, end, up, down, variance, seed, pixel, drawn):
    """Which threshold the voltage passes on its way from start to end: 1 the upper, -1 the lower, 0 none."""
    if end >= up or start >= up:
        return 1
    if end <= down or start <= down:
        return -1
    above = -TWO * (up - start) * (up - end) / max(variance, SMALLEST)
    below = -TWO * (start - down) * (end - down) / max(variance, SMALLEST)
    if max(above, below) < CERTAIN:
        return 0
    lot = uniform(seed, pixel, drawn + np.uint64(2))
    chance = exp_of_negative(above)
    if lot < chance:
        return 1
    return -1 if lot < chance + exp_of_negative(below) else 0


@kernel
def first_passage(before, after, variance, seed, pixel, drawn):
    """The share of its way at which a bridge first passes a level, given how far from it start and end are.

    It is y / (1 + y), y inverse Gaussian with mean before / after and shape before^2 / variance, drawn by the method of
    Michael, Schucany and Haas (1976). Without noise it is where a straight line passes.
    """
    mean = before / max(after, SMALLEST)
    z = normal(seed, pixel, drawn + np.uint64(3))
    w = HALF * z * z * mean * variance / max(before * before, SMALLEST)
    smaller = mean / (ONE + w + math.sqrt(w * (w + TWO)))
    if uniform(seed, pixel, drawn + np.uint64(5)) * (mean + smaller) <= mean:
        return smaller / (ONE + smaller)
    larger = mean * (mean / max(smaller, SMALLEST))
    return larger / (ONE + larger)


@kernel
def normal(seed, pixel, drawn):
    """A normal number of mean 0 and deviation 1 from two that are drawn evenly (Box and Muller, 1958)."""
    radius = math.sqrt(-TWO * log(ONE - uniform(seed, pixel, drawn)))
    return radius * math.cos(TURN * uniform(seed, pixel, drawn + np.uint64(1)))


@kernel
def find_cause(work, n, i, at, level, strayed):
    """The label of the largest share of the move to a level that is passed at that share of the step."""
    sign = ONE if level > ZERO else -ONE
    by_light = sign * (work[LIGHT_MOVED * n + i] - (ONE - at) * work[LIGHT_RAMP * n + i])
    by_flare = sign * (work[FLARE_MOVED * n + i] - (ONE - at) * work[FLARE_RAMP * n + i])
    by_stray = sign * strayed
    by_rest = sign * level - by_light - by_flare - by_stray
    if by_flare > max(by_light, by_rest, by_stray):
        return FLARE
    if by_light > max(by_rest, by_stray):
        return LIGHT
    return NOISE if by_stray > by_rest else BACKGROUND
