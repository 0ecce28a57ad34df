"""Room: the memory that pictures of recordings take, estimated before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from deflare_core.events import SensorSize
from deflare_core.io.recordings import Recording
from deflare_core.system.limits import check_memory
from deflare_core.windows import Clock


class Cost(NamedTuple):
    """What a picture takes at least, as measured: bytes for each of its pixels and for each event on show at once."""

    pixel_bytes: int
    event_bytes: int


FILM = Cost(50, 25)
"""Of a film's frame; the encoder keeps several."""
SHEET = Cost(20, 25)
"""Of the sensor, for one window of a contact sheet."""
PICTURES = Cost(60, 100)
"""Of the sensor, for the cloud, the series and the bins of a window."""


PANELS = Cost(60, 20)
"""Of the sensor, for each panel of the viewer."""
TAKE_A_PART = "take a part of the frame first (`deflare infer --method input --crop`)"


def check_room(
    cost: Cost,
    size: SensorSize,
    recordings: Collection[Recording],
    windows_us: Sequence[Clock],
    advice: str,
    num_panels: int = 1,
) -> None:
    """Raise a DeflareError, with the figures, unless pictures of these windows of all the recordings fit into memory.

    Parameters
    ----------
    size : height and width of the film or of the sensor.
    windows_us : start and end of each; one is shown at a time.
    advice : what to do otherwise.
    num_panels : pictures of this size.
    """
    num_events = count_most(recordings, windows_us)
    names = " and ".join(str(recording.path) for recording in recordings)
    what = f"{names}: to show {num_events:,} events at once on {size[0]:,} x {size[1]:,} pixels"
    check_memory(cost.pixel_bytes * num_panels * math.prod(size) + cost.event_bytes * num_events, what, advice)


def count_most(recordings: Collection[Recording], windows_us: Sequence[Clock]) -> int:
    """The events of all recordings in the window that holds most."""
    edges_us = np.ravel(windows_us)
    counts = np.sum([recording.count_before(edges_us, scan=False) for recording in recordings], axis=0)
    return int(np.diff(counts.reshape(-1, 2)).max(initial=0))
