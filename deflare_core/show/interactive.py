"""Figures that can be turned and zoomed in a browser."""

from __future__ import annotations

import plotly.graph_objects as go

from deflare_core.events import Events
from deflare_core.show.figures import NEGATIVE, POSITIVE, sample_events


def draw_turning_cloud(events: Events, seed: int, max_events: int = 20_000) -> go.Figure:
    """The cloud that `draw_event_cloud` draws, of the same events, as a plotly figure.

    `figure.write_html(path)` writes a page of about 5 MB that works without a network.
    """
    shown = sample_events(events, max_events, seed)
    figure = go.Figure()
    for sign, colour, name in ((1, POSITIVE, "positive (brighter)"), (-1, NEGATIVE, "negative (darker)")):
        part = shown[shown.p == sign]
        marker = {"size": 1.5, "color": colour}
        cloud = go.Scatter3d(x=part.t / 1e3, y=part.x, z=part.y, mode="markers", marker=marker, name=name)
        figure.add_trace(cloud)
    height, width = events.sensor_size
    axes = {
        "xaxis_title": "time, ms",
        "yaxis": {"title": "x, pixels", "range": [0, width]},
        "zaxis": {"title": "y, pixels", "range": [height, 0]},
        "aspectratio": {"x": 1.6, "y": 1, "z": height / width},
    }
    title = f"{len(shown):,} of {len(events):,} events"
    figure.update_layout(title=title, scene=axes, legend={"itemsizing": "constant"}, height=600)
    return figure
