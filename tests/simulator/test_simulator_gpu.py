"""The GPU's simulation against the CPU's: run by numba's simulator of a GPU, so on any machine, if slowly."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support import gpu_agreement
from support.recordings import make_events

from data_simu import SimulationConfig, simulate
from data_simu.gpu.simulation import prepare
from deflare_core.io.recordings import save_events

ALL, FIRST = range(len(gpu_agreement.CASES)), gpu_agreement.FIRST


@pytest.mark.parametrize("numbers", [ALL[:FIRST], pytest.param(ALL[FIRST:], marks=pytest.mark.slow)])
def test_the_gpu_makes_the_events_that_the_cpu_makes(tmp_path, numbers):
    background = make_events(0, 400, sensor_size=(20, 30), duration_us=20_000)
    save_events(tmp_path / "background.h5", background, source="test", clock_us=(0, 20_000))
    for number in numbers:
        config, seed = gpu_agreement.CASES[number]
        config = gpu_agreement.place(config, tmp_path)
        pair = simulate(config, seed)
        np.savez(
            tmp_path / f"{number}.npz",
            flare=pair.flare.to_array(),
            clean=pair.clean.to_array(),
            labels=np.bincount(pair.flare_label, minlength=4),
        )
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, gpu_agreement.__file__, "cpu", str(tmp_path), *map(str, numbers)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in ("flare", "clean"):
        cpu, gpu = (sum(pair[name][side] for pair in found) for side in ("cpu", "gpu"))
        assert cpu > 200
        assert gpu == pytest.approx(cpu, rel=0.03), f"{name}: {gpu} events on the GPU, {cpu} on the CPU."
        for pair in found:
            assert pair[name]["same"] > 0.7, f"{name}: only {pair[name]['same']:.0%} of the events are in both."
    labels = np.sum([pair["labels"] for pair in found], axis=0)
    assert np.abs(labels[0] - labels[1]).max() < 0.03 * labels[0].sum(), f"Labels {labels.tolist()} differ."


def test_more_groups_of_lamps_than_a_thread_has_room_for_are_refused():
    config = SimulationConfig(sensor_size=(16, 24))
    crowded = config.sources.model_copy(update={"num_sources": (9, 9)})
    with pytest.raises(ValueError, match="num_sources: 9 groups"):
        prepare(config.model_copy(update={"sources": crowded}), 0)
