import numpy as np
from support.recordings import make_events, same_events

from deflare_core.show.figures import draw_event_cloud, sample_events
from deflare_core.show.interactive import draw_turning_cloud


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
