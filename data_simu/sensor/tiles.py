# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The sensor's inner loops on a CPU: tiles of neighbouring pixels, carried from one key time to the next.

A tile is 256 pixels in a row. Its state and light are in one flat workspace, a row of 256 for each quantity, so that
the loops over its pixels run on vectors; only pixels that may fire are then looked at one by one (see `firing`):

    ERROR    i = 0 1 2 ... 255
    MOVED    i = 0 1 2 ... 255     rows 0 to 15: the state, which stays from one call to the next
    ...
    RAMP, SWING, ... MIDDLE        rows 16 to 23: how the output moves within a step; `firing` reads these, too
    TOTAL, LEVEL, ... ALARM        rows 24 to 34: light at both ends of a step, and which pixels may fire

A tile steps from knot to knot of the lamps whose flicker shows in it, and in one step from key time to key time where
none does:

    key times      |               |               |
    a lamp bends   |   .  .    .   |  .  .    .    |
    steps, flicker |---|--|----|---|--|--|----|----|
    steps, none    |---------------|---------------|
"""

import numpy as np

from data_simu.scalars import ONE, ZERO, F
from data_simu.sensor import brownian, firing
from data_simu.sensor.firing import NUM_STATES, PIXEL_SHIFT, TIME_SHIFT
from data_simu.sensor.pixel import log, step_part, step_pole
from deflare_core.kernels.numba_cache import compiled

TILE = 256
CODE = (1 << TIME_SHIFT) - 1
CLEAN, REAL = 0, 1

ERROR, MOVED, LIGHT_ERROR, LIGHT_MOVED, FLARE_ERROR, FLARE_MOVED = (row * TILE for row in range(6))
DEAD_US, AGE_US, UP, DOWN, NOISE_US = (row * TILE for row in range(6, 11))
RAMP, SWING, LIGHT_RAMP, LIGHT_SWING, FLARE_RAMP, FLARE_SWING, STEPS, MIDDLE = (row * TILE for row in range(16, 24))
# Rows of the workspace that firing does not see: light at both ends of a step, what the pole's parts need, and
# whether a pixel may fire (above 0).
TOTAL, LEVEL, DIRECT, GLARE = (row * TILE for row in range(24, 28))
NEXT_TOTAL, NEXT_DIRECT, NEXT_GLARE = (row * TILE for row in range(28, 31))
PER_LIGHT, BEHIND, DECAY, ALARM = (row * TILE for row in range(31, 35))
WORKSPACE = 35 * TILE

SMALLEST_FLICKER = F(0.06)
"""Flicker that changes the light by less than this share, well below any threshold, is taken at its mean."""

kernel = compiled(fastmath={"contract", "nsz", "arcp"})


@kernel
def see(constants, dark, min_share, state, moments, pictures, outs):
    """Carry both views of all pixels through some key times; return the events of both.

    Parameters
    ----------
    constants : the sensor's constants, a `Constants`.
    dark : the light that darkness counts as.
    min_share : flare below this share of a pixel's light leaves it untouched.
    state : `(2, tiles, NUM_STATES * TILE)` numbers of the pixels, whether flare touches them `(N,)`, and which lamps
        flicker visibly `(2, tiles, lamps)`; changed in place.
    moments : times of the knots in microseconds, brightness there `(knots, lamps)`, whether it bends there, which
        knots the key times are `(keys,)`, and the lowest and highest brightness of each lamp.
    pictures : what is seen at the key times: background with direct light of each lamp `(keys, 1 + lamps, N)`, and
        flare of each lamp `(keys, lamps, N)`.
    outs : events and cursor of the clean and the real view so far, see `firing`.
    """
    states, touched, visible = state
    work = np.ones(WORKSPACE, np.float32)
    clean_out, real_out = outs
    num_clean = clean_out[1][0]
    for tile in range(states.shape[1]):
        span = (tile * TILE, min((tile + 1) * TILE, len(touched)))
        reached = mark_touched(work, touched, states[:, tile], moments, pictures, dark, min_share, span)
        for view in range(2 if reached else 1):
            find_visible(view, work, visible[view, tile], moments, pictures, dark, span)
            out = clean_out if view == CLEAN else real_out
            out = see_tile(view, work, states[view, tile], visible[view, tile], constants, dark, touched, moments,
                           pictures, span, out)  # fmt: skip
            if view == CLEAN:
                clean_out = out
            else:
                real_out = out
    return clean_out, add_untouched(real_out, clean_out, num_clean, touched, constants.first)


@kernel
def see_tile(view, work, state, visible, constants, dark, touched, moments, pictures, span, out):
    """Carry one view of a tile through the key times; return the events with those before.

    Events that find no room are counted all the same. The state is then as it was, and the tile runs again with room.
    """
    events, cursor = out
    used = cursor[0]
    while True:
        work[: len(state)] = state
        step_through(view, work, visible, constants, dark, touched, moments, pictures, span, events, cursor)
        needed = cursor[0]
        if needed <= len(events):
            state[:] = work[: len(state)]
            return events, cursor
        cursor[0] = used
        events = make_room(events, needed, used)


@kernel
def step_through(view, work, visible, constants, dark, touched, moments, pictures, span, events, cursor):
    """Step a tile from knot to knot, its state and light at hand all the while."""
    t_us, brightness, bends, keys = moments[0], moments[1], moments[2], moments[3]
    alarmed, shown = np.empty(TILE, np.int64), np.empty(len(visible), np.float32)
    fill_brightness(shown, brightness[0], visible)
    illuminate(work, view, shown, ZERO, dark, pictures, 0, span)
    start_at_next(work)
    for key in range(len(keys) - 1):
        k, first, last = keys[key], keys[key], keys[key + 1]
        while k < last:
            k_next = find_next_knot(bends, visible, k, last)
            along = F((t_us[k_next] - t_us[first]) / (t_us[last] - t_us[first]))
            fill_brightness(shown, brightness[k_next], visible)
            illuminate(work, view, shown, along, dark, pictures, key, span)
            dt_us = F(t_us[k_next] - t_us[k])
            respond(work, view, dt_us, constants)
            if constants.is_brownian:
                walk_all(work, view, touched[span[0] : span[1]], span[0], t_us[k], dt_us, constants, events, cursor)
                k = k_next
                continue
            for j in range(find_alarmed(work, alarmed, view, touched[span[0] : span[1]])):
                i = alarmed[j]
                firing.fire(work, TILE, i, span[0] + i, t_us[k], dt_us, constants, events, cursor)
            k = k_next


@kernel
def walk_all(work, view, touched, first, t_us, dt_us, constants, events, cursor):
    """Let the pixels of a tile whose voltage is a Brownian motion do all that they do in a step."""
    for i in range(len(touched)):
        if view == CLEAN or touched[i]:
            brownian.walk(work, TILE, i, first + i, t_us, dt_us, constants, events, cursor)


@kernel
def fill_brightness(shown, brightness, visible):
    """Fill the brightness of each lamp as the tile sees it: flicker that does not show counts as its mean, 1."""
    for s in range(len(shown)):
        shown[s] = brightness[s] if visible[s] else ONE


@kernel
def find_alarmed(work, alarmed, view, touched):
    """List the pixels of a tile that may fire; return how many there are."""
    num = 0
    for i in range(len(touched)):
        alarmed[num] = i
        num += work[ALARM + i] > ZERO and (view == CLEAN or touched[i])
    return num


@kernel
def mark_touched(work, touched, states, moments, pictures, dark, min_share, span):
    """Mark the pixels that flare reaches, whose two views part from then on; return whether the tile has any."""
    first, last = span
    here, highest = touched[first:last], moments[5]
    num_touched = 0
    for i in range(len(here)):
        num_touched += here[i]
    for key in range(len(pictures[0])):
        if num_touched == len(here):
            break
        fill_light(work, REAL, highest, dark, pictures[0][key], pictures[1][key], span)
        for i in range(len(here)):
            if not here[i] and work[NEXT_GLARE + i] > min_share * (work[NEXT_TOTAL + i] - work[NEXT_GLARE + i]):
                here[i] = True
                for k in range(NUM_STATES):
                    states[REAL, k * TILE + i] = states[CLEAN, k * TILE + i]
                num_touched += 1
    return num_touched > 0


@kernel
def find_visible(view, work, visible, moments, pictures, dark, span):
    """Add the lamps whose flicker changes the light of some pixel of the tile by more than a small share."""
    lowest, highest = moments[4], moments[5]
    direct, flare = pictures[0][len(pictures[0]) // 2], pictures[1][len(pictures[1]) // 2]
    fill_light(work, view, lowest, dark, direct, flare, span)
    for s in range(len(visible)):
        for i in range(TILE):
            work[TOTAL + i] = ZERO
        add_weighted(work, TOTAL, ONE, direct[1 + s], span)
        if view == REAL:
            add_weighted(work, TOTAL, ONE, flare[s], span)
        largest = ZERO
        for i in range(span[1] - span[0]):
            largest = max(largest, work[TOTAL + i] / work[NEXT_TOTAL + i])
        visible[s] = visible[s] or largest * (highest[s] - lowest[s]) > SMALLEST_FLICKER


@kernel
def find_next_knot(bends, visible, k, last):
    """The next knot at which the brightness of a visible lamp bends, or the last one."""
    for k_next in range(k + 1, last):
        for s in range(len(visible)):
            if visible[s] and bends[k_next, s]:
                return k_next
    return last


@kernel
def illuminate(work, view, brightness, along, dark, pictures, key, span):
    """Fill the light at the end of a step that ends so far along from a key time to the next; linear between them."""
    direct, flare = pictures
    if along == ONE:
        fill_light(work, view, brightness, dark, direct[key + 1], flare[key + 1], span)
        return
    clear_light(work, dark)
    add_blended(work, NEXT_TOTAL, ONE, along, direct[key, 0], direct[key + 1, 0], span)
    for s in range(len(brightness)):
        add_blended(work, NEXT_DIRECT, brightness[s], along, direct[key, 1 + s], direct[key + 1, 1 + s], span)
        if view == REAL:
            add_blended(work, NEXT_GLARE, brightness[s], along, flare[key, s], flare[key + 1, s], span)
    add_up(work)


@kernel
def fill_light(work, view, brightness, dark, direct, flare, span):
    """Fill the light at a key time."""
    clear_light(work, dark)
    add_weighted(work, NEXT_TOTAL, ONE, direct[0], span)
    for s in range(len(brightness)):
        add_weighted(work, NEXT_DIRECT, brightness[s], direct[1 + s], span)
        if view == REAL:
            add_weighted(work, NEXT_GLARE, brightness[s], flare[s], span)
    add_up(work)


@kernel
def clear_light(work, dark):
    """Begin with darkness."""
    for i in range(TILE):
        work[NEXT_DIRECT + i] = work[NEXT_GLARE + i] = ZERO
        work[NEXT_TOTAL + i] = dark


@kernel
def add_up(work):
    """Add the lamps' light to that of the scene."""
    for i in range(TILE):
        work[NEXT_TOTAL + i] += work[NEXT_DIRECT + i] + work[NEXT_GLARE + i]


@kernel
def add_blended(work, row, brightness, along, before, after, span):
    """Add a mixture of two pictures to a row."""
    # Slices begin at 0: an index that might be negative would keep the loop off vectors.
    before, after = before[span[0] : span[1]], after[span[0] : span[1]]
    a, b = brightness * (ONE - along), brightness * along
    for i in range(len(before)):
        work[row + i] += a * before[i] + b * after[i]


@kernel
def add_weighted(work, row, brightness, picture, span):
    """Add a picture to a row."""
    picture = picture[span[0] : span[1]]
    for i in range(len(picture)):
        work[row + i] += brightness * picture[i]


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
        level, error, ramp, work[SWING + i], middle, per_light, steps, decay, behind = step_pole(
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
        error, ramp, swing = step_part(work[light + i], work[next_light + i], before, work[PER_LIGHT + i],
                                       work[STEPS + i], work[DECAY + i], work[BEHIND + i])  # fmt: skip
        work[error_row + i], work[ramp_row + i], work[swing_row + i] = error, ramp, swing
        work[light + i] = work[next_light + i]
        work[moved + i] += ramp + error - before


@kernel
def add_untouched(real_out, clean_out, before, touched, first_pixel):
    """The real view's events with those of the clean one since `before` at pixels that flare does not reach."""
    events, cursor = real_out
    used, last = cursor[0], clean_out[1][0]
    events = make_room(events, used + last - before, used)
    for k in range(before, last):
        event = clean_out[0][k]
        if not touched[((event & CODE) >> PIXEL_SHIFT) - first_pixel]:
            events[used] = event
            used += 1
    cursor[0] = used
    return events, cursor


@kernel
def make_room(values, needed, used):
    """The values `(n,)`, the first `used` of which count, with room for `needed`; the array grows by doubling."""
    if needed <= len(values):
        return values
    larger = np.empty(max(needed, 2 * len(values)), values.dtype)
    larger[:used] = values[:used]
    return larger


@kernel
def rest_all(pixels):
    """The states of all pixels at rest `(tiles, NUM_STATES * TILE)` float32."""
    num = len(pixels.on)
    states = np.zeros(((num + TILE - 1) // TILE, NUM_STATES * TILE), np.float32)
    for pixel in range(num):
        firing.rest_pixel(states[pixel // TILE], TILE, pixel % TILE, pixel, pixels)
    return states
