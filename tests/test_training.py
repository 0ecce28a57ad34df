import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from deflare_core import training
from deflare_core.checkpoint import CheckpointError, find_checkpoint, load_model, read_checkpoint
from deflare_core.config import TrainConfig, make_config
from deflare_core.training import TrainingError, fit, read_log, sample_indices, start_run


@pytest.fixture
def config(pair_folders, tmp_path):
    def make(run="run", **trainer) -> TrainConfig:
        noisy, clean = map(str, pair_folders)
        folders = {"noisy_dir": noisy, "clean_dir": clean}
        trainer = {"output_dir": str(tmp_path / run), "max_steps": 6, "num_workers": 0, "device": "cpu"} | trainer
        settings = {
            "model": {"f_maps": [8, 16], "num_levels": 2},
            "data": folders,
            "validation": folders | {"num_windows": 1},
            "optimizer": {"learning_rate": 0.01},
            "trainer": {"validate_every": 3, "checkpoint_every": 3} | trainer,
        }
        return make_config(TrainConfig, settings)

    return make


def weights(path):
    return load_model(path, "cpu").state_dict()


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


def test_a_resumed_run_continues_to_the_bit(config):
    whole = fit(config("whole", max_steps=9), progress=False)
    fit(config("parts", max_steps=6), progress=False)
    resumed = fit(config("parts", max_steps=9), resume=True, progress=False)
    assert equal(weights(whole), weights(resumed))
    steps = [entry["step"] for entry in read_log(resumed.parent) if "loss" in entry]
    assert steps == list(range(1, 10)), "The log has every step once."


def test_a_killed_run_resumes_to_the_bit(config, tmp_path):
    """The process is killed without warning somewhere between checkpoints, then the run is resumed."""
    whole = fit(config("whole", max_steps=24), progress=False)
    killed = config("killed", max_steps=24)
    (tmp_path / "config.json").write_text(killed.model_dump_json())
    code = (
        "import sys; from deflare_core.training import fit; from deflare_core.config import TrainConfig; "
        "fit(TrainConfig.model_validate_json(open(sys.argv[1]).read()), progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "config.json")])
    while process.poll() is None and not list((tmp_path / "killed").glob("checkpoint_*_iter_000009")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert find_checkpoint(tmp_path / "killed", "last").name < whole.name, "The run was killed before its end."
    assert equal(weights(fit(killed, resume=True, progress=False)), weights(whole))


def test_an_interrupt_saves_and_stops(config, monkeypatch):
    step = training.train_step

    def interrupting(run, batch):
        loss = step(run, batch)
        if run.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(training, "train_step", interrupting)
    last = fit(config(), progress=False)
    assert last.name.endswith("iter_000004")
    monkeypatch.undo()
    assert fit(config(), resume=True, progress=False).name.endswith("iter_000006")


def test_every_epoch_passes_over_every_sample_once(config):
    run = start_run(config(batch_size=4), resume=False)
    epochs = [np.concatenate([sample_indices(run, 4 * e + s) for s in range(4)]) for e in range(2)]
    assert all(sorted(epoch) == list(range(15)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist(), "Each epoch has an order of its own."


def test_a_run_is_not_overwritten(config):
    fit(config(), progress=False)
    with pytest.raises(TrainingError, match="already holds a run; resume it or choose another output_dir"):
        fit(config(), progress=False)


def test_a_loss_that_is_not_finite_stops_with_the_recordings_names(config):
    with pytest.raises(TrainingError, match=r"The loss is (nan|inf) at step \d+ on \['composed_0000\d\[\d\]'\]; lower"):
        fit(
            config(max_steps=40).model_copy(
                update={"optimizer": config().optimizer.model_copy(update={"learning_rate": 1e30})}
            ),
            progress=False,
        )


def test_the_best_checkpoint_is_the_one_with_the_lowest_validation_loss(config):
    run_folder = fit(config(max_steps=12), progress=False).parent
    scores = {p: read_checkpoint(p).metrics["loss"] for p in run_folder.glob("checkpoint_*")}
    assert len(scores) == 4
    assert scores[find_checkpoint(run_folder)] == min(scores.values())
    assert find_checkpoint(run_folder, "last").name.endswith("iter_000012")


def test_damaged_or_foreign_checkpoints_are_refused(config, tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint or run folder; `deflare train`"):
        load_model(tmp_path / "none")
    last = fit(config(), progress=False)
    with pytest.raises(TrainingError, match="is of another network"):
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
