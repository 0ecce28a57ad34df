"""The command that simulates pairs; in a file of its own, since the simulator takes long to import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_simu import SimulationConfig, write_dataset


def simulate(
    config: Annotated[SimulationConfig, "configs/simu_config.yaml"],
    output_dir: Annotated[Path, Field(description="folder of the pairs")] = Path("data_simu/physics_method"),
    workers: Annotated[int | None, Field(gt=0, description="processes; none: one per processor")] = None,
) -> None:
    """Write the pairs of a simulation, and say how many."""
    write_dataset(config, output_dir, workers=workers)
    print(f"{config.num_train} training and {config.num_test} test pairs in {output_dir}")
