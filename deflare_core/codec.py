"""The codec: events to voxel and back, the one definition of "which voxel exactly".

A voxel is a float32 array `(bins, H, W)` over one window `[t0, t0 + duration)`:

    voxel[b, y, x] = sum of p over the events at (x, y) with (t - t0) * bins // duration = b

in integer arithmetic: plain signed counts, no interpolation, no normalisation. With 8 bins of 20 ms, event times

    t0 ......... t0+2499 | t0+2500 ... t0+4999 | ... | t0+17500 ... t0+19999 | t0+20000
    bin 0                | bin 1               | ... | bin 7                 | the next window

The origin `t0` is always passed, never taken from the events: the two recordings of a pair share one clock, and a
window whose first milliseconds are silent must not shift.

Two decoders lead back. `voxel_to_events` knows only the voxel and draws times at random; `apply_voxel` knows the
recording too, keeps its events with their times, and invents only what the voxel has in addition. Encoding either
one's result gives the rounded voxel back exactly.

On the CPU the work is done by the loops in `kernels/codec_loops.py`: times are sorted, so `bins + 1` binary searches
replace a division per event, and each bin is cleared and filled while it is in cache. Tensors on another device go
through torch.
"""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray

from deflare_core.events import NUM_BINS, WINDOW_US, Events, SensorSize, check_sensor_size, trust_columns
from deflare_core.kernels.codec_loops import MAX_COUNT, choose_kept, count_events, decode_bins, encode_bins
from deflare_core.kernels.event_tensors import EventTensors, as_event_tensors, decode_tensor, find_cells, sum_cells
from deflare_core.system.errors import DeflareError
from deflare_core.system.limits import EVENT_BYTES, check_memory
from deflare_core.windows import USUAL_CUT, Cut

log = logging.getLogger(__name__)

Outside = Literal["error", "drop"]
Voxel = TypeVar("Voxel", NDArray[np.float32], torch.Tensor)


@overload
def events_to_voxel(
    events: Events | np.ndarray,
    num_bins: int = ...,
    sensor_size: SensorSize | None = ...,
    fixed_duration_us: int = ...,
    *,
    t0_us: int,
    outside: Outside = ...,
    out: np.ndarray | None = ...,
) -> NDArray[np.float32]: ...
@overload
def events_to_voxel(
    events: EventTensors | torch.Tensor,
    num_bins: int = ...,
    sensor_size: SensorSize | None = ...,
    fixed_duration_us: int = ...,
    *,
    t0_us: int,
    outside: Outside = ...,
) -> torch.Tensor: ...


def events_to_voxel(
    events: Events | EventTensors | np.ndarray | torch.Tensor,
    num_bins: int = NUM_BINS,
    sensor_size: SensorSize | None = None,
    fixed_duration_us: int = WINDOW_US,
    *,
    t0_us: int,
    outside: Outside = "error",
    out: np.ndarray | None = None,
) -> NDArray[np.float32] | torch.Tensor:
    """The signed voxel of one window, float32 `(num_bins, H, W)`; a tensor on the same device if tensors came in.

    Parameters
    ----------
    events : `Events`, an `(N, 4)` array `[t, x, y, p]`, a structured array, or the same as torch tensors.
    num_bins : time bins of the window.
    sensor_size : (height, width); needed for plain arrays, otherwise it must agree with the events'.
    fixed_duration_us : length of the window in microseconds.
    t0_us : start of the window in absolute microseconds; always given, never guessed.
    outside : "error" refuses events outside `[t0, t0 + duration)`; "drop" leaves them out and logs their number.
    out : a float32 `(num_bins, H, W)` array to fill instead of a new one.

    Raises
    ------
    DeflareError
        When an event lies outside the window (or the sensor), or the sizes do not agree.
    """
    edges = bin_edges_us(num_bins, fixed_duration_us, t0_us)
    if isinstance(events, torch.Tensor | EventTensors):
        tensors = as_event_tensors(events, sensor_size)
        if tensors.t.device.type != "cpu":
            tensors = _inside_tensors(tensors, edges, outside)
            return sum_cells(tensors, find_cells(tensors, num_bins, fixed_duration_us, t0_us), 1, num_bins)[0]
        return torch.from_numpy(
            events_to_voxel(tensors.to_events(), num_bins, None, fixed_duration_us, t0_us=t0_us, outside=outside)
        )
    events = _inside(_as_events(events, sensor_size), edges, outside)
    shape = (num_bins, *events.sensor_size)
    voxel = np.empty(shape, np.float32) if out is None else out
    if voxel.shape != shape or voxel.dtype != np.float32 or not voxel.flags.c_contiguous:
        raise ValueError(f"out must be a contiguous float32 array {shape}; received {voxel.dtype} {voxel.shape}.")
    encode_bins(np.searchsorted(events.t, edges), events.x, events.y, events.p, voxel)
    return voxel


@overload
def encode_window(events: Events, t0_us: int, cut: Cut = ..., channels: int = ...) -> NDArray[np.float32]: ...
@overload
def encode_window(events: EventTensors, t0_us: int, cut: Cut = ..., channels: int = ...) -> torch.Tensor: ...


def encode_window(
    events: Events | EventTensors, t0_us: int, cut: Cut = USUAL_CUT, channels: int = 1
) -> NDArray[np.float32] | torch.Tensor:
    """The voxel of one window as networks take it, float32 `(C, bins, H, W)`; a tensor if tensors came in.

    Parameters
    ----------
    events : the window's events.
    t0_us : start of the window in absolute microseconds.
    cut : its length and its bins.
    channels : C = 1 is the signed voxel; C = 2 counts positive and negative events apart, so that none cancel.

    Raises
    ------
    DeflareError
        When an event lies outside the window; of tensors, which come from events inside it, this is not looked at.
    """
    window_us, num_bins = cut
    if isinstance(events, EventTensors):
        # Nothing is checked, so that nothing waits for a GPU: a check of each window took a fifth of a simulated pair.
        return sum_cells(events, find_cells(events, num_bins, window_us, t0_us, channels == 2), channels, num_bins)
    if channels == 1:
        return events_to_voxel(events, num_bins, None, window_us, t0_us=t0_us)[None]
    voxel = np.empty((2, num_bins, *events.sensor_size), np.float32)
    for sign, out in zip((1, -1), voxel, strict=True):
        events_to_voxel(events[events.p == sign], num_bins, None, window_us, t0_us=t0_us, out=out)
        out *= sign
    return voxel


@overload
def voxel_to_events(
    voxel: np.ndarray, total_duration: int = ..., sensor_size: SensorSize | None = ..., *, t0_us: int, seed: int
) -> Events: ...
@overload
def voxel_to_events(
    voxel: torch.Tensor, total_duration: int = ..., sensor_size: SensorSize | None = ..., *, t0_us: int, seed: int
) -> EventTensors: ...


def voxel_to_events(
    voxel: np.ndarray | torch.Tensor,
    total_duration: int = WINDOW_US,
    sensor_size: SensorSize | None = None,
    *,
    t0_us: int,
    seed: int,
) -> Events | EventTensors:
    """Events drawn from a voxel: each cell, rounded to n, gives |n| events of its sign, uniform in its bin, sorted.

    Parameters
    ----------
    voxel : float `(bins, H, W)`, also with leading axes of length 1. A tensor gives tensors on its device.
    total_duration : length of the window in microseconds.
    sensor_size : (height, width), if the voxel's size is to be checked against it.
    t0_us : start of the window in absolute microseconds.
    seed : seed of the event times; the same voxel and seed give the same events.

    Raises
    ------
    DeflareError
        When a cell is not finite or beyond +-32,767, or the shape does not fit.
    """
    voxel = _as_three_axes(voxel)
    shape = tuple(voxel.shape[1:])
    if sensor_size is not None and check_sensor_size(sensor_size) != shape:
        raise DeflareError(f"The voxel is {shape} (height, width), but sensor_size is {tuple(sensor_size)}.")
    edges = bin_edges_us(voxel.shape[0], total_duration, t0_us)
    if isinstance(voxel, np.ndarray):
        return _decode_array(voxel, edges, seed)
    if voxel.device.type == "cpu":
        return EventTensors.from_events(_decode_array(voxel.detach().numpy(), edges, seed))
    if num_unfit := int((~(voxel.abs() <= MAX_COUNT)).sum()):
        refuse_cells(num_unfit, voxel.detach().cpu().numpy())
    return decode_tensor(voxel.detach(), edges, seed)


class AppliedVoxel(NamedTuple):
    """A window of a recording after an output voxel was applied to it.

    Parameters
    ----------
    events : the M recorded events that were kept and the synthesised ones, in time order.
    synthesised : bool `(M,)`, for each of these events: it is not a recorded one.
    kept : bool, for each event of the window before: it is among these events.
    output : a network's output before it was rounded, float32 `(C, bins, H, W)`, where one made it.
    """

    events: Events
    synthesised: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    output: torch.Tensor | None = None


def apply_voxel(
    events: Events,
    voxel_in: np.ndarray,
    voxel_out: np.ndarray,
    total_duration: int = WINDOW_US,
    *,
    t0_us: int,
    seed: int,
) -> AppliedVoxel:
    """The recorded events of a window, changed as little as the output voxel demands.

    In a cell whose rounded output equals its input every event passes, cancelling pairs included. Where the output is
    lower, positive events are removed at random among the cell's, and where it is higher, negative ones; only what
    that cannot reach is synthesised, at random times inside the bin. Encoding the result gives the rounded
    `voxel_out` back exactly.

    Parameters
    ----------
    events : the events of the window.
    voxel_in : their encoding, float32 `(bins, H, W)`, or `(C, bins, H, W)` as `encode_window` gives it.
    voxel_out : the voxel to reach, of the same shape; with C = 2 each polarity is reached by itself, and what is below
        0 counts as 0.
    total_duration : length of the window in microseconds.
    t0_us : start of the window in absolute microseconds.
    seed : seed of the choice among removed events and of the times of synthesised ones.

    Raises
    ------
    DeflareError
        When `voxel_in` is not the encoding of `events`, a cell is not finite or beyond +-32,767, or the shapes differ.
    """
    if voxel_in.ndim == 4 and len(voxel_in) == 2 and voxel_out.shape == voxel_in.shape:
        return _apply_by_polarity(events, voxel_in, voxel_out, total_duration, t0_us, seed)
    before, after = (np.ascontiguousarray(_as_three_axes(v), dtype=np.float32) for v in (voxel_in, voxel_out))
    if before.shape != after.shape or before.shape[1:] != events.sensor_size:
        raise ValueError(f"Shapes differ: voxels {before.shape} and {after.shape}, sensor {events.sensor_size}.")
    edges = bin_edges_us(len(before), total_duration, t0_us)
    _inside(events, edges, "error")
    _checked_count(before)
    _checked_count(after)
    kept, missing = np.empty(len(events), np.bool_), np.empty_like(after)
    flat_before, flat_after, flat_missing = (v.reshape(len(v), -1) for v in (before, after, missing))
    first_of_bin = np.searchsorted(events.t, edges)
    pixels = (events.x, events.y, events.p, events.sensor_size[1])
    num_wrong = choose_kept(first_of_bin, *pixels, flat_before, flat_after, np.uint64(seed), kept, flat_missing)
    if num_wrong:
        raise ValueError(f"voxel_in is not the encoding of the events: {num_wrong} cells differ.")
    synthetic = voxel_to_events(missing, total_duration, t0_us=t0_us, seed=seed + 1)
    return merge_events(events[kept], synthetic, kept)


def _apply_by_polarity(
    events: Events, voxel_in: np.ndarray, voxel_out: np.ndarray, total_duration: int, t0_us: int, seed: int
) -> AppliedVoxel:
    """`apply_voxel` for the positive events and for the negative ones, put together again."""
    kept = np.empty(len(events), np.bool_)
    added = []
    for k, sign in enumerate((1, -1)):
        mine = events.p == sign
        voxels = (sign * voxel_in[k], sign * np.maximum(voxel_out[k], 0))
        # Each decode takes two seeds: one for the choice, the next for the times.
        part = apply_voxel(events[mine], *voxels, total_duration, t0_us=t0_us, seed=seed + 2 * k)
        kept[mine] = part.kept
        added.append(part.events[part.synthesised])
    return merge_events(events[kept], merge_events(added[0], added[1], kept).events, kept)


def merge_polarities(voxel: Voxel) -> Voxel:
    """The signed voxel `(bins, H, W)` of one `(C, bins, H, W)`: itself, or positive less negative events."""
    return voxel[0] if len(voxel) == 1 else voxel[0] - voxel[1]


def merge_events(recorded: Events, synthetic: Events, kept: NDArray[np.bool_]) -> AppliedVoxel:
    """Recorded events that were kept, and synthetic ones, in one stream; recorded ones first where times are equal."""
    if not len(synthetic):
        return AppliedVoxel(recorded, np.zeros(len(recorded), np.bool_), kept)
    at = np.searchsorted(recorded.t, synthetic.t, side="right") + np.arange(len(synthetic))
    synthesised = np.zeros(len(recorded) + len(synthetic), np.bool_)
    synthesised[at] = True
    others = np.flatnonzero(~synthesised)
    columns = []
    for name in "txyp":
        column = np.empty(len(synthesised), getattr(recorded, name).dtype)
        column[others], column[at] = getattr(recorded, name), getattr(synthetic, name)
        columns.append(column)
    t, x, y, p = columns
    return AppliedVoxel(trust_columns(t, x, y, p, recorded.sensor_size), synthesised, kept)


def bin_edges_us(num_bins: int, duration_us: int, t0_us: int) -> NDArray[np.int64]:
    """The `num_bins + 1` absolute times at which bins begin: the smallest t with `(t - t0) * bins // duration = b`.

    Raises
    ------
    DeflareError
        When there is no bin, or a bin would be shorter than a microsecond.
    """
    if num_bins < 1 or duration_us < num_bins:
        raise DeflareError(
            f"A window needs at least one bin of at least 1 us; received {num_bins} bins in {duration_us} us."
        )
    bins = np.arange(num_bins + 1, dtype=np.int64)
    return t0_us - (-bins * duration_us) // num_bins


def _as_events(events: Events | np.ndarray, sensor_size: SensorSize | None) -> Events:
    if isinstance(events, Events):
        if sensor_size is not None and check_sensor_size(sensor_size) != events.sensor_size:
            raise DeflareError(f"The events' sensor is {events.sensor_size}, but sensor_size is {tuple(sensor_size)}.")
        return events
    if sensor_size is None:
        raise DeflareError("A plain array of events needs sensor_size=(height, width).")
    return Events.from_array(events, sensor_size)


def _as_three_axes(voxel: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    shape = tuple(voxel.shape)
    if len(shape) < 3 or any(n != 1 for n in shape[:-3]):
        raise DeflareError(f"A voxel is (bins, height, width); received shape {shape}.")
    return voxel.reshape(shape[-3:])


def _inside(events: Events, edges: np.ndarray, outside: Outside) -> Events:
    kept = events.window(int(edges[0]), int(edges[-1]))
    _report_outside(len(events) - len(kept), edges, outside)
    return kept


def _inside_tensors(events: EventTensors, edges: np.ndarray, outside: Outside) -> EventTensors:
    height, width = events.sensor_size
    on_sensor = (events.x >= 0) & (events.x < width) & (events.y >= 0) & (events.y < height)
    if not bool(on_sensor.all()):
        raise DeflareError(f"{int((~on_sensor).sum())} events lie outside the sensor {events.sensor_size}.")
    inside = (events.t >= int(edges[0])) & (events.t < int(edges[-1]))
    num_outside = int((~inside).sum())
    _report_outside(num_outside, edges, outside)
    if not num_outside:
        return events
    t, x, y, p = (column[inside] for column in events[:4])
    return EventTensors(t, x, y, p, events.sensor_size)


def _report_outside(num_outside: int, edges: np.ndarray, outside: Outside) -> None:
    if not num_outside:
        return
    message = f"{num_outside} events lie outside the window [{edges[0]}, {edges[-1]}) us"
    if outside == "error":
        raise DeflareError(f"{message}; cut them off with events.window(t_start_us, t_end_us), or pass outside='drop'.")
    log.warning("%s and were left out.", message)


def refuse_cells(num_unfit: int, voxel: np.ndarray | None = None) -> None:
    """Raise DeflareError, since cells cannot be rounded; of a voxel `(bins, H, W)` the first is named."""
    example = ""
    if voxel is not None:
        cell = tuple(int(i[0]) for i in np.nonzero(~(np.abs(voxel) <= MAX_COUNT)))
        example = f"; the first is {voxel[cell]} at {cell}"
    raise DeflareError(
        f"{num_unfit} cells of the voxel are not finite or beyond +-{MAX_COUNT}{example}. "
        "Check the network or file that made it."
    )


def _decode_array(voxel: np.ndarray, edges: np.ndarray, seed: int) -> Events:
    voxel = np.ascontiguousarray(voxel, dtype=np.float32)
    num_events = _checked_count(voxel)
    t, p = np.empty(num_events, np.int64), np.empty(num_events, np.int8)
    x, y = np.empty(num_events, np.uint16), np.empty(num_events, np.uint16)
    decode_bins(voxel.reshape(len(voxel), -1), edges, np.uint64(seed), voxel.shape[2], t, x, y, p)
    return trust_columns(t, x, y, p, (voxel.shape[1], voxel.shape[2]))


def _checked_count(voxel: NDArray[np.float32]) -> int:
    """The number of events in the rounded voxel; a cell that cannot be rounded is an error."""
    num_events, num_unfit = count_events(voxel.reshape(-1))
    if num_unfit:
        refuse_cells(num_unfit, voxel)
    check_memory(EVENT_BYTES * num_events, f"{num_events:,} events", "check what made the voxel")
    return num_events
