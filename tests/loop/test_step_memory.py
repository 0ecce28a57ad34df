"""The memory of a training step by part: the figures of the project's record, measured, and sums by hand."""

import pytest
import torch

from deflare_core.config import ModelConfig
from deflare_core.loop.step_memory import StorageWatch, measure_step_memory, tabulate_networks
from deflare_core.model import build_model, count_parameters

# The first operation that is watched imports torch's compiler, which takes seconds.
pytestmark = pytest.mark.slow


def test_what_is_held_and_its_peak_by_hand():
    with StorageWatch() as watch:
        first = torch.zeros(100)
        second = first + 1
        view = second[:10]
        assert watch.held == 800, "A view holds nothing of its own."
        del second
        assert watch.held == 800, "It keeps what it looks at."
        del view
        assert watch.held == 400
        first.add_(1)
    assert (watch.held, watch.peak) == (400, 800)


def test_the_parts_of_a_step_by_hand():
    config = ModelConfig(f_maps=(8, 16), num_levels=2)
    found = measure_step_memory(config, (16, 24))
    parameters = count_parameters(build_model(config, seed=0))
    assert found["weights"] == found["gradients"] == 4 * parameters
    tensors = len(list(build_model(config, seed=0).parameters()))
    assert found["optimizer"] == 8 * parameters + 4 * tensors, "Two averages of each weight, and a count of steps."
    assert found["peak"] == sum(found[name] for name in ("weights", "gradients", "optimizer", "activations"))
    twice = measure_step_memory(config, (16, 48))
    assert twice["activations"] == pytest.approx(2 * found["activations"], rel=0.02)
    saving = measure_step_memory(config.model_copy(update={"use_checkpoint": True}), (16, 24))
    assert saving["activations"] < 0.8 * found["activations"]


def test_the_networks_of_the_record():
    table = tabulate_networks()
    for parameters in ("1,725,985", "2,882,113", "6,900,801", "7,068,961", "113,735,233"):
        assert f"| {parameters} |" in table
    # 4.81 GiB is what an H100 was measured to need at its peak, 4.78 of it activations.
    assert "| [32, 64, 128] | 1,725,985 | 6.6 | 6.6 | 13.2 | 4.78 | 2.81 | 4.81 | 2.84 |" in table
