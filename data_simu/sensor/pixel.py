"""The physics of one pixel as scalar functions of 32-bit numbers, which loops on a CPU or a GPU can call alike.

The photoreceptor follows the logarithm of the light through one pole whose speed grows with the light, because the
current that charges it is the photocurrent (Lichtsteiner, Posch and Delbruck, IEEE JSSC 43(2), 2008). A step from one
moment to the next is exact for a logarithm that runs straight between them, so steps can be as long as the light lets
them be. The functions avoid branches and library calls so that a compiler can run eight pixels at once.
"""

from __future__ import annotations

import numpy as np

from data_simu.scalars import HALF, ONE, ZERO, F, Int, scalar
from deflare_core.kernels import codec_loops
from deflare_core.kernels.numba_cache import compiled

US_PER_RADIAN = F(1e6 / (2 * np.pi))
LN2, LOG2_E = F(np.log(2)), F(1 / np.log(2))
# A float is 2^(exponent - 127) (1 + mantissa 2^-23): `log` and `exp_of_negative` read and write these bits, which costs
# no call. ln m = 2 (s + s^3/3 + s^5/5 + ...) with s = (m - 1) / (m + 1); e^r = 1 + r + r^2/2 + r^3/6 + ...
LOG_TERMS = (F(2), F(2 / 3), F(2 / 5), F(2 / 7), F(2 / 9))
EXP_TERMS = (F(1 / 2), F(1 / 6), F(1 / 24), F(1 / 120))
FARTHEST, SHORT = F(-80), F(0.25)
NEVER_US = F(1e30)
SAME = F(1e-3)
NEWTON_STEPS, CLOSE = 12, F(3e-5)
MANTISSA_BITS, MANTISSA, BIAS = Int(23), Int(0x007FFFFF), Int(127)
SQRT_HALF_BITS = Int(np.sqrt(HALF).view(np.int32))
# Compiled here, since CUDA kernels call it, and they cannot call what is compiled later.
random_below = compiled()(codec_loops.random_below.function)


@scalar
def log(value):  # type: ignore[no-untyped-def]
    """The natural logarithm of a positive number, to 32-bit precision."""
    # From sqrt(1/2) on, so that the mantissa is between sqrt(1/2) and sqrt(2), where the series is shortest.
    bits = F(value).view(np.int32) - SQRT_HALF_BITS
    mantissa = Int((bits & MANTISSA) + SQRT_HALF_BITS).view(np.float32)
    s = (mantissa - ONE) / (mantissa + ONE)
    q = s * s
    series = LOG_TERMS[0] + q * (LOG_TERMS[1] + q * (LOG_TERMS[2] + q * (LOG_TERMS[3] + q * LOG_TERMS[4])))
    return s * series + F(bits >> MANTISSA_BITS) * LN2


@scalar
def exp_of_negative(value):  # type: ignore[no-untyped-def]
    """The exponential of a number that is not positive, to 6e-6 of it; smaller ones than -80 count as -80."""
    bounded = max(F(value), FARTHEST) * LOG2_E
    whole = Int(bounded - HALF)
    r = (bounded - F(whole)) * LN2
    series = ONE + r * (ONE + r * (EXP_TERMS[0] + r * (EXP_TERMS[1] + r * (EXP_TERMS[2] + r * EXP_TERMS[3]))))
    return series * Int((whole + BIAS) << MANTISSA_BITS).view(np.float32)


@scalar
def lag_us(light, corner_hz, ceiling_hz):  # type: ignore[no-untyped-def]
    """The time constant of a pixel under that light, microseconds: 1 / (2 pi corner), never faster than the ceiling."""
    return US_PER_RADIAN * (ONE / (corner_hz * light) + ONE / ceiling_hz)


@scalar
def shortfall(steps, decay):  # type: ignore[no-untyped-def]
    """The share of a ramp by which the pole stays behind, (1 - exp(-z)) / z for z time constants; `decay` = exp(-z)."""
    series = ONE - steps * (EXP_TERMS[0] - steps * (EXP_TERMS[1] - steps * (EXP_TERMS[2] - steps * EXP_TERMS[3])))
    return series if steps < SHORT else (ONE - decay) / steps


@scalar
def error_after(error, ramp, decay, behind):  # type: ignore[no-untyped-def]
    """The pole's output less its input after a ramp r of the input: exactly e0 exp(-z) - r (1 - exp(-z)) / z.

    z is the step in time constants, `decay` = exp(-z), and `behind` their `shortfall`.
    """
    return error * decay - ramp * behind


@scalar
def step_pole(total, next_total, level, error, dt_us, corner_hz, ceiling_hz):  # type: ignore[no-untyped-def]
    """A step of the pole: what changes in the light, and what its parts need to follow (see `step_part`).

        input        level -------------> next_level    the log light, straight over the step; ramp = the difference
        output       level + error  ---> next_level + the error that is returned: it falls off by exp(-z), and the
                                         output stays behind by a share of the ramp

    Returns the log light after the step, the output less it, the ramp of the log light, the swing (see
    `still_to_move`), the light in the middle, the log light per light, the step in time constants, `decay`, `behind`.
    """
    middle, change = HALF * (total + next_total), next_total - total
    steps = dt_us / lag_us(middle, corner_hz, ceiling_hz)
    decay = exp_of_negative(-steps)
    behind = shortfall(steps, decay)
    next_level = log(next_total)
    ramp = next_level - level
    # By the logarithmic mean of the light at both ends, the parts' ramps add up to the whole.
    per_light = ramp / change if abs(change) > SAME * middle else ONE / middle
    swing = error + ramp / steps
    return next_level, error_after(error, ramp, decay, behind), ramp, swing, middle, per_light, steps, decay, behind


@scalar
def step_part(light, next_light, error, per_light, steps, decay, behind):  # type: ignore[no-untyped-def]
    """The same step for a part of the light: its output less its input, its ramp, and its swing."""
    ramp = (next_light - light) * per_light
    return error_after(error, ramp, decay, behind), ramp, error + ramp / steps


@scalar
def still_to_move(share, ramp, swing, fallen, decay):  # type: ignore[no-untyped-def]
    """How far the output still moves from a share s of a step to its end.

    After s it has moved by r s - (e0 + r / z) (1 - exp(-z s)), where r is the ramp of the input over the whole step,
    z the step in time constants, e0 the output less the input at its start, and e0 + r / z the swing. `fallen` is
    exp(-z s), `decay` exp(-z).
    """
    return ramp * (ONE - share) + swing * (decay - fallen)


@scalar
def share_until(left, now, ramp, swing, steps, decay):  # type: ignore[no-untyped-def]
    """The share of a step, not below `now`, after which the output still moves by `left` until the step's end.

    Newton's method between bounds that close in, begun where a straight course, or one that only falls off, has it.
    """
    sign = ONE if left >= ZERO else -ONE
    low, high = now, ONE
    fallen = exp_of_negative(-steps * now)
    if abs(swing) * (fallen - decay) > abs(ramp) * (ONE - now):
        share = -log(min(max(decay - (left - HALF * ramp * (ONE - now)) / swing, decay), fallen)) / steps
    else:
        share = ONE - (ONE - now) * left / still_to_move(now, ramp, swing, fallen, decay)
    for _ in range(NEWTON_STEPS):
        if not (share >= low and share <= high):
            share = HALF * (low + high)
        fallen = exp_of_negative(-steps * share)
        excess = still_to_move(share, ramp, swing, fallen, decay) - left
        if abs(excess) < CLOSE:
            break
        if sign * excess > ZERO:
            low = share
        else:
            high = share
        slope = ramp - swing * steps * fallen
        share = share + excess / slope if slope != ZERO else -ONE
    return min(max(share, now), ONE)


@scalar
def uniform(seed, pixel, count):  # type: ignore[no-untyped-def]
    """A number in [0, 1) that depends on seed, pixel and count only."""
    counter = (np.uint64(pixel) << np.uint64(32)) + np.uint64(count)
    return F(random_below(seed, counter, np.uint64(1 << 24))) * F(1 / 16_777_216)


@scalar
def jitter(deviation, seed, pixel, count):  # type: ignore[no-untyped-def]
    """The factor on a pixel's threshold for its event number `count`: about normal, with that deviation around 1."""
    counter = (np.uint64(pixel) << np.uint64(32)) + np.uint64(count)
    bits = random_below(seed, counter, np.uint64(1 << 30))
    total = ZERO
    for k in range(3):
        total += F((bits >> np.uint64(10 * k)) & np.uint64(1023)) * F(1 / 1023) - HALF
    return ONE + F(2) * deviation * total


@scalar
def waiting_us(noise_hz, seed, pixel, count):  # type: ignore[no-untyped-def]
    """The time from a pixel's noise event number `count` to the next: exponential, as in a Poisson process."""
    if noise_hz <= ZERO:
        return NEVER_US
    return -log(ONE - uniform(seed, pixel, np.uint64(2) * np.uint64(count))) * F(1e6) / noise_hz


@scalar
def noise_strength(seed, pixel, count):  # type: ignore[no-untyped-def]
    """What decides over a noise event: it happens under light L if this is below 1 / sqrt(1 + L) in size.

    The sign is its polarity.
    """
    return F(2) * uniform(seed, pixel, np.uint64(2) * np.uint64(count) + np.uint64(1)) - ONE
