import numpy as np
import pytest
from matplotlib.colors import to_hex
from support.recordings import make_events

from deflare_core.events import Events
from deflare_core.scores.residuals import CELL_KINDS
from deflare_core.show.figures import draw_pair, find_strongest
from deflare_core.show.statistics_figures import (
    CAUSE_COLOURS,
    CELL_COLOURS,
    count_causes,
    draw_causes,
    draw_intervals,
    draw_residual_shares,
    draw_residuals,
    draw_spectra,
    list_frequencies_hz,
)
from deflare_core.streams.statistics import INTERVAL_EDGES_US, count_events


def at_one_pixel(t, signs=1, sensor_size=(2, 3)) -> Events:
    zeros = np.zeros(len(t), int)
    return Events.from_columns(np.asarray(t), zeros, zeros, zeros + signs, sensor_size)


def lamp(flicker_hz, duration_us=500_000) -> Events:
    """A pixel that fires up and down once a period."""
    t = np.arange(0, duration_us, 5e5 / flicker_hz).astype(int)
    return at_one_pixel(t, np.where(np.arange(len(t)) % 2, -1, 1))


def test_intervals_are_drawn_as_shares_by_hand():
    figure = draw_intervals({"mine": at_one_pixel([0, 1050, 2100, 12_600])})
    drawn, edges, _ = figure.axes[0].patches[0].get_data()
    assert edges == pytest.approx(INTERVAL_EDGES_US / 1e3), "The axis is in milliseconds."
    assert drawn[np.searchsorted(edges, 1.05) - 1] == pytest.approx(200 / 3), "Two of the three are 1.05 ms."
    assert drawn[np.searchsorted(edges, 10.5) - 1] == pytest.approx(100 / 3)
    assert drawn.sum() == pytest.approx(100)
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "mine: 3 intervals, median 1.05 ms"


def test_the_spectrum_peaks_where_the_lamp_flickers():
    axes = draw_spectra({"lamp": lamp(120), "nothing": Events.empty((2, 3))}, 500_000).axes[0]
    frequencies, power = axes.lines[0].get_data()
    assert frequencies[np.argmax(power)] == 120
    assert max(power) == pytest.approx(120, rel=0.01), "All of the pixel's 120 events are in step."
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[0].startswith("lamp: highest at 120.0 Hz"), texts
    assert texts[1] == "nothing: no pixel has enough events"
    assert {text.get_text() for text in axes.texts} == {"100 Hz", "120 Hz"}


def test_the_spectrum_covers_the_stated_time_only():
    late = at_one_pixel(np.arange(600_000, 700_000, 1000))
    early = lamp(100)
    both = Events.from_columns(
        *(np.concatenate([getattr(early, name), getattr(late, name)]) for name in "txyp"), early.sensor_size
    )
    drawn, alone = (draw_spectra({"lamp": each}, 500_000).axes[0].lines[0].get_ydata() for each in (both, early))
    assert np.array_equal(drawn, alone)


@pytest.mark.parametrize("duration_us", [20_000, 100_000, 333_333, 2_080_000])
def test_no_line_falls_between_the_frequencies(duration_us):
    frequencies = list_frequencies_hz(duration_us)
    assert (frequencies[0], frequencies[-1]) == (20, 400)
    assert {100, 120} <= set(frequencies.round(9))
    assert np.diff(frequencies).max() <= 0.5e6 / duration_us + 1e-9, "Two to the width of a line."


LABELLED = at_one_pixel([0, 1, 2, 3, 20_000, 20_001]), np.array([0, 0, 2, 3, 1, 2], np.uint8)


def test_causes_are_counted_by_hand():
    edges_us = np.array([0, 20_000, 40_000, 60_000])
    assert count_causes(*LABELLED, edges_us).tolist() == [[2, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]]
    with pytest.raises(ValueError, match="2 labels cannot belong to 6 events"):
        count_causes(LABELLED[0], LABELLED[1][:2], edges_us)


def test_cause_bars_stand_on_each_other_and_reach_100():
    figure = draw_causes({"input": LABELLED}, (0, 60_000))
    bars = {container.get_label(): container.patches for container in figure.axes[0].containers}
    heights = {name: [patch.get_height() for patch in patches] for name, patches in bars.items()}
    assert heights == {"background": [50, 0, 0], "light": [0, 50, 0], "flare": [25, 50, 0], "noise": [25, 0, 0]}
    assert [patch.get_y() for patch in bars["flare"]] == [50, 50, 0], "On top of background and light."
    assert {name: to_hex(patches[0].get_facecolor()) for name, patches in bars.items()} == CAUSE_COLOURS
    assert [text.get_text() for text in figure.axes[0].texts] == ["4", "2", "0"]


def test_a_pair_shows_where_events_are_more_and_fewer():
    flare, clean = at_one_pixel([5, 6], [1, -1]), Events.from_columns([7], [2], [1], [1], (2, 3))
    first, second, third = (axes.images[0].get_array() for axes in draw_pair(flare, clean, 0, 20_000).axes[:3])
    assert not first.any(), "Up and down cancel in the signed sum,"
    assert second.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert third.tolist() == [[2, 0, 0], [0, 0, -1]], "but not in the number of events."
    titles = [axes.get_title() for axes in draw_pair(flare, clean, 0, 20_000).axes[:3]]
    assert titles == ["input: 2 events", "target: 1 events", "input less target: 2 more, 1 fewer"]


def test_every_event_is_counted_at_its_pixel():
    events = make_events(seed=2, num=300)
    counts = count_events(events)
    assert counts.sum() == 300
    assert counts[3, 4] == ((events.y == 3) & (events.x == 4)).sum()


def test_the_strongest_pixel_of_a_block_is_what_is_drawn_small():
    picture = np.array([[0, -3, 1], [2, 0, 0], [0, 0, -1]])
    assert find_strongest(picture, 2).tolist() == [[-3, 1], [0, -1]]
    assert np.array_equal(find_strongest(picture, 1), picture)


def test_cells_are_counted_by_wanted_and_given_value():
    wanted = np.array([[[0, 0, -2, 1]]], float)
    figure = draw_residuals(wanted, {"none": 0 * wanted, "wild": np.array([[[0, 0, -2, 9.0]]])}, limit=2)
    none, wild = (axes.collections[0].get_array() for axes in figure.axes[:2])
    edges = np.arange(-2.25, 2.5, 0.5)
    zero, minus_two, one = (np.searchsorted(edges, value, side="right") - 1 for value in (0, -2, 1))
    assert none.sum() == wild.sum() == 4, "Every cell is in the picture."
    assert none.shape == (9, 9)
    assert none[zero, zero] == 2, "Rows are the given value, columns the wanted one."
    assert none[zero, minus_two] == none[zero, one] == 1
    assert wild[minus_two, minus_two] == 1
    assert wild[-1, one] == 1, "9 lies beyond and is drawn at the edge."
    assert [axes.get_title() for axes in figure.axes[:2]] == ["none", "wild"]
    assert list(figure.axes[0].lines[0].get_xdata()) == list(figure.axes[0].lines[0].get_ydata()), "Perfection."


def test_bars_show_where_it_is_spent():
    half = dict(zip(CELL_KINDS, (0.5, 0, 0.25, 0.05, 0.2), strict=True))
    figure = draw_residual_shares({"wanted": half, "identity": dict.fromkeys(CELL_KINDS, np.nan)})
    axes = figure.axes[0]
    bars = {container.get_label(): container.patches for container in axes.containers}
    assert [bars[kind][0].get_width() for kind in CELL_KINDS] == pytest.approx([50, 0, 25, 5, 20])
    assert [bars[kind][0].get_x() for kind in CELL_KINDS] == pytest.approx([0, 50, 50, 75, 80])
    assert all(bars[kind][1].get_width() == 0 for kind in CELL_KINDS)
    assert {kind: to_hex(patches[0].get_facecolor()) for kind, patches in bars.items()} == CELL_COLOURS
    assert "no residual" in {text.get_text() for text in axes.texts}
