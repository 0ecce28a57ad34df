"""Stretches: what the viewer shows of recordings on one clock, any number of milliseconds at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deflare_core.codec import bin_edges_us, events_to_voxel
from deflare_core.events import NUM_BINS, WINDOW_US, Events
from deflare_core.io.recordings import Recording
from deflare_core.show.room import PANELS, TAKE_A_PART, check_room
from deflare_core.streams.matching import match_events

What = Literal["events", "removed"]
INPUT, TARGET, OUTPUT, REMOVED = "Input", "Target", "Output", "Removed"
UNKNOWN = 4
RANKS = np.array([2, 4, 5, 3, 1], np.int8)
"""The rank of each cause, `UNKNOWN` last: of several events in a cell the highest one is seen, and flare before all."""
RANKED_CAUSES = {1: "unknown", 2: "background", 3: "noise", 4: "light", 5: "flare"}
HISTORY = 5
"""Decay times that a time surface looks back; before that an event is fainter than one step of colour."""
SEEN_SHARE = 0.015
"""The share of the sensor's pixels whose events, one each, are enough to make out what is in the picture."""
NICE_MS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)
MAX_BARS = 1500
"""More bars of event rate than this are narrower than a pixel of most screens."""
SHOW_LESS = f"show a shorter stretch, fewer recordings, or {TAKE_A_PART}"
SCANNED_EVENTS = 20_000_000
"""Events whose times are read at once, in a second, rather than sought one by one."""

Cells = NDArray[np.float32]


class Source(NamedTuple):
    """A recording on show: its events, and what caused each of them, where that is known.

    Parameters
    ----------
    events : in memory, or an open recording.
    labels : uint8 `(N,)`, keys of `events.CAUSES`, of events in memory; an open recording has its own.
    """

    events: Events | Recording
    labels: NDArray[np.uint8] | None = None

    def read(self, start_us: int, end_us: int) -> Labelled:
        """The events of `[start_us, end_us)` with their causes."""
        events, causes = self.events.window(start_us, end_us), None
        if isinstance(self.events, Recording):
            if "label" in self.events.extra_columns:
                causes = self.events.column("label", start_us, end_us)
        elif self.labels is not None:
            causes = self.labels[slice(*np.searchsorted(self.events.t, (start_us, end_us)))]
        return Labelled(events, causes)

    def count_before(self, edges_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of events before each of these times, int64 of their shape."""
        if isinstance(self.events, Recording):
            return self.events.count_before(edges_us, scan=len(self.events) <= SCANNED_EVENTS)
        return np.searchsorted(self.events.t, edges_us)


class Labelled(NamedTuple):
    """Events `(N,)` and the cause of each, uint8 `(N,)`, where that is known."""

    events: Events
    causes: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Panel:
    """One picture in several bins.

    Parameters
    ----------
    cells : float32 `(bins, H, W)`, signed events per cell, or a time surface at the end of each bin, from -1 to 1.
    counts : float64 `(bins, 2)`, the positive and the negative events of each bin.
    causes : int8 `(bins, H, W)`, the highest rank of a cause in the cell, negative if its event is; 0 for none.
    look : "counts" or "surface", what the cells are.
    """

    cells: Cells
    counts: NDArray[np.float64]
    causes: NDArray[np.int8] | None = None
    look: str = "counts"

    @cached_property
    def whole(self) -> Cells:
        """All bins in one picture, of both signs and of each, float32 `(3, H, W)`."""
        return merge_bins(self.cells) if self.look == "counts" else keep_last(self.cells)


@dataclass(frozen=True)
class Timeline:
    """Recordings on one clock, cut into stretches of any length from `t0_us` on.

    Parameters
    ----------
    sources : the recordings by the title of their panel, the input among them.
    t0_us, total_us : where the first stretch begins, and how long all last.
    """

    sources: Mapping[str, Source]
    t0_us: int
    total_us: int

    def count_stretches(self, length_us: int) -> int:
        """How many stretches of a length there are."""
        return max(1, -(-self.total_us // length_us))

    def load(self, number: int, length_us: int, look: str) -> dict[str, Panel]:
        """The panels of a stretch by title."""
        return load_panels(self.sources, self.t0_us + number * length_us, length_us, look)

    def count(self, what: What, start_us: int, length_us: int, num: int) -> NDArray[np.int64]:
        """How many events of the input each of `num` stretches holds, or how many fewer the output, int64 `(num,)`."""
        edges = start_us + np.arange(num + 1, dtype=np.int64) * length_us
        events = self._count_between(edges, INPUT)
        return events if what == "events" else np.maximum(events - self._count_between(edges, OUTPUT), 0)

    def _count_between(self, edges_us: NDArray[np.int64], title: str) -> NDArray[np.int64]:
        return np.diff(self.sources[title].count_before(edges_us))

    def find_most(self, what: What, length_us: int) -> int:
        """The number of the stretch with the most events, or from which most were removed."""
        first, num = 0, self.count_stretches(length_us)
        while True:
            group = -(-num // MAX_BARS)
            start_us = self.t0_us + first * length_us
            first += group * int(self.count(what, start_us, group * length_us, -(-num // group)).argmax())
            if group == 1:
                return first
            num = group

    @cached_property
    def rates(self) -> Rates:
        """What each stretch of the whole recording holds, at most `MAX_BARS` of them, a window or longer."""
        bar_us = WINDOW_US * -(-self.total_us // (WINDOW_US * MAX_BARS))
        edges = self.t0_us + np.arange(self.count_stretches(bar_us) + 1, dtype=np.int64) * bar_us
        events = self._count_between(edges, INPUT)
        has_output = OUTPUT in self.sources
        removed = np.maximum(events - self._count_between(edges, OUTPUT), 0) if has_output else None
        return Rates(bar_us, events, removed)


class Rates(NamedTuple):
    """The events of the input in each bar, int64 `(N,)`, and how many were removed of them, if there is an output."""

    bar_us: int
    events: NDArray[np.int64]
    removed: NDArray[np.int64] | None


def load_panels(sources: Mapping[str, Source], start_us: int, length_us: int, look: str = "counts") -> dict[str, Panel]:
    """The panels by title of the stretch `[start_us, start_us + length_us)`; with an output also what it removed."""
    before_us = HISTORY * length_us if look == "surface" else 0
    span_us = start_us - before_us, start_us + length_us
    recordings = [source.events for source in sources.values() if isinstance(source.events, Recording)]
    if recordings:
        num_panels = len(sources) + (OUTPUT in sources)
        check_room(PANELS, recordings[0].sensor_size, recordings, [span_us], SHOW_LESS, num_panels)
    read = {title: source.read(*span_us) for title, source in sources.items()}
    events, causes = read[INPUT]
    for title in read.keys() & {TARGET, OUTPUT}:
        kept, found = match_events(events, read[title].events)
        if causes is not None and read[title].causes is None:
            known = np.full(len(read[title].events), UNKNOWN, np.uint8)
            known[found] = causes[kept]
            read[title] = Labelled(read[title].events, known)
        if title == OUTPUT:
            gone = ~np.isin(np.arange(len(events)), kept)
            read[REMOVED] = Labelled(events[gone], None if causes is None else causes[gone])
    return {title: draw_panel(part, start_us, length_us, look) for title, part in read.items()}


def draw_panel(part: Labelled, start_us: int, length_us: int, look: str) -> Panel:
    """The panel of a stretch of `NUM_BINS` bins; events before it are only of a time surface."""
    inside = part.events.t >= start_us
    shown = part.events[inside]
    counts = np.stack([_count_bins(shown[shown.p == sign].t, start_us, length_us) for sign in (1, -1)], axis=1)
    causes = None if part.causes is None else rank_causes(shown, part.causes[inside], start_us, length_us)
    if look == "surface":
        return Panel(draw_surface(part.events, start_us, length_us), counts, causes, look)
    return Panel(events_to_voxel(shown, NUM_BINS, None, length_us, t0_us=start_us), counts, causes)


def draw_surface(events: Events, start_us: int, length_us: int) -> Cells:
    """The time surface at the end of each bin, float32 `(NUM_BINS, H, W)`.

    Each pixel shows the sign of its latest event, which fades with `exp(-age / length)` (Lagorce et al. 2017, HOTS).
    """
    shape = events.sensor_size
    sign, last_us = np.zeros(shape, np.float32), np.zeros(shape, np.float64)
    surface, ends = np.empty((NUM_BINS, *shape), np.float32), bin_edges_us(NUM_BINS, length_us, start_us)[1:]
    firsts = [0, *np.searchsorted(events.t, ends)]
    for b, end_us in enumerate(ends):
        part = events[firsts[b] : firsts[b + 1]]
        sign[part.y, part.x], last_us[part.y, part.x] = part.p, part.t
        surface[b] = sign * np.exp((last_us - end_us) / length_us)
    return surface


def rank_causes(events: Events, causes: NDArray[np.uint8], start_us: int, length_us: int) -> NDArray[np.int8]:
    """For each cell the highest rank of its events' causes, with the sign of that event, int8 `(NUM_BINS, H, W)`."""
    ranked = np.zeros((NUM_BINS, *events.sensor_size), np.int8)
    ranks = RANKS[np.minimum(causes, UNKNOWN)]
    order = np.argsort(ranks, kind="stable")  # Of several assignments to a cell the last one stays.
    bins = np.searchsorted(bin_edges_us(NUM_BINS, length_us, start_us)[1:], events.t, side="right")
    ranked[bins[order], events.y[order], events.x[order]] = (ranks * events.p)[order]
    return ranked


def merge_bins(cells: Cells) -> Cells:
    """All bins `(bins, H, W)` in one picture of the signs "both", "positive" and "negative", float32 `(3, H, W)`.

    A pixel counts all its events, and has the sign of most of them, or of the last one: their sum would leave a lamp
    that flickers as white as a wall. Cells below half an event, a network's faint noise, count as none.
    """
    positive, negative, last = np.zeros((3, cells[0].size), np.float32)
    for one in cells.reshape(len(cells), -1):
        at = np.flatnonzero(np.abs(one) >= 0.5)  # Few of all cells, and so ten times as fast as whole pictures.
        values = one[at]
        positive[at] += np.maximum(values, 0)
        negative[at] += np.minimum(values, 0)
        last[at] = np.sign(values)
    net = positive + negative
    both = np.where(net == 0, last, np.sign(net)) * (positive - negative)
    return np.stack([both, positive, negative]).reshape(3, *cells.shape[1:])


def keep_last(cells: Cells) -> Cells:
    """The last bin `(bins, H, W)` as a picture of both, positive and negative cells, float32 `(3, H, W)`."""
    return np.stack([cells[-1], np.maximum(cells[-1], 0), np.minimum(cells[-1], 0)])


def keep_highest(causes: NDArray[np.int8]) -> NDArray[np.int8]:
    """The highest rank over all bins `(bins, H, W)` of both, positive and negative events, int8 `(3, H, W)`."""
    most, least = causes.max(0), causes.min(0)
    positive, negative = np.maximum(most, 0), np.minimum(least, 0)
    return np.stack([np.where(positive >= -negative, positive, negative), positive, negative])


def choose_length_us(timeline: Timeline) -> tuple[str, int]:
    """The span ("bin", "window" or "stretch") and length of the shortest stretch in which something is seen.

    Half of a recording's windows hold fewer events than are counted on here.
    """
    height, width = timeline.sources[INPUT].events.sensor_size
    enough, rates = SEEN_SHARE * height * width, timeline.rates
    per_window = float(np.median(rates.events)) * WINDOW_US / rates.bar_us
    if per_window / NUM_BINS >= enough:
        return "bin", WINDOW_US
    lengths = [ms * 1000 for ms in NICE_MS if ms * 1000 < timeline.total_us]
    if per_window >= enough or not lengths:
        return "window", WINDOW_US
    fitting = [length for length in lengths if per_window * length / WINDOW_US >= enough]
    return "stretch", (fitting or lengths[-1:])[0]


def _count_bins(t_us: NDArray[np.int64], start_us: int, length_us: int) -> NDArray[np.float64]:
    return np.diff(np.searchsorted(t_us, bin_edges_us(NUM_BINS, length_us, start_us))).astype(np.float64)
