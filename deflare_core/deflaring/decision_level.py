"""The decision level: the part of an event in a network's output from which on it counts as one.

Where an output keeps the share s of each cell's n events, and shares are chances that are right, taking the cells from
a share t on gives a precision and a recall whose harmonic mean is expected to be

    F(t) = 2 sum(n s over the cells taken) / (sum(n over the cells taken) + sum(n s over all)),

and it is greatest, F*, at t = F*/2 (Zhao et al. 2013, "Beyond Fano's inequality"): where little can be told, the best
level is low. Networks are too sure just there, so a window's level is a factor times F*^1.5. A greater factor removes
more flare, and more of the lamps with it; the words and the power were chosen on validation recordings.
`python -m data_simu.tools.levels` says what each factor trades, and chooses those of another network.
"""

from __future__ import annotations

import torch

STEPS = 1001
"""Shares are counted in steps of a thousandth."""
SPARE = 4096
"""Places where a GPU adds up the nothing of empty cells: at one place all of them would wait for each other."""
FACTORS = {"careful": 0.3, "balanced": 0.45, "thorough": 0.85}
"""By the words of `config.LEVEL_WORDS`."""
POWER = 1.5
LEAST = 0.01
"""At a level of 0 cells without events would count as one."""


def find_window_level(rule: str, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The level of a window by a rule, a word of `FACTORS`; arguments and kind as of `find_certainty`."""
    return (FACTORS[rule] * find_certainty(before, after)).clamp(min=LEAST)


def find_certainty(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """What a factor is multiplied with, from 0 to 1: F* of a window to the power 1.5.

    `before` and `after` are its own voxel and the network's output, of one shape, signed or not. The result is a
    float64 scalar on their device, for which the host does not wait. An output that is not finite counts as none; the
    decode refuses it.
    """
    before, after = before.flatten(), after.flatten()
    share = (after / before).nan_to_num(0, 0, 0).clamp(0, 1)
    place = STEPS + torch.arange(len(before), device=before.device) % SPARE
    place = torch.where(before != 0, ((1 - share) * (STEPS - 1)).round().long(), place)
    events = torch.zeros(STEPS + SPARE, device=before.device).index_add_(0, place, before.abs())[:STEPS]
    taken = events.double().cumsum(0)
    stay = (events.double() * torch.linspace(1, 0, STEPS, dtype=torch.float64, device=before.device)).cumsum(0)
    return (2 * stay / (taken + stay[-1]).clamp(min=1)).max() ** POWER


def find_level(level: float | str, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor | float:
    """The level that is meant: the number itself, or for a word what `find_window_level` finds."""
    return level if isinstance(level, float) else find_window_level(level, before, after)


def round_at_level(level: float | str, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The output in whole events; at 0.5 as it is, for the decode.

    From a number on, a part of an event counts as one. A word judges each cell as a whole: from the window's level on
    all of its events stay, below it none. What an output invents is rounded as by a number.

    `before` and `after` are the window's own voxel and the network's output, float32 `(C, bins, H, W)`.
    """
    if level == 0.5:
        return after
    least = find_level(level, before, after)
    rounded = torch.copysign((after.abs() + (1 - least)).floor(), after)
    if isinstance(level, float):
        return rounded
    share = after / before  # Not a number in cells without events, which no comparison takes.
    return torch.where((share >= 0) & (share <= 1), torch.where(share >= least, before, 0), rounded)


def list_constants(level: float | str) -> list[float]:
    """What decides the level besides a network's settings: nothing for a number."""
    return [] if isinstance(level, float) else [FACTORS[level], POWER, LEAST]
