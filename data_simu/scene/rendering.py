# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The renderer's loops on a CPU: runs of neighbouring pixels of a row, so that the arithmetic runs on vectors.

A run is up to 320 neighbouring pixels of a row. Its quantities are in one flat workspace, one row of 320 for each, so
pixel `i` has its distance at `DISTANCE + i`:

    AXIS      i = 0 1 2 ... 319      Every loop over a run reads and writes whole rows, and the compiler turns it into
    OTHER     i = 0 1 2 ... 319      vectors of eight pixels. Two-dimensional arrays or branches in a loop would undo
    DISTANCE  ...                    that; so would an index that might be negative.
"""

import numpy as np

from data_simu.scalars import HALF, ONE, TWO, ZERO, F, Int
from data_simu.scene.raycast import (
    TEXTURE,
    board_share,
    edge_share,
    face_light,
    find_mip_level,
    find_plane_spot,
    find_texels,
    interpolate,
    lamp_light,
    meet_planes,
    read_albedo,
    stripe_share,
    turn_ray,
    uncovered_share,
)
from deflare_core.kernels.numba_cache import compiled

RUN = 320
AXIS, OTHER, DISTANCE, SECOND = (row * RUN for row in range(4))
DX, DY, DZ, SHARE = (row * RUN for row in range(4, 8))
START, U, V, FOOTPRINT, BLEND, VALUE = (row * RUN for row in range(8, 14))
FINE, COARSE = 14 * RUN, 20 * RUN
"""Each of two levels has six rows: four texels, and how far the place is to the right and down."""
WORKSPACE = 26 * RUN

kernel = compiled(fastmath=True)


@kernel
def render_rows(out, first_row, height, k, poses, mapping, textures, ambient):
    """Fill some rows of the picture of moment `k`: the scene, then the light of each group of lamps.

    Parameters
    ----------
    out : `(1 + groups, rows, W)` float32, linear intensity; filled.
    first_row, height : which row of the picture the first one is, and rows of the whole picture.
    k, poses : the moment, and where everything is at all moments, a `Poses`.
    mapping : for every surface where its texture begins, repeats per metre, and shifts, `(surfaces, 4)` float32.
    textures : mip pyramids, one after the other, `(texels,)` float32.
    ambient : light on a white surface without lamps.
    """
    work = np.zeros(WORKSPACE, np.float32)
    out[1:] = ZERO
    for row in range(out.shape[1]):
        v = (F(first_row + row) - HALF * F(height - 1)) / poses.focal
        for first in range(0, out.shape[2], RUN):
            num = min(RUN, out.shape[2] - first)
            fill_planes(out[:, row, first : first + num], work, first, out.shape[2], v, k, poses, mapping, textures)
    for board in poses.boards[k]:
        draw_board(out, work, first_row, height, k, poses, board, mapping, textures)
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[0, i, j] *= ambient
    for stripe in poses.stripes[k]:
        draw_stripe(out[1 + Int(stripe[6])], stripe, first_row)
    for face in poses.faces[k]:
        draw_face(out[1 + Int(face[10])], face, first_row, height, k, poses, textures)


@kernel
def fill_planes(out, work, first, width, v, k, poses, mapping, textures):
    """Fill a run with the planes of the corridor and the lamps' light on them."""
    camera, inverse, num = poses.camera[k], poses.inverse[k], out.shape[1]
    end_rays(work, num, first, width, v, poses.focal, poses.turn[k], inverse)
    steepest = inverse.max() / poses.focal
    for i in range(num):
        work[START + i], work[U + i], work[V + i], work[FOOTPRINT + i] = find_plane_spot(
            work[AXIS + i], work[DX + i], work[DY + i], work[DZ + i], camera, work[DISTANCE + i], poses.focal, mapping
        )
    read_textures(work, num, textures)
    for i in range(num):
        share = edge_share(work[DISTANCE + i], work[SECOND + i], steepest)
        if share < ONE:
            further = work[SECOND + i] / work[DISTANCE + i]
            start, u, v_behind, footprint = find_plane_spot(
                work[OTHER + i], further * work[DX + i], further * work[DY + i], further * work[DZ + i],
                camera, work[SECOND + i], poses.focal, mapping)  # fmt: skip
            behind = read_albedo(textures, start, u, v_behind, footprint)
            work[VALUE + i] = share * work[VALUE + i] + (ONE - share) * behind
    for i in range(num):
        out[0, i] = work[VALUE + i]
    for lamp in poses.lamps[k]:
        light_planes(out[1 + Int(lamp[4])], work, lamp, camera)


@kernel
def end_rays(work, num, first, width, v, focal, turn, inverse):
    """Find where the rays of a run end."""
    for i in range(num):
        x, y, z = turn_ray(turn, (F(first + i) - HALF * F(width - 1)) / focal, v)
        axis, other, distance, second = meet_planes(x, y, z, inverse)
        work[AXIS + i], work[OTHER + i], work[DISTANCE + i], work[SECOND + i] = axis, other, distance, second
        work[DX + i], work[DY + i], work[DZ + i] = distance * x, distance * y, distance * z


@kernel
def read_textures(work, num, textures):
    """Read the textures of a run: find the texels of two levels on vectors, then fetch them one by one."""
    for i in range(num):
        side, first, work[BLEND + i] = find_mip_level(work[FOOTPRINT + i])
        first += work[START + i]
        (work[FINE + i], work[FINE + RUN + i], work[FINE + 2 * RUN + i], work[FINE + 3 * RUN + i],
         work[FINE + 4 * RUN + i], work[FINE + 5 * RUN + i]) = find_texels(
            work[U + i], work[V + i], side, first)  # fmt: skip
        (work[COARSE + i], work[COARSE + RUN + i], work[COARSE + 2 * RUN + i], work[COARSE + 3 * RUN + i],
         work[COARSE + 4 * RUN + i], work[COARSE + 5 * RUN + i]) = find_texels(
            work[U + i], work[V + i], side * HALF, first + side * side)  # fmt: skip
    for i in range(num):
        fine, coarse = mix_texels(work, FINE + i, textures), mix_texels(work, COARSE + i, textures)
        work[VALUE + i] = fine + work[BLEND + i] * (coarse - fine)


@kernel
def mix_texels(work, at, textures):
    """One level of a texture between the four texels that were found."""
    return interpolate(
        textures[np.uint32(work[at])],
        textures[np.uint32(work[at + RUN])],
        textures[np.uint32(work[at + 2 * RUN])],
        textures[np.uint32(work[at + 3 * RUN])],
        work[at + 4 * RUN],
        work[at + 5 * RUN],
    )


@kernel
def light_planes(out, work, lamp, camera):
    """Add a lamp's light on a run of the planes."""
    right, down, ahead = lamp[0] - camera[0], lamp[1] - camera[1], lamp[2] - camera[2]
    for i in range(len(out)):
        dx, dy, dz = right - work[DX + i], down - work[DY + i], ahead - work[DZ + i]
        towards = abs(dx) if work[AXIS + i] == ZERO else (abs(dy) if work[AXIS + i] == ONE else abs(dz))
        out[i] += min(work[VALUE + i], ONE) * lamp_light(dx, dy, dz, towards, lamp[3])


@kernel
def draw_board(out, work, first_row, height, k, poses, board, mapping, textures):
    """Draw an upright board over the rows, with soft rims, and the lamps' light on it."""
    width = out.shape[2]
    top, bottom, left, right = find_board_box(height, width, k, poses, board)
    for row in range(max(top - first_row, 0), min(bottom - first_row, out.shape[1])):
        v = (F(first_row + row) - HALF * F(height - 1)) / poses.focal
        for first in range(left, right, RUN):
            num = min(RUN, right - first)
            draw_board_run(out[:, row, first : first + num], work, first, width, v, k, poses, board, mapping, textures)


@kernel
def draw_board_run(out, work, first, width, v, k, poses, board, mapping, textures):
    """Draw a run of a board."""
    num, camera, turn, surface = out.shape[1], poses.camera[k], poses.turn[k], Int(board[6])
    start, repeats, shift_u, shift_v = mapping[surface]
    depth = board[2] - camera[2]
    for i in range(num):
        x, y, z = turn_ray(turn, (F(first + i) - HALF * F(width - 1)) / poses.focal, v)
        distance = depth / z
        across, down = camera[0] + distance * x - board[0], camera[1] + distance * y - board[1]
        work[DX + i], work[DY + i] = across, down
        work[SHARE + i] = board_share(across, down, board, distance / poses.focal)
        work[START + i], work[U + i], work[V + i] = start, across * repeats + shift_u, down * repeats + shift_v
        work[FOOTPRINT + i] = distance * repeats * F(TEXTURE) / poses.focal
    read_textures(work, num, textures)
    for channel in range(len(out)):
        for i in range(num):
            out[channel, i] *= ONE - work[SHARE + i]
    for i in range(num):
        out[0, i] += work[SHARE + i] * work[VALUE + i]
    for lamp in poses.lamps[k]:
        right, below, ahead = lamp[0] - board[0], lamp[1] - board[1], lamp[2] - board[2]
        lit = out[1 + Int(lamp[4])]
        for i in range(num):
            light = lamp_light(right - work[DX + i], below - work[DY + i], ahead, abs(ahead), lamp[3])
            lit[i] += work[SHARE + i] * min(work[VALUE + i], ONE) * light


@kernel
def find_board_box(height, width, k, poses, board):
    """The rows and columns that a board can reach."""
    low_row, high_row, low_column, high_column = F(1e9), F(-1e9), F(1e9), F(-1e9)
    camera, turn = poses.camera[k], poses.turn[k]
    for corner in range(4):
        x = board[0] - camera[0] + (board[3] if corner & 1 else -board[3])
        y = board[1] - camera[1] + (board[4] if corner & 2 else -board[4])
        z = board[2] - camera[2]
        ahead = turn[0, 2] * x + turn[1, 2] * y + turn[2, 2] * z
        if ahead < F(0.3):
            return 0, 0, 0, 0
        scale = poses.focal / ahead
        column = HALF * F(width - 1) + (turn[0, 0] * x + turn[1, 0] * y + turn[2, 0] * z) * scale
        row = HALF * F(height - 1) + (turn[0, 1] * x + turn[1, 1] * y + turn[2, 1] * z) * scale
        low_row, high_row = min(low_row, row), max(high_row, row)
        low_column, high_column = min(low_column, column), max(high_column, column)
    top, bottom = max(0, int(min(low_row, F(height))) - 1), min(height, int(max(high_row, F(-2))) + 3)
    left, right = max(0, int(min(low_column, F(width))) - 1), min(width, int(max(high_column, F(-2))) + 3)
    return top, bottom, left, right


@kernel
def draw_stripe(picture, stripe, first_row):
    """Add a source's stripe to rows of a picture, the first of which is `first_row`."""
    num_rows, width = picture.shape
    margin = max(stripe[4], HALF) + TWO
    low_row, high_row = min(stripe[1], stripe[3]) - margin - F(first_row), max(stripe[1], stripe[3]) + margin
    low_column, high_column = min(stripe[0], stripe[2]) - margin, max(stripe[0], stripe[2]) + margin
    if stripe[5] <= ZERO or low_row > F(num_rows) or low_column > F(width):
        return
    for row in range(max(0, int(low_row)), min(num_rows, int(max(high_row - F(first_row), F(-1))) + 1)):
        for column in range(max(0, int(low_column)), min(width, int(max(high_column, F(-1))) + 1)):
            picture[row, column] += stripe[5] * stripe_share(F(column), F(first_row + row), stripe)


@kernel
def draw_face(picture, face, first_row, height, k, poses, textures):
    """Add a lamp's picture to rows of a picture, the first of which is `first_row`, where no board hides it."""
    num_rows, width = picture.shape
    if face[9] <= ZERO:
        return
    camera, turn, boards = poses.camera[k], poses.turn[k], poses.boards[k]
    for row in range(max(0, int(face[15]) - first_row), min(num_rows, int(face[16]) + 2 - first_row)):
        v = (F(first_row + row) - HALF * F(height - 1)) / poses.focal
        for column in range(max(0, int(face[13])), min(width, int(face[14]) + 2)):
            u = (F(column) - HALF * F(width - 1)) / poses.focal
            light, distance = face_light(u, v, face, textures)
            if light > ZERO:
                x, y, z = turn_ray(turn, u, v)
                picture[row, column] += light * uncovered_share(x, y, z, distance, camera, boards, poses.focal)


@kernel
def add_sprite(picture, sprite, x, y, weight):
    """Add a sprite, centred at column `x` and row `y`, times the weight, to the picture `(H, W)`, in place.

        a | b        A place between pixels: every pixel of the picture takes shares a, b, c and d of the four pixels
        --+--        of the sprite that overlap it. The sprite is 0 at its rim, where three of them are missing.
        c | d

    Sprite and picture are float32.
    """
    height, width = picture.shape
    rows, columns = sprite.shape
    left, top = x - (columns - 1) / 2, y - (rows - 1) / 2
    first_x, first_y = int(np.floor(left)), int(np.floor(top))
    fx, fy = left - first_x, top - first_y
    a, b = F(weight * fx * fy), F(weight * (1 - fx) * fy)
    c, d = F(weight * fx * (1 - fy)), F(weight * (1 - fx) * (1 - fy))
    start, stop = max(0, first_x + 1), min(width, first_x + columns)
    if start >= stop:
        return
    for row in range(max(0, first_y + 1), min(height, first_y + rows)):
        # Slices begin at 0: an index that might be negative would keep the loop off vectors.
        upper = sprite[row - first_y - 1, start - first_x - 1 : stop - first_x]
        lower = sprite[row - first_y, start - first_x - 1 : stop - first_x]
        out = picture[row, start:stop]
        for i in range(len(out)):
            out[i] += a * upper[i] + b * upper[i + 1] + c * lower[i] + d * lower[i + 1]
