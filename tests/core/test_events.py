import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.recordings import make_events, same_events

from deflare_core.events import Events, normalise_polarity


def columns(**changes):
    values = {
        "t": np.array([0, 5, 5], np.int64),
        "x": np.array([0, 1, 2], np.uint16),
        "y": np.array([0, 0, 1], np.uint16),
        "p": np.array([1, -1, 1], np.int8),
        "sensor_size": (2, 3),
    }
    return values | changes


def test_the_two_array_forms_lead_there_and_back():
    events = make_events()
    assert same_events(Events.from_array(events.to_array(), events.sensor_size), events)
    assert same_events(Events.from_array(events.to_structured(), events.sensor_size), events)
    assert events.to_structured().dtype.names == ("x", "y", "t", "p"), "tonic's order of fields is x, y, t, p."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t": np.array([0, 6, 5], np.int64)}, "event 2 is at 5 us"),
        ({"t": np.array([0.0, 5, 6])}, "Column t .* float64"),
        ({"x": np.array([0, 1, 3], np.uint16)}, "x reaches 3, outside the sensor of height 2 and width 3"),
        ({"y": np.array([0, 2, 1], np.uint16)}, "y reaches 2.* number 1 .* at x 1, y 2, 5 us.* correct that statement"),
        ({"p": np.array([1, 0, 1], np.int8)}, r"only -1 and \+1; found \[0, 1\]"),
        ({"p": np.array([1, 1], np.int8)}, "one length"),
        ({"sensor_size": (0, 3)}, "from 1 to 65536"),
        ({"sensor_size": 5}, r"must be \(height, width\)"),
    ],
)
def test_a_bad_column_is_refused_with_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        Events(**columns(**changes))


@pytest.mark.parametrize("values", [[0, 1], [-1, 1], [False, True], [-1, -1], [1.0, 0.0]])
def test_every_usual_polarity_becomes_plus_or_minus_one(values):
    expected = [1 if v == 1 else -1 for v in values]
    assert normalise_polarity(np.array(values)).tolist() == expected


def test_another_polarity_is_an_error_that_lists_it_unless_the_rule_is_lenient():
    values = np.array([0, 1, 2, 7])
    with pytest.raises(ValueError, match="0, 1, 2, 7"):
        normalise_polarity(values)
    assert normalise_polarity(values, "lenient").tolist() == [-1, 1, -1, -1]


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 70_000, -1])
def test_a_coordinate_that_would_change_on_conversion_is_refused(value):
    with pytest.raises(ValueError, match="Column x must hold whole numbers that fit uint16"):
        Events.from_columns([0], [value], [0], [1], (10, 10))


def test_windows_are_absolute_half_open_and_may_be_empty():
    t = np.array([20_000, 39_999, 40_000, 100_000])
    events = Events.from_columns(t, [0] * 4, [0] * 4, [1] * 4, (1, 1))
    counts = [len(w) for w in events.windows(0, 5)]
    assert counts == [0, 2, 1, 0, 0], "Windows begin at multiples of 20 ms from the given origin."
    overlapping = [len(w) for w in events.windows(0, 4, stride_us=10_000)]
    assert overlapping == [0, 1, 2, 2], "With a stride of 10 ms, windows overlap by half."


@given(st.lists(st.integers(0, 10_000), max_size=60), st.integers(-5, 10_000), st.integers(0, 3000))
def test_a_window_holds_exactly_the_events_of_its_interval(times, start, length):
    t = np.sort(np.array(times, np.int64))
    zeros = np.zeros_like(t)
    window = Events.from_columns(t, zeros, zeros, zeros, (1, 1)).window(start, start + length)
    assert window.t.tolist() == [v for v in t if start <= v < start + length]


def test_consecutive_stretches_join_and_others_do_not():
    events = make_events()
    assert same_events(Events.concatenate([events[:100], events[100:]]), events)
    with pytest.raises(ValueError, match="backwards"):
        Events.concatenate([events[100:], events[:100]])
    with pytest.raises(ValueError, match="one sensor"):
        Events.concatenate([events, make_events(sensor_size=(3, 3))])
