"""Windows: absolute, half-open stretches `[t0, t0 + window_us)`, and how a recording is cut into them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from deflare_core.events import NUM_BINS, WINDOW_US, Events

Item = TypeVar("Item")
Clock = tuple[int, int]
"""Start and end of a recording, absolute microseconds."""


class Cut(NamedTuple):
    """How a recording is cut: the length of a window in microseconds, and the time bins of its voxel."""

    window_us: int = WINDOW_US
    num_bins: int = NUM_BINS


USUAL_CUT = Cut()


class Window(NamedTuple):
    """One window of a recording.

    Parameters
    ----------
    t0_us : its start, absolute microseconds.
    events : its N events.
    seed : the seed of what is random in its decode.
    causes : uint8 `(N,)`, what caused each event, where the recording says so.
    """

    t0_us: int
    events: Events
    seed: int
    causes: NDArray[np.uint8] | None = None


def derive_seed(seed: int, t0_us: int) -> int:
    """A seed of the window's own, so that it comes out the same wherever the work begins."""
    # NumPy mixes two numbers into 64 bits; the shift keeps the result within a signed integer of a kernel.
    return int(np.random.SeedSequence([seed, t0_us % 2**64]).generate_state(1, np.uint64)[0] >> 1)


def neighbour_offsets(context: int) -> tuple[int, ...]:
    """The windows that a network sees, counted from its own: that one first, then those before it, then those after."""
    return (0, *range(-context, 0), *range(1, context + 1))


def find_neighbours(items: Iterable[Item], context: int) -> Iterator[tuple[Item | None, ...]]:
    """Each item of a stream of windows, followed by those of its neighbours; None where there is no window."""
    silence, offsets = [None] * context, neighbour_offsets(context)
    seen: deque[Item | None] = deque(maxlen=2 * context + 1)
    for item in chain(silence, items, silence):
        seen.append(item)
        if len(seen) == seen.maxlen:
            yield tuple(seen[context + k] for k in offsets)
