"""Windows: absolute, half-open stretches of a recording `[t0, t0 + window_us)`, each with a seed of its own."""

from __future__ import annotations

import numpy as np

from deflare_core.events import Events

Window = tuple[int, Events, int]
"""Start of a window in absolute microseconds, its events, and the seed of what is random in its decode."""


Clock = tuple[int, int]


def window_seed(seed: int, t0_us: int) -> int:
    """A seed of the window's own, so that it comes out the same wherever the work begins."""
    return int(np.random.SeedSequence([seed, t0_us % 2**64]).generate_state(1, np.uint64)[0] >> 1)


def neighbour_offsets(context: int) -> tuple[int, ...]:
    """The windows that a network sees, counted from its own: that one first, then those before it, then those after."""
    return (0, *range(-context, 0), *range(1, context + 1))
