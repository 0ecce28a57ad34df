"""Endless simulated pairs: order, repeatability, agreement with the files, errors, and an end when nobody looks."""

import itertools
import threading

import numpy as np
import pytest
import torch

from data_simu import SimulationConfig, simulate
from data_simu.pairs import pair_seed
from deflare_core.codec import events_to_voxel
from deflare_core.simulated import SimulatedPairs

SMALL = SimulationConfig(sensor_size=(24, 32), duration_us=50_000, warmup_us=5_000)


def test_windows_are_those_of_the_training_set_in_order():
    found = list(itertools.islice(SimulatedPairs(SMALL, "cpu", workers=0), 5))
    for k, sample in enumerate(found):
        pair = simulate(SMALL, pair_seed(SMALL.seed, "train", k // 2))
        start_us = 20_000 * (k % 2)
        for name, events in (("raw", pair.flare), ("label", pair.clean)):
            window = events.window(start_us, start_us + 20_000)
            expected = events_to_voxel(window, sensor_size=(24, 32), t0_us=start_us)
            assert np.array_equal(sample[name][0].numpy(), expected), f"Window {k}: {name} differs."


def test_pairs_begin_where_asked_and_come_from_processes_alike():
    alone = next(itertools.islice(SimulatedPairs(SMALL, "cpu", workers=0), 2, None))
    shared = next(iter(SimulatedPairs(SMALL, "cpu", workers=1, first=1)))
    assert torch.equal(alone["raw"], shared["raw"])


def test_the_thread_ends_with_the_iteration():
    before = threading.active_count()
    windows = iter(SimulatedPairs(SMALL, "cpu", workers=0))
    next(windows)
    windows.close()
    assert threading.active_count() == before


def test_an_error_reaches_the_one_who_iterates(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no scene today")

    monkeypatch.setattr("deflare_core.simulated.simulate", fail)
    with pytest.raises(RuntimeError, match="no scene today"):
        next(iter(SimulatedPairs(SMALL, "cpu", workers=0)))
