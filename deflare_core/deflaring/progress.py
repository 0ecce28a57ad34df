"""Progress: a bar over the windows of a recording, and a word on how long it will take as soon as that is known."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

from tqdm import tqdm

from deflare_core.codec import AppliedVoxel

SAMPLE_S = 2.0
"""Work after the first window from which the rest is estimated: a window on a processor, hundreds on a GPU."""
SLOW_S = 60.0
"""Work that takes longer says so."""


@dataclass(frozen=True)
class Progress:
    """How a run shows how far it is.

    Parameters
    ----------
    is_shown : whether it shows anything.
    label : what stands before the bar, such as "2 of 3".
    advice : how the work would be quicker, after the estimate of what is slow; none says nothing of it.
    clock : seconds that pass.
    """

    is_shown: bool = True
    label: str = ""
    advice: str = ""
    clock: Callable[[], float] = time.perf_counter

    def watch(
        self, windows: Iterable[AppliedVoxel], total: int, num_recalled: int = 0
    ) -> Generator[AppliedVoxel, None, None]:
        """The same windows, shown as they pass; the first `num_recalled` were done before and say nothing of time."""
        with tqdm(windows, self.label or None, total, unit="window", disable=not self.is_shown) as bar:
            if self.is_shown and self.advice:
                yield from self._estimate(iter(bar), total, num_recalled)
            else:
                yield from bar

    def _estimate(self, windows: Iterator[AppliedVoxel], total: int, num_recalled: int) -> Iterator[AppliedVoxel]:
        """The same windows; what will take long says so after the first that was timed.

        The first one that is new is not timed: with it the device gets ready.
        """
        started = None
        for done, window in enumerate(windows, 1):
            yield window
            if started is None and done > num_recalled:
                started, first = self.clock(), done
            elif started is not None and (passed := self.clock() - started) >= SAMPLE_S:
                self._say(passed / (done - first), total - done)
                break
        yield from windows

    def _say(self, window_s: float, num_left: int) -> None:
        if (left_s := window_s * num_left) > SLOW_S:
            text = f"{num_left:,} windows are left, {window_s:.2g} s each: about {tell_duration(left_s)}. {self.advice}"
            tqdm.write(text, file=sys.stderr)


def tell_duration(seconds: float) -> str:
    """A duration as a person says it: in seconds, from two minutes on in these, from two hours on in these."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.0f} minutes"
