"""Endless simulated pairs: order, repeatability, agreement with the files, errors, and an end when nobody looks."""

import atexit
import functools
import itertools
import multiprocessing
import os
import signal
import threading
from contextlib import closing

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data_simu import SimulationConfig, simulate
from data_simu.config import OpticsConfig
from data_simu.pairs import derive_seed
from data_simu.pool import SimulatedWindows, pack_pairs
from data_simu.stream import SimulatedPairs, leave_at_once
from deflare_core.checkpoint import find_checkpoint, read_checkpoint
from deflare_core.codec import events_to_voxel
from deflare_core.config import SimulatedDataConfig, TrainConfig, TrainerConfig
from deflare_core.loop.sampling import Supply, list_pool, sample_indices
from deflare_core.system.prefetch import prefetch_from_process
from deflare_core.system.settings import ConfigError, make_config
from deflare_core.training import fit

SMALL = SimulationConfig(sensor_size=(24, 32), duration_us=50_000, warmup_us=5_000)
PERFECT = OpticsConfig(scatter_strength=0.0, ghost_strength=0.0)


def test_windows_are_those_of_the_training_set_in_order():
    found = list(itertools.islice(SimulatedPairs(SMALL, "cpu", workers=0), 5))
    for k, sample in enumerate(found):
        pair = simulate(SMALL, derive_seed(SMALL.seed, "train", k // 2))
        start_us = 20_000 * (k % 2)
        for name, events in (("raw", pair.flare), ("label", pair.clean)):
            window = events.window(start_us, start_us + 20_000)
            expected = events_to_voxel(window, sensor_size=(24, 32), t0_us=start_us)
            assert np.array_equal(sample[name][0].numpy(), expected), f"Window {k}: {name} differs."


@pytest.mark.slow
def test_pairs_begin_where_asked_and_come_from_processes_alike():
    alone = next(itertools.islice(SimulatedPairs(SMALL, "cpu", workers=0), 2, None))
    shared = next(iter(SimulatedPairs(SMALL, "cpu", workers=1, first=1)))
    assert torch.equal(alone["raw"], shared["raw"])


def test_the_thread_ends_with_the_iteration():
    before = set(threading.enumerate())
    windows = iter(SimulatedPairs(SMALL, "cpu", workers=0))
    next(windows)
    windows.close()
    assert set(threading.enumerate()) <= before, "No thread is left behind."


def abort_in_the_end(leaves_at_once: bool) -> None:
    if leaves_at_once:
        leave_at_once(0)
    atexit.register(os.abort)


def fail_at_work() -> None:
    leave_at_once(0)
    raise ValueError("no scene today")


def ended(target, *arguments) -> int:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_a_worker_ends_before_libraries_can_abort_it(capfd):
    assert ended(abort_in_the_end, False) == -signal.SIGABRT
    assert ended(abort_in_the_end, True) == 0
    assert ended(fail_at_work) == 1
    assert "no scene today" in capfd.readouterr().err, "One that failed says why."


@pytest.mark.slow
def test_processes_that_prepare_pairs_end_with_the_iteration():
    windows = iter(SimulatedPairs(SMALL, "cpu", workers=1))
    next(windows)
    windows.close()
    assert not multiprocessing.active_children()


def test_an_error_reaches_the_one_who_iterates(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no scene today")

    monkeypatch.setattr("data_simu.stream.simulate", fail)
    with pytest.raises(RuntimeError, match="no scene today"):
        next(iter(SimulatedPairs(SMALL, "cpu", workers=0)))


def test_pairs_of_other_kinds_follow(tmp_path):
    simulation, perfect = tmp_path / "small_simu_config.yaml", tmp_path / "perfect_simu_config.yaml"
    simulation.write_text("sensor_size: [24, 32]\nduration_us: 60000\nwarmup_us: 5000\n")
    perfect.write_text("warmup_us: 5000\noptics: {scatter_strength: 0.0, ghost_strength: 0.0}\n")
    same = ["sensor_size=[24,32]", "duration_us=50000"]
    further = [{"simulation": perfect, "overrides": ["seed=7"], "num_pairs": 2}]
    data = {"simulation": simulation, "overrides": same, "num_pairs": 1, "workers": 0, "further": further}
    windows = SimulatedWindows(make_config(SimulatedDataConfig, data), torch.device("cpu"), progress=False)
    other = simulate(SMALL.model_copy(update={"seed": 7, "optics": PERFECT}), derive_seed(7, "train", 1))
    expected = events_to_voxel(other.flare.window(20_000, 40_000), sensor_size=(24, 32), t0_us=20_000)
    assert len(windows) == 6, "Two windows of each of three pairs."
    assert np.array_equal(windows[5]["raw"][0].numpy(), expected), "The last window is of the last pair that follows."
    settings = "sensor_size=[24,32], duration_us=50000"
    assert windows.window_name(1) == f"{simulation} with {settings}, train pair 0[1]"
    assert windows.window_name(5) == f"{perfect} with {settings}, seed=7, train pair 1[1]"


def test_pairs_of_another_length_do_not_follow(tmp_path):
    simulation = tmp_path / "small_simu_config.yaml"
    simulation.write_text("sensor_size: [24, 32]\nduration_us: 50000\n")
    further = [{"overrides": ["duration_us=40000"], "num_pairs": 2}]
    data = make_config(SimulatedDataConfig, {"simulation": simulation, "further": further})
    with pytest.raises(
        ConfigError, match=r"Pairs of .*simu_config.yaml with duration_us=40000 are 40000 us long; the first .* 50000"
    ):
        SimulatedWindows(data, torch.device("cpu"))


def test_a_run_trains_on_pairs_that_it_simulates(tmp_path):
    simulation = tmp_path / "small_simu_config.yaml"
    simulation.write_text("sensor_size: [24, 32]\nduration_us: 50000\nwarmup_us: 5000\n")
    data = {"simulation": simulation, "num_pairs": 2, "workers": 0}
    windows = SimulatedWindows(make_config(SimulatedDataConfig, data), torch.device("cpu"), progress=False)
    endless = itertools.islice(SimulatedPairs(SMALL, "cpu", workers=0), 4)
    for kept, fresh in zip((windows[i] for i in range(4)), endless, strict=True):
        assert all(torch.equal(kept[name], fresh[name]) for name in fresh), "They are the first endless ones."
    assert {kept.counts.dtype for kept in windows._pairs[0]} == {torch.int8}, "Small counts are kept in 8 bits."
    subset = SimulatedWindows(
        make_config(SimulatedDataConfig, data | {"overrides": ["target=subset"]}), torch.device("cpu"), progress=False
    )
    assert torch.equal(subset[0]["raw"], windows[0]["raw"])
    assert not torch.equal(subset[0]["label"], windows[0]["label"]), "Settings of the simulation can be replaced."
    assert windows.window_name(3).endswith("train pair 1[1]")
    seen, silence = windows.with_context(1), torch.zeros_like(windows[0]["raw"])
    beside = [(windows[1]["raw"], windows[0]["raw"], silence), (windows[2]["raw"], silence, windows[3]["raw"])]
    for k, expected in zip((1, 2), beside, strict=True):
        assert torch.equal(seen[k]["raw"], torch.cat(expected)), "Windows of another pair are no neighbours."
        assert torch.equal(seen[k]["label"], windows[k]["label"])
    settings = {
        "model": {"f_maps": (8, 16), "num_levels": 2},
        "data": data,
        "validation": data | {"split": "test", "num_pairs": 1},
        "trainer": {"output_dir": tmp_path / "run", "max_steps": 2, "device": "cpu"},
    }
    last = fit(make_config(TrainConfig, settings), progress=False)
    assert read_checkpoint(last).step == 2


def renewed(tmp_path, **more):
    simulation = tmp_path / "small_simu_config.yaml"
    simulation.write_text("sensor_size: [24, 32]\nduration_us: 50000\nwarmup_us: 5000\n")
    further = [{"overrides": ["sensor_size=[16,24]", "seed=7"], "num_pairs": 1}]
    data = {"simulation": simulation, "num_pairs": 2, "further": further, "workers": 0, "fresh_share": 0.5}
    config = make_config(SimulatedDataConfig, data | more)
    return SimulatedWindows(config, torch.device("cpu"), progress=False)


def test_new_pairs_replace_the_oldest_of_a_renewed_pool(tmp_path):
    windows, later = renewed(tmp_path), renewed(tmp_path)
    found = [windows[k] for k in range(10)]
    assert len(windows) == 6, "A pool holds two windows of each of three pairs."
    assert sorted(windows._pairs) == [1, 2, 3, 4], "The oldest pair was dropped."
    shapes = [tuple(sample["raw"].shape[-2:]) for sample in found]
    assert shapes[:4] == shapes[6:], "New pairs come in the order of the first ones."
    assert sorted(set(shapes[:6])) == [(16, 24), (24, 32)]
    assert not any(torch.equal(found[k]["raw"], found[k + 6]["raw"]) for k in range(4)), "They are new ones."
    assert torch.equal(later[8]["raw"], found[8]["raw"]), "A resumed run begins with the same pairs."


def test_the_windows_of_a_renewed_pool_are_there_in_any_order(tmp_path):
    windows = renewed(tmp_path)
    for end in range(6, 11):
        for k in reversed(list_pool(TrainerConfig(batch_size=2), Supply(6, fresh_share=0.5), end - 1)):
            assert windows[k], f"Window {k} of a pool that ends with {end} is gone."


@pytest.mark.slow
def test_a_process_makes_the_same_pairs():
    pairs = SimulatedPairs(SMALL, "cpu", workers=0)
    with closing(prefetch_from_process(functools.partial(pack_pairs, pairs), 2)) as made:
        found = [counts for _ in range(2) for counts in next(made)]
    for counts, sample in zip(found, pairs, strict=False):
        assert torch.equal(counts.to_voxels(), torch.stack([sample["raw"], sample["label"]]))


def test_a_step_of_a_renewed_pool_is_of_one_sensor(tmp_path):
    supply = Supply(6, renewed(tmp_path).find_sizes(), 0.5)
    trainer = TrainerConfig(batch_size=2)
    assert list(list_pool(trainer, supply, 0)) == [0], "An eighth of the pool, rounded up, is there at first."
    assert list(list_pool(trainer, supply, 3)) == [0, 1, 2, 3], "A half of two windows is new with each step."
    assert list(list_pool(trainer, supply, 20)) == list(range(15, 21)), "The pool is full, and its oldest leave."
    seen = set()
    for step in range(6, 200):
        drawn = sample_indices(trainer, supply, step)
        assert drawn == sample_indices(trainer, supply, step), "A step alone decides."
        assert len({supply.sizes[k % 6] for k in drawn}) == 1
        assert set(drawn) <= set(list_pool(trainer, supply, step))
        seen |= set(drawn)
    assert len(seen) > 150, f"Nearly all windows are seen; {len(seen)} of about 200 were."


def test_a_pool_that_stays_is_of_one_sensor(tmp_path):
    with pytest.raises(ConfigError, match=r"different sensors, .*; set sensor_size in data.overrides"):
        renewed(tmp_path, fresh_share=0.0).find_sizes()


def test_a_run_trains_on_a_pool_that_is_renewed(tmp_path):
    simulation = tmp_path / "small_simu_config.yaml"
    simulation.write_text("sensor_size: [24, 32]\nduration_us: 20000\nwarmup_us: 1000\n")
    data = {"simulation": simulation, "num_pairs": 2, "workers": 0}
    config = {
        "model": {"f_maps": [8, 16], "num_levels": 2},
        "data": data | {"fresh_share": 0.5},
        "validation": data | {"split": "test", "num_pairs": 1},
        "trainer": {"output_dir": tmp_path / "whole", "max_steps": 6, "checkpoint_every": 3, "device": "cpu"},
    }
    whole = read_weights(fit(make_config(TrainConfig, config), progress=False))
    config["trainer"] |= {"output_dir": tmp_path / "parts", "max_steps": 3}
    fit(make_config(TrainConfig, config), progress=False)
    config["trainer"]["max_steps"] = 6
    parts = read_weights(fit(make_config(TrainConfig, config), resume=True, progress=False))
    assert all(torch.equal(whole[name], parts[name]) for name in whole), "A resumed run has the same weights."


def read_weights(checkpoint):
    return load_file(find_checkpoint(checkpoint) / "model.safetensors")
