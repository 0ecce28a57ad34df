# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The sensor's inner loops: tiles of neighbouring pixels, carried from one key time to the next.

A tile's state and light lie in one flat workspace, a row for each quantity, so that the loops over its pixels run on
vectors; only pixels that may fire are then looked at one by one. A tile steps from knot to knot of the lamps that
flicker visibly in it, and in one step from key time to key time where none does.
"""

import numba
import numpy as np

from data_simu.pixel import HALF, ONE, ZERO, F, error_after, exp_of_negative, jitter, lag_us, log, shortfall

TILE = 256
CLEAN, REAL = 0, 1
BACKGROUND, LIGHT, FLARE, NOISE = 0, 1, 2, 3
LABEL_SHIFT, PIXEL_SHIFT = 1, 3
"""An event's code: pixel, two bits of label, one of polarity."""

# Rows of the state that a pixel keeps. "Moved" is how far the output has moved since the pixel was armed, in all, by
# the lamps' direct light, and by their flare; "error" is the output less the input of each of these three.
ERROR, MOVED, LIGHT_ERROR, LIGHT_MOVED, FLARE_ERROR, FLARE_MOVED = (k * TILE for k in range(6))
DEAD_US, AGE_US, UP, DOWN = (k * TILE for k in range(6, 10))
NUM_STATES = 10
# Rows of the workspace beyond the state: light at the beginning of a step and at its end, the step of "moved",
# and whether a pixel may fire.
TOTAL, TOTAL_LOG, DIRECT, GLARE = (k * TILE for k in range(10, 14))
NEXT_TOTAL, NEXT_DIRECT, NEXT_GLARE = (k * TILE for k in range(14, 17))
STEP, LIGHT_STEP, FLARE_STEP, ALARM = (k * TILE for k in range(17, 21))
BEHIND, DECAY, MIDDLE = (k * TILE for k in range(21, 24))
WORKSPACE = 24 * TILE

SMALLEST_FLICKER = F(0.06)
"""Flicker that changes a tile's light by less than this share is taken from key time to key time."""

kernel = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})


@kernel
def see(pixels, dark, min_share, refresh, state, moments, before, after, clean_out, real_out):
    """Carry both views of all pixels from one key time to the next; return their events.

    Parameters
    ----------
    pixels : the sensor's constants, a `Pixels`.
    dark : the light that darkness counts as.
    min_share : flare below this share of a pixel's light leaves it untouched.
    refresh : whether to find out anew which lamps flicker visibly.
    state : `(2, tiles, NUM_STATES * TILE)` numbers of the pixels, whether flare touches them `(N,)`, how often they
        fired `(2, N)`, and which lamps flicker visibly `(tiles, lamps)`; changed in place.
    moments : times of the knots in microseconds, brightness there `(knots, lamps)`, whether it bends there, and the
        lowest and highest brightness of each lamp.
    before, after : what is seen at the two key times: background with direct light of each lamp `(1 + lamps, N)`, and
        flare of each lamp `(lamps, N)`.
    clean_out, real_out : times and codes of the events, and how many there are: what came before, to be added to.
    """
    states, touched, fired, visible = state
    lowest, highest = moments[3], moments[4]
    work = np.ones(WORKSPACE, np.float32)
    for first in range(0, len(touched), TILE):
        last, tile = min(first + TILE, len(touched)), first // TILE
        any_touched = mark_touched(work, touched, states[:, tile], fired, highest, before, after, dark, min_share,
                                   first, last)  # fmt: skip
        if refresh:
            find_visible(work, visible[tile], lowest, highest, before, after, dark, first, last)
        num_clean = clean_out[2]
        for view in range(2 if any_touched else 1):
            out = clean_out if view == CLEAN else real_out
            load(work, states[view, tile])
            out = see_tile(view, work, visible[tile], pixels, dark, touched, fired[view], moments, before, after,
                           first, last, out)  # fmt: skip
            store(work, states[view, tile])
            if view == CLEAN:
                clean_out = out
                real_out = add_untouched(real_out, clean_out, num_clean, touched, pixels.first)
            else:
                real_out = out
    return clean_out, real_out


@kernel
def see_tile(view, work, visible, pixels, dark, touched, fired, moments, before, after, first, last, out):
    """Carry one view of a tile from one key time to the next; return its events with those before."""
    t_us, brightness, bends = moments[0], moments[1], moments[2]
    final = len(t_us) - 1
    illuminate(work, view, brightness[0], ZERO, dark, before, after, first, last)
    start_at_next(work)
    k = 0
    while k < final:
        k_next = next_knot(bends, visible, k)
        along = F((t_us[k_next] - t_us[0]) / (t_us[final] - t_us[0]))
        illuminate(work, view, brightness[k_next], along, dark, before, after, first, last)
        dt_us = F(t_us[k_next] - t_us[k])
        respond(work, view, dt_us, pixels)
        out = fire(work, view, t_us[k], dt_us, pixels, touched, fired, first, last, out)
        k = k_next
    return out


@kernel
def mark_touched(work, touched, states, fired, highest, before, after, dark, min_share, first, last):
    """Mark the pixels that flare reaches, whose two views part from then on; return whether the tile has any."""
    num_touched = 0
    for i in range(first, last):
        num_touched += touched[i]
    if num_touched == last - first:
        return True
    for i in range(TILE):
        work[GLARE + i], work[TOTAL + i] = ZERO, dark
    add_extreme(work, TOTAL, ONE, -ONE, before[0][0], after[0][0], first, last)
    for s in range(len(highest)):
        add_extreme(work, GLARE, highest[s], ONE, before[1][s], after[1][s], first, last)
        add_extreme(work, TOTAL, highest[s], -ONE, before[0][1 + s], after[0][1 + s], first, last)
    for i in range(last - first):
        if not touched[first + i] and work[GLARE + i] > min_share * work[TOTAL + i]:
            touched[first + i] = True
            fired[REAL, first + i] = fired[CLEAN, first + i]
            for k in range(NUM_STATES):
                states[REAL, k * TILE + i] = states[CLEAN, k * TILE + i]
            num_touched += 1
    return num_touched > 0


@kernel
def add_extreme(work, row, weight, sign, before, after, first, last):
    """Add the larger of two pictures to a row, or the smaller one where the sign is negative."""
    for i in range(last - first):
        work[row + i] += weight * sign * max(sign * before[first + i], sign * after[first + i])


@kernel
def find_visible(work, visible, lowest, highest, before, after, dark, first, last):
    """Find the lamps whose flicker changes the light of some pixel of the tile by more than a small share."""
    for s in range(len(visible)):
        visible[s] = False
        if highest[s] <= lowest[s]:
            continue
        illuminate(work, REAL, lowest, ZERO, dark, before, after, first, last)
        lit, glare = before[0][1 + s], before[1][s]
        lit_after, glare_after = after[0][1 + s], after[1][s]
        largest = ZERO
        for i in range(last - first):
            light = max(lit[first + i] + glare[first + i], lit_after[first + i] + glare_after[first + i])
            largest = max(largest, light / work[NEXT_TOTAL + i])
        visible[s] = largest * (highest[s] - lowest[s]) > SMALLEST_FLICKER


@kernel
def next_knot(bends, visible, k):
    """The next knot at which the brightness of a visible lamp bends, or the last one."""
    last = len(bends) - 1
    for k_next in range(k + 1, last):
        for s in range(len(visible)):
            if visible[s] and bends[k_next, s]:
                return k_next
    return last


@kernel
def illuminate(work, view, brightness, along, dark, before, after, first, last):
    """Fill the light at the end of the step: linear between the key times, times the lamps' brightness."""
    for i in range(TILE):
        work[NEXT_DIRECT + i] = work[NEXT_GLARE + i] = ZERO
        work[NEXT_TOTAL + i] = dark
    blend(work, NEXT_TOTAL, ONE, along, before[0][0], after[0][0], first, last)
    for s in range(len(brightness)):
        blend(work, NEXT_DIRECT, brightness[s], along, before[0][1 + s], after[0][1 + s], first, last)
        if view == REAL:
            blend(work, NEXT_GLARE, brightness[s], along, before[1][s], after[1][s], first, last)
    for i in range(TILE):
        work[NEXT_TOTAL + i] += work[NEXT_DIRECT + i] + work[NEXT_GLARE + i]


@kernel
def blend(work, row, brightness, along, before, after, first, last):
    """Add a mixture of two pictures to a row."""
    a, b = brightness * (ONE - along), brightness * along
    for i in range(last - first):
        work[row + i] += a * before[first + i] + b * after[first + i]


@kernel
def start_at_next(work):
    """Begin a step with the light that has just been filled in."""
    for i in range(TILE):
        work[TOTAL + i] = work[NEXT_TOTAL + i]
        work[TOTAL_LOG + i] = log(work[NEXT_TOTAL + i])
        work[DIRECT + i] = work[NEXT_DIRECT + i]
        work[GLARE + i] = work[NEXT_GLARE + i]
        work[FLARE_STEP + i] = ZERO


@kernel
def respond(work, view, dt_us, pixels):
    """Carry the pole's output over a step, in all and the parts due to direct light and to flare."""
    leaked = pixels.leak_per_us * dt_us
    for i in range(TILE):
        middle = HALF * (work[TOTAL + i] + work[NEXT_TOTAL + i])
        steps = dt_us / lag_us(middle, pixels.corner_hz, pixels.ceiling_hz)
        decay = exp_of_negative(-steps)
        behind = shortfall(steps, decay)
        level = log(work[NEXT_TOTAL + i])
        ramp = level - work[TOTAL_LOG + i]
        error = error_after(work[ERROR + i], ramp, decay, behind)
        work[STEP + i] = ramp + error - work[ERROR + i] + leaked
        work[ERROR + i], work[TOTAL_LOG + i], work[TOTAL + i] = error, level, work[NEXT_TOTAL + i]
        work[MOVED + i] += work[STEP + i]
        work[AGE_US + i] += dt_us
        work[BEHIND + i], work[DECAY + i], work[MIDDLE + i] = behind, decay, middle
        past = max(work[MOVED + i] - work[UP + i], work[DOWN + i] - work[MOVED + i])
        work[ALARM + i] = max(past, work[DEAD_US + i])
    respond_in_part(work, DIRECT, NEXT_DIRECT, LIGHT_ERROR, LIGHT_MOVED, LIGHT_STEP)
    if view == REAL:
        respond_in_part(work, GLARE, NEXT_GLARE, FLARE_ERROR, FLARE_MOVED, FLARE_STEP)


@kernel
def respond_in_part(work, light, next_light, error_row, moved, step):
    """Carry the part of the pole's output that is due to a part of the light over a step."""
    for i in range(TILE):
        ramp = (work[next_light + i] - work[light + i]) / work[MIDDLE + i]
        error = error_after(work[error_row + i], ramp, work[DECAY + i], work[BEHIND + i])
        work[step + i] = ramp + error - work[error_row + i]
        work[error_row + i], work[light + i] = error, work[next_light + i]
        work[moved + i] += work[step + i]


@kernel
def fire(work, view, t_us, dt_us, pixels, touched, fired, first, last, out):
    """Let the pixels of a tile fire within a step; return the events with those before."""
    for i in range(last - first):
        if work[ALARM + i] <= ZERO:
            continue
        if work[DEAD_US + i] >= dt_us:
            work[DEAD_US + i] -= dt_us
        elif view == CLEAN or touched[first + i]:
            out = fire_pixel(work, i, t_us, dt_us, pixels, fired, first + i, out)
    return out


@kernel
def fire_pixel(work, i, t_us, dt_us, pixels, fired, pixel, out):
    """Let one pixel fire as often as it does within a step: at each crossing, after its dead time, from where it is."""
    times, codes, used = out
    now = ZERO
    if work[DEAD_US + i] > ZERO:
        now = work[DEAD_US + i] / dt_us
        arm(work, i, now, dt_us)
    while True:
        moved, step = work[MOVED + i], work[STEP + i]
        upward = moved > work[UP + i]
        if not upward and moved >= work[DOWN + i]:
            break
        threshold = work[UP + i] if upward else work[DOWN + i]
        remaining = (moved - threshold) / step if step != ZERO else ONE
        now = min(max(ONE - remaining, now), ONE)
        if used == len(times):
            times, codes = grown(times), grown(codes)
        times[used] = np.int32(np.floor(t_us + np.float64(now) * dt_us))
        label = cause(work, i, ONE - now, dt_us, upward, pixels.leak_per_us)
        codes[used] = np.uint32((pixels.first + pixel) << PIXEL_SHIFT | label << LABEL_SHIFT | upward)
        used += 1
        fired[pixel] += 1
        factor = jitter(pixels.jitter, pixels.seed, pixels.first + pixel, fired[pixel])
        work[UP + i], work[DOWN + i] = factor * pixels.on[pixel], -factor * pixels.off[pixel]
        now += pixels.refractory_us / dt_us
        if now >= ONE:
            work[DEAD_US + i] = max((now - ONE) * dt_us, F(1e-3))
            break
        arm(work, i, now, dt_us)
    return times, codes, used


@kernel
def arm(work, i, now, dt_us):
    """Let the pixel measure from where it is at that share of the step."""
    left = ONE - now
    work[DEAD_US + i] = ZERO
    work[AGE_US + i] = left * dt_us
    work[MOVED + i] = left * work[STEP + i]
    work[LIGHT_MOVED + i] = left * work[LIGHT_STEP + i]
    work[FLARE_MOVED + i] = left * work[FLARE_STEP + i]


@kernel
def cause(work, i, left, dt_us, upward, leak_per_us):
    """The label of the largest share of the move that fires a pixel when `left` of the step is still to come."""
    sign = ONE if upward else -ONE
    by_light = sign * (work[LIGHT_MOVED + i] - left * work[LIGHT_STEP + i])
    by_flare = sign * (work[FLARE_MOVED + i] - left * work[FLARE_STEP + i])
    by_leak = sign * leak_per_us * (work[AGE_US + i] - left * dt_us)
    by_rest = sign * (work[MOVED + i] - left * work[STEP + i]) - by_light - by_flare - by_leak
    if by_flare > max(by_light, by_rest, by_leak):
        return FLARE
    if by_light > max(by_rest, by_leak):
        return LIGHT
    return NOISE if by_leak > by_rest else BACKGROUND


@kernel
def add_untouched(real_out, clean_out, before, touched, first_pixel):
    """The real view's events with those of the clean one since `before` at pixels that flare does not reach."""
    times, codes, used = real_out
    for k in range(before, clean_out[2]):
        if not touched[(clean_out[1][k] >> PIXEL_SHIFT) - first_pixel]:
            if used == len(times):
                times, codes = grown(times), grown(codes)
            times[used], codes[used] = clean_out[0][k], clean_out[1][k]
            used += 1
    return times, codes, used


@kernel
def load(work, state):
    """Copy a tile's state into the workspace."""
    for i in range(NUM_STATES * TILE):
        work[i] = state[i]


@kernel
def store(work, state):
    """Copy a tile's state back."""
    for i in range(NUM_STATES * TILE):
        state[i] = work[i]


@kernel
def grown(values):
    """A copy of the array with twice the room."""
    larger = np.empty(2 * len(values) + 1024, values.dtype)
    larger[: len(values)] = values
    return larger
