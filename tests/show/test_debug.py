"""Debug mode: the folders of the record, the residual that the network really added, and a run left untouched."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoints import save_small_checkpoint

from deflare_core.app.commands import main
from deflare_core.config import ModelConfig, TrainConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.method import BaselineMethod
from deflare_core.loop.run import TrainingError
from deflare_core.model import build_model
from deflare_core.show import debug
from deflare_core.show.debug import (
    debug_training,
    note_residuals,
    show_network_window,
    summarise_window,
    write_debug_windows,
)
from deflare_core.system.settings import make_config
from deflare_core.training import fit

FOLDERS = [
    "1_input_events", "3_input_voxel", "4_target_events", "6_target_voxel", "7_output_events", "8_residual_events",
    "8_residual_voxel", "9_output_voxel",
]  # fmt: skip
WITHOUT_RESIDUAL = [name for name in FOLDERS if "residual" not in name]
SMALL = {"f_maps": [8, 16], "num_levels": 2}


@pytest.fixture
def config(pair_folders, tmp_path):
    def make(max_steps=6, **model) -> TrainConfig:
        folders = dict(zip(("noisy_dir", "clean_dir"), map(str, pair_folders), strict=True))
        trainer = {"output_dir": str(tmp_path / "run"), "max_steps": max_steps, "num_workers": 0, "device": "cpu"}
        settings = {"model": SMALL | model, "data": folders, "validation": folders | {"num_windows": 1}}
        return make_config(TrainConfig, settings | {"optimizer": {"learning_rate": 0.05}, "trainer": trainer})

    return make


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def stirred(seed=0):
    """A true residual network that changes its input."""
    model = build_model(ModelConfig(**SMALL), seed)
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.backbone.final_conv.weight, std=0.1)
    return model


def test_training_in_debug_mode_pictures_two_steps_and_leaves_no_run(config, tmp_path):
    first, second = debug_training(config(), tmp_path / "debug")
    assert (first.name, second.name) == ("epoch_000_iter_000", "epoch_000_iter_001")
    assert not (tmp_path / "run").exists(), "The run itself is not started."
    for folder in (first, second):
        assert names_in(folder) == FOLDERS
        for name in FOLDERS:
            pictures = ["events_2d.png", "events_3d.png"] if name.endswith("events") else ["voxel_bins.png"]
            assert sorted(path.name for path in (folder / name).iterdir()) == pictures
            assert np.asarray(Image.open(folder / name / pictures[0])).std() > 1, f"{name} is not blank."
    before, after = ((folder / "debug_summary.txt").read_text() for folder in (first, second))
    assert "residual voxel: mean +0.00000, standard deviation 0.00000" in before, "It starts as the identity."
    assert "output = input + residual is True, largest difference 0" in before
    assert "standard deviation 0.00000" not in after, "One step has changed the network."
    assert "output = input + residual is True" in after


def test_a_plain_network_has_no_residual_to_show(config, tmp_path):
    first, *_ = debug_training(config(name="ResidualUNet3D", max_steps=1), tmp_path / "debug")
    assert names_in(first) == WITHOUT_RESIDUAL
    assert "identity check" not in (first / "debug_summary.txt").read_text()


@pytest.mark.slow
def test_debug_mode_goes_on_from_a_run_and_does_not_change_it(config, tmp_path):
    fit(config(max_steps=3), progress=False)
    log = (tmp_path / "run/metrics.jsonl").read_text()
    with pytest.raises(TrainingError, match="already holds a run"):
        debug_training(config(), tmp_path / "debug")
    with pytest.raises(TrainingError, match=r"has taken all its steps; raise trainer\.max_steps"):
        debug_training(config(max_steps=3), tmp_path / "debug", resume=True)
    folders = debug_training(config(), tmp_path / "debug", resume=True)
    assert [folder.name for folder in folders] == ["epoch_000_iter_003", "epoch_000_iter_004"]
    assert (tmp_path / "run/metrics.jsonl").read_text() == log
    assert len(list((tmp_path / "run").glob("checkpoint_epoch_*"))) == 1


def test_the_residual_shown_is_the_one_that_was_added(pair_folders):
    data, model = EventVoxelDataset(*pair_folders), stirred()
    clean, seen = next(data.windows(data.pairs[0])).clean, next(data.read_input(data.pairs[0]))
    shown = show_network_window(model, "a window", [seen], clean, data.cut)
    assert np.abs(shown.voxels["residual"]).max() > 0.1
    assert np.array_equal(shown.voxels["input"] + shown.voxels["residual"], shown.voxels["output"])
    shown.voxels["output"][0, 0, 0] += 1
    assert "output = input + residual is False, largest difference 1" in summarise_window(shown), "The check can fail."


def test_noting_residuals_leaves_the_network_as_it_was():
    model, voxel = stirred(), torch.ones(1, 1, 8, 12, 16)
    with note_residuals(model) as noted:
        output = model(voxel)
    assert torch.equal(output, voxel + noted[0])
    model(voxel)
    assert len(noted) == 1, "Nothing is noted any longer."
    assert "residual" not in vars(model)


@pytest.mark.parametrize("polarity", ["signed", "split"])
def test_polarities_of_their_own_are_shown_as_one_signed_voxel(pair_folders, polarity):
    data = EventVoxelDataset(*pair_folders)
    clean, seen = next(data.windows(data.pairs[0])).clean, next(data.read_input(data.pairs[0]))
    model = build_model(ModelConfig(**SMALL, polarity=polarity), 0)
    shown = show_network_window(model, "a window", [seen], clean, data.cut)
    assert {voxel.shape for voxel in shown.voxels.values()} == {(8, 12, 16)}
    assert shown.voxels["output"].sum() == seen.events.p.sum(dtype=int), "Untrained it is the identity."


@pytest.mark.slow
def test_evaluation_in_debug_mode_covers_every_file(pair_folders, tmp_path, capsys):
    save_small_checkpoint(tmp_path, stirred())
    (tmp_path / "test.yaml").write_text(
        f"checkpoint: {tmp_path / 'run'}\noutput_dir: {tmp_path / 'out'}\ndevice: cpu\n"
        f"data: {{noisy_dir: {pair_folders[0]}, clean_dir: {pair_folders[1]}}}\n"
    )
    pictures = tmp_path / "debug"
    assert main(["evaluate", "--config", str(tmp_path / "test.yaml"), "--debug", "--debug-dir", str(pictures)]) == 0
    assert "Pictures of 3 windows" in capsys.readouterr().out
    assert names_in(pictures) == [f"composed_{k:05d}_window_0" for k in range(3)]
    for folder in pictures.iterdir():
        assert names_in(folder) == FOLDERS
        assert "output = input + residual is True" in (folder / "debug_summary.txt").read_text()


def test_every_fifth_window_of_longer_recordings_is_shown(pair_folders, tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(debug, "write_debug_window", lambda folder, window: shown.update({folder.name: window}))
    data = EventVoxelDataset(*pair_folders, segment_duration_us=14_000)
    folders = write_debug_windows(
        data, BaselineMethod("baf"), None, tmp_path / "debug", {pair.name for pair in data.pairs}
    )
    assert [int(re.search(r"\d+$", folder.name)[0]) for folder in folders] == [0, 5] * 3
    assert list(shown) == [folder.name for folder in folders]
    assert list(shown["composed_00000_window_0"].voxels) == ["input", "target", "output"], "A filter adds no residual."


def test_windows_that_were_simulated_in_memory_are_shown_too(config, tmp_path):
    (tmp_path / "simu.yaml").write_text("sensor_size: [24, 32]\nduration_us: 40000\n")
    simulated = {"simulation": str(tmp_path / "simu.yaml"), "num_pairs": 1, "workers": 0}
    settings = config(max_steps=1).model_dump(mode="json") | {"data": simulated}
    (folder,) = debug_training(make_config(TrainConfig, settings), tmp_path / "debug")
    assert names_in(folder) == FOLDERS
    assert "train pair 0[" in (folder / "debug_summary.txt").read_text()
