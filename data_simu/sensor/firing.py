# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Firing: what one pixel does in a step in which it may fire. The same code runs on a CPU and on a GPU.

A pixel's state is in `work`, a flat array of `n` pixels, a row for each quantity, so pixel `i` has its quantity `row`
at `row * n + i`; a GPU's thread keeps the array of a single pixel in registers. Events go to `events`, int64, one
number each: the time (us) in the upper half, the code in the lower:

    bit  63              32 31              3 2     1 0
         [ time, us        ][ pixel          ][label][polarity]

So sorting the numbers sorts events by time, then pixel. `cursor` is int64 `(3,)`: how many events there are, and start
and end of the recording, microseconds. An array too short takes what it can hold and the count goes on, so that the
caller can come again with a longer one. Few arrays are passed about, because the CPU counts references to each at
every call.
"""

import numpy as np

from data_simu.scalars import ONE, ZERO, F
from data_simu.sensor.pixel import (
    NEVER_US,
    exp_of_negative,
    jitter,
    noise_strength,
    share_until,
    still_to_move,
    waiting_us,
)
from deflare_core.kernels.numba_cache import compiled

BACKGROUND, LIGHT, FLARE, NOISE = 0, 1, 2, 3
LABEL_SHIFT, PIXEL_SHIFT, TIME_SHIFT = 1, 3, 32
"""An event's code: pixel, two bits of label, one of polarity."""

# Rows. "Moved" is how far the output has moved since the pixel was armed, in all, by the lamps' direct light, and by
# their flare; "error" is the output less the input of each of these three. Fired and drawn count events and noise.
ERROR, MOVED, LIGHT_ERROR, LIGHT_MOVED, FLARE_ERROR, FLARE_MOVED = range(6)
DEAD_US, AGE_US, UP, DOWN, NOISE_US, FIRED, DRAWN, ON, OFF, NOISE_HZ = range(6, 16)
NUM_STATES = 16
# How the output moves within a step, in all and its parts, for `pixel.still_to_move`; the step in time constants; the
# light in its middle.
RAMP, SWING, LIGHT_RAMP, LIGHT_SWING, FLARE_RAMP, FLARE_SWING, STEPS, MIDDLE = range(16, 24)
NUM_ROWS = 24

kernel = compiled(fastmath={"contract", "nsz", "arcp"}, forceinline=True)


@kernel
def fire(work, n, i, pixel, t_us, dt_us, constants, events, cursor):
    """Let pixel `i` of the `n`, number `pixel` of the sensor part, do all that it does in a step."""
    if work[DEAD_US * n + i] >= dt_us:
        work[DEAD_US * n + i] -= dt_us
    else:
        fire_at_crossings(work, n, i, pixel, t_us, dt_us, constants, events, cursor)
    if work[NOISE_US * n + i] < ZERO:
        fire_noise(work, n, i, pixel, t_us, dt_us, constants, events, cursor)


@kernel
def fire_at_crossings(work, n, i, pixel, t_us, dt_us, constants, events, cursor):
    """Fire as often as the output crosses a threshold: at each crossing, after the dead time, from where it is.

    share of the step   0 .......... now ........ now + dead time .......... 1
    the pixel             measures   fires, dead  is armed again where it stands
    """
    now, steps = ZERO, work[STEPS * n + i]
    decay = exp_of_negative(-steps)
    if work[DEAD_US * n + i] > ZERO:
        now = work[DEAD_US * n + i] / dt_us
        arm(work, n, i, now, exp_of_negative(-steps * now), decay, dt_us)
    while True:
        moved = work[MOVED * n + i]
        upward = moved > work[UP * n + i]
        if not upward and moved >= work[DOWN * n + i]:
            break
        left = moved - (work[UP * n + i] if upward else work[DOWN * n + i])
        now = share_until(left, now, work[RAMP * n + i], work[SWING * n + i], steps, decay)
        label = find_cause(work, n, i, now, exp_of_negative(-steps * now), decay, dt_us, upward, constants.leak_per_us)
        at_us = t_us + np.float64(now) * np.float64(dt_us)
        emit(at_us, constants.first + pixel, label, upward, events, cursor)
        work[FIRED * n + i] += ONE
        factor = jitter(constants.jitter, constants.seed, constants.first + pixel, work[FIRED * n + i])
        work[UP * n + i], work[DOWN * n + i] = factor * work[ON * n + i], -factor * work[OFF * n + i]
        now += constants.refractory_us / dt_us
        if now >= ONE:
            work[DEAD_US * n + i] = max((now - ONE) * dt_us, F(1e-3))
            break
        arm(work, n, i, now, exp_of_negative(-steps * now), decay, dt_us)


@kernel
def fire_noise(work, n, i, pixel, t_us, dt_us, constants, events, cursor):
    """Fire the noise events that were due within the step and that the light lets happen; draw when the next is."""
    while work[NOISE_US * n + i] < ZERO:
        strength = noise_strength(constants.noise_seed, constants.first + pixel, work[DRAWN * n + i])
        if strength * strength * (ONE + work[MIDDLE * n + i]) < ONE:
            at_us = t_us + np.float64(dt_us) + np.float64(work[NOISE_US * n + i])
            emit(at_us, constants.first + pixel, NOISE, strength > ZERO, events, cursor)
        work[DRAWN * n + i] += ONE
        wait_us = waiting_us(work[NOISE_HZ * n + i], constants.noise_seed, constants.first + pixel, work[DRAWN * n + i])
        work[NOISE_US * n + i] += wait_us


@kernel
def emit(t_us, pixel, label, upward, events, cursor):
    """Write an event down, if it belongs to the recording."""
    at_us = np.int64(t_us)
    at_us -= at_us > t_us
    if at_us >= cursor[1] and at_us < cursor[2]:
        used = cursor[0]
        if used < len(events):
            code = pixel << PIXEL_SHIFT | label << LABEL_SHIFT | upward
            events[used] = at_us << TIME_SHIFT | code
        cursor[0] = used + 1


@kernel
def arm(work, n, i, now, fallen, decay, dt_us):
    """Let the pixel measure from where it is at that share of the step."""
    work[DEAD_US * n + i] = ZERO
    work[AGE_US * n + i] = (ONE - now) * dt_us
    work[MOVED * n + i] = still_to_move(now, work[RAMP * n + i], work[SWING * n + i], fallen, decay)
    work[LIGHT_MOVED * n + i] = still_to_move(now, work[LIGHT_RAMP * n + i], work[LIGHT_SWING * n + i], fallen, decay)
    work[FLARE_MOVED * n + i] = still_to_move(now, work[FLARE_RAMP * n + i], work[FLARE_SWING * n + i], fallen, decay)


@kernel
def find_cause(work, n, i, now, fallen, decay, dt_us, upward, leak_per_us):
    """The label of the largest share of the move that fires a pixel after that share of the step."""
    sign = ONE if upward else -ONE
    light_left = still_to_move(now, work[LIGHT_RAMP * n + i], work[LIGHT_SWING * n + i], fallen, decay)
    flare_left = still_to_move(now, work[FLARE_RAMP * n + i], work[FLARE_SWING * n + i], fallen, decay)
    left = still_to_move(now, work[RAMP * n + i], work[SWING * n + i], fallen, decay)
    by_light = sign * (work[LIGHT_MOVED * n + i] - light_left)
    by_flare = sign * (work[FLARE_MOVED * n + i] - flare_left)
    by_leak = sign * leak_per_us * (work[AGE_US * n + i] - (ONE - now) * dt_us)
    by_rest = sign * (work[MOVED * n + i] - left) - by_light - by_flare - by_leak
    if by_flare > max(by_light, by_rest, by_leak):
        return FLARE
    if by_light > max(by_rest, by_leak):
        return LIGHT
    return NOISE if by_leak > by_rest else BACKGROUND


@kernel
def rest_pixel(work, n, i, pixel, pixels):
    """Set the state of a pixel that has seen its first picture for long."""
    for row in range(NUM_STATES):
        work[row * n + i] = ZERO
    constants, start, on, off = pixels.constants, pixels.start[pixel], pixels.on[pixel], pixels.off[pixel]
    work[ON * n + i], work[OFF * n + i], work[NOISE_HZ * n + i] = on, off, pixels.noise_hz[pixel]
    work[UP * n + i], work[DOWN * n + i] = on, -off
    work[MOVED * n + i] = start * (on if start > ZERO else off)
    wait_us = waiting_us(pixels.noise_hz[pixel], constants.noise_seed, constants.first + pixel, ZERO)
    work[NOISE_US * n + i] = NEVER_US if constants.is_brownian else wait_us
