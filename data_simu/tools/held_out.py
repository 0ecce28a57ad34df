"""The second held-out set: pairs of several kinds, a folder and a manifest for each.

    python -m data_simu.tools.held_out --output-dir data_simu/physics_method/held_out

    held_out/0_lamps_640x480/background_with_flare_events_test/   the kinds of configs/held_out_config.yaml, by number
             0_lamps_640x480/background_with_light_events_test/
             0_lamps_640x480/manifest.json                        what `deflare verify --manifest` compares
             1_lamps_640x480/...

Each kind is a data set of one sensor, which `deflare evaluate` scores as it is. What is there already is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_simu.config import SimulationConfig
from data_simu.pairs import write_dataset
from deflare_core.config import SimulatedDataConfig
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.settings import load_config


def list_sets(data: SimulatedDataConfig, overrides: Sequence[str] = ()) -> Iterator[tuple[str, SimulationConfig]]:
    """The name of each kind, and the configuration of its test pairs."""
    for number, (simulation, own, num_pairs) in enumerate(data.kinds):
        counts = ("num_train=0", f"num_test={num_pairs}")
        config = load_config(SimulationConfig, simulation, (*own, *counts, *overrides))
        height, width = config.sensor_size
        yield f"{number}_{Path(simulation).stem.removesuffix('_config').removesuffix('_simu')}_{width}x{height}", config


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the second held-out set."""
    parser = argparse.ArgumentParser(prog="python -m data_simu.tools.held_out", description=main.__doc__)
    usual = PROJECT_ROOT / "configs" / "held_out_config.yaml"
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the set")
    parser.add_argument("--config", type=Path, default=usual, help="its kinds (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="processes that simulate (default: one per processor)")
    parser.add_argument("overrides", nargs="*", help="settings of all kinds, such as num_test=1")
    given = parser.parse_args(arguments)
    for name, config in list_sets(load_config(SimulatedDataConfig, given.config), given.overrides):
        manifest = write_dataset(config, given.output_dir / name, workers=given.workers)
        sys.stdout.write(f"{manifest}\n")


if __name__ == "__main__":
    main()
