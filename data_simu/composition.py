"""Composition: flare put over a recorded background in the domain of events, for when there is no scene to render.

The light of background and flare adds up, I = I_b + I_f, and a pixel sees the logarithm L of the sum, so that

    dL = w_b dL_b + w_f dL_f,    w_b = I_b / (I_b + I_f),    w_f = 1 - w_b.

unite_events         ignores the weights.
thin_events          guesses them from counts of events and draws lots.
integrate_events     is given them, and lets every pixel sum its weighted events.
rethreshold_events   is given the flare's light itself, and fires again on the logarithm of the sum.
compose_events       is given what flare and lamps fire over a grey background, and puts it over a recorded one.
                     `simulate` and training use it (`backgrounds`); the others are there for comparison.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_simu.scalars import ONE, ZERO
from data_simu.sensor.firing import BACKGROUND, LABEL_SHIFT, PIXEL_SHIFT
from data_simu.sensor.sensor import LabelledEvents, label_events
from deflare_core.events import Events, trust_columns
from deflare_core.kernels.numba_cache import compiled

BACKGROUND_SHARE = 0.2
TOLERANCE = 1e-6
"""A sum may miss a whole event or threshold by so much and still fires: steps of 0.1 do not add up to 1 exactly."""
MIN_RATIO = 0.002
LONG_AGO_US = np.int64(-1) << np.int64(62)


def unite_events(background: Events, flare: Events) -> Events:
    """Both recordings' events in the order of time, the background's first where times are equal.

    It is dL = w_b dL_b + w_f dL_f with both weights 1: light on top of light suppresses nothing.

    Parameters
    ----------
    background, flare : N_b and N_f events of one sensor on one clock; the result has N_b + N_f.

    Raises
    ------
    ValueError
        When the sensors differ in size.
    """
    _check_sizes(background, flare)
    t, x, y, p = (np.concatenate([getattr(background, name), getattr(flare, name)]) for name in "txyp")
    return _sorted_by_time(t, x, y, p, background.sensor_size)


def thin_events(background: Events, flare: Events, rng: np.random.Generator) -> Events:
    """The union less events drawn by lot: background ones are kept with probability 1 - A, flare's with A.

    This is the published probabilistic thinning, with A = N_f / (0.2 N_b + N_f) from the pixel's numbers of events
    (0 where it has none). It puts A for w_f and 1 - A for w_b in dL = w_b dL_b + w_f dL_f, as the mean over the lots.

    Parameters
    ----------
    background, flare : events of one sensor on one clock; the result has at most as many as both.
    rng : the source of the lots; the same state gives the same events.

    Raises
    ------
    ValueError
        When the sensors differ in size.
    """
    _check_sizes(background, flare)
    flare_share = _flare_share(background, flare)
    kept = rng.random(len(background)) >= flare_share[_pixel(background)]
    kept_flare = rng.random(len(flare)) < flare_share[_pixel(flare)]
    return unite_events(background[kept], flare[kept_flare])


def integrate_events(background: Events, flare: Events, weight: NDArray[np.float32]) -> Events:
    """The events that pixels fire when they sum dL = w_b dL_b + w_f dL_f and take 1 off whenever they reach +-1.

    In the order of time a background event adds p * w and a flare event p * (1 - w). Sums start at 0. With w = 1
    everywhere the background comes back as it is.

    Parameters
    ----------
    background, flare : events of one sensor on one clock.
    weight : `(H, W)` float32 in [0, 1], the background's share w = I_b / (I_b + I_f) of the light.

    Raises
    ------
    ValueError
        When the sensors differ in size, or the weight's shape or values do not fit.
    """
    _check_sizes(background, flare)
    _check_weight(weight, background)
    w = weight.ravel().astype(np.float64)
    steps = np.concatenate([background.p * w[_pixel(background)], flare.p * (1 - w[_pixel(flare)])])
    t, x, y = (np.concatenate([getattr(background, name), getattr(flare, name)]) for name in "txy")
    order = np.argsort(t, kind="stable")
    both = trust_columns(t[order], x[order], y[order], np.empty(len(t), np.int8), background.sensor_size)
    fired = _integrate(_pixel(both), steps[order], weight.size)
    return trust_columns(both.t, both.x, both.y, fired, both.sensor_size)[fired != 0]


def rethreshold_events(
    background: Events,
    brightness_ratio: NDArray[np.float32],
    times_us: NDArray[np.int64],
    thresholds: float,
    min_ratio: float = MIN_RATIO,
) -> Events:
    """The events that pixels fire on y = log(B + F), with B from the background's events and F the flare's light.

    It is dL = w_b dL_b + w_f dL_f integrated exactly: y = log B + log1p(r B_0 / B). Each event steps log B by
    p * threshold, linearly since the pixel's event before it. Before the first event log B is 0, so B_0 = 1; what led
    to the first event is not known, so log B jumps there. The pixel fires each time y has moved by the threshold since
    it last fired, from y at the clock's start on; y is linear between the pixel's events and `times_us`.

    Parameters
    ----------
    background : events of one sensor.
    brightness_ratio : `(K, H, W)` float32, the flare's light r over the pixel's brightness at the clock's start, linear
        between `times_us` and constant before and after.
    times_us : `(K,)` int64, increasing, microseconds.
    thresholds : the contrast threshold in log intensity.
    min_ratio : pixels whose ratio is below this at all times keep their events as they are.

    Raises
    ------
    ValueError
        When the ratio's shape or values, the times or the threshold do not fit.
    """
    _check_ratio(brightness_ratio, background)
    _check_times_and_threshold(times_us, len(brightness_ratio), thresholds)
    is_lit = (brightness_ratio.max(axis=0) >= min_ratio).ravel()
    is_on_lit = is_lit[_pixel(background)]
    fired = _fire_again(background[is_on_lit], brightness_ratio, np.flatnonzero(is_lit), times_us, thresholds)
    return unite_events(background[~is_on_lit], fired)


def compose_events(
    background: Events,
    layer: LabelledEvents,
    weight: NDArray[np.float32],
    phase: NDArray[np.float32],
    dead_us: float,
) -> LabelledEvents:
    """The events of a recorded background under a simulated layer, and what caused each.

    The layer is what pixels fire that see lamps and flare over a background of constant light: dL_f with its weight.
    Of a pixel's n recorded events w n are kept, evenly: number k where the whole part of phase + k w grows. So many
    survive in simulated pairs, too. An event within the dead time of the pixel's last one is lost, but for a recorded
    one after a recorded one: what stands there, the camera could do.

    Parameters
    ----------
    background : the recording's N events.
    layer : the simulated events and their labels, on the same sensor and clock.
    weight : the background's share w of each pixel's light, `(H * W,)` float32 in [0, 1]; at 1, and without events of
        the layer, a pixel keeps its events as they are.
    phase : where each pixel begins to count, `(H * W,)` float32 in [0, 1).
    dead_us : dead time of a pixel, microseconds.
    """
    t = np.concatenate([background.t, layer.events.t])
    pixel = np.concatenate([_pixel(background), _pixel(layer.events)])
    is_positive = np.concatenate([background.p, layer.events.p]) > 0
    label = np.concatenate([np.full(len(background), BACKGROUND, np.uint8), layer.label])
    is_recorded = np.arange(len(t)) < len(background)
    order = np.lexsort((t, pixel))
    first = np.searchsorted(pixel[order], np.arange(len(weight) + 1))
    kept = np.empty(len(t), np.bool_)
    _compose(t[order], is_recorded[order], first, weight, phase, np.float32(dead_us), kept)
    left = order[kept]
    code = pixel[left] << PIXEL_SHIFT | label[left].astype(np.int64) << LABEL_SHIFT | is_positive[left]
    in_time = np.lexsort((code, t[left]))
    return label_events(t[left][in_time], code[in_time].astype(np.uint32), background.sensor_size)


@compiled()
def compose_pixel(t_us, is_recorded, first, last, weight, phase, dead_us, kept):  # type: ignore[no-untyped-def]
    """Fill `kept`, from `first` to before `last`, with which of a pixel's events are left, in the order of time."""
    count, last_us, was_recorded = phase, LONG_AGO_US, False
    for i in range(first, last):
        kept[i] = t_us[i] - last_us >= dead_us or (is_recorded[i] and was_recorded)
        if kept[i] and is_recorded[i]:
            count += weight
            kept[i] = count >= ONE
            count -= ONE if kept[i] else ZERO
        if kept[i]:
            last_us, was_recorded = t_us[i], is_recorded[i]


@compiled()
def _compose(t_us, is_recorded, first, weight, phase, dead_us, kept):  # type: ignore[no-untyped-def]
    for pixel in range(len(weight)):
        compose_pixel(t_us, is_recorded, first[pixel], first[pixel + 1], weight[pixel], phase[pixel], dead_us, kept)


def _check_sizes(background: Events, flare: Events) -> None:
    if background.sensor_size != flare.sensor_size:
        raise ValueError(
            "Background and flare must be of one sensor; received sizes "
            f"{background.sensor_size} and {flare.sensor_size}."
        )


def _check_weight(weight: NDArray[np.float32], background: Events) -> None:
    if weight.shape != background.sensor_size:
        raise ValueError(f"The weight has shape {weight.shape}; the sensor has size {background.sensor_size}.")
    if not ((weight >= 0) & (weight <= 1)).all():
        raise ValueError(f"The weight must lie in [0, 1]; it reaches from {weight.min()} to {weight.max()}.")


def _check_ratio(ratio: NDArray[np.float32], background: Events) -> None:
    if ratio.ndim != 3 or len(ratio) == 0 or ratio.shape[1:] != background.sensor_size:
        raise ValueError(
            f"The ratio must have shape (K, H, W), K at least 1; it has {ratio.shape}, "
            f"and the sensor has size {background.sensor_size}."
        )
    if not (ratio.min() >= 0 and np.isfinite(ratio.max())):
        raise ValueError(f"The ratio must be finite and at least 0; it reaches from {ratio.min()} to {ratio.max()}.")


def _check_times_and_threshold(times_us: NDArray[np.int64], num_times: int, threshold: float) -> None:
    if np.shape(times_us) != (num_times,) or (np.diff(times_us) <= 0).any():
        raise ValueError(f"Give one time for each of the {num_times} pictures of the ratio, increasing.")
    if not (np.isfinite(threshold) and threshold > 0):
        raise ValueError(f"The threshold must be finite and above 0; received {threshold}.")


def _pixel(events: Events) -> NDArray[np.int64]:
    """The place of each event's pixel in a picture laid out row by row."""
    return events.y.astype(np.int64) * events.sensor_size[1] + events.x


def _sorted_by_time(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray, sensor_size: tuple[int, int]) -> Events:
    order = np.argsort(t, kind="stable")
    return trust_columns(t[order], x[order], y[order], p[order], sensor_size)


def _flare_share(background: Events, flare: Events) -> NDArray[np.float64]:
    """The probability A of every pixel, 0 where it has no events."""
    num_pixels = background.sensor_size[0] * background.sensor_size[1]
    num_background, num_flare = (np.bincount(_pixel(events), minlength=num_pixels) for events in (background, flare))
    total = BACKGROUND_SHARE * num_background + num_flare
    return np.divide(num_flare, total, out=np.zeros(num_pixels), where=total > 0)


@compiled()
def _integrate(pixel, steps, num_pixels):  # type: ignore[no-untyped-def]
    """The polarity that each step makes its pixel fire, 0 for none; no step is above 1, so one is all it can be."""
    total, fired = np.zeros(num_pixels), np.zeros(len(pixel), np.int8)
    for i in range(len(pixel)):
        total[pixel[i]] += steps[i]
        if abs(total[pixel[i]]) >= 1 - TOLERANCE:
            fired[i] = 1 if total[pixel[i]] > 0 else -1
            total[pixel[i]] -= fired[i]
    return fired


def _fire_again(
    events: Events,
    brightness_ratio: NDArray[np.float32],
    lit: NDArray[np.int64],
    times_us: NDArray[np.int64],
    threshold: float,
) -> Events:
    """The events that the lit pixels fire, given theirs without flare."""
    pixel = _pixel(events)
    order = np.argsort(pixel, kind="stable")
    first = np.append(np.searchsorted(pixel[order], lit), len(events))
    # One pixel's ratios side by side: the loop reads them pixel by pixel.
    ratio = np.ascontiguousarray(brightness_ratio.reshape(len(times_us), -1)[:, lit].T)
    times = np.asarray(times_us, np.int64)
    t, p, which = _fire_pixels(events.t[order], events.p[order], first, ratio, times, float(threshold))
    y, x = np.divmod(lit[which], events.sensor_size[1])
    return _sorted_by_time(t, x.astype(np.uint16), y.astype(np.uint16), p, events.sensor_size)


@compiled()
def _fire_pixels(t_us, p, first, ratio, times_us, threshold):  # type: ignore[no-untyped-def]
    """Times, polarities and pixels of the events that pixels fire, pixel by pixel."""
    t_out = [np.int64(0) for _ in range(0)]
    p_out = [np.int8(0) for _ in range(0)]
    pixel_out = [np.int64(0) for _ in range(0)]
    for k in range(len(first) - 1):
        t_own, p_own = t_us[first[k] : first[k + 1]], p[first[k] : first[k + 1]]
        # An event without polarity ahead of the first one keeps log B at 0 up to its jump.
        t_own, p_own = np.concatenate((t_own[:1], t_own)), np.concatenate((0 * p_own[:1], p_own))
        at_us, y = _course(t_own, p_own, ratio[k], times_us, threshold)
        _cross(at_us, y, threshold, t_out, p_out)
        for _ in range(len(t_out) - len(pixel_out)):
            pixel_out.append(np.int64(k))
    return np.array(t_out), np.array(p_out), np.array(pixel_out)


@compiled()
def _course(t_us, p, ratio, times_us, threshold):  # type: ignore[no-untyped-def]
    """One pixel's y at its events and at `times_us`, in the order of time: times and values."""
    at_us = np.empty(len(t_us) + len(times_us), np.int64)
    y = np.empty(len(at_us))
    log_b, e, k = 0.0, 0, 0
    for i in range(len(at_us)):
        if k == len(times_us) or (e < len(t_us) and t_us[e] <= times_us[k]):
            at_us[i] = t_us[e]
            log_b += p[e] * threshold
            e += 1
            y[i] = _log_sum(log_b, _ratio_at(at_us[i], ratio, times_us, k))
        else:
            at_us[i] = times_us[k]
            y[i] = _log_sum(log_b + threshold * _moved(at_us[i], t_us, p, e), ratio[k])
            k += 1
    return at_us, y


@compiled()
def _ratio_at(now_us, ratio, times_us, k):  # type: ignore[no-untyped-def]
    """The ratio at a time between that of picture k - 1 and of picture k."""
    if k == 0 or k == len(times_us):
        return np.float64(ratio[max(k - 1, 0)])
    share = (now_us - times_us[k - 1]) / (times_us[k] - times_us[k - 1])
    return ratio[k - 1] + share * (ratio[k] - ratio[k - 1])


@compiled()
def _moved(now_us, t_us, p, e):  # type: ignore[no-untyped-def]
    """The part of event e's step that log B has made by a time between those of events e - 1 and e."""
    if e == 0 or e == len(t_us):
        return 0.0
    return p[e] * (now_us - t_us[e - 1]) / (t_us[e] - t_us[e - 1])


@compiled()
def _log_sum(log_b, ratio):  # type: ignore[no-untyped-def]
    """The logarithm of the sum of two lights, for however dark or bright a background."""
    if ratio <= 0:
        return log_b
    log_f = np.log(np.float64(ratio))
    return max(log_b, log_f) + np.log1p(np.exp(-abs(log_b - log_f)))


@compiled()
def _cross(at_us, y, threshold, t_out, p_out):  # type: ignore[no-untyped-def]
    """Append times and polarities of the events of a course that is linear between its samples."""
    fired_at = y[0]
    for i in range(1, len(y)):
        while abs(y[i] - fired_at) >= threshold * (1 - TOLERANCE):
            sign = 1 if y[i] > fired_at else -1
            fired_at += sign * threshold
            share = min(max((fired_at - y[i - 1]) / (y[i] - y[i - 1]), 0.0), 1.0)
            t_out.append(at_us[i - 1] + np.int64(np.rint(share * (at_us[i] - at_us[i - 1]))))
            p_out.append(np.int8(sign))
