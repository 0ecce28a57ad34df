# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The sensor's inner loops on a CPU: tiles of neighbouring pixels, carried from one key time to the next.

A tile's state and light lie in one flat workspace, a row for each quantity, so that the loops over its pixels run on
vectors; only pixels that may fire are then looked at one by one (see `firing`). A tile steps from knot to knot of the
lamps whose flicker shows in it, and in one step from key time to key time where none does.
"""

import numpy as np

from data_simu import firing
from data_simu.firing import NUM_STATES, PIXEL_SHIFT, TIME_SHIFT
from data_simu.pixel import HALF, ONE, ZERO, F, log, part_step, pole_step
from deflare_core.compiled import compiled

TILE = 256
CODE = (1 << TIME_SHIFT) - 1
CLEAN, REAL = 0, 1

ERROR, MOVED, LIGHT_ERROR, LIGHT_MOVED, FLARE_ERROR, FLARE_MOVED = (row * TILE for row in range(6))
DEAD_US, AGE_US, UP, DOWN, NOISE_US = (row * TILE for row in range(6, 11))
RAMP, SWING, LIGHT_RAMP, LIGHT_SWING, FLARE_RAMP, FLARE_SWING, STEPS, MIDDLE = (row * TILE for row in range(16, 24))
# Rows of the workspace that firing does not see: light at both ends of a step, what the pole's parts need, and
# whether a pixel may fire.
TOTAL, LEVEL, DIRECT, GLARE = (row * TILE for row in range(24, 28))
NEXT_TOTAL, NEXT_DIRECT, NEXT_GLARE = (row * TILE for row in range(28, 31))
PER_LIGHT, BEHIND, DECAY, ALARM = (row * TILE for row in range(31, 35))
WORKSPACE = 35 * TILE

SMALLEST_FLICKER = F(0.06)
"""Flicker that changes the light by less than this share, well below any threshold, is taken at its mean."""

kernel = compiled(fastmath={"contract", "nsz", "arcp"})


@kernel
def see(constants, dark, min_share, refresh, state, moments, before, after, outs):
    """Carry both views of all pixels from one key time to the next; return the events of both.

    Parameters
    ----------
    constants : the sensor's constants, a `Constants`.
    dark : the light that darkness counts as.
    min_share : flare below this share of a pixel's light leaves it untouched.
    refresh : whether to find out anew which lamps flicker visibly.
    state : `(2, tiles, NUM_STATES * TILE)` numbers of the pixels, whether flare touches them `(N,)`, and which lamps
        flicker visibly `(2, tiles, lamps)`; changed in place.
    moments : times of the knots in microseconds, brightness there `(knots, lamps)`, whether it bends there, and the
        lowest and highest brightness of each lamp.
    before, after : what is seen at the two key times: background with direct light of each lamp `(1 + lamps, N)`, and
        flare of each lamp `(lamps, N)`.
    outs : events and cursor of the clean and the real view so far, see `firing`.
    """
    states, touched, visible = state
    work = np.ones(WORKSPACE, np.float32)
    reached = np.empty(states.shape[1], np.bool_)
    for tile in range(len(reached)):
        span = (tile * TILE, min((tile + 1) * TILE, len(touched)))
        reached[tile] = mark_touched(work, touched, states[:, tile], moments, before, after, dark, min_share, span)
        if refresh:
            for view in range(2):
                find_visible(view, work, visible[view, tile], moments, before, after, dark, span)
    clean_out, real_out = outs
    num_clean = clean_out[1][0]
    for view in range(2):
        out = clean_out if view == CLEAN else real_out
        for tile in range(len(reached)):
            if view == CLEAN or reached[tile]:
                span = (tile * TILE, min((tile + 1) * TILE, len(touched)))
                out = see_tile(view, work, states[view, tile], visible[view, tile], constants, dark, touched, moments,
                               before, after, span, out)  # fmt: skip
        if view == CLEAN:
            clean_out = out
        else:
            real_out = out
    return clean_out, add_untouched(real_out, clean_out, num_clean, touched, constants.first)


@kernel
def see_tile(view, work, state, visible, constants, dark, touched, moments, before, after, span, out):
    """Carry one view of a tile from one key time to the next; return the events with those before."""
    events, cursor = out
    used = cursor[0]
    while True:
        work[: len(state)] = state
        step_through(view, work, visible, constants, dark, touched, moments, before, after, span, events, cursor)
        needed = cursor[0]
        if needed <= len(events):
            state[:] = work[: len(state)]
            return events, cursor
        cursor[0] = used
        events = with_room(events, needed, used)


@kernel
def step_through(view, work, visible, constants, dark, touched, moments, before, after, span, events, cursor):
    """Step a tile from knot to knot."""
    t_us, brightness, bends = moments[0], moments[1], moments[2]
    final = len(t_us) - 1
    alarmed, shown = np.empty(TILE, np.int64), np.empty(len(visible), np.float32)
    show(shown, brightness[0], visible)
    illuminate(work, view, shown, ZERO, dark, before, after, span)
    start_at_next(work)
    k = 0
    while k < final:
        k_next = next_knot(bends, visible, k)
        along = F((t_us[k_next] - t_us[0]) / (t_us[final] - t_us[0]))
        show(shown, brightness[k_next], visible)
        illuminate(work, view, shown, along, dark, before, after, span)
        dt_us = F(t_us[k_next] - t_us[k])
        respond(work, view, dt_us, constants)
        for j in range(find_alarmed(work, alarmed, view, touched, span)):
            i = alarmed[j]
            firing.fire(work, TILE, i, span[0] + i, t_us[k], dt_us, constants, events, cursor)
        k = k_next


@kernel
def show(shown, brightness, visible):
    """Fill the brightness of each lamp as the tile sees it: flicker that does not show counts as its mean, 1."""
    for s in range(len(shown)):
        shown[s] = brightness[s] if visible[s] else ONE


@kernel
def find_alarmed(work, alarmed, view, touched, span):
    """List the pixels of a tile that may fire; return how many there are."""
    num = 0
    for i in range(span[1] - span[0]):
        alarmed[num] = i
        num += work[ALARM + i] > ZERO and (view == CLEAN or touched[span[0] + i])
    return num


@kernel
def mark_touched(work, touched, states, moments, before, after, dark, min_share, span):
    """Mark the pixels that flare reaches, whose two views part from then on; return whether the tile has any."""
    first, last = span
    num_touched = 0
    for i in range(first, last):
        num_touched += touched[i]
    if num_touched == last - first:
        return True
    highest = moments[4]
    for i in range(TILE):
        work[GLARE + i], work[TOTAL + i] = ZERO, dark
    add_extreme(work, TOTAL, ONE, -ONE, before[0][0], after[0][0], span)
    for s in range(len(highest)):
        add_extreme(work, GLARE, highest[s], ONE, before[1][s], after[1][s], span)
        add_extreme(work, TOTAL, highest[s], -ONE, before[0][1 + s], after[0][1 + s], span)
    for i in range(last - first):
        if not touched[first + i] and work[GLARE + i] > min_share * work[TOTAL + i]:
            touched[first + i] = True
            for k in range(NUM_STATES):
                states[REAL, k * TILE + i] = states[CLEAN, k * TILE + i]
            num_touched += 1
    return num_touched > 0


@kernel
def add_extreme(work, row, weight, sign, before, after, span):
    """Add the larger of two pictures to a row, or the smaller one where the sign is negative."""
    first, last = span
    for i in range(last - first):
        work[row + i] += weight * sign * max(sign * before[first + i], sign * after[first + i])


@kernel
def find_visible(view, work, visible, moments, before, after, dark, span):
    """Add the lamps whose flicker changes the light of some pixel of the tile by more than a small share."""
    lowest, highest = moments[3], moments[4]
    illuminate(work, view, lowest, HALF, dark, before, after, span)
    for s in range(len(visible)):
        for i in range(TILE):
            work[TOTAL + i] = ZERO
        blend(work, TOTAL, ONE, HALF, before[0][1 + s], after[0][1 + s], span)
        if view == REAL:
            blend(work, TOTAL, ONE, HALF, before[1][s], after[1][s], span)
        largest = ZERO
        for i in range(span[1] - span[0]):
            largest = max(largest, work[TOTAL + i] / work[NEXT_TOTAL + i])
        visible[s] = visible[s] or largest * (highest[s] - lowest[s]) > SMALLEST_FLICKER


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
def illuminate(work, view, brightness, along, dark, before, after, span):
    """Fill the light at the end of the step: linear between the key times, times the lamps' brightness."""
    for i in range(TILE):
        work[NEXT_DIRECT + i] = work[NEXT_GLARE + i] = ZERO
        work[NEXT_TOTAL + i] = dark
    blend(work, NEXT_TOTAL, ONE, along, before[0][0], after[0][0], span)
    for s in range(len(brightness)):
        blend(work, NEXT_DIRECT, brightness[s], along, before[0][1 + s], after[0][1 + s], span)
        if view == REAL:
            blend(work, NEXT_GLARE, brightness[s], along, before[1][s], after[1][s], span)
    for i in range(TILE):
        work[NEXT_TOTAL + i] += work[NEXT_DIRECT + i] + work[NEXT_GLARE + i]


@kernel
def blend(work, row, brightness, along, before, after, span):
    """Add a mixture of two pictures to a row."""
    first, last = span
    a, b = brightness * (ONE - along), brightness * along
    for i in range(last - first):
        work[row + i] += a * before[first + i] + b * after[first + i]


@kernel
def start_at_next(work):
    """Begin a step with the light that has just been filled in."""
    for i in range(TILE):
        work[TOTAL + i] = work[NEXT_TOTAL + i]
        work[LEVEL + i] = log(work[NEXT_TOTAL + i])
        work[DIRECT + i] = work[NEXT_DIRECT + i]
        work[GLARE + i] = work[NEXT_GLARE + i]
        work[FLARE_RAMP + i] = work[FLARE_SWING + i] = ZERO


@kernel
def respond(work, view, dt_us, constants):
    """Carry the pole's output over a step, in all and the parts due to direct light and to flare."""
    leaked = constants.leak_per_us * dt_us
    for i in range(TILE):
        total, next_total, before = work[TOTAL + i], work[NEXT_TOTAL + i], work[ERROR + i]
        level, error, ramp, work[SWING + i], middle, per_light, steps, decay, behind = pole_step(
            total, next_total, work[LEVEL + i], before, dt_us, constants.corner_hz, constants.ceiling_hz
        )
        work[RAMP + i], work[STEPS + i], work[PER_LIGHT + i] = ramp + leaked, steps, per_light
        work[ERROR + i], work[LEVEL + i], work[TOTAL + i] = error, level, next_total
        work[BEHIND + i], work[DECAY + i], work[MIDDLE + i] = behind, decay, middle
        work[MOVED + i] += ramp + error - before + leaked
        work[AGE_US + i] += dt_us
        work[NOISE_US + i] -= dt_us
        past = max(work[MOVED + i] - work[UP + i], work[DOWN + i] - work[MOVED + i])
        work[ALARM + i] = max(past, work[DEAD_US + i], -work[NOISE_US + i])
    respond_in_part(work, DIRECT, NEXT_DIRECT, LIGHT_ERROR, LIGHT_MOVED, LIGHT_RAMP, LIGHT_SWING)
    if view == REAL:
        respond_in_part(work, GLARE, NEXT_GLARE, FLARE_ERROR, FLARE_MOVED, FLARE_RAMP, FLARE_SWING)


@kernel
def respond_in_part(work, light, next_light, error_row, moved, ramp_row, swing_row):
    """Carry the part of the pole's output that is due to a part of the light over a step."""
    for i in range(TILE):
        before = work[error_row + i]
        error, ramp, swing = part_step(work[light + i], work[next_light + i], before, work[PER_LIGHT + i],
                                       work[STEPS + i], work[DECAY + i], work[BEHIND + i])  # fmt: skip
        work[error_row + i], work[ramp_row + i], work[swing_row + i] = error, ramp, swing
        work[light + i] = work[next_light + i]
        work[moved + i] += ramp + error - before


@kernel
def add_untouched(real_out, clean_out, before, touched, first_pixel):
    """The real view's events with those of the clean one since `before` at pixels that flare does not reach."""
    events, cursor = real_out
    used, last = cursor[0], clean_out[1][0]
    events = with_room(events, used + last - before, used)
    for k in range(before, last):
        event = clean_out[0][k]
        if not touched[((event & CODE) >> PIXEL_SHIFT) - first_pixel]:
            events[used] = event
            used += 1
    cursor[0] = used
    return events, cursor


@kernel
def with_room(values, needed, used):
    """The values with room for at least so many, of which some are in use; the array grows by doubling."""
    if needed <= len(values):
        return values
    larger = np.empty(max(needed, 2 * len(values)), values.dtype)
    larger[:used] = values[:used]
    return larger


@kernel
def resting(pixels):
    """The states of all pixels at rest `(tiles, NUM_STATES * TILE)`."""
    num = len(pixels.on)
    states = np.zeros(((num + TILE - 1) // TILE, NUM_STATES * TILE), np.float32)
    for pixel in range(num):
        firing.rest(states[pixel // TILE], TILE, pixel % TILE, pixel, pixels)
    return states
