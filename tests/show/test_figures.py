"""Static figures: shared limits, honest counts, legends, and small events that stay visible."""

import numpy as np
import pytest
from support.recordings import make_events, same_events

from deflare_core.show.figures import (
    STREAMS,
    draw_event_cloud,
    draw_event_series,
    draw_events,
    draw_scores,
    draw_turning_cloud,
    draw_voxels,
    find_limit,
    find_strongest,
    list_voxels,
    pick_colours,
    sample_events,
)


def images(figure) -> list:
    return [axes.images[0] for axes in figure.axes if axes.images]


def test_all_panels_share_one_limit_that_is_symmetric_about_zero():
    rng = np.random.default_rng(0)
    voxels = {name: rng.integers(-3, 4, (4, 6, 8)).astype(np.float32) * k for k, name in ((1, "input"), (2, "output"))}
    shown = images(draw_voxels(voxels, 0, 20_000))
    assert len(shown) == 8
    assert {image.get_clim() for image in shown} == {(-6.0, 6.0)}
    recordings = {"input": make_events(seed=1), "target": make_events(seed=2, num=100)}
    low, high = {image.get_clim() for image in images(draw_events(recordings, 0, 20_000))}.pop()
    assert low == -high


def test_the_limit_ignores_faint_noise_and_lets_lamps_saturate():
    picture = np.zeros((100, 100))
    assert find_limit([picture]) == 1
    picture[:, :10] = -2
    picture[0, :3] = 90
    noise = np.full_like(picture, 0.01)
    assert find_limit([picture, noise]) == 2


def test_a_cloud_says_how_many_of_how_many_it_shows():
    figure = draw_event_cloud(make_events(num=5_000), seed=0, max_events=2_000)
    (axes,) = figure.axes
    assert axes.get_title() == "2,000 of 5,000 events"
    assert len(axes.collections[0].get_offsets()) == 2_000, "As many are drawn as the title says."
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["positive (brighter)", "negative (darker)"]


def test_a_series_draws_every_event_in_its_slice():
    events = make_events(num=600)
    figure = draw_event_series({"input": events}, 0, 20_000, num_frames=4)
    drawn = [len(axes.collections[0].get_offsets()) for axes in figure.axes]
    assert sum(drawn) == 600
    assert drawn[1] == len(events.window(5_000, 10_000))
    assert figure.axes[1].texts[0].get_text() == f"{drawn[1]:,} events"
    assert figure.legends, "The colours are explained."


def test_a_single_event_survives_in_a_picture_drawn_small():
    picture = np.zeros((6, 9))
    picture[4, 7], picture[5, 8] = -1, 3
    small = find_strongest(picture, 3)
    assert small.tolist() == [[0, 0, 0], [0, 0, 3]]
    picture[5, 8] = 0
    assert find_strongest(picture, 3)[1, 2] == -1
    assert find_strongest(picture, 4).shape == (2, 3), "Rows and columns that fill no block have one of their own."


def test_a_bar_that_would_dwarf_the_others_is_cut_off_and_says_so():
    figure = draw_scores({"input": {"mse": 1.0}, "network": {"mse": 1.2}, "wild": {"mse": 1e3}}, ["mse"])
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx([1.0, 1.2, 6.0])
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "1.2", "1e+03 >"]


def test_a_sample_is_part_of_the_events_in_their_order():
    events = make_events(seed=1, num=200)
    shown = sample_events(events, 50, seed=3)
    assert len(shown) == 50
    rows = {tuple(row) for row in events.to_array()}
    assert {tuple(row) for row in shown.to_array()} <= rows
    assert same_events(shown, sample_events(events, 50, seed=3)), "One seed, one sample."
    assert not same_events(shown, sample_events(events, 50, seed=4))
    assert same_events(events, sample_events(events, 200, seed=3)), "All are shown where they fit."


def test_both_clouds_show_the_same_events():
    events = make_events(seed=1, num=200)
    cloud = draw_turning_cloud(events, seed=3, max_events=50)
    positive, negative = cloud.data
    shown = sample_events(events, 50, seed=3)
    assert np.array_equal(positive.x, shown.t[shown.p > 0] / 1e3)
    assert np.array_equal(negative.z, shown.y[shown.p < 0])
    static = draw_event_cloud(events, seed=3, max_events=50).axes[0]
    assert np.array_equal(static.collections[0]._offsets3d[0], shown.t / 1e3)
    assert cloud.layout.title.text == static.get_title() == "50 of 200 events"


def test_a_page_needs_no_network(tmp_path):
    draw_turning_cloud(make_events(), seed=0).write_html(tmp_path / "cloud.html")
    page = (tmp_path / "cloud.html").read_text()
    assert 'src="https://' not in page
    assert len(page) < 8_000_000


def test_a_voxels_bins_stand_four_in_a_row_with_their_times():
    voxels = {name: np.ones((8, 12, 16), np.float32) for name in ("input", "output")}
    shown = [axes for axes in draw_voxels(voxels, 20_000, 20_000).axes if axes.images]
    places = [axes.get_subplotspec() for axes in shown]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [divmod(k, 4) for k in range(16)]
    assert [axes.get_title() for axes in shown[3:5]] == ["27.5 to 30.0 ms", "30.0 to 32.5 ms"]
    assert shown[8].get_ylabel() == "output\n+1,536 net"
    odd = draw_voxels({"input": np.ones((5, 4, 4), np.float32)}, 0, 5_000)
    assert len([axes for axes in odd.axes if axes.images]) == 5, "Bins that fill no row leave no empty panel."


def test_counts_stand_beside_the_events():
    for axes in draw_event_series({"input": make_events()}, 0, 20_000).axes:
        assert axes.texts[0].get_position()[1] > 1, "The number is above the panel, where it covers nothing."


def test_names_are_no_formulas(tmp_path):
    name = "a$\\no$b\n\udcff"
    figure = draw_scores({name: {"mse": 1.0}}, ["mse"])
    figure.savefig(tmp_path / "scores.png")
    assert draw_events({name: make_events()}, 0, 20_000).axes[0].get_title().startswith(r"a\$\no\$b")


def test_a_recording_has_one_colour_wherever_it_stands():
    assert pick_colours(["target", "input"]) == [STREAMS["target"], STREAMS["input"]]
    assert pick_colours(["mine", "yours"]) == [STREAMS["input"], STREAMS["output"]]


def test_voxels_stand_in_one_order_with_what_was_removed():
    one = np.ones((8, 2, 2), np.float32)
    found = list_voxels({"residual": -one, "target": one, "output": 0 * one, "input": one})
    assert list(found) == ["input", "output", "target", "removed"]
    assert (found["removed"] == 1).all(), "A positive event that was removed is a positive event."
    assert list(list_voxels({"target": one, "input": one})) == ["input", "target"]
