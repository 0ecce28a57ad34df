# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The simulation's loops on a GPU: a thread for each pixel, around the functions that the CPU's loops call as well.

The physics stands once, in `pixel`, `firing` and `raycast`. Numba was chosen because it compiles these same Python
functions for both: NVIDIA Warp would as well, but its own arrays and types would then run through the CPU's code too,
where numba's vectors are what makes tiles fast; Triton has no CPU target.
"""

from numba import boolean, cuda, float32, int64

from data_simu.composition import compose_pixel
from data_simu.scalars import HALF, ONE, ZERO, F, Int, floor
from data_simu.scene.raycast import (
    TEXTURE,
    board_share,
    edge_share,
    face_light,
    find_plane_spot,
    interpolate,
    lamp_light,
    meet_planes,
    read_albedo,
    stripe_share,
    turn_ray,
    uncovered_share,
)
from data_simu.sensor import brownian, firing
from data_simu.sensor.firing import NUM_ROWS
from data_simu.sensor.pixel import log, step_part, step_pole
from data_simu.sensor.targets import pair_up
from data_simu.sensor.tiles import CLEAN, REAL, SMALLEST_FLICKER

THREADS = 128
"""Threads of a block."""
MOST_GROUPS = 8
"""Groups of light sources that a thread has room for."""


@cuda.jit
def render(out, height, width, poses, mapping, textures, ambient):
    """Fill the pictures `(K, 1 + groups, H * W)` float32 of all K moments: the scene, then each group of lamps.

    A thread is one pixel at one moment. Arguments as of `scene.rendering.render_rows`.
    """
    pixel, k = cuda.grid(2)
    if pixel < height * width:
        row, column = pixel // width, pixel % width
        u = (F(column) - HALF * F(width - 1)) / poses.focal
        v = (F(row) - HALF * F(height - 1)) / poses.focal
        x, y, z = turn_ray(poses.turn[k], u, v)
        picture = out[k, :, pixel]
        show_planes(picture, x, y, z, k, poses, mapping, textures)
        for board in range(poses.boards.shape[1]):
            show_board(picture, x, y, z, k, poses, poses.boards[k, board], mapping, textures)
        picture[0] *= ambient
        for s in range(poses.stripes.shape[1]):
            stripe = poses.stripes[k, s]
            if stripe[5] > ZERO and near_stripe(F(column), F(row), stripe):
                picture[1 + Int(stripe[6])] += stripe[5] * stripe_share(F(column), F(row), stripe)
        for s in range(poses.faces.shape[1]):
            show_face(picture, F(column), F(row), u, v, k, poses, poses.faces[k, s], textures)


@cuda.jit(device=True)
def near_stripe(column, row, stripe):
    """Whether a pixel is in the box that a stripe can reach."""
    margin = max(stripe[4], HALF) + ONE
    across = column >= min(stripe[0], stripe[2]) - margin and column <= max(stripe[0], stripe[2]) + margin
    return across and row >= min(stripe[1], stripe[3]) - margin and row <= max(stripe[1], stripe[3]) + margin


@cuda.jit(device=True)
def show_face(picture, column, row, u, v, k, poses, face, textures):
    """Draw what a pixel sees of a lamp's picture."""
    inside = column >= face[13] - ONE and column <= face[14] + ONE and row >= face[15] - ONE and row <= face[16] + ONE
    if inside and face[9] > ZERO:
        light, distance = face_light(u, v, face, textures)
        if light > ZERO:
            x, y, z = turn_ray(poses.turn[k], u, v)
            shown = uncovered_share(x, y, z, distance, poses.camera[k], poses.boards[k], poses.focal)
            picture[1 + Int(face[10])] += light * shown


@cuda.jit(device=True)
def show_planes(picture, x, y, z, k, poses, mapping, textures):
    """Fill a pixel with the corridor and the lamps' light on it."""
    camera, inverse = poses.camera[k], poses.inverse[k]
    axis, other, distance, second = meet_planes(x, y, z, inverse)
    start, u, v, footprint = find_plane_spot(
        axis, distance * x, distance * y, distance * z, camera, distance, poses.focal, mapping
    )
    albedo = read_albedo(textures, start, u, v, footprint)
    steepest = max(inverse[0], inverse[1], inverse[2], inverse[3], inverse[4]) / poses.focal
    share = edge_share(distance, second, steepest)
    if share < ONE:
        start, u, v, footprint = find_plane_spot(
            other, second * x, second * y, second * z, camera, second, poses.focal, mapping
        )
        albedo = share * albedo + (ONE - share) * read_albedo(textures, start, u, v, footprint)
    for channel in range(1, len(picture)):
        picture[channel] = ZERO
    picture[0] = albedo
    for s in range(poses.lamps.shape[1]):
        lamp = poses.lamps[k, s]
        dx = lamp[0] - camera[0] - distance * x
        dy = lamp[1] - camera[1] - distance * y
        dz = lamp[2] - camera[2] - distance * z
        towards = abs(dx) if axis == ZERO else (abs(dy) if axis == ONE else abs(dz))
        picture[1 + Int(lamp[4])] += min(albedo, ONE) * lamp_light(dx, dy, dz, towards, lamp[3])


@cuda.jit(device=True)
def show_board(picture, x, y, z, k, poses, board, mapping, textures):
    """Draw what a pixel sees of a board."""
    camera, surface = poses.camera[k], Int(board[6])
    depth = board[2] - camera[2]
    if depth < F(0.3) or z <= ZERO:
        return
    distance = depth / z
    across, down = camera[0] + distance * x - board[0], camera[1] + distance * y - board[1]
    share = board_share(across, down, board, distance / poses.focal)
    if share > ZERO:
        repeats = mapping[surface, 1]
        u, v = across * repeats + mapping[surface, 2], down * repeats + mapping[surface, 3]
        albedo = read_albedo(textures, mapping[surface, 0], u, v, distance * repeats * F(TEXTURE) / poses.focal)
        for channel in range(len(picture)):
            picture[channel] *= ONE - share
        picture[0] += share * albedo
        for s in range(poses.lamps.shape[1]):
            lamp = poses.lamps[k, s]
            dx, dy, dz = lamp[0] - board[0] - across, lamp[1] - board[1] - down, lamp[2] - board[2]
            picture[1 + Int(lamp[4])] += share * min(albedo, ONE) * lamp_light(dx, dy, dz, abs(dz), lamp[3])


@cuda.jit
def render_flare(out, width, spots, places, sprites):
    """Fill the flare `(K, groups, H * W)` of all moments.

    A spot is one picture that the lens makes of one point: column, row, weight, group and sprite, `(K, spots, 5)`; a
    sprite's first value and its side stand in `places` `(sprites, 2)`, its values one behind the other in `sprites`.
    Most spots are far from most pixels. So the 128 threads of a block, which are 128 pixels of a row or two, look at
    128 spots together before each adds light to its own pixel:

        thread    0  1  2  ... 127
        spot      0  1  2  ... 127      each thread: does my spot reach any pixel of the block?  -> near[thread]
        -- all threads wait --
        pixel     0  1  2  ... 127      each thread: add those spots that are near to my pixel
        -- all threads wait, and go on with the next 128 spots --

    Both waits stand outside every branch: a thread that skipped one would leave the others waiting for ever.
    """
    pixel, k = cuda.grid(2)
    lane, num_pixels, num_spots = cuda.threadIdx.x, out.shape[2], spots.shape[1]
    near = cuda.shared.array(THREADS, boolean)
    first, last = pixel - lane, min(pixel - lane + THREADS, num_pixels) - 1
    top, bottom = first // width, last // width
    left, right = (first % width, last % width) if top == bottom else (0, width - 1)
    row, column = pixel // width, pixel % width
    if pixel < num_pixels:
        for group in range(out.shape[1]):
            out[k, group, pixel] = ZERO
    for base in range(0, num_spots, THREADS):
        cuda.syncthreads()
        near[lane] = base + lane < num_spots and reaches(spots[k, base + lane], places, left, right, top, bottom)
        cuda.syncthreads()
        for s in range(base, min(base + THREADS, num_spots)):
            if near[s - base] and pixel < num_pixels:
                spot = spots[k, s]
                start, side = places[Int(spot[4]), 0], places[Int(spot[4]), 1]
                reach = HALF * F(side - 1)
                light = read_sprite(sprites, start, side, F(column) - spot[0] + reach, F(row) - spot[1] + reach)
                out[k, Int(spot[3]), pixel] += spot[2] * light


@cuda.jit(device=True)
def reaches(spot, places, left, right, top, bottom):
    """Whether a spot gives light, and has any of it between these columns and rows."""
    reach = HALF * F(places[Int(spot[4]), 1] - 1)
    misses = spot[0] + reach < F(left) or spot[0] - reach > F(right)
    return spot[2] > ZERO and not misses and spot[1] + reach >= F(top) and spot[1] - reach <= F(bottom)


@cuda.jit(device=True)
def read_sprite(sprites, start, side, across, down):
    """A sprite's value at a place between its pixels; 0 outside."""
    column, row = floor(across), floor(down)
    if column < ZERO or row < ZERO or column >= F(side - 1) or row >= F(side - 1):
        return ZERO
    first = start + Int(row) * side + Int(column)
    upper_left, upper_right = sprites[first], sprites[first + 1]
    lower_left, lower_right = sprites[first + side], sprites[first + side + 1]
    return interpolate(upper_left, upper_right, lower_left, lower_right, across - column, down - row)


@cuda.jit
def look_ahead(touched, shown, direct, flare, mixes, lowest, highest, dark, min_share):
    """Mark the pixels that flare reaches at any key time, and the groups whose flicker shows in each view, as bits.

    Fills `touched` `(N,)` bool and `shown` `(2, N)` uint8; the others as of `sense`.
    """
    pixel = cuda.grid(1)
    if pixel < len(touched):
        reached, clean_shown, real_shown = False, 0, 0
        for k in range(direct.shape[0]):
            ground = dark + direct[k, 0, pixel]
            total, low_direct, low_real, glare = ground, ground, ground, ZERO
            for s in range(len(highest)):
                light, added = direct[k, 1 + s, pixel], mix_flare(flare, mixes, k, s, pixel)
                total += highest[s] * light
                glare += highest[s] * added
                low_direct += lowest[s] * light
                low_real += lowest[s] * (light + added)
            reached = reached or glare > min_share * total
            for s in range(len(highest)):
                light, added = direct[k, 1 + s, pixel], mix_flare(flare, mixes, k, s, pixel)
                swing = highest[s] - lowest[s]
                clean_shown |= (light * swing > SMALLEST_FLICKER * low_direct) << s
                real_shown |= ((light + added) * swing > SMALLEST_FLICKER * low_real) << s
        touched[pixel], shown[CLEAN, pixel], shown[REAL, pixel] = reached, clean_shown, real_shown


@cuda.jit(device=True)
def mix_flare(flare, mixes, k, group, pixel):
    """The flare at key time `k`, straight between the times at which it was rendered."""
    first, along = Int(mixes[k, 0]), mixes[k, 1]
    return flare[first, group, pixel] * (ONE - along) + flare[first + 1, group, pixel] * along


@cuda.jit(device=True)
def watch(act, view, pixel, shown, work, pixels, dark, moments, direct, flare, mixes, events, cursor):
    """Carry a pixel from the first key time to the last."""
    # Rows: direct light of each group at the last key time and at the next, then its flare at both.
    ends = cuda.local.array((4, MOST_GROUPS), float32)
    t_us, brightness, bends, _, _, first_knot = moments
    groups, constants = brightness.shape[1], pixels.constants
    firing.rest_pixel(work, 1, 0, pixel, pixels)
    ground = direct[0, 0, pixel] + dark
    total = light = glare = level = ZERO
    for s in range(groups):
        ends[1, s] = direct[0, 1 + s, pixel]
        ends[3, s] = mix_flare(flare, mixes, 0, s, pixel) if view == REAL else ZERO
        light += shine(brightness, shown, 0, s) * ends[1, s]
        glare += shine(brightness, shown, 0, s) * ends[3, s]
    total = ground + light + glare
    level = log(total)
    for k in range(1, direct.shape[0]):
        next_ground = direct[k, 0, pixel] + dark
        for s in range(groups):
            ends[0, s], ends[2, s] = ends[1, s], ends[3, s]
            ends[1, s] = direct[k, 1 + s, pixel]
            ends[3, s] = mix_flare(flare, mixes, k, s, pixel) if view == REAL else ZERO
        knot, last = first_knot[k - 1], first_knot[k]
        while knot < last:
            before = knot
            knot += 1
            while knot < last and not bends_in(bends, knot, shown, groups):
                knot += 1
            along = F((t_us[knot] - t_us[first_knot[k - 1]]) / (t_us[last] - t_us[first_knot[k - 1]]))
            next_light = next_glare = ZERO
            for s in range(groups):
                now = shine(brightness, shown, knot, s)
                next_light += now * (ends[0, s] + along * (ends[1, s] - ends[0, s]))
                next_glare += now * (ends[2, s] + along * (ends[3, s] - ends[2, s]))
            next_total = ground + along * (next_ground - ground) + next_light + next_glare
            dt_us = F(t_us[knot] - t_us[before])
            level = respond(
                work, total, next_total, light, next_light, glare, next_glare, level, dt_us, pixels.constants
            )
            act(work, pixel, t_us[before], dt_us, constants, events, cursor)
            total, light, glare = next_total, next_light, next_glare
        ground = next_ground


@cuda.jit(device=True)
def fire_if_due(work, pixel, t_us, dt_us, constants, events, cursor):
    """Let a pixel that may fire in a step do what it does; see `firing`."""
    moved = work[firing.MOVED]
    if (moved > work[firing.UP] or moved < work[firing.DOWN] or work[firing.DEAD_US] > ZERO
            or work[firing.NOISE_US] < ZERO):  # fmt: skip
        firing.fire(work, 1, 0, pixel, t_us, dt_us, constants, events, cursor)


@cuda.jit(device=True)
def walk(work, pixel, t_us, dt_us, constants, events, cursor):
    """Let a pixel whose voltage is a Brownian motion do what it does in a step; see `brownian`."""
    brownian.walk(work, 1, 0, pixel, t_us, dt_us, constants, events, cursor)


@cuda.jit(device=True)
def shine(brightness, shown, knot, group):
    """A lamp's brightness as the pixel sees it: flicker that does not show counts as its mean, 1."""
    return brightness[knot, group] if shown >> group & 1 else ONE


@cuda.jit(device=True)
def bends_in(bends, knot, shown, groups):
    """Whether one of the groups bends at a knot."""
    found = False
    for s in range(groups):
        found = found or (shown >> s & 1 == 1 and bends[knot, s])
    return found


@cuda.jit(device=True)
def respond(work, total, next_total, light, next_light, glare, next_glare, level, dt_us, constants):
    """Carry a pixel's output over a step, in all and the parts; return the logarithm of the light after it."""
    before, leaked = work[firing.ERROR], constants.leak_per_us * dt_us
    next_level, error, ramp, swing, middle, per_light, steps, decay, behind = step_pole(
        total, next_total, level, before, dt_us, constants.corner_hz, constants.ceiling_hz
    )
    work[firing.ERROR], work[firing.RAMP], work[firing.SWING] = error, ramp + leaked, swing
    work[firing.STEPS], work[firing.MIDDLE] = steps, middle
    work[firing.MOVED] += ramp + error - before + leaked
    work[firing.AGE_US] += dt_us
    work[firing.NOISE_US] -= dt_us
    before = work[firing.LIGHT_ERROR]
    error, ramp, swing = step_part(light, next_light, before, per_light, steps, decay, behind)
    work[firing.LIGHT_ERROR], work[firing.LIGHT_RAMP], work[firing.LIGHT_SWING] = error, ramp, swing
    work[firing.LIGHT_MOVED] += ramp + error - before
    before = work[firing.FLARE_ERROR]
    error, ramp, swing = step_part(glare, next_glare, before, per_light, steps, decay, behind)
    work[firing.FLARE_ERROR], work[firing.FLARE_RAMP], work[firing.FLARE_SWING] = error, ramp, swing
    work[firing.FLARE_MOVED] += ramp + error - before
    return next_level


def make_sense(act):
    """The kernel that lets pixels see everything and `act` after each step.

    A kernel of its own for each kind of pixel, since one that could do both would need more registers for either.
    """

    @cuda.jit
    def sense(which, offsets, clock_us, pixels, dark, touched, shown, moments, direct, flare, mixes, events, counts):
        """Let pixels see everything and write down their events; count them, even beyond the room there is.

        Parameters
        ----------
        which : for each thread which pixel it is, those of the real view after all of the clean one, `(T,)` int64.
        offsets : where each thread's events begin, `(T + 1,)` int64.
        clock_us : start and end of the recording, microseconds, `(2,)` int64.
        pixels, dark : constants of the sensor, and the light of darkness.
        touched, shown : where flare reaches, and whose flicker shows; see `look_ahead`.
        moments : knots' times, brightness, bends, lowest and highest brightness, and the first knot of each key time;
            shapes as of `look_times.Moments`.
        direct, flare : what is rendered, `(K, 1 + groups, N)` and `(F, groups, N)` float32.
        mixes : for each key time the flare before it, and how far it is towards the next, `(K, 2)` float32.
        events, counts : filled, `(offsets[-1],)` and `(T,)` int64; an event as in `firing`.
        """
        i = cuda.grid(1)
        if i < len(which):
            view, pixel = which[i] // len(touched), which[i] % len(touched)
            work = cuda.local.array(NUM_ROWS, float32)
            cursor = cuda.local.array(3, int64)
            cursor[0], cursor[1], cursor[2] = 0, clock_us[0], clock_us[1]
            if view != REAL or touched[pixel]:
                room = slice(offsets[i], offsets[i + 1])
                watch(act, view, pixel, shown[view, pixel], work, pixels, dark, moments, direct, flare, mixes,
                      events[room], cursor)  # fmt: skip
            counts[i] = cursor[0]

    return sense


sense, sense_brownian = make_sense(fire_if_due), make_sense(walk)


@cuda.jit
def snap(first, wanted_first, times, wanted_times, moved):
    """Fill the snapped times of events in the order of pixel and polarity, then time; a thread is one of these keys."""
    key = cuda.grid(1)
    if key + 1 < len(first):
        pair_up(times, moved, first[key], first[key + 1], wanted_times, wanted_first[key], wanted_first[key + 1])


@cuda.jit
def compose(first, t_us, is_recorded, weight, phase, kept, dead_us):
    """Fill which events of a recording and a layer are left, in the order of pixel, then time; a thread is a pixel."""
    pixel = cuda.grid(1)
    if pixel < len(weight):
        compose_pixel(t_us, is_recorded, first[pixel], first[pixel + 1], weight[pixel], phase[pixel], dead_us, kept)
