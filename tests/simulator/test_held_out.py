"""The second held-out set: its kinds and its seeds."""

from data_simu.config import SimulationConfig
from data_simu.pairs import derive_seed
from data_simu.tools import held_out
from deflare_core.config import SimulatedDataConfig, TrainConfig
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.settings import load_config

CONFIGS = PROJECT_ROOT / "configs"


def seeds_of(data):
    """The seeds of a set's pairs."""
    configs = [load_config(SimulationConfig, kind.simulation, kind.overrides) for kind in data.kinds]
    return {
        derive_seed(config.seed, data.split, number)
        for config, kind in zip(configs, data.kinds, strict=True)
        for number in range(kind.num_pairs)
    }


def test_it_has_several_kinds_and_no_seed_of_training_or_validation():
    data = load_config(SimulatedDataConfig, CONFIGS / "held_out_config.yaml")
    found = dict(held_out.list_sets(data))
    assert sum(config.num_test for config in found.values()) == 50
    assert {config.sensor_size for config in found.values()} >= {(180, 240), (480, 640), (720, 1280)}
    assert any(config.sensor.brownian_share == 1 for config in found.values())
    assert all(config.backgrounds is None for config in found.values())
    lamps = load_config(TrainConfig, CONFIGS / "lamps_train_config.yaml")
    old = {derive_seed(0, "test", number) for number in range(50)}
    assert not seeds_of(data) & (seeds_of(lamps.data) | seeds_of(lamps.validation) | old)
