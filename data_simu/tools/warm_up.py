"""Small pairs of every kind, for what the simulator compiles on its way; `numba_cache.compiled_before` runs it once."""

from __future__ import annotations

from itertools import cycle

from data_simu.config import SceneConfig, SimulationConfig
from data_simu.simulation import simulate

FAMILIES, TARGETS = ("street", "tunnel", "room", "wall", "lights"), ("snapped", "physical", "subset")


def main() -> None:
    """Simulate pairs of all families of scenes and kinds of target."""
    for family, target in zip(FAMILIES, cycle(TARGETS), strict=False):
        small = SimulationConfig(sensor_size=(24, 32), duration_us=20_000, warmup_us=5_000)
        config = small.model_copy(update={"scene": SceneConfig(families=(family,)), "target": target})
        for seed in range(3):
            simulate(config, seed)


if __name__ == "__main__":
    main()
