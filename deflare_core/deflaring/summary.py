"""What deflaring a recording did, counted while its windows pass by, and in the words that a person reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deflare_core.codec import AppliedVoxel

MUCH = 0.5
"""A share removed above this is unusual: of twelve simulated recordings one holds as much flare, and real ones without
flare lose a twentieth at most, but for sparklers, which nobody wants to lose."""


@dataclass(frozen=True, slots=True)
class InferenceSummary:
    """What deflaring a recording did.

    Parameters
    ----------
    num_in, num_kept, num_removed, num_synthesised : events read, kept with their times, removed, and invented.
    num_windows, num_changed : windows that the recording was cut into, and those in which events were removed.
    recorded_s, elapsed_s : length of the recording and of the work, seconds.
    """

    num_in: int
    num_kept: int
    num_removed: int
    num_synthesised: int
    num_windows: int
    num_changed: int
    recorded_s: float
    elapsed_s: float

    @property
    def real_time_factor(self) -> float:
        """Seconds of recording deflared per second of work; above 1 is faster than the camera."""
        return self.recorded_s / self.elapsed_s if self.elapsed_s else float("inf")

    @property
    def removed_share(self) -> float:
        """The share of the events read that were removed; 0 of none."""
        return self.num_removed / max(self.num_in, 1)

    @property
    def is_much(self) -> bool:
        """Whether so large a share was removed that a person had better look."""
        return self.removed_share > MUCH

    def __str__(self) -> str:
        recorded_s = self.recorded_s or float("inf")
        before, after = (num / recorded_s for num in (self.num_in, self.num_kept + self.num_synthesised))
        return (
            f"{self.num_removed:,} of {self.num_in:,} events removed ({self.removed_share:.1%}), in "
            f"{self.num_changed:,} of {self.num_windows:,} windows; {self.num_synthesised:,} added\n"
            f"  events a second: {before:,.0f} before, {after:,.0f} after\n"
            f"  {self.recorded_s:.2f} s of recording in {self.elapsed_s:.1f} s: "
            f"{self.real_time_factor:.2g} s of recording per second of work"
        )


@dataclass
class Tally:
    """What became of the events of the windows that have passed."""

    num_in: int = 0
    num_kept: int = 0
    num_out: int = 0
    num_changed: int = 0

    def count(self, windows: Iterable[AppliedVoxel]) -> Iterator[AppliedVoxel]:
        """The same windows, each counted as it passes."""
        for window in windows:
            num_in, num_kept = len(window.kept), int(window.kept.sum())
            self.num_in, self.num_kept = self.num_in + num_in, self.num_kept + num_kept
            self.num_out += len(window.events)
            self.num_changed += num_kept < num_in
            yield window

    def summarise(self, num_windows: int, recorded_s: float, elapsed_s: float) -> InferenceSummary:
        """The summary, when all windows have passed."""
        return InferenceSummary(
            num_in=self.num_in,
            num_kept=self.num_kept,
            num_removed=self.num_in - self.num_kept,
            num_synthesised=self.num_out - self.num_kept,
            num_windows=num_windows,
            num_changed=self.num_changed,
            recorded_s=recorded_s,
            elapsed_s=elapsed_s,
        )
