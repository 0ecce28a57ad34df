"""A figure of what comes after deflaring: pictures, turning and corners of every method, beside the truth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deflare_core.events import Events
from deflare_core.scores.corners import BRIGHTEST, draw_newest, find_corners
from deflare_core.scores.downstream import Outcome, Truth
from deflare_core.scores.ego_motion import Rate, list_edges_us, stack_events
from deflare_core.show.figures import ACCENT, draw_signed, find_limit, make_figure

PANEL_INCHES = 2.1
WRONG = "#e3a62b"


def draw_downstream(streams: Mapping[str, Events], outcomes: Mapping[str, Outcome], truth: Truth) -> Figure:
    """Three rows of panels: the truth, then what was made of each named stream.

    The picture at the recording's end; the last span's events, carried to its middle by the turning that was found
    (sharp where it is right); the corners at the end, green where the clean recording has them, too.
    """
    height, width = truth.clean.sensor_size
    num = 1 + len(streams)
    figure = make_figure(PANEL_INCHES * num, 3 * (PANEL_INCHES * height / width + 0.35))
    pictures, stacks, corners = figure.subplots(3, num, sharex=True, sharey=True)
    for axes in (*pictures, *stacks, *corners):
        axes.set(xticks=[], yticks=[])
    for row, label in zip((pictures, stacks, corners), ("picture", "turning", "corners"), strict=True):
        row[0].set_ylabel(label)
    _draw_picture(pictures[0], truth.picture, "ideal lens")
    for axes, (name, outcome) in zip(pictures[1:], outcomes.items(), strict=True):
        _draw_picture(axes, outcome.picture, f"{name}\nSSIM {outcome.similarity:.2f}")
    _draw_stacks(stacks, streams, outcomes, truth)
    _draw_corners(corners[0], truth.clean, truth, None)
    for axes, name in zip(corners[1:], streams, strict=True):
        _draw_corners(axes, streams[name], truth, outcomes[name])
    return figure


def _draw_picture(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=9)


def _draw_stacks(row: np.ndarray, streams: Mapping[str, Events], outcomes: Mapping[str, Outcome], truth: Truth) -> None:
    """The last span, carried by the true rate and by those that were found, on one scale."""
    rates: list[Rate] = [truth.rates_rad_s[-1], *(outcome.rates_rad_s[-1] for outcome in outcomes.values())]
    start_us, end_us = list_edges_us(truth.clock_us)[-2:].tolist()
    sums = [
        stack_events(events.window(start_us, end_us), rate, truth.focal_pixels, (start_us + end_us) / 2)
        for events, rate in zip((truth.clean, *streams.values()), rates, strict=True)
    ]
    turn = np.rad2deg(np.linalg.norm(truth.rates_rad_s[-1]))
    titles = [f"{turn:.1f} deg/s", *(f"off by {outcome.errors_deg_s[-1]:.1f} deg/s" for outcome in outcomes.values())]
    for axes, picture, title in zip(row, sums, titles, strict=True):
        draw_signed(axes, picture, find_limit(sums[:1]))
        axes.set_title(title, fontsize=9)


def _draw_corners(axes: Axes, events: Events, truth: Truth, outcome: Outcome | None) -> None:
    """The last look at corners, in the picture that they were found in; without an outcome, the clean recording's."""
    end_us = truth.looks_us[-1]
    axes.imshow(draw_newest(events, end_us), cmap="gray", vmin=-BRIGHTEST, vmax=BRIGHTEST)
    places = find_corners(events, end_us) if outcome is None else outcome.corners[-1]
    is_true = np.ones(len(places), bool) if outcome is None else outcome.matched[-1] >= 0
    for which, colour in ((is_true, ACCENT), (~is_true, WRONG)):
        axes.scatter(places[which, 1], places[which, 0], s=22, facecolors="none", edgecolors=colour, linewidths=1.2)
    found = f"{is_true.sum()} of {len(places)} true" if outcome else f"{len(places)} corners"
    axes.set_title(found, fontsize=9)
