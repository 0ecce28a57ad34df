"""The GPU's simulation against the CPU's: run by numba's simulator of a GPU, so on any machine, if slowly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gpu_agreement
import numpy as np
import pytest

from data_simu import SimulationConfig, simulate
from data_simu.gpu import prepare


def test_the_gpu_makes_the_events_that_the_cpu_makes(tmp_path):
    for seed in gpu_agreement.SEEDS:
        pair = simulate(gpu_agreement.SMALL, seed)
        np.savez(
            tmp_path / f"{seed}.npz",
            flare=pair.flare.to_array(),
            clean=pair.clean.to_array(),
            labels=np.bincount(pair.flare_label, minlength=4),
        )
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, gpu_agreement.__file__, "cpu", str(tmp_path)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        for name in ("flare", "clean"):
            assert found[name]["cpu"] > 20
            assert found[name]["gpu"] == pytest.approx(found[name]["cpu"], rel=0.03, abs=5), f"{name}: {found[name]}"
            assert found[name]["same"] > 0.6, f"{name}: only {found[name]['same']:.0%} of the events are in both."
        assert np.abs(np.subtract(*found["labels"])).max() <= max(5, 0.03 * sum(found["labels"][0]))


def test_more_groups_of_lamps_than_a_thread_has_room_for_are_refused():
    config = SimulationConfig(sensor_size=(16, 24))
    crowded = config.sources.model_copy(update={"num_sources": (9, 9)})
    with pytest.raises(ValueError, match="num_sources: 9 groups"):
        prepare(config.model_copy(update={"sources": crowded}), 0)
