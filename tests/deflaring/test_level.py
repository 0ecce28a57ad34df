"""The level of a window: by hand, at its limits, and through networks, files and the GPU's arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.by_hand import look_at
from support.networks import gate
from support.recordings import make_events

from deflare_core.codec import encode_window
from deflare_core.config import LEVEL_WORDS, InferenceConfig, ModelConfig
from deflare_core.deflaring.decision_level import FACTORS, LEAST, POWER, find_level, find_window_level, round_at_level
from deflare_core.deflaring.method import NetworkMethod
from deflare_core.deflaring.stream import deflare_windows
from deflare_core.inference import configure_method, load_method
from deflare_core.system.settings import ConfigError, make_config
from deflare_core.windows import USUAL_CUT, Window

FACTOR = FACTORS["balanced"]


def level_of(counts, shares, rule="balanced") -> float:
    before = torch.tensor(counts, dtype=torch.float32)
    return float(find_window_level(rule, before, before * torch.tensor(shares)))


def test_the_level_by_hand():
    # Taken are all three events of the first cell: F = 2 * 2.7 / (3 + 3.1); with the second's two, 2 * 3.1 / (5 + 3.1).
    assert level_of([3, 2], [0.9, 0.2]) == pytest.approx(FACTOR * (2 * 2.7 / 6.1) ** POWER)
    assert level_of([3, 2], [0.9, 0.7]) == pytest.approx(FACTOR * (2 * 4.1 / 9.1) ** POWER)
    assert level_of([-3, 2], [0.9, 0.2]) == level_of([3, 2], [0.9, 0.2]), "Of signed voxels, net events count."


def test_the_words_differ_in_their_factor():
    levels = [level_of([3, 2], [0.9, 0.2], rule) for rule in ("careful", "balanced", "thorough")]
    assert levels == pytest.approx([FACTORS[rule] / FACTOR * levels[1] for rule in FACTORS])
    assert levels == sorted(levels), "The higher the level, the more flare goes, and the more of the lamps."
    assert set(FACTORS) == set(LEVEL_WORDS)


def test_the_level_at_its_limits():
    assert level_of([1, 2, 0], [1.0, 1.0, 0.0]) == pytest.approx(FACTOR), "Where nothing is to go, it is highest."
    assert level_of([0, 0], [0.0, 0.0]) == LEAST, "Without events any level will do but 0."
    assert level_of([5, 5], [0.0, 0.0]) == LEAST
    assert find_level(0.3, torch.ones(1), torch.ones(1)) == 0.3


@given(seed=st.integers(0, 1000))
def test_no_level_has_a_greater_f(seed):
    rng = np.random.default_rng(seed)
    counts, shares = rng.integers(0, 5, 200), rng.integers(0, 1001, 200) / 1000
    expected = counts * shares
    scores = []
    for level in np.unique(shares):
        taken = shares >= level
        scores.append(2 * expected[taken].sum() / (counts[taken].sum() + expected.sum()))
    assert level_of(counts, shares) == pytest.approx(max(FACTOR * max(scores) ** POWER, LEAST), rel=1e-5)


def adaptive(**settings):
    return gate(**{"std": 2, "level": "balanced"} | settings)


def test_a_word_judges_whole_cells():
    before, after = torch.tensor([4.0, -4, 5, 2, 0, 3, 1]), torch.tensor([3.2, -3.2, 0.5, 2, 0, 4, -1])
    assert 0.1 < find_level("balanced", before, after) < 0.8
    # Of shares from the level on all events stay, below it none; what is invented, or turned, is rounded as it is.
    assert round_at_level("balanced", before, after).tolist() == [4, -4, 0, 2, 0, 4, -1]
    assert round_at_level(0.42, before, after).tolist() == [3, -3, 1, 2, 0, 4, -1], "A number rounds parts of events."


@pytest.mark.parametrize("settings", [{}, {"context": 1}])
def test_a_gates_cells_stay_whole_or_go(settings):
    model, events = adaptive(**settings), make_events(0, 3000)
    seen, output = look_at(model, events, 0)
    before = seen[: model.channels]
    level = float(find_level("balanced", torch.from_numpy(before), torch.from_numpy(output)))
    assert LEAST < level < FACTOR
    found = next(deflare_windows(model, [Window(0, events, 0)], USUAL_CUT))
    expected = np.where(output >= level * before, before, 0)
    assert np.array_equal(encode_window(found.events, 0, channels=2), expected)
    assert 0 < found.kept.sum() < len(events)


def test_a_level_is_a_share_or_a_word():
    assert make_config(ModelConfig, {"level": "careful"}, origin="here").level == "careful"
    assert make_config(ModelConfig, {"level": "adaptive"}, origin="here").level == "balanced", "So old checkpoints say."
    for level in (0, 1, "low"):
        with pytest.raises(ConfigError, match=r"here: 'level': a level is a number between 0 and 1, or one of careful"):
            make_config(ModelConfig, {"level": level}, origin="here")


def test_a_user_chooses_another_level_than_the_networks():
    own, careful = (load_method(device="cpu", level=level) for level in (None, "careful"))
    assert (own.model.config.level, careful.model.config.level) == ("balanced", "careful")
    assert own.key != careful.key, "An output says by which level it was made."
    assert configure_method(InferenceConfig(level="careful"), "cpu").key == careful.key
    with pytest.raises(ConfigError, match="level=careful: of a network only, but method is baf"):
        make_config(InferenceConfig, {"method": "baf", "level": "careful"})


def test_an_output_that_is_not_finite_is_refused():
    model = adaptive()
    with torch.no_grad():
        model.backbone.final_conv.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        next(deflare_windows(model, [Window(0, make_events(0, 3000), 0)], USUAL_CUT))


def test_the_rule_is_part_of_what_a_prediction_is_known_by(monkeypatch):
    def keys():
        return [NetworkMethod(adaptive(**settings)).key for settings in ({}, {"level": 0.4})]

    by_window, fixed = keys()
    monkeypatch.setitem(FACTORS, "balanced", 0.4)
    assert keys()[0] != by_window, "The rule decides what an adaptive network gives."
    assert keys()[1] == fixed, "A network with a level of its own knows no rule."
