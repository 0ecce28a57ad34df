"""The level of a window: by hand, at its limits, and through networks, files and the GPU's arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.networks import gate
from support.recordings import make_events, same_events

from deflare_core.codec import at_level
from deflare_core.config import ModelConfig
from deflare_core.deflaring.decision_level import FACTOR, LEAST, POWER, level_for, window_level
from deflare_core.deflaring.jobs import method_key
from deflare_core.deflaring.stream import applied, deflare_windows, encoded, run_network
from deflare_core.scores.predictions import network_method
from deflare_core.system.settings import ConfigError, make_config


def level_of(counts, shares) -> float:
    before = torch.tensor(counts, dtype=torch.float32)
    return float(window_level(before, before * torch.tensor(shares)))


def test_the_level_by_hand():
    # Taken are all three events of the first cell: F = 2 * 2.7 / (3 + 3.1); with the second's two, 2 * 3.1 / (5 + 3.1).
    assert level_of([3, 2], [0.9, 0.2]) == pytest.approx(FACTOR * (2 * 2.7 / 6.1) ** POWER)
    assert level_of([3, 2], [0.9, 0.7]) == pytest.approx(FACTOR * (2 * 4.1 / 9.1) ** POWER)
    assert level_of([-3, 2], [0.9, 0.2]) == level_of([3, 2], [0.9, 0.2]), "Of signed voxels, net events count."


def test_the_level_at_its_limits():
    assert level_of([1, 2, 0], [1.0, 1.0, 0.0]) == pytest.approx(FACTOR), "Where nothing is to go, it is highest."
    assert level_of([0, 0], [0.0, 0.0]) == LEAST, "Without events any level will do but 0."
    assert level_of([5, 5], [0.0, 0.0]) == LEAST
    assert level_for(0.3, np.ones(1), np.ones(1)) == 0.3


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
    return gate(**{"std": 2, "level": "adaptive"} | settings)


@pytest.mark.parametrize("settings", [{}, {"context": 1}, {"polarity": "signed", "residual": "free"}])
def test_a_network_counts_from_its_windows_level_on(settings):
    model, events = adaptive(**settings), make_events(0, 3000)
    seen = encoded(model, events, 0, 20_000, 8)
    output = run_network(model, seen)
    level = level_for("adaptive", seen[: model.channels] if seen.ndim == 4 else seen, output)
    assert LEAST < level < FACTOR
    fixed = adaptive(**settings | {"level": level})
    expected = applied(fixed, (0, events, 0), seen, output, 20_000)
    found = next(deflare_windows(model, [(0, events, 0)], 20_000, 8))
    assert same_events(found.events, expected.events)
    assert 0 < found.kept.sum() < len(events)


def test_the_gpus_count_is_the_codecs():
    pytest.importorskip("triton")
    from deflare_core.deflaring.gpu import counted_from

    voxel = np.random.default_rng(0).normal(0, 2, (2, 8, 5, 6)).astype(np.float32)
    level = torch.tensor(0.2345, dtype=torch.float64)
    assert np.array_equal(counted_from(level, torch.from_numpy(voxel)).numpy(), at_level(voxel, float(level)))


def test_a_level_is_a_share_or_adaptive():
    assert make_config(ModelConfig, {"level": "adaptive"}, origin="here").level == "adaptive"
    for level in (0, 1, "low"):
        with pytest.raises(ConfigError, match=r"here: 'level': a level is a number between 0 and 1, or adaptive \(rec"):
            make_config(ModelConfig, {"level": level}, origin="here")


def test_an_output_that_is_not_finite_is_refused():
    model = adaptive()
    with torch.no_grad():
        model.backbone.final_conv.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        next(deflare_windows(model, [(0, make_events(0, 3000), 0)], 20_000, 8))


def test_the_rule_is_part_of_what_a_prediction_is_known_by(monkeypatch):
    def keys():
        return [network_method(adaptive(**s), "weights").key for s in ({}, {"level": 0.4})], method_key(adaptive())

    (by_window, fixed), resumed = keys()
    monkeypatch.setattr("deflare_core.deflaring.decision_level.FACTOR", 0.4)
    assert keys()[0] == [keys()[0][0], fixed]
    assert keys()[0][0] != by_window
    assert keys()[1] != resumed
