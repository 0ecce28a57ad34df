"""The polarities of one recording, which is read in pieces: one convention holds for all of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from deflare_core.events import PolarityRule, check_polarities, find_polarities, sign_polarities


class Polarities:
    """The distinct polarities of a recording, as far as its pieces have been read.

    Parameters
    ----------
    rule : what is read; see `events.check_polarities`.
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
