"""Numbers and functions of 32-bit numbers that the scene's loops and the sensor's share."""

import numpy as np

from deflare_core.kernels.numba_cache import compiled

F, Int = np.float32, np.int32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
DARK = F(0.03)
"""Photocurrent in the dark, as intensity: of a surface of albedo 1 under average light it is 3 %."""

# No reordering of sums, nor the promise that all numbers are finite: `pixel` rests on both.
scalar = compiled(fastmath={"contract", "nsz", "arcp"})


@scalar
def floor(value):  # type: ignore[no-untyped-def]
    """The largest whole number not above a number of at most 2^31 in size."""
    whole = F(Int(value))
    return whole - ONE if whole > value else whole
