"""The network that comes with the package: it loads, removes flare rather than anything else, and invents nothing."""

import numpy as np
import pytest

from data_simu import SimulationConfig, simulate
from data_simu.tools.lone_lamps import draw_lone_lamps, list_lone_lamps, measure_kept
from deflare_core.checkpoint import load_pretrained
from deflare_core.deflaring.method import NetworkMethod
from deflare_core.events import BACKGROUND, FLARE
from deflare_core.inference import deflare_recording
from deflare_core.io.recordings import load_events, save_events
from deflare_core.model import count_parameters
from deflare_core.streams.matching import find_matched
from deflare_core.system.places import PRETRAINED, PROJECT_ROOT
from deflare_core.system.settings import load_config

DEMO = load_config(SimulationConfig, PROJECT_ROOT / "configs" / "demo_simu_config.yaml")


@pytest.fixture(scope="module")
def model():
    return load_pretrained("cpu")


def deflared(model, pair, folder):
    """What the network makes of the input of a pair, and which of its events are still there."""
    save_events(folder / "in.h5", pair.flare, source="test", clock_us=pair.clock_us)
    deflare_recording(model, folder / "in.h5", folder / "out.h5", progress=False)
    output = load_events(folder / "out.h5")
    return output, find_matched(output, pair.flare)


def test_it_is_small_and_says_what_it_is(model):
    assert sum(path.stat().st_size for path in PRETRAINED.rglob("*")) < 8_000_000, "It travels with the package."
    assert [count_parameters(member) for member in model.members] == [1_983_760, 1_940_512]
    assert model.config.residual == "gate"
    card = (PRETRAINED / "README.md").read_text()
    for part in ("## Trained on", "## Scores", "## What it cannot do", "Apache-2.0"):
        assert part in card, f"The card has no part '{part}'."


def test_it_removes_flare_and_keeps_the_rest(model, tmp_path):
    pair = simulate(DEMO, 9)
    output, kept = deflared(model, pair, tmp_path)
    kept_share = {cause: kept[pair.flare_label == cause].mean() for cause in (BACKGROUND, FLARE)}
    assert len(output) == kept.sum(), "Every event of the output was recorded, at its own time."
    assert kept_share[BACKGROUND] > 0.97
    assert kept_share[FLARE] < 0.7


def test_it_leaves_what_has_no_flare(model, tmp_path):
    perfect = load_config(SimulationConfig, PROJECT_ROOT / "configs" / "flare_free_simu_config.yaml")
    pair = simulate(perfect.model_copy(update={"sensor_size": (120, 160)}), 9)
    assert np.mean(deflared(model, pair, tmp_path)[1]) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["disc 40, PWM 244 Hz", "tube 240 x 30 at 0, mains 100 Hz", "disc 24, rectified 100 Hz"]
)
def test_it_keeps_large_lamps_without_flare(model, name):
    """The first two are those of the table's 24 that it keeps least of, 95.5 and 96.5 %."""
    lamps = [lamp for lamp in list_lone_lamps() if lamp.name == name]
    (kept,) = measure_kept(NetworkMethod(model), draw_lone_lamps(lamps))
    assert kept.light > 0.94, f"Of {name} it keeps {kept.light:.1%}."
    assert kept.background > 0.99
