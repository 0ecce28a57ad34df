import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.processes import Started, start_command
from support.waiting import poll
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deflare_core import training
from deflare_core.app.commands import main
from deflare_core.checkpoint import CheckpointError, find_checkpoint, load_model, read_checkpoint, set_level
from deflare_core.config import ModelConfig, TrainConfig
from deflare_core.io.recordings import load_events, open_recording, save_events
from deflare_core.loop.circumstances import hold_folder
from deflare_core.loop.gpu_memory import training_memory_gib
from deflare_core.loop.optimizer import learning_rate
from deflare_core.loop.run import TrainingError, share_batches, start_run
from deflare_core.loop.run_log import RunLogError, read_log
from deflare_core.loop.sampling import Supply, sample_indices
from deflare_core.system.devices import DeviceError
from deflare_core.system.errors import DeflareError
from deflare_core.system.settings import ConfigError, make_config
from deflare_core.training import fit, save_run, train_step, training_batches

EVERYTHING = {
    "model": {"layer_order": "gcrd"},
    "optimizer": {"schedule": "cosine", "warmup_steps": 2, "clip_norm": 0.1},
    "average_decay": 0.9,
    "accumulate_steps": 2,
    "loss": "smooth_l1",
}


@pytest.fixture
def config(pair_folders, tmp_path):
    def make(run="run", model=None, optimizer=None, **trainer) -> TrainConfig:
        noisy, clean = map(str, pair_folders)
        folders = {"noisy_dir": noisy, "clean_dir": clean}
        trainer = {"output_dir": str(tmp_path / run), "max_steps": 6, "num_workers": 0, "device": "cpu"} | trainer
        settings = {
            "model": {"f_maps": [8, 16], "num_levels": 2} | (model or {}),
            "data": folders,
            "validation": folders | {"num_windows": 1},
            "optimizer": {"learning_rate": 0.01} | (optimizer or {}),
            "trainer": {"validate_every": 3, "checkpoint_every": 3} | trainer,
        }
        return make_config(TrainConfig, settings)

    return make


@pytest.fixture
def start(tmp_path):
    """Start `deflare train` in a process of its own."""

    def make(config: TrainConfig) -> Started:
        (tmp_path / "config.yaml").write_text(config.model_dump_json())
        return start_command(["train", "--config", tmp_path / "config.yaml"], tmp_path / "streams")

    return make


def torchrun(config: TrainConfig, folder: Path) -> subprocess.Popen:
    """Start `deflare train` in two processes."""
    (folder / "config.yaml").write_text(config.model_dump_json())
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, "-m", "deflare_core", "train", "--config", str(folder / "config.yaml")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def weights(path):
    return load_model(path, "cpu").state_dict()


def without_seconds(folder):
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in read_log(folder)]


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_trains_validates_and_saves(config):
    last = fit(config(max_steps=30), progress=False)
    log = read_log(last.parent)
    losses = [entry["loss"] for entry in log if "loss" in entry]
    validations = [entry["validation"]["loss"] for entry in log if "validation" in entry]
    assert last.name == "checkpoint_epoch_0002_iter_000030", "15 samples: step 30 ends the second epoch."
    assert len(losses) == 30
    assert len(validations) == 10
    assert validations[-1] < validations[0], "Half of the input's events can be removed; the loss must fall."
    description = json.loads((last / "config.json").read_text())
    assert {"model", "training", "step", "metrics", "versions", "git_revision"} <= description.keys()
    assert not [p for p in last.iterdir() if p.suffix not in (".json", ".safetensors")], "No pickle is written."


def test_the_same_seed_gives_the_same_weights(config):
    first, second, other = (fit(config(run, seed=seed), progress=False) for run, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert equal(weights(first), weights(second))
    assert not equal(weights(first), weights(other))


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("last_step", [6, 7])
def test_a_resumed_run_continues_to_the_bit(config, settings, last_step, monkeypatch):
    """The run is stopped where a validation was due, or between two; a stop does not wait for a validation."""
    whole = fit(config("whole", max_steps=9, **settings), progress=False)
    interrupt_after(last_step, signal.SIGINT, monkeypatch)
    fit(config("parts", max_steps=9, **settings), progress=False)
    monkeypatch.undo()
    resumed = fit(config("parts", max_steps=9, **settings), resume=True, progress=False)
    assert equal(weights(whole), weights(resumed))
    assert equal(load_file(whole / "training.safetensors"), load_file(resumed / "training.safetensors"))
    logs = [without_seconds(path.parent) for path in (whole, resumed)]
    metrics = [[read_checkpoint(p.parent / name).metrics for name in ("best", "last")] for p in (whole, resumed)]
    assert metrics[0] == metrics[1]
    assert logs[0] == logs[1], "The log has every step and every validation once, with the same figures."


def test_a_killed_run_resumes_to_the_bit(config, start, tmp_path):
    """The process is killed without warning somewhere between checkpoints, then the run is resumed."""
    whole = fit(config("whole", max_steps=24, **EVERYTHING), progress=False)
    killed = config("killed", max_steps=24, **EVERYTHING)
    run = start(killed)
    run.wait_for(lambda: list((tmp_path / "killed").glob("checkpoint_*_iter_000009")))
    run.send(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, run.err
    assert find_checkpoint(tmp_path / "killed", "last").name < whole.name, "The run was killed before its end."
    assert equal(weights(fit(killed, resume=True, progress=False)), weights(whole))


def test_a_run_killed_between_a_checkpoint_and_its_links_gets_them_when_resumed(config):
    folder = fit(config(), progress=False).parent
    expected = {}
    for name in ("best", "last"):
        expected[name] = (folder / name).readlink()
        (folder / name).unlink()
    fit(config(), resume=True, progress=False)
    assert {name: (folder / name).readlink() for name in expected} == expected


def interrupt_after(last_step, number, monkeypatch):
    step = training.train_step

    def interrupting(run, batches):
        entry = step(run, batches)
        if run.step == last_step:
            os.kill(os.getpid(), number)
        return entry

    monkeypatch.setattr(training, "train_step", interrupting)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_stops_and_says_how_to_go_on(config, monkeypatch, caplog, number):
    before = signal.getsignal(number)
    interrupt_after(4, number, monkeypatch)
    last = fit(config(), progress=False)
    assert last.name.endswith("iter_000004")
    assert f"{number.name}: stopped after step 4 of 6, saved {last}" in caplog.text
    assert "--resume" in caplog.text
    assert signal.getsignal(number) == before, "The handler that was there is back."
    monkeypatch.undo()
    assert fit(config(), resume=True, progress=False).name.endswith("iter_000006")


def test_a_signal_before_the_first_step_leaves_a_run_to_resume(config, monkeypatch):
    make = training.training_batches
    monkeypatch.setattr(training, "training_batches", lambda run: os.kill(os.getpid(), signal.SIGTERM) or make(run))
    last = fit(config(), progress=False)
    assert last.name.endswith("iter_000000")
    assert not (last.parent / "best").exists(), "Nothing has been validated."
    monkeypatch.undo()
    assert fit(config(), resume=True, progress=False).name.endswith("iter_000006")


def test_the_command_of_a_stopped_run_fails(config, monkeypatch, tmp_path):
    (tmp_path / "train.yaml").write_text(config().model_dump_json())
    command = ["train", "--config", str(tmp_path / "train.yaml"), "--resume"]
    interrupt_after(4, signal.SIGTERM, monkeypatch)
    assert main(command) == 130, "A script that evaluates next must not go on."
    monkeypatch.undo()
    assert main(command) == 0


@pytest.mark.slow
def test_an_interrupt_of_all_processes_lets_the_loading_ones_serve_the_last_step(config, start, tmp_path):
    """Ctrl-C reaches the processes that load data too; the training one must still be able to end its step."""
    run = start(config(max_steps=100_000, num_workers=1))
    run.wait_for(lambda: list((tmp_path / "run").glob("checkpoint_*_iter_000006")))
    run.send_all(signal.SIGINT)
    assert run.wait() == 130, run.err
    last = find_checkpoint(tmp_path / "run", "last")
    assert f"saved {last}" in run.err, "The interrupted run ends with a checkpoint of its last step."


def close(a, b):
    return all(torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-6) for name in a)


def test_two_processes_train_as_one_does(config, tmp_path):
    """Real torchrun: 15 windows, two a step, so that the 8th step has one and leaves the second process without."""
    settings = {"accumulate_steps": 2, "max_steps": 10, "model": {"layer_order": "gcrd"}, "average_decay": 0.9}
    assert torch.get_num_threads() == 1, "As in torchrun's processes: the order of a sum depends on them."
    one = fit(config("one", **settings), progress=False)
    process = torchrun(config("two", **settings), tmp_path)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("checkpoint_epoch_0001_iter_000010") == 1, "Only the first process speaks."
    two = find_checkpoint(tmp_path / "two", "last")
    assert two.name == one.name
    assert sorted(p.name for p in two.parent.iterdir()) == sorted(p.name for p in one.parent.iterdir())
    logs = [without_seconds(folder) for folder in (one.parent, two.parent)]
    assert len(logs[0]) == len(logs[1]) == 14, "Ten steps and four validations, each once."
    for expected, found in zip(*logs, strict=True):
        assert found.get("validation", found) == pytest.approx(expected.get("validation", expected), rel=1e-4)
    assert weights(two).keys() == weights(one).keys(), "No wrapper leaves a prefix."
    assert close(weights(two), weights(one))


@pytest.mark.slow
def test_two_stopped_processes_are_resumed_by_one(config, tmp_path):
    process = torchrun(config("two", max_steps=100_000, accumulate_steps=2, num_workers=1), tmp_path)
    saved = "checkpoint_*_iter_000003"
    poll(lambda: process.poll() is not None or list((tmp_path / "two").glob(saved)), "the first checkpoint")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    last = find_checkpoint(tmp_path / "two", "last")
    assert f"saved {last}" in errors
    step = read_checkpoint(last).step
    assert [e["step"] for e in read_log(tmp_path / "two") if "loss" in e] == list(range(1, step + 1))
    resumed = fit(config("two", max_steps=step + 1, accumulate_steps=2), resume=True, progress=False)
    assert read_checkpoint(resumed).step == step + 1


def test_more_processes_than_batches_are_refused(config):
    assert share_batches(4, config()).trainer.accumulate_steps == 4, "One batch for each, unless said otherwise."
    with pytest.raises(TrainingError, match="of 4 processes 3 would have nothing to do; set it to 4 or a multiple"):
        share_batches(4, config(accumulate_steps=1))


def test_every_epoch_passes_over_every_sample_once(config):
    run = start_run(config(batch_size=4), resume=False)
    steps = [sample_indices(run.config.trainer, run.supply, step) for step in range(8)]
    epochs = [np.concatenate(steps[:4]), np.concatenate(steps[4:])]
    assert all(sorted(epoch) == list(range(15)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist(), "Each epoch has an order of its own."


def test_a_run_is_not_overwritten(config):
    fit(config(), progress=False)
    with pytest.raises(TrainingError, match="already holds a run; resume it or choose another output_dir"):
        fit(config(), progress=False)


def with_rate(config, rate):
    """The configuration with a learning rate that no file of settings may ask for."""
    return config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"learning_rate": rate})})


def test_a_loss_that_is_not_finite_stops_with_the_files_and_windows(config, tmp_path):
    windows = r"[^ ]*/noisy/composed_0000\d_bg_flare\.h5\[\d\]"
    message = rf"The loss is (nan|inf) at step 2 on {windows}, {windows}; nothing was saved since step 0\. Lower"
    with pytest.raises(TrainingError, match=message):
        fit(with_rate(config(batch_size=2), 1e30), progress=False)
    assert not list((tmp_path / "run").glob("checkpoint_*")), "Broken weights are not saved."


def test_a_validation_that_is_not_finite_stops_before_the_checkpoint(config, tmp_path):
    every_step = {"validate_every": 1, "checkpoint_every": 1}
    with pytest.raises(TrainingError, match=r"The validation loss at step 1 is not finite on .*composed_00000_bg_fl"):
        fit(with_rate(config(**every_step), 1e30), progress=False)
    assert not list((tmp_path / "run").glob("checkpoint_*")), "Broken weights are not saved."


def test_two_runs_never_share_a_folder(config, tmp_path):
    with (
        hold_folder(tmp_path / "run", writes=True),
        pytest.raises(DeflareError, match=r"run: another run is training there; wait"),
    ):
        fit(config(), progress=False)
    assert not (tmp_path / "run").exists(), "A folder that was made for nothing goes."


def test_a_resumed_run_says_what_has_changed_besides_its_settings(config, pair_folders, tmp_path, caplog):
    fit(config(max_steps=3), progress=False)
    fit(config(max_steps=4), resume=True, progress=False)
    assert "circumstances" not in caplog.text, "All is as it was."
    noisy, clean = pair_folders
    for folder, name in ((noisy, "composed_00007_bg_flare.h5"), (clean, "composed_00007_bg_light.h5")):
        shutil.copy(min(folder.iterdir()), folder / name)
    changed = max(path for path in noisy.iterdir() if "00007" not in path.name)
    save_events(changed, load_events(changed)[:-1], source="test", clock_us=open_recording(changed).clock_us)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        fit(config(max_steps=5), resume=True, progress=False)
    finally:
        torch.set_num_threads(threads)
    said = (
        rf"{threads + 1} threads, not {threads}; .*of data composed_00007_bg_flare\.h5 is new; of data {changed.name}"
    )
    assert re.search(rf"other circumstances \({said} is changed", caplog.text), caplog.text


def test_weights_or_a_state_that_are_not_finite_are_never_saved(config, tmp_path):
    run = start_run(config(), resume=False)
    run.step = run.saved_step = 3
    save_run(run)
    run.step = 4
    weight = next(iter(run.model.parameters()))
    weight.grad = torch.full_like(weight, 1e25)  # Finite, but not its square, which Adam keeps.
    run.optimizer.step()
    for name, broken in (("optimizer.0.exp_avg_sq", None), ("backbone.final_conv.bias", float("-inf"))):
        if broken:
            run.model.state_dict()[name].fill_(broken)
        message = rf"iter_000004: is not saved, since values of '{name}' are .* Nothing was saved since step 3\. Lower"
        run.saved_step = 3
        with pytest.raises(TrainingError, match=message):
            save_run(run)
    assert [path.name for path in (tmp_path / "run").glob("checkpoint_*")] == ["checkpoint_epoch_0000_iter_000003"]
    assert read_checkpoint(tmp_path / "run" / "last").step == 3


def test_the_best_and_the_last_checkpoint_have_links(config):
    run_folder = fit(config(max_steps=12, checkpoint_every=6, average_decay=0.5), progress=False).parent
    losses = {e["step"]: e["validation"]["loss"] for e in read_log(run_folder) if "validation" in e}
    assert list(losses) == [3, 6, 9, 12]
    best = read_checkpoint(run_folder / "best")
    assert best.step == min(losses, key=losses.get), "The best validation is saved, also between regular checkpoints."
    assert best.metrics["loss"] == min(losses.values())
    assert find_checkpoint(run_folder).samefile(run_folder / "best")
    assert find_checkpoint(run_folder, "last").samefile(run_folder / "last")
    assert read_checkpoint(run_folder / "last").step == 12


def test_steps_of_another_number_of_windows_are_not_resumed(config):
    fit(config(), progress=False)
    with pytest.raises(TrainingError, match="its steps took 1 windows, the configured ones take 4; keep the product"):
        fit(config(batch_size=2, accumulate_steps=2), resume=True, progress=False)


def test_a_resumed_run_may_work_otherwise_and_says_what_it_learns_otherwise(config, caplog):
    fit(config(), progress=False)
    set_level(find_checkpoint(config().trainer.output_dir, "last"), 0.3)
    saving = {"use_checkpoint": True, "precision": "single"}
    fit(config(max_steps=7, model=saving), resume=True, progress=False)
    assert "max_steps: " in caplog.text, "A longer run has another schedule, which is told."
    assert "precision" not in caplog.text, "How it computes is its own affair."
    caplog.clear()
    fit(config(max_steps=7, model=saving), resume=True, progress=False)
    assert not caplog.text, "Nothing changed."


def test_a_run_starts_from_the_weights_of_a_checkpoint_also_of_half_precision(config, tmp_path):
    source = fit(config(), progress=False)
    weights = {name: weight.half() for name, weight in load_file(source / "model.safetensors").items()}
    save_file(weights, source / "model.safetensors")
    tuned = start_run(config(run="tuned", start_from=source, average_decay=0.9), resume=False)
    for model in (tuned.model, tuned.network):
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, weights[name].float()), f"{name} is the checkpoint's."
    assert tuned.step == 0, "It is a run of its own."
    with pytest.raises(TrainingError, match=r"is of another network than configured \(model\.f_maps: .* -> \[8, 8\]\)"):
        start_run(config(run="other", start_from=source, model={"f_maps": [8, 8]}), resume=False)


def test_a_resumed_run_needs_what_it_started_from_no_more(config):
    source = fit(config(), progress=False)
    settings = {"run": "tuned", "start_from": source.parent}
    fit(config(**settings, max_steps=2), progress=False)
    shutil.rmtree(source.parent)
    assert read_checkpoint(fit(config(**settings, max_steps=4), resume=True, progress=False)).step == 4


@pytest.mark.parametrize(
    ("optimizer", "steps", "rates"),
    [
        ({}, [0, 99], [1, 1]),
        ({"warmup_steps": 4}, [0, 1, 3, 4, 99], [0.25, 0.5, 1, 1, 1]),
        ({"schedule": "cosine"}, [0, 25, 50, 75], [1, 0.5 + 0.5**0.5 / 2, 0.5, 0.5 - 0.5**0.5 / 2]),
        ({"schedule": "cosine", "warmup_steps": 20}, [0, 19, 20, 60], [0.05, 1, 1, 0.5]),
        ({"schedule": "step", "milestones": [10, 20], "milestone_factor": 0.1}, [9, 10, 19, 20], [1, 0.1, 0.1, 0.01]),
    ],
)
def test_the_learning_rate_follows_its_schedule(config, optimizer, steps, rates):
    made = config(max_steps=100, optimizer={"learning_rate": 1} | optimizer)
    assert [learning_rate(made.optimizer, step, max_steps=100) for step in steps] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": {"schedule": "step"}}, "the schedule step needs milestones"),
        ({"optimizer": {"milestones": [10]}}, "schedule is constant and milestones are"),
        ({"optimizer": {"warmup_steps": 6}}, "the warm-up must end before the run"),
    ],
)
def test_schedules_that_cannot_be_are_refused(config, settings, message):
    with pytest.raises(ConfigError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("mse", lambda d: d**2),
        ("l1", np.abs),
        ("smooth_l1", lambda d: np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5)),
    ],
)
def test_the_first_loss_is_that_of_the_untouched_input(config, loss, expected):
    run = start_run(config(loss=loss), resume=False)
    sample = run.data[sample_indices(run.config.trainer, run.supply, 0)[0]]
    difference = (sample["raw"] - sample["label"]).numpy()
    entry = train_step(run, training_batches(run))
    assert entry["loss"] == pytest.approx(expected(difference).mean(), rel=1e-5)


def test_accumulated_batches_are_one_large_batch(config):
    large = fit(config("large", batch_size=4), progress=False)
    small = fit(config("small", batch_size=2, accumulate_steps=2), progress=False)
    losses = [[e["loss"] for e in read_log(path.parent) if "loss" in e] for path in (large, small)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4), (
        "Step 4 ends the epoch with three windows, also two and one."
    )
    assert len(losses[0]) == 6


def test_a_long_gradient_is_shortened(config):
    run = start_run(config(optimizer={"clip_norm": 1e-3}), resume=False)
    entry = train_step(run, training_batches(run))
    shortened = torch.sqrt(sum(p.grad.square().sum() for p in run.model.parameters()))
    assert entry["gradient_norm"] > 1e-3, "The log has the length before."
    assert float(shortened) == pytest.approx(1e-3, rel=1e-3)


def test_the_average_of_the_weights_is_what_is_validated_and_saved(config):
    run = start_run(config(average_decay=0.25), resume=False)
    start = {name: value.clone() for name, value in run.model.state_dict().items()}
    train_step(run, training_batches(run))
    for name, value in run.network.state_dict().items():
        mean = start[name] + (run.model.state_dict()[name] - start[name]) * (1 - 2 / 11)
        assert torch.allclose(value, mean, atol=1e-7), "Step 1 keeps min(0.25, 2 / 11) of the average."
    last = fit(config("average", average_decay=0.9), progress=False)
    trained = load_file(last / "training.safetensors")
    assert any(not torch.equal(trained[f"weights.{name}"], value) for name, value in weights(last).items())


def test_the_same_seed_cuts_and_mirrors_the_same_parts(config):
    twice = [fit(config(run, crop_size=[6, 8], mirror=True), progress=False) for run in ("first", "second")]
    assert equal(*map(weights, twice)), "The same seed cuts the same parts."


def test_one_batch_is_overfitted(config):
    run_folder = fit(config(overfit_one_batch=True, max_steps=60, validate_every=60), progress=False).parent
    losses = [entry["loss"] for entry in read_log(run_folder) if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0], "One window can be learned by heart."
    trainer = config(overfit_one_batch=True, batch_size=2).trainer
    assert sample_indices(trainer, Supply(15), step=0) == sample_indices(trainer, Supply(15), step=20), (
        "In a later epoch too."
    )


def test_too_little_memory_is_told_with_the_settings_that_need_less(config, monkeypatch):
    def exhausted(run, network, batch):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(training, "voxel_loss", exhausted)
    with pytest.raises(DeviceError, match="memory does not suffice at step 1") as caught:
        fit(config(batch_size=4), progress=False)
    for setting in (
        "model.use_checkpoint=true",
        "model.f_maps=[8, 8]",
        "trainer.batch_size=1 trainer.accumulate_steps=4",
    ):
        assert setting in str(caught.value)


def test_the_estimate_of_memory_is_the_measured_one():
    full, plain = (480, 640), ModelConfig(precision="single")
    assert training_memory_gib(ModelConfig(), 1, 8, full) == pytest.approx(1.60)
    assert training_memory_gib(ModelConfig(use_checkpoint=True), 2, 8, full) == pytest.approx(2.50)
    assert training_memory_gib(plain, 1, 8, full) == pytest.approx(4.91)
    assert training_memory_gib(ModelConfig(f_maps=(16, 32, 64)), 1, 8, full) == pytest.approx(1.60 / 2)


def test_tensorboard_shows_what_the_log_says(config):
    last = fit(config(max_steps=3, tensorboard=True), progress=False)
    fit(config(max_steps=6, tensorboard=True), resume=True, progress=False)
    board = EventAccumulator(str(last.parent / "tensorboard"))
    board.Reload()
    for name, kind in (("train/loss", "loss"), ("train/learning_rate", "learning_rate")):
        logged = {e["step"]: e[kind] for e in read_log(last.parent) if kind in e}
        assert {s.step: s.value for s in board.Scalars(name)} == pytest.approx(logged)
    assert [scalar.step for scalar in board.Scalars("validation/loss")] == [3, 6]


def test_tensorboard_that_is_not_installed_is_named(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RunLogError, match="the package 'tensorboard' is not installed"):
        fit(config(tensorboard=True), progress=False)


def test_a_half_written_line_of_the_log_is_dropped(config):
    last = fit(config(max_steps=3), progress=False)
    with (last.parent / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    fit(config(max_steps=6), resume=True, progress=False)
    steps = [entry["step"] for entry in read_log(last.parent) if "loss" in entry]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_the_callers_random_numbers_stay_as_they_were(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(config(max_steps=1, model={"layer_order": "gcrd"}), progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_damaged_or_foreign_checkpoints_are_refused(config, tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint or run folder; `deflare train`"):
        load_model(tmp_path / "none")
    last = fit(config(), progress=False)
    with pytest.raises(
        TrainingError, match=r"is of another network than configured \(model\.backbone: \w+ -> UNet3D\)"
    ):
        other = config().model_copy(update={"model": config().model.model_copy(update={"backbone": "UNet3D"})})
        fit(other, resume=True, progress=False)
    description = json.loads((last / "config.json").read_text())
    description["model"]["f_maps"] = [8, 8]
    (last / "config.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="weights are of another network"):
        load_model(last)
    (last / "model.safetensors").write_bytes((last / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        load_model(last)
    (last / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(last)


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip(path):
    """Change one bit of a value, which stays a finite number."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def fill(value):
    """Replace every value of Adam's squares."""

    def write(path):
        state = load_file(path)
        save_file(state | {k: torch.full_like(v, value) for k, v in state.items() if k.endswith("_sq")}, path)

    return write


def shorten(path):
    save_file({name: value.reshape(-1)[:1] for name, value in load_file(path).items()}, path)


def pickled(path):
    torch.save({"optimizer": Path}, path)


@pytest.mark.parametrize("keeps_digest", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_damaged_state_of_training_is_told_in_a_line_whose_remedy_helps(config, keeps_digest, tmp_path, capsys):
    """Checkpoints of before have no digest of their state; one bit of it can go unseen there."""
    damages = {cut: "cannot be read", pickled: "cannot be read", Path.unlink: "no such file"}
    if keeps_digest:
        damages |= dict.fromkeys([flip, fill(-1.0), fill(math.nan), shorten], "holds other bytes than were written")
    else:
        damages |= {fill(math.nan): "values of", shorten: "has the shape"}
    settings = config(max_steps=3, checkpoint_every=2, validate_every=3)
    last = fit(settings, progress=False)
    (tmp_path / "config.yaml").write_text(settings.model_dump_json())
    words, state = ["train", "--config", str(tmp_path / "config.yaml"), "--resume"], last / "training.safetensors"
    if not keeps_digest:
        description = json.loads((last / "config.json").read_text())
        del description["training_digest"]
        (last / "config.json").write_text(json.dumps(description))
    for damage, answer in damages.items():
        sound = state.read_bytes()
        damage(state)
        assert main(words) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert f"{state}: " in line, line
        assert answer in line
        state.write_bytes(sound)
    shutil.rmtree(last)
    assert main(words) == 0, "What the line says helps."


def test_pairs_that_do_not_fit_the_gpu_are_told_in_words(tmp_path, monkeypatch):
    def too_many(*arguments, **settings):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("data_simu.pool.simulate_windows", too_many)
    further = [{"overrides": ["seed=7"], "num_pairs": 5}]
    data = {"simulation": "configs/simu_config.yaml", "num_pairs": 20, "further": further}
    model = {"f_maps": (8, 16), "num_levels": 2}
    trainer = {"output_dir": tmp_path / "run", "device": "cpu"}
    config = make_config(TrainConfig, {"model": model, "data": data, "validation": data, "trainer": trainer})
    with pytest.raises(
        DeviceError, match=r"25 simulated pairs of configs/simu_config.yaml \(CUDA out.*Lower num_pairs"
    ):
        fit(config, progress=False)
