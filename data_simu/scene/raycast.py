# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""What one ray from the camera sees, as scalar functions of 32-bit numbers that loops on a CPU or a GPU call alike.

The reciprocal of the distance to a plane is linear over the picture, and the nearest plane has the largest, so a
corridor needs no search. Where two planes meet, and at the rims of boards and sources, light is shared by coverage:
an edge that moves crosses a pixel smoothly, as on a sensor, and not from one picture to the next.

              CEILING
            +---------+             A ray has the direction (x, y, z): x right, y down, z forward. It ends
       LEFT |   END   | RIGHT       at LEFT or RIGHT (across axis 0), at FLOOR or CEILING (across axis 1), or
            +---------+             at END (across axis 2).
               FLOOR

Arrays: `turn` is the camera's orientation `(3, 3)`, `camera` its place (m), `inverse` `(5,)` the reciprocals of the
planes' distances, `mapping` `(surfaces, 4)` where a surface's texture begins, repeats per metre and two shifts,
`textures` flat mip pyramids, all float32. A `board`, a `stripe` and a `face` are rows of `poses.Poses`.
"""

import math

import numpy as np

from data_simu.scalars import HALF, ONE, TWO, ZERO, F, Int, floor
from deflare_core.kernels.numba_cache import compiled

TEXTURE = 512
FLOOR, CEILING, LEFT, RIGHT, END = range(5)
FAR_M = np.float32(400)
SOFTENING_M2 = F(0.05)
PYRAMID = (4 * TEXTURE**2 - 1) // 3
"""Texels of a texture with all its halves."""

kernel = compiled(fastmath=True)


@kernel
def turn_ray(turn, u, v):
    """The direction of a ray through the point `(u, v, 1)` of the camera."""
    x = turn[0, 0] * u + turn[0, 1] * v + turn[0, 2]
    y = turn[1, 0] * u + turn[1, 1] * v + turn[1, 2]
    z = turn[2, 0] * u + turn[2, 1] * v + turn[2, 2]
    return x, y, z


@kernel
def meet_planes(x, y, z, inverse):
    """Where a ray of that direction ends: axis across the nearest plane and the second, and their distances (m)."""
    along_x = max(x * inverse[RIGHT], -x * inverse[LEFT])
    along_y = max(y * inverse[FLOOR], -y * inverse[CEILING])
    along_z = z * inverse[END]
    more, less = max(along_x, along_y), min(along_x, along_y)
    first, last = (ZERO, ONE) if along_x >= along_y else (ONE, ZERO)
    if along_z > more:
        axis, other, nearest, second = TWO, first, along_z, more
    else:
        axis, other, nearest, second = first, last if less >= along_z else TWO, more, max(less, along_z)
    return axis, other, ONE / max(nearest, ONE / FAR_M), ONE / max(second, ONE / FAR_M)


@kernel
def edge_share(distance, second, steepest):
    """The share of a pixel that the nearest plane covers where it meets the second: 1 away from the edge."""
    return HALF + HALF * min((ONE / distance - ONE / second) / steepest, ONE)


@kernel
def find_plane_spot(axis, dx, dy, dz, camera, distance, focal, mapping):
    """What a pixel sees of the plane across an axis: texture, place on it in repeats, footprint in texels.

    `dx, dy, dz` lead from the camera to the spot. Along a row of the picture a texture is read along its own rows,
    which lie together in memory.
    """
    across = dx if axis == ZERO else (dy if axis == ONE else dz)
    side = RIGHT if dx > ZERO else LEFT
    level = FLOOR if dy > ZERO else CEILING
    surface = side if axis == ZERO else (level if axis == ONE else END)
    u = camera[2] + dz if axis == ZERO else camera[0] + dx
    v = camera[2] + dz if axis == ONE else camera[1] + dy
    slant = max(abs(across) / distance, F(0.04))
    repeats = mapping[surface, 1]
    footprint = distance / (focal * math.sqrt(slant)) * repeats * F(TEXTURE)
    return mapping[surface, 0], u * repeats + mapping[surface, 2], v * repeats + mapping[surface, 3], footprint


@kernel
def find_mip_level(footprint):
    """The level of a pyramid for a footprint in texels: its side, its first texel, and the weight of the next level."""
    # The exponent and mantissa of a float, read as a whole number, are 2^23 log2(footprint), straight between powers.
    bits = F(footprint).view(np.int32)
    level = min(max(F(bits - Int(0x3F800000)) * F(1 / (1 << 23)), ZERO), F(7.999))
    low = floor(level)
    side = F(TEXTURE) * Int(Int(Int(127) - Int(low)) << Int(23)).view(np.float32)
    # Before a level of side s lie (4^10 - 4 s^2) / 3 texels, for a side of 2^9 at the finest.
    first = floor((F(4 * TEXTURE * TEXTURE) - F(4) * side * side) * F(1 / 3) + F(0.25))
    return side, first, level - low


@kernel
def find_texels(u, v, side, first):
    """The numbers of the four texels around a place, and how far it is from the first one to the right and down.

        a --- b         The place x is `right` of a and `below` it, 0 to 1. Texels repeat: right of the last column
        |  x  |         is the first.
        c --- d

    Numbers are whole and below 2^24, so 32-bit floating point holds them, and a compiler can find eight at once.
    """
    across, down = (u - floor(u)) * side - HALF, (v - floor(v)) * side - HALF
    column, row = floor(across), floor(down)
    right, left = across - column, column + side if column < ZERO else column
    below, upper = down - row, row + side if row < ZERO else row
    next_column = column + ONE - side if column + ONE >= side else column + ONE
    next_row = row + ONE - side if row + ONE >= side else row + ONE
    upper, lower = first + upper * side, first + next_row * side
    return upper + left, upper + next_column, lower + left, lower + next_column, right, below


@kernel
def interpolate(a, b, c, d, right, below):
    """The value between those of four neighbours, as `find_texels` gives them."""
    first, last = a + right * (b - a), c + right * (d - c)
    return first + below * (last - first)


@kernel
def read_level(textures, u, v, side, first):
    """One level of a texture at a place."""
    a, b, c, d, right, below = find_texels(u, v, side, first)
    return interpolate(textures[Int(a)], textures[Int(b)], textures[Int(c)], textures[Int(d)], right, below)


@kernel
def read_albedo(textures, texture, u, v, footprint):
    """The albedo of a texture at a place (repeats), averaged over a footprint (texels)."""
    side, first, blend = find_mip_level(footprint)
    fine = read_level(textures, u, v, side, texture + first)
    coarse = read_level(textures, u, v, side * HALF, texture + first + side * side)
    return fine + blend * (coarse - fine)


@kernel
def lamp_light(dx, dy, dz, towards, power):
    """The light that falls on a spot from a lamp at that offset: power times cosine over squared distance."""
    squared = dx * dx + dy * dy + dz * dz + SOFTENING_M2
    return power * towards / (squared * math.sqrt(squared))


@kernel
def board_share(across, down, board, softness_m):
    """The share of a spot that a board covers: a superellipse of power 2 or 8, its rim as soft as the spot is wide."""
    a, b = across / board[3], down / board[4]
    a, b = a * a, b * b
    if board[5] > ZERO:
        inside = ONE - math.sqrt(a + b)
    else:
        a, b = a * a, b * b
        inside = ONE - math.sqrt(math.sqrt(math.sqrt(a * a + b * b)))
    return min(max(HALF + inside * min(board[3], board[4]) / softness_m, ZERO), ONE)


@kernel
def stripe_share(column, row, stripe):
    """How brightly a source's stripe with round ends lights a pixel; one thinner than a pixel is fainter instead."""
    x0, y0, x1, y1, radius = stripe[0], stripe[1], stripe[2], stripe[3], stripe[4]
    drawn, faint = max(radius, HALF), min(radius / HALF, ONE)
    if abs(x1 - x0) + abs(y1 - y0) < ONE:
        faint *= faint
    dx, dy = x1 - x0, y1 - y0
    length = dx * dx + dy * dy
    along = min(max(((column - x0) * dx + (row - y0) * dy) / length, ZERO), ONE) if length > ZERO else ZERO
    away_x, away_y = column - x0 - along * dx, row - y0 - along * dy
    away = math.sqrt(away_x * away_x + away_y * away_y)
    return faint * min(max(drawn + HALF - away, ZERO), ONE)


@kernel
def face_light(u, v, face, textures):
    """What a ray through the point `(u, v, 1)` of the camera sees of a lamp's picture: brightness, and distance (m)."""
    nearness = face[6] * u + face[7] * v + face[8]
    if nearness <= ZERO:
        return ZERO, ZERO
    across = (face[0] * u + face[1] * v + face[2]) / nearness
    down = (face[3] * u + face[4] * v + face[5]) / nearness
    if abs(across) >= ONE or abs(down) >= ONE:
        return ZERO, ZERO
    value = read_albedo(textures, face[11], HALF + HALF * across, HALF + HALF * down, face[12] / nearness)
    return face[9] * value, ONE / nearness


@kernel
def uncovered_share(x, y, z, distance, camera, boards, focal):
    """The share of a ray's light from that distance that no board on its way hides."""
    share = ONE
    for i in range(len(boards)):
        board = boards[i]
        ahead = board[2] - camera[2]
        if z > ZERO and ahead >= F(0.3) and ahead < distance * z:
            along = ahead / z
            across, down = camera[0] + along * x - board[0], camera[1] + along * y - board[1]
            share *= ONE - board_share(across, down, board, along / focal)
    return share
