"""Downstream: whether deflaring helps what comes after, on simulated pairs whose truth is known.

Of each stream of events, three things that people make of events: a picture, how fast the camera turns, and corners.
The picture and the turning are compared with what is true of the scene, the corners with those of the clean recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deflare_core.events import Events
from deflare_core.scores.corners import LOOK_US, Places, find_corners, match_corners
from deflare_core.scores.ego_motion import Rate, estimate_rate, list_edges_us
from deflare_core.scores.intensity import Picture, integrate_events, measure_similarity, normalise_picture
from deflare_core.system.markdown import markdown_table

RIGHT_DEG_S = 5.0
"""A rate of turning that is so near the true one is right."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a simulated pair whose camera turns and stays where it is.

    Parameters
    ----------
    clean : the recording without flare.
    clock_us : start and end of the recordings, microseconds.
    intensity : what the ideal lens shows at the end, linear, above 0, `(H, W)`.
    rates_rad_s : how the camera turns in each span of `list_edges_us`, radians per second, `(S, 3)`.
    focal_pixels : the focal length.
    """

    clean: Events
    clock_us: tuple[int, int]
    intensity: NDArray[np.float32]
    rates_rad_s: Rate
    focal_pixels: float

    @property
    def picture(self) -> Picture:
        """The log intensity, normalised, as `normalise_picture` gives it."""
        return normalise_picture(np.log(self.intensity))

    @property
    def looks_us(self) -> range:
        """When corners are looked for; once at least, at the end."""
        start_us, end_us = self.clock_us
        return range(min(start_us + LOOK_US, end_us), end_us + 1, LOOK_US)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is made of one stream of events, and how good it is.

    Parameters
    ----------
    picture : the integrated events, normalised, `(H, W)`.
    similarity : its structural similarity with the truth.
    rates_rad_s : the rate of turning found in each span, `(S, 3)`.
    errors_deg_s : how far each is from the true one, degrees per second, `(S,)`.
    corners : rows and columns of the corners at each time, `(N, 2)` each.
    matched : for each of them, which of the clean recording's corners it is, or -1, `(N,)` each.
    num_true : how many corners the clean recording has at these times.
    """

    picture: Picture
    similarity: float
    rates_rad_s: Rate
    errors_deg_s: NDArray[np.float64]
    corners: list[Places]
    matched: list[NDArray[np.int64]]
    num_true: int


Outcomes = Mapping[str, Outcome]
"""What became of one pair's streams, by the names of methods."""


def compare_streams(streams: Mapping[str, Events], truth: Truth) -> dict[str, Outcome]:
    """What is made of each named stream of a pair, and how good it is."""
    true_corners = [find_corners(truth.clean, t_us) for t_us in truth.looks_us]
    return {name: measure_outcome(events, truth, true_corners) for name, events in streams.items()}


def measure_outcome(events: Events, truth: Truth, true_corners: Sequence[Places]) -> Outcome:
    """What is made of a stream; the clean recording's corners are those at each of the truth's `looks_us`."""
    picture = normalise_picture(integrate_events(events, truth.clock_us[1]))
    edges = list_edges_us(truth.clock_us).tolist()
    rates = np.array([estimate_rate(events, truth.focal_pixels, span) for span in pairwise(edges)])
    corners = [find_corners(events, t_us) for t_us in truth.looks_us]
    return Outcome(
        picture=picture,
        similarity=measure_similarity(picture, truth.picture),
        rates_rad_s=rates,
        errors_deg_s=np.rad2deg(np.linalg.norm(rates - truth.rates_rad_s, axis=1)),
        corners=corners,
        matched=[match_corners(*both) for both in zip(corners, true_corners, strict=True)],
        num_true=sum(map(len, true_corners)),
    )


def summarise_outcomes(pairs: Sequence[Outcomes]) -> dict[str, dict[str, float]]:
    """The scores of each method over all pairs; shares of nothing are nan.

    similarity         mean structural similarity of the pictures.
    turning_error      mean error of the rates of turning, degrees per second.
    turning_right      share of the rates that are at most `RIGHT_DEG_S` off.
    corner_precision   share of the corners found that the clean recording has, too.
    corner_recall      share of the clean recording's corners that are found.
    """
    return {name: _summarise([outcomes[name] for outcomes in pairs]) for name in pairs[0]}


def _summarise(outcomes: Sequence[Outcome]) -> dict[str, float]:
    errors = np.concatenate([outcome.errors_deg_s for outcome in outcomes])
    matched = np.concatenate([part for outcome in outcomes for part in outcome.matched]) >= 0
    num_true = sum(outcome.num_true for outcome in outcomes)
    return {
        "similarity": float(np.mean([outcome.similarity for outcome in outcomes])),
        "turning_error": float(errors.mean()),
        "turning_right": float((errors <= RIGHT_DEG_S).mean()),
        "corner_precision": float(matched.mean()) if len(matched) else np.nan,
        "corner_recall": float(matched.sum() / num_true) if num_true else np.nan,
    }


HEAD = ("method", "SSIM ↑", "turning error, deg/s ↓", f"within {RIGHT_DEG_S:g} deg/s ↑", "precision ↑", "recall ↑")


def tabulate_outcomes(pairs: Sequence[Outcomes]) -> str:
    """The scores of each method over all pairs as a Markdown table."""
    summary = summarise_outcomes(pairs)
    return markdown_table(HEAD, [[name, *map(_write, row, row.values())] for name, row in summary.items()])


def _write(name: str, value: float) -> str:
    if np.isnan(value):
        return "-"
    if name == "similarity":
        return f"{value:.3f}"
    return f"{value:.1f}" if name == "turning_error" else f"{value:.0%}"
