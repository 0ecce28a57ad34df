"""The choice of a level's factors: what is kept, counted by hand, against the decode, and the prices of the words."""

import numpy as np
import pytest
from support.by_hand import deflare_window
from support.networks import gate
from support.recordings import make_events

from data_simu.simulation import Pair
from data_simu.tools.levels import COLUMNS, PRICES, TRIED, Trade, average, choose_factors, measure_kept
from deflare_core.deflaring.decision_level import FACTORS
from deflare_core.deflaring.method import NetworkMethod
from deflare_core.events import BACKGROUND, FLARE, LIGHT, Events
from deflare_core.scores.evaluation import mark_near_flare


@pytest.mark.parametrize("word", FACTORS)
def test_what_factors_keep_is_what_the_decode_keeps(word):
    model, events = gate(std=2, level=word), make_events(0, 3_000)
    label = np.full(3_000, FLARE, np.uint8)
    kept = measure_kept(NetworkMethod(model), Pair(events, events, label, label, (0, 20_000), {}))
    expected = deflare_window(model, events, 0, seed=0).kept.mean()
    assert kept[TRIED.index(FACTORS[word]), 0] == pytest.approx(expected, abs=1e-3)
    assert np.isnan(kept[:, 1:]).all(), "Of causes without events nothing is said."


def test_background_near_flare_is_within_two_pixels_of_it():
    x = np.arange(8)
    events = Events.from_columns(x, x, np.zeros(8), np.ones(8), (1, 8))
    label = np.array([BACKGROUND, BACKGROUND, BACKGROUND, FLARE, LIGHT, BACKGROUND, BACKGROUND, BACKGROUND])
    assert mark_near_flare(events, label).tolist() == [False, True, True, True, True, True, False, False]


def test_kinds_weigh_alike_and_words_have_their_price():
    steps = np.linspace(0, 1, len(TRIED))
    # Flare goes as the root, and light as the square, of the way from the lowest factor to the highest.
    kept = np.column_stack([1 - np.sqrt(steps), 1 - steps**2, np.ones_like(steps), np.full_like(steps, np.nan)])
    tables = average([Trade("a", kept), Trade("a", kept), Trade("b", 0 * kept + 0.5)])
    assert tables["a"][:, 0] == pytest.approx(np.sqrt(steps))
    assert tables["all kinds"][:, 0] == pytest.approx(0.5 * (np.sqrt(steps) + 0.5))
    found = choose_factors(tables["a"])
    assert found["careful"] < found["balanced"] < found["thorough"]
    assert set(found) == set(PRICES) == set(FACTORS)
    # sqrt(s) - s^2 is greatest where 1 / (2 sqrt(s)) = 2 s, at s = 0.397; steps are of a twelfth.
    assert found["balanced"] == TRIED[round(0.397 * (len(TRIED) - 1))]
    assert len(COLUMNS) == kept.shape[1]
