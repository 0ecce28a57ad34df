# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The codec's inner loops, compiled by numba: plain arrays in, plain arrays filled.

Arguments are flat per bin: an image is one bin of `height * width` cells. Indices are unsigned where it matters,
which spares numba's test for negative ones.
"""

import numpy as np

from deflare_core.kernels.numba_cache import CompiledLater

MAX_COUNT = 32_767
"""The largest count of a cell: counts are int16."""


@CompiledLater
def random_below(seed, counter, limit):
    """A whole number below `limit` (at most 2^32) that depends on seed and counter only (SplitMix64, Steele 2014)."""
    z = seed * np.uint64(0xD1342543DE82EF95) + (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z >> np.uint64(32)) * limit) >> np.uint64(32)


@CompiledLater
def encode_bins(first_of_bin, x, y, p, voxel):
    """Fill the voxel with the sums of polarity; a bin is cleared and filled while it lies in cache."""
    width = np.uint32(voxel.shape[2])
    for b in range(voxel.shape[0]):
        image = voxel[b].reshape(-1)
        image[:] = 0
        for i in range(np.uint64(first_of_bin[b]), np.uint64(first_of_bin[b + 1])):
            image[np.uint64(np.uint32(y[i]) * width + np.uint32(x[i]))] += np.float32(p[i])


@CompiledLater
def count_events(voxel):
    """How many events the rounded voxel holds, and how many cells cannot be rounded."""
    num_events, num_unfit = np.int64(0), np.int64(0)
    for i in range(len(voxel)):
        size = abs(np.rint(voxel[i]))
        fit = size <= np.float32(MAX_COUNT)
        num_unfit += not fit
        num_events += np.int32(size) if fit else 0
    return num_events, num_unfit


@CompiledLater
def round_cells(voxel, counts):
    """Fill `counts` with the cells rounded half to even."""
    for i in range(len(voxel)):
        counts[i] = np.int16(np.rint(voxel[i]))


@CompiledLater
def decode_bins(images, edges, seed, width, t, x, y, p):
    """Fill sorted events bin by bin: draw each event's offset in its bin, then sort by counting."""
    counts = np.empty(images.shape[1], np.int16)
    cells = np.empty(images.shape[1] + 1, np.uint32)
    offsets = np.empty(len(t), np.uint32)
    ordered = np.empty(len(t), np.uint64)
    first = 0
    for b in range(len(images)):
        round_cells(images[b], counts)
        occupied = cells[: list_occupied(counts, cells)]
        place = np.zeros(edges[b + 1] - edges[b] + 1, np.int64)
        last = draw_offsets(occupied, counts, seed, first, offsets, place)
        place[0] = first
        for offset in range(len(place) - 1):
            place[offset + 1] += place[offset]
            for i in range(place[offset], place[offset + 1]):
                t[i] = edges[b] + offset
        order_cells(occupied, counts, width, offsets[first:last], place, ordered)
        first = last
    for i in range(len(t)):
        y[i] = ordered[i] >> np.uint64(32)
        x[i] = (ordered[i] & np.uint64(0xFFFFFFFF)) >> np.uint64(1)
        p[i] = np.int8(2 * np.int64(ordered[i] & np.uint64(1)) - 1)


@CompiledLater
def list_occupied(counts, cells):
    """List the cells whose count is not zero; return how many there are."""
    used = np.uint64(0)
    for cell in range(np.uint64(len(counts))):
        # Written always, kept only when occupied: no branch to mispredict.
        cells[used] = cell
        used += np.uint64(counts[cell] != 0)
    return used


@CompiledLater
def draw_offsets(cells, counts, seed, first, offsets, place):
    """Draw an offset in the bin for every event; count in `place[k + 1]` how many have offset k."""
    span = np.uint64(len(place) - 1)
    i = np.uint64(first)
    for cell in cells:
        for _ in range(abs(np.int32(counts[np.uint64(cell)]))):
            offset = random_below(seed, i, span)
            offsets[i] = offset
            place[offset + np.uint64(1)] += 1
            i += np.uint64(1)
    return np.int64(i)


@CompiledLater
def order_cells(cells, counts, width, offsets, place, ordered):
    """Put every event's row, column and sign, packed into one word, where its offset belongs."""
    i = np.uint64(0)
    for cell in cells:
        count = np.int32(counts[np.uint64(cell)])
        row = cell // np.uint32(width)
        column = cell - row * np.uint32(width)
        packed = np.uint64(row) << np.uint64(32) | np.uint64(column) << np.uint64(1) | np.uint64(count > 0)
        for _ in range(abs(count)):
            offset = np.uint64(offsets[i])
            ordered[np.uint64(place[offset])] = packed
            place[offset] += 1
            i += np.uint64(1)


@CompiledLater
def choose_kept(first_of_bin, x, y, p, width, before, after, seed, kept, missing):
    """Mark the events to keep so that each cell's sum moves towards `after`; put what is still missing into `missing`.

    Returns how many cells of `before` are not the sum of their events. Bin by bin, for each cell:

        change      what the sum must change by: after - before, rounded
        removable   events whose sign is against the change; to drop one moves the sum by 1 the right way
        excess      how many of them to drop: min(|change|, removable)

    What dropping does not reach is left in `change`, and goes to `missing`: events to synthesise.

    The events of each bin of a window begin at first_of_bin, int64 `(bins + 1,)`. Their encoding `before`, the voxel
    `after`, and `missing`, filled with whole numbers, are float32 `(bins, H * W)`; `kept`, bool `(N,)`, is filled too.
    """
    size = before.shape[1]
    counts_before, counts_after = np.empty(size, np.int16), np.empty(size, np.int16)
    change, removable, excess = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    num_wrong = 0
    for b in range(len(before)):
        first, last = first_of_bin[b], first_of_bin[b + 1]
        round_cells(before[b], counts_before)
        round_cells(after[b], counts_after)
        cells = y[first:last].astype(np.uint32) * np.uint32(width) + x[first:last]
        change[:] = 0
        for i in range(np.uint64(last - first)):
            change[np.uint64(cells[i])] += p[first + i]
        for cell in range(size):
            num_wrong += change[cell] != counts_before[cell]
            change[cell] = np.int32(counts_after[cell]) - change[cell]
        count_removable(cells, p[first:last], change, removable, excess)
        thin_out(cells, p[first:last], change, removable, excess, seed, first, kept[first:last])
        for cell in range(size):
            missing[b, cell] = change[cell]
    return num_wrong


@CompiledLater
def count_removable(cells, p, change, removable, excess):
    """Count each cell's events of the sign that must shrink, and how many of them are in excess."""
    removable[:] = 0
    for i in range(np.uint64(len(cells))):
        cell = np.uint64(cells[i])
        removable[cell] += p[i] * change[cell] < 0
    for cell in range(len(change)):
        excess[cell] = min(abs(change[cell]), removable[cell])


@CompiledLater
def thin_out(cells, p, change, removable, excess, seed, first, kept):
    """Drop the excess events of each cell, every choice among them equally likely (Knuth's selection sampling).

    In one pass, an event is dropped with the chance excess / removable of what its cell has left. The draw goes by the
    event's number, so the choice does not depend on how the work is cut.
    """
    for i in range(np.uint64(len(cells))):
        cell = np.uint64(cells[i])
        kept[i] = True
        if p[i] * change[cell] < 0 and removable[cell] > 0:
            if random_below(seed, np.uint64(first + i), np.uint64(removable[cell])) < np.uint64(excess[cell]):
                kept[i] = False
                excess[cell] -= 1
                change[cell] += p[i]
            removable[cell] -= 1
