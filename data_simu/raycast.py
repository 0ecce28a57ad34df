# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The renderer's inner loops: rays from the camera to the planes of a corridor, boards and sources in front of them.

The reciprocal of the distance to a plane is linear over the picture, and the nearest plane has the largest, so a
corridor needs no search. Where two planes meet, and at the rims of boards and sources, light is shared by coverage:
an edge that moves crosses a pixel smoothly, as on a sensor, and not from one picture to the next.
"""

import numba
import numpy as np

TEXTURE = 512
FLOOR, CEILING, LEFT, RIGHT, END = range(5)
FAR_M = np.float32(400)
F = np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
SOFTENING_M2 = F(0.05)

kernel = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)


@kernel
def cast(direct, first_row, height, focal, camera, turn, planes, mapping, textures, lamps):
    """Fill the background and the lamps' light on the corridor.

    Parameters
    ----------
    direct : `(1 + channels, rows, W)`, filled: the background, and what the lamps of each channel light.
    first_row, height : which row of the picture the first one is, and rows of the whole picture.
    focal : focal length, pixels.
    camera, turn : place (m) and orientation `(3, 3)` of the camera.
    planes : distances of floor, ceiling, left, right, end from the origin (m).
    mapping : for every surface where its texture begins, repeats per metre, shifts, and its top (m), `(surfaces, 5)`.
    textures : mip pyramids, one behind the other.
    lamps : for every lamp its place, power and channel, `(lamps, 5)`.
    """
    num_channels, num_rows, width = direct.shape
    inverse = plane_inverses(camera, planes)
    steepest = inverse.max() / focal
    point = np.empty((7, width), np.float32)
    for row in range(num_rows):
        v = (F(first_row + row) - HALF * F(height - 1)) / focal
        meet(point, v, focal, camera, turn, inverse)
        albedo = direct[0, row]
        for coarser in range(2):
            plane_row(albedo, point, coarser, focal, camera, mapping, textures)
        for column in range(width):
            apart = (ONE / point[5, column] - ONE / point[6, column]) / steepest
            if apart < ONE:
                blend_edge(albedo, point, column, HALF + HALF * apart, v, focal, camera, turn, mapping, textures)
        for channel in range(1, num_channels):
            direct[channel, row, :] = ZERO
        for lamp in lamps:
            light_row(direct[1 + int(lamp[4]), row], albedo, point, lamp)


@kernel
def plane_inverses(camera, planes):
    """The reciprocals of the distances from the camera to floor, ceiling, left, right and end."""
    inverse = np.empty(5, np.float32)
    offsets = (-camera[1], camera[1], camera[0], -camera[0], -camera[2])
    for k in range(5):
        inverse[k] = ONE / max(planes[k] + offsets[k], F(0.05))
    return inverse


@kernel
def turned(turn, u, v):
    """The direction of a ray through the point `(u, v, 1)` of the camera."""
    x = turn[0, 0] * u + turn[0, 1] * v + turn[0, 2]
    y = turn[1, 0] * u + turn[1, 1] * v + turn[1, 2]
    z = turn[2, 0] * u + turn[2, 1] * v + turn[2, 2]
    return x, y, z


@kernel
def meet(point, v, focal, camera, turn, inverse):
    """Where the rays of a row meet the nearest plane: place, axes across it and the second, distances."""
    floor, ceiling, left, right, end = inverse[0], inverse[1], inverse[2], inverse[3], inverse[4]
    width = point.shape[1]
    for column in range(width):
        x, y, z = turned(turn, (F(column) - HALF * F(width - 1)) / focal, v)
        along_x, along_y, along_z = max(x * right, -x * left), max(y * floor, -y * ceiling), z * end
        nearest = max(along_x, along_y, along_z, ONE / FAR_M)
        second = along_x + along_y + along_z - nearest - min(along_x, along_y, along_z)
        axis = ZERO if nearest == along_x else (ONE if nearest == along_y else TWO)
        other = ZERO if second == along_x else (ONE if second == along_y else TWO)
        distance = ONE / nearest
        point[0, column], point[1, column] = camera[0] + distance * x, camera[1] + distance * y
        point[2, column], point[3, column] = camera[2] + distance * z, axis
        point[4, column] = other
        point[5, column], point[6, column] = distance, ONE / max(second, ONE / FAR_M)


@kernel
def blend_edge(albedo, point, column, share, v, focal, camera, turn, mapping, textures):
    """Mix in what the second nearest plane shows where it meets the nearest one."""
    width = point.shape[1]
    x, y, z = turned(turn, (F(column) - HALF * F(width - 1)) / focal, v)
    distance = point[6, column]
    px, py, pz = camera[0] + distance * x, camera[1] + distance * y, camera[2] + distance * z
    texture, s, t, footprint = plane_texture(point[4, column], px, py, pz, distance, focal, camera, mapping)
    behind = surface_albedo(texture, s, t, footprint, textures)
    albedo[column] = share * albedo[column] + (ONE - share) * behind


@kernel
def plane_row(albedo, point, coarser, focal, camera, mapping, textures):
    """Fill a row with one level of the planes' textures, or mix the next coarser one in."""
    for column in range(len(albedo)):
        texture, u, v, footprint = plane_texture(point[3, column], point[0, column], point[1, column], point[2, column],
                                                 point[5, column], focal, camera, mapping)  # fmt: skip
        value, blend = one_level(textures, texture, u, v, footprint, coarser)
        albedo[column] = value if coarser == 0 else albedo[column] + blend * (value - albedo[column])


@kernel
def plane_texture(axis, x, y, z, distance, focal, camera, mapping):
    """The texture of the plane across an axis, the place on it in repeats, and a pixel's footprint in texels."""
    dx, dy, dz = x - camera[0], y - camera[1], z - camera[2]
    across = dx if axis == ZERO else (dy if axis == ONE else dz)
    side = RIGHT if dx > ZERO else LEFT
    level = FLOOR if dy > ZERO else CEILING
    surface = side if axis == ZERO else (level if axis == ONE else END)
    # Along a row of the picture a texture is read along its own rows, which lie together in memory.
    u = z if axis == ZERO else x
    v = z if axis == ONE else y
    slant = max(abs(across) / distance, F(0.04))
    repeats = mapping[surface, 1]
    texels = distance / (focal * np.sqrt(slant)) * repeats * F(TEXTURE)
    return np.int32(mapping[surface, 0]), u * repeats + mapping[surface, 2], v * repeats + mapping[surface, 3], texels


@kernel
def surface_albedo(texture, u, v, footprint, textures):
    """The albedo of a texture at a place (repeats), averaged over a footprint (texels)."""
    fine, blend = one_level(textures, texture, u, v, footprint, 0)
    coarse, blend = one_level(textures, texture, u, v, footprint, 1)
    return fine + blend * (coarse - fine)


@kernel
def one_level(texels, start, u, v, footprint, coarser):
    """The texture that starts there at the level of the footprint, or the next coarser, and the latter's weight."""
    level = min(max(log2(footprint), ZERO), F(7.999))
    low = np.int32(level) + np.int32(coarser)
    # Level k begins after (4^10 - 4^(10 - k)) / 3 texels, for a side of 2^9.
    offset = start + (((1 << 20) - (1 << (20 - 2 * low))) // 3)
    side = TEXTURE >> low
    return bilinear(texels, offset, side, u - np.floor(u), v - np.floor(v)), level - np.floor(level)


@kernel
def log2(value):
    """The binary logarithm, straight between the powers of two."""
    bits = F(value).view(np.int32)
    return F(bits - np.int32(0x3F800000)) * F(1 / (1 << 23))


@kernel
def bilinear(texels, offset, side, u, v):
    """One level of a texture between its four nearest texels, repeating."""
    a, b = u * F(side) + F(side) - HALF, v * F(side) + F(side) - HALF
    i, j = np.int32(a), np.int32(b)
    fa, fb = a - F(i), b - F(j)
    i0, i1 = i & (side - 1), (i + 1) & (side - 1)
    upper, lower = offset + (j & (side - 1)) * side, offset + ((j + 1) & (side - 1)) * side
    u00, u01 = texels[np.uint64(upper + i0)], texels[np.uint64(upper + i1)]
    u10, u11 = texels[np.uint64(lower + i0)], texels[np.uint64(lower + i1)]
    first, last = u00 + fa * (u01 - u00), u10 + fa * (u11 - u10)
    return first + fb * (last - first)


@kernel
def light_row(out, albedo, point, lamp):
    """Add a lamp's light on a row of surface points: albedo times cosine over squared distance."""
    for column in range(len(out)):
        dx, dy, dz = lamp[0] - point[0, column], lamp[1] - point[1, column], lamp[2] - point[2, column]
        squared = dx * dx + dy * dy + dz * dz + SOFTENING_M2
        axis = point[3, column]
        towards = abs(dx) if axis == ZERO else (abs(dy) if axis == ONE else abs(dz))
        out[column] += min(albedo[column], ONE) * lamp[3] * towards / (squared * np.sqrt(squared))


@kernel
def draw_board(direct, first, height, focal, camera, turn, board, surface, mapping, textures, lamps):
    """Draw an upright board over some rows of the picture, the first of which is `first`, with soft rims.

    `board` is the place of its middle (m), half its width and its height, and its roundness: 1 for an ellipse.
    """
    num_rows, width = direct.shape[1:]
    depth = board[2] - camera[2]
    texture, repeats = np.int32(mapping[surface, 0]), mapping[surface, 1]
    texels = repeats * F(TEXTURE) / focal
    first_row, last_row, first_column, last_column = board_box(height, width, focal, camera, turn, board)
    for row in range(max(first_row - first, 0), min(last_row - first, num_rows)):
        v = (F(first + row) - HALF * F(height - 1)) / focal
        for column in range(first_column, last_column):
            x, y, z = turned(turn, (F(column) - HALF * F(width - 1)) / focal, v)
            distance = depth / z
            across, down = camera[0] + distance * x - board[0], camera[1] + distance * y - board[1]
            share = board_share(across, down, board, distance / focal)
            if share > ZERO:
                albedo = surface_albedo(texture, across * repeats + mapping[surface, 2],
                                        down * repeats + mapping[surface, 3], distance * texels, textures)  # fmt: skip
                for channel in range(len(direct)):
                    direct[channel, row, column] *= ONE - share
                direct[0, row, column] += share * albedo
                for lamp in lamps:
                    dx, dy, dz = lamp[0] - board[0] - across, lamp[1] - board[1] - down, lamp[2] - board[2]
                    squared = dx * dx + dy * dy + dz * dz + SOFTENING_M2
                    lit = min(albedo, ONE) * lamp[3] * abs(dz) / (squared * np.sqrt(squared))
                    direct[1 + int(lamp[4]), row, column] += share * lit


@kernel
def board_box(height, width, focal, camera, turn, board):
    """The rows and columns that a board can reach."""
    low_row, high_row, low_column, high_column = F(1e9), F(-1e9), F(1e9), F(-1e9)
    for corner in range(4):
        x = board[0] - camera[0] + (board[3] if corner & 1 else -board[3])
        y = board[1] - camera[1] + (board[4] if corner & 2 else -board[4])
        column, row, ahead = projected(x, y, board[2] - camera[2], turn, focal, height, width)
        if ahead < F(0.3):
            return 0, 0, 0, 0
        low_row, high_row = min(low_row, row), max(high_row, row)
        low_column, high_column = min(low_column, column), max(high_column, column)
    rows = max(0, int(min(low_row, F(height))) - 1), min(height, int(max(high_row, F(-2))) + 3)
    columns = max(0, int(min(low_column, F(width))) - 1), min(width, int(max(high_column, F(-2))) + 3)
    return rows[0], rows[1], columns[0], columns[1]


@kernel
def projected(x, y, z, turn, focal, height, width):
    """Column, row and depth of a point given relative to the camera."""
    right = turn[0, 0] * x + turn[1, 0] * y + turn[2, 0] * z
    down = turn[0, 1] * x + turn[1, 1] * y + turn[2, 1] * z
    ahead = turn[0, 2] * x + turn[1, 2] * y + turn[2, 2] * z
    scale = focal / max(ahead, F(1e-3))
    return HALF * F(width - 1) + right * scale, HALF * F(height - 1) + down * scale, ahead


@kernel
def board_share(across, down, board, softness_m):
    """The share of a spot that a board covers: a superellipse of power 2 or 8, its rim as soft as the spot is wide."""
    a, b = across / board[3], down / board[4]
    a, b = a * a, b * b
    if board[5] > ZERO:
        inside = ONE - np.sqrt(a + b)
    else:
        a, b = a * a, b * b
        inside = ONE - np.sqrt(np.sqrt(np.sqrt(a * a + b * b)))
    return min(max(HALF + inside * min(board[3], board[4]) / softness_m, ZERO), ONE)


@kernel
def draw_capsule(picture, x0, y0, x1, y1, radius, radiance):
    """Add a stripe with round ends, anti-aliased; one thinner than a pixel is drawn fainter instead."""
    height, width = picture.shape
    drawn = max(radius, HALF)
    faint = radiance * min(radius / HALF, ONE)
    if abs(x1 - x0) + abs(y1 - y0) < ONE:
        faint *= min(radius / HALF, ONE)
    margin = drawn + TWO
    for row in range(max(0, int(min(y0, y1) - margin)), min(height, int(max(max(y0, y1) + margin, ZERO)) + 1)):
        for column in range(max(0, int(min(x0, x1) - margin)), min(width, int(max(max(x0, x1) + margin, ZERO)) + 1)):
            dx, dy = x1 - x0, y1 - y0
            length = dx * dx + dy * dy
            along = min(max(((F(column) - x0) * dx + (F(row) - y0) * dy) / length, ZERO), ONE) if length > 0 else ZERO
            away = np.hypot(F(column) - x0 - along * dx, F(row) - y0 - along * dy)
            picture[row, column] += faint * min(max(drawn + HALF - away, ZERO), ONE)


@kernel
def add_shifted(picture, sprite, x, y, weight):
    """Add the sprite, centred at `(x, y)` to a fraction of a pixel, times the weight, to the picture, in place."""
    height, width = picture.shape
    rows, columns = sprite.shape
    left, top = x - (columns - 1) / 2, y - (rows - 1) / 2
    first_x, first_y = int(np.floor(left)), int(np.floor(top))
    fx, fy = left - first_x, top - first_y
    a, b = F(weight * fx * fy), F(weight * (1 - fx) * fy)
    c, d = F(weight * fx * (1 - fy)), F(weight * (1 - fx) * (1 - fy))
    start, stop = max(0, first_x + 1), min(width, first_x + columns)
    for row in range(max(0, first_y + 1), min(height, first_y + rows)):
        upper, lower = sprite[row - first_y - 1], sprite[row - first_y]
        out = picture[row]
        for column in range(start, stop):
            j = column - first_x
            out[column] += a * upper[j - 1] + b * upper[j] + c * lower[j - 1] + d * lower[j]
