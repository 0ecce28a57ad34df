"""Oddities: what is amiss in a camera's file, counted and said, or too much of it to go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from deflare_core.system.errors import DeflareError

log = logging.getLogger(__name__)

TIMELESS = "events before the first time of the file are left out"
PLACELESS = "events that name no pixel of this camera are left out"
BEYOND = "events beyond the sensor's edge are left out"
STRANGE = "words are of no kind of the format and are passed over"
LATE = "events came after newer ones and are put in order"
MISSING = "lower halves of the time began again where an upper half is missing, which is added"
JUMP = "time words jump by more than a second"
UNFOLLOWED = "words announce events that do not follow: the file may be cut short"
UNCLOSED = "packets were found in a recording that was never closed, and may lack its end"
REFUSALS = {
    BEYOND: (0.01, "give the sensor size of the camera; where the header of the file states another, correct it there"),
    STRANGE: (0.01, "the file is damaged or its header names another format; copy or record it again"),
    TIMELESS: (0.99, "the file is damaged or its header names another format; copy or record it again"),
}
"""The share above which an oddity is an error, and what to do then."""


class Oddities:
    """How often each oddity was found in a file, of how many words or events, and where or how much."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, tuple[int, int, str]] = {}

    def add(self, what: str, count: int, total: int, detail: str = "") -> None:
        """Count more of an oddity; the first detail of it is kept."""
        before, total_before, first = self._found.get(what, (0, 0, ""))
        self._found[what] = (before + count, total_before + total, first or detail)

    def report(self) -> None:
        """Log a warning for each oddity; too much of one is a DeflareError."""
        for what, (count, total, _) in self._found.items():
            share, advice = REFUSALS.get(what, (1, ""))
            if count > share * total:
                raise DeflareError(f"{self._say(what).replace(' are left out', '')}; {advice}.")
        for line in self.lines():
            log.warning(f"{self.path}: {line}.")

    def lines(self) -> Iterator[str]:
        """What was found, a line for each oddity."""
        return (self._say(what) for what, (count, _, _) in self._found.items() if count)

    def _say(self, what: str) -> str:
        count, total, detail = self._found[what]
        return f"{count:,} of {total:,} {what}{detail}"
