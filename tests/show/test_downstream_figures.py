"""The figure of what comes after deflaring: a panel for each method and task, and the truth in front."""

import numpy as np
from support.recordings import make_events

from deflare_core.events import Events
from deflare_core.scores.downstream import Truth, compare_streams
from deflare_core.show.downstream_figures import draw_downstream
from deflare_core.show.figures import save_figure


def test_every_method_has_a_picture_a_stack_and_corners(tmp_path):
    size = (24, 32)
    clean = make_events(0, 2000, size, duration_us=40_000)
    truth = Truth(clean, (0, 40_000), np.ones(size, np.float32), np.array([[0.0, -0.6, 0.0]]), 30.0)
    streams = {"input": make_events(1, 3000, size, duration_us=40_000), "none": Events.empty(size), "clean": clean}
    outcomes = compare_streams(streams, truth)
    figure = draw_downstream(streams, outcomes, truth)
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 3 * (1 + len(streams)), "Three rows, and the truth in front."
    assert titles[0] == "ideal lens"
    assert titles[1].startswith("input\nSSIM ")
    assert titles[4] == "34.4 deg/s", "0.6 rad/s in degrees."
    assert titles[6] == "off by 34.4 deg/s", "Without events there is no motion."
    num = len(outcomes["clean"].corners[-1])
    assert titles[8:] == [f"{num} corners", titles[9], "0 of 0 true", f"{num} of {num} true"]
    assert save_figure(figure, tmp_path / "downstream.png").is_file()
