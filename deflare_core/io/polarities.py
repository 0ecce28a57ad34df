"""The polarities of one recording, which is read in pieces: one convention holds for all of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from deflare_core.events import PolarityRule, describe_polarities, find_polarities, is_one_convention, sign_polarities
from deflare_core.system.errors import DeflareError


class Polarities:
    """The distinct polarities of a recording, as far as its pieces have been read.

    Parameters
    ----------
    rule : what is read; see `events.is_one_convention`.
    """

    def __init__(self, rule: PolarityRule) -> None:
        self.rule = rule
        self.found: set[float | str] = set()

    def add(self, values: np.ndarray) -> np.ndarray:
        """Polarities `(N,)` as int8 in {-1, +1}; a DeflareError where they do not go with those before them.

        Under the rule `lenient` only all of them show whether they can be read: call `check` after the last piece.
        """
        self.found |= find_polarities(values)
        if self.rule == "strict":
            self.check()
        return sign_polarities(values)

    def check(self) -> None:
        """Raise a DeflareError unless all polarities seen follow one convention."""
        check_polarities(self.found, self.rule)


def check_all(pieces: Iterable[np.ndarray], rule: PolarityRule) -> None:
    """Raise a DeflareError unless the pieces of a column of polarities follow one convention."""
    polarities = Polarities(rule)
    for values in pieces:
        polarities.add(values)
    polarities.check()


def check_polarities(found: set[float | str], rule: PolarityRule = "strict") -> None:
    """Raise a DeflareError unless the distinct polarities of a recording follow one convention; it says what to do."""
    if is_one_convention(found, rule):
        return
    if found == {1, 2}:
        advice = "Where 2 is positive, write 1 in its place, and 0 for 1; 'lenient' would read it the other way round."
    elif found <= {-1, 0, 1}:
        advice = (
            "These are two conventions, and 0 may mean no change: take the events of 0 out, or write all negative ones "
            "as 0 or all as -1."
        )
    elif 1 in found and len(found) <= 4:
        advice = "If 1 is positive and everything else negative, choose the polarity rule 'lenient'."
    else:
        advice = "Write 1 for positive and 0 for negative events; if this is no polarity, the column has a wrong name."
    raise DeflareError(f"{describe_polarities(found)} {advice}")
