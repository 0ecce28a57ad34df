"""What the viewer shows of recordings, worked out by hand."""

import math

import numpy as np
import pytest
from support.recordings import make_events

from deflare_core.events import Events
from deflare_core.io.recordings import open_recording, save_events
from deflare_core.show import stretches
from deflare_core.show.stretches import (
    Source,
    Timeline,
    choose_length_us,
    draw_surface,
    keep_highest,
    load_panels,
    merge_bins,
    rank_causes,
)
from deflare_core.streams.matching import match_events

SIZE = (1, 4)


def events_of(*rows, size=SIZE) -> Events:
    return Events.from_array(np.array(rows).reshape(-1, 4), size)


def test_events_match_by_time_pixel_and_polarity_and_doubles_once_each():
    before = events_of([5, 0, 0, 1], [5, 0, 0, 1], [5, 0, 0, -1], [7, 1, 0, 1], [9, 2, 0, 1])
    after = events_of([5, 0, 0, 1], [7, 1, 0, -1], [9, 2, 0, 1], [9, 2, 0, 1])
    kept, found = match_events(before, after)
    assert sorted(kept.tolist()) == [0, 4], "One of the two doubles, and neither another sign nor a further double."
    assert sorted(found.tolist()) == [0, 2]
    assert match_events(before, events_of())[0].tolist() == []


def test_all_bins_in_one_picture_count_every_event_and_show_what_flickers():
    bins = np.zeros((3, 1, 5), np.float32)
    bins[:, 0, 0] = 1, 1, -1
    bins[:, 0, 1] = 1, -1, 0
    bins[:, 0, 2] = -1, 1, 0
    bins[:, 0, 3] = 0.4, -0.4, 0.4
    both, positive, negative = merge_bins(bins)[:, 0]
    assert both.tolist() == [3, -2, 2, 0, 0], "The sign of most events, or of the last; faint noise counts as none."
    assert positive.tolist() == [2, 1, 1, 0, 0]
    assert negative.tolist() == [-1, -1, -1, 0, 0]


def test_a_time_surface_shows_the_latest_sign_and_its_age():
    events = events_of([2_000, 0, 0, 1], [7_999, 0, 0, -1], [10_000, 1, 0, 1])
    surface = draw_surface(events, 8_000, 8_000)
    assert surface[0, 0, 0] == pytest.approx(-math.exp(-1_001 / 8_000)), "The first bin ends at 9 ms."
    assert surface[0, 0, 1] == 0, "This event comes later."
    assert surface[7, 0, 1] == pytest.approx(math.exp(-6_000 / 8_000))


def test_of_several_causes_in_a_cell_flare_is_seen_with_its_sign():
    events = events_of([0, 0, 0, 1], [1, 0, 0, -1], [2, 0, 0, 1], [3, 1, 0, -1], [9_000, 1, 0, 1])
    ranked = rank_causes(events, np.array([1, 2, 0, 0, 3], np.uint8), 0, 16_000)
    assert ranked[0, 0].tolist() == [-5, -2, 0, 0]
    assert ranked[4, 0].tolist() == [0, 3, 0, 0]
    assert keep_highest(ranked)[:, 0, :2].tolist() == [[-5, 3], [0, 3], [-5, -2]]


def test_what_was_removed_and_what_stayed_have_the_input_s_causes():
    before = events_of([0, 0, 0, 1], [1, 1, 0, -1], [2, 2, 0, 1])
    sources = {
        "Input": Source(before, np.array([0, 2, 1], np.uint8)),
        "Output": Source(events_of([0, 0, 0, 1], [3, 3, 0, 1])),
    }
    panels = load_panels(sources, 0, 20_000)
    assert panels["Removed"].cells[0, 0].tolist() == [0, -1, 1, 0]
    assert panels["Removed"].counts[0].tolist() == [1, 1]
    assert panels["Removed"].causes[0, 0].tolist() == [0, -5, 4, 0]
    assert panels["Output"].causes[0, 0].tolist() == [2, 0, 0, 1], "Nobody knows what caused an event that was added."


@pytest.mark.parametrize("most_bars", [1500, 3])
def test_the_busiest_stretch_is_found_at_any_length(monkeypatch, most_bars):
    monkeypatch.setattr(stretches, "MAX_BARS", most_bars)
    times = [15_000] * 2 + [500_000, 501_000, 502_000] + [900_000] * 2
    before = events_of(*[[t, 0, 0, 1] for t in times])
    timeline = Timeline({"Input": Source(before), "Output": Source(before[:5])}, 0, 1_000_000)
    assert timeline.find_most("events", 20_000) == 25
    assert timeline.find_most("removed", 20_000) == 45
    assert timeline.find_most("events", 100_000) == 5


def test_open_recordings_count_as_events_in_memory_do(tmp_path):
    events = make_events(num=3_000, t_start_us=5_000, duration_us=90_000)
    save_events(tmp_path / "a.h5", events, source="test")
    edges = np.array([0, 5_000, 20_001, 50_000, 94_999, 200_000])
    with open_recording(tmp_path / "a.h5") as recording:
        for scan in (True, False):
            assert recording.count_before(edges, scan=scan).tolist() == Source(events).count_before(edges).tolist()


@pytest.mark.parametrize(
    ("per_ms", "chosen"),
    [(2_000, ("bin", 20_000)), (300, ("window", 20_000)), (100, ("stretch", 50_000)), (30, ("stretch", 200_000))],
)
def test_as_much_is_shown_as_is_enough_to_see_something(per_ms, chosen):
    t = np.arange(0, 1_000_000, 1_000 // per_ms if per_ms <= 1_000 else 1).repeat(max(1, per_ms // 1_000))
    t = t[: per_ms * 1_000] if per_ms > 1_000 else t
    pixels = np.zeros((2, len(t)), int)
    events = Events.from_columns(t, *pixels, np.ones(len(t), int), (480, 640))
    assert choose_length_us(Timeline({"Input": Source(events)}, 0, 1_000_000)) == chosen
