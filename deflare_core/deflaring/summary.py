"""What deflaring a recording did, counted while its windows pass by, and in the words that a person reads."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deflare_core.codec import AppliedVoxel

MUCH = 0.5
"""A share removed above this is unusual: of twelve simulated recordings one holds as much flare, and real ones without
flare lose a twentieth at most, but for sparklers, which nobody wants to lose."""
NUM_PEAKS = 3
"""So many stretches with most removed are named; a person looks at the first."""


class Peak(NamedTuple):
    """A stretch from which much was removed: its start and end by the recording's clock, us, and the events removed."""

    start_us: int
    end_us: int
    num_removed: int

    def __str__(self) -> str:
        return f"{_name_s(self.start_us)} to {_name_s(self.end_us)} s"


@dataclass(frozen=True, slots=True)
class InferenceSummary:
    """What deflaring a recording did.

    Parameters
    ----------
    num_in, num_kept, num_removed, num_synthesised : events read, kept with their times, removed, and invented.
    num_windows, num_changed : windows that the recording was cut into, and those in which events were removed.
    recorded_s, elapsed_s : length of the recording and of the work, seconds.
    peaks : the stretches from which most was removed, most first; see `find_peaks`.
    """

    num_in: int
    num_kept: int
    num_removed: int
    num_synthesised: int
    num_windows: int
    num_changed: int
    recorded_s: float
    elapsed_s: float
    peaks: tuple[Peak, ...] = ()

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
        peaks = ", ".join(f"{peak} ({peak.num_removed / self.num_removed:.0%})" for peak in self.peaks)
        return (
            f"{self.num_removed:,} of {self.num_in:,} events removed ({self.removed_share:.1%}), in "
            f"{self.num_changed:,} of {self.num_windows:,} windows; {self.num_synthesised:,} added\n"
            + (f"  most of it from {peaks}\n" if peaks else "")
            + f"  events a second: {before:,.0f} before, {after:,.0f} after\n"
            f"  {self.recorded_s:.2f} s of recording in {self.elapsed_s:.1f} s: "
            f"{self.real_time_factor:.2g} s of recording per second of work"
        )


@dataclass
class Tally:
    """What became of the events of the windows that have passed."""

    num_in: int = 0
    num_kept: int = 0
    num_out: int = 0
    removed: array[int] = field(default_factory=partial(array, "q"))
    """Events removed of each window."""

    def count(self, windows: Iterable[AppliedVoxel]) -> Iterator[AppliedVoxel]:
        """The same windows, each counted as it passes."""
        for window in windows:
            num_in, num_kept = len(window.kept), int(window.kept.sum())
            self.num_in, self.num_kept = self.num_in + num_in, self.num_kept + num_kept
            self.num_out += len(window.events)
            self.removed.append(num_in - num_kept)
            yield window

    def summarise(self, starts: range, recorded_s: float, elapsed_s: float) -> InferenceSummary:
        """The summary, when all windows have passed; they start at `starts`, us."""
        removed = np.array(self.removed, np.int64)
        return InferenceSummary(
            num_in=self.num_in,
            num_kept=self.num_kept,
            num_removed=self.num_in - self.num_kept,
            num_synthesised=self.num_out - self.num_kept,
            num_windows=len(starts),
            num_changed=int(np.count_nonzero(removed)),
            recorded_s=recorded_s,
            elapsed_s=elapsed_s,
            peaks=find_peaks(removed, starts),
        )


def find_peaks(removed: NDArray[np.int64], starts: range) -> tuple[Peak, ...]:
    """The few stretches from which most was removed, most first.

    Windows in a row that each lost at least half as many events as the window that lost most are one stretch.

    Parameters
    ----------
    removed : int64 `(N,)`, events removed of each window.
    starts : where the N windows start, us.
    """
    is_high = removed >= max(removed.max(initial=0) / 2, 1)
    edges = np.flatnonzero(np.diff(is_high, prepend=False, append=False)).reshape(-1, 2)
    sums = np.concatenate([[0], removed.cumsum()])
    edges = edges[np.argsort(sums[edges[:, 0]] - sums[edges[:, 1]], kind="stable")[:NUM_PEAKS]]
    nums, spans = sums[edges[:, 1]] - sums[edges[:, 0]], starts.start + edges * starts.step
    return tuple(Peak(start, end, num) for (start, end), num in zip(spans.tolist(), nums.tolist(), strict=True))


def _name_s(time_us: int) -> str:
    """A time in seconds, to the microsecond, as `--from` takes it."""
    return f"{time_us / 1e6:.6f}".rstrip("0").rstrip(".")
