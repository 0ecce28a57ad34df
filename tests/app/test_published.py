"""Published weights and data, made here in the layout in which they are released."""

import os
import tarfile
import zipfile
from argparse import Namespace
from itertools import cycle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from pytorch3dunet.unet3d.model import ResidualUNet3D
from safetensors.torch import save_file
from torch import nn

from deflare_core.app.import_weights import import_checkpoint
from deflare_core.app.weight_files import read_weights
from deflare_core.checkpoint import CheckpointError, load_model, read_checkpoint
from deflare_core.config import TestConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.model import count_parameters
from deflare_core.scores.evaluation import evaluate
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.settings import load_config

UNIX_US = 1_700_000_000_000_000


class PublishedNetwork(nn.Module):
    """The published rule on its own: the input plus what the backbone makes of it."""

    def __init__(self, f_maps):
        super().__init__()
        torch.manual_seed(5)
        self.backbone = ResidualUNet3D(1, 1, f_maps=f_maps, num_levels=len(f_maps), is_segmentation=False)

    def forward(self, voxel):
        return voxel + self.backbone(voxel)


def save_published(path, network, prefix="", **entries):
    """Save the network as training code does: weights, state of the optimizer after one step, and progress."""
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 1, 8, 8, 8)).square().mean().backward()
    optimizer.step()
    weights = {prefix + name: value for name, value in network.state_dict().items()}
    progress = {"epoch": 39, "iteration": 40_000, "optimizer_state_dict": optimizer.state_dict()}
    torch.save({"model_state_dict": weights, **progress, **entries}, path)


def edited(path, network, edit):
    """Save the network's weights after `edit` has changed their dictionary."""
    weights = dict(network.state_dict())
    edit(weights)
    torch.save({"model_state_dict": weights}, path)
    return path


def save_columns(path, t, x, p):
    """A recording in the published layout: four columns, no attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in {
            "t": np.array(t, np.int64),
            "x": np.array(x, np.uint16),
            "p": np.array(p, np.int8),
        }.items():
            file[f"events/{name}"] = values
        file["events/y"] = np.zeros(len(t), np.uint16)


def save_published_set(noisy_dir, clean_dir, ids=(470, 471), start_us=0):
    """Pairs whose input has one event more than the target: the first, one millisecond after the start."""
    for number in ids:
        times = np.array([1_000, 30_000, 30_000, 99_000]) + start_us
        save_columns(noisy_dir / f"composed_{number:05d}_bg_flare.h5", times, [0, 1, 2, 3], [1, 1, -1, 1])
        save_columns(clean_dir / f"composed_{number:05d}_bg_light.h5", times[1:], [1, 2, 3], [1, 0, 1])


@pytest.mark.parametrize("f_maps", [[8, 16], [4, 8, 16], [8, 16, 24, 32]])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_imported_weights_compute_what_they_computed(tmp_path, f_maps, prefix):
    network = PublishedNetwork(f_maps)
    save_published(tmp_path / "checkpoint.pth", network, prefix, best_loss=np.float64(0.127), note="a text")
    folder = import_checkpoint(tmp_path / "checkpoint.pth", tmp_path / "run")
    voxel = torch.from_numpy(np.random.default_rng(0).integers(-3, 4, (2, 1, 8, 16, 24))).float()
    with torch.no_grad():
        for path in (folder, tmp_path / "run"):
            model = load_model(path, "cpu")
            model.config = model.config.model_copy(update={"precision": "single"})  # As torch has it on any processor.
            assert torch.equal(model(voxel), network.eval()(voxel)), "Not the same to the last bit."
    assert list(read_checkpoint(folder).model.f_maps) == f_maps
    assert read_checkpoint(folder).training["imported_from"] == "checkpoint.pth"


def in_wrappers(*prefixes):
    """The weights, each with the next of these before its name."""
    return lambda weights: {p + name: v for (name, v), p in zip(weights.items(), cycle(prefixes), strict=False)}


LIGHTNING = {"epoch": 3, "pytorch-lightning_version": "2.0", "hyper_parameters": {"lr": 1e-3}}


@pytest.mark.parametrize(
    "of_weights",
    [
        lambda w: {"model_state_dict": in_wrappers("_orig_mod.")(w)},
        lambda w: {"model_state_dict": in_wrappers("module._orig_mod.")(w)},
        lambda w: {"model_state_dict": in_wrappers("_orig_mod.module.")(w)},
        lambda w: {"model_state_dict": in_wrappers("module.", "")(w)},
        lambda w: {"model_state_dict": {k.replace("backbone.", "backbone._orig_mod."): v for k, v in w.items()}},
        lambda w: {"state_dict": in_wrappers("model.")(w), **LIGHTNING},
        lambda w: {"state_dict": in_wrappers("model._orig_mod.")(w), **LIGHTNING},
        lambda w: {"state_dict": in_wrappers("net.")(w), "model": {"f_maps": [8, 16]}},
        lambda w: w,
        lambda w: {"model": w, "optimizer": {"state": {}}},
        lambda w: {"network": {"state_dict": w}},
        lambda w: {"model_state_dict": {k: nn.Parameter(v) for k, v in w.items()}},
        lambda w: {"model_state_dict": {k: v.double() for k, v in w.items()}},
        lambda w: {"model_state_dict": w, "args": Namespace(lr=1, out=Path("x"))},
        lambda w: {"model_state_dict": w, "epoch": np.int32(3), "numpy": np.random.RandomState(0).get_state()},
        lambda w: {k.removeprefix("backbone."): v for k, v in w.items()},
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_weights_are_found_by_whatever_name_they_have(tmp_path, of_weights, is_zip):
    network = PublishedNetwork([8, 16])
    content = of_weights(network.state_dict())
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    found = load_model(import_checkpoint(tmp_path / "a.pth", tmp_path / "run"), "cpu").state_dict()
    assert all(torch.equal(value, found[name]) for name, value in network.state_dict().items())


def test_safetensors_are_read(tmp_path):
    network = PublishedNetwork([8, 16])
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    found = load_model(import_checkpoint(tmp_path / "a.safetensors", tmp_path / "run"), "cpu").state_dict()
    assert all(torch.equal(value, found[name]) for name, value in network.state_dict().items())


def test_a_backbone_alone_is_told(tmp_path, caplog):
    torch.save(PublishedNetwork([8, 16]).backbone.state_dict(), tmp_path / "a.pth")
    import_checkpoint(tmp_path / "a.pth", tmp_path / "run")
    assert "taken for one whose output is added to its input" in caplog.text


def test_a_checkpoint_that_is_there_is_left_as_it_is(tmp_path):
    torch.save(PublishedNetwork([8, 16]).state_dict(), tmp_path / "a.pth")
    folder = import_checkpoint(tmp_path / "a.pth", tmp_path / "run")
    (folder / "notes.txt").write_text("mine")
    for place in (tmp_path / "run", folder):
        with pytest.raises(CheckpointError, match="holds a checkpoint already; name another folder"):
            import_checkpoint(tmp_path / "a.pth", place)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(CheckpointError, match=r"a\.pth: is a file; .*deflare import-weights FILE FOLDER"):
        load_model(tmp_path / "a.pth", "cpu")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    network, name = PublishedNetwork([8, 16]).double(), "backbone.encoders.1.basic_module.conv1.bias"
    path = edited(tmp_path / "a.pth", network, lambda weights: weights[name].__setitem__(3, value))
    with pytest.raises(CheckpointError, match=f"a.pth: 1 of 16 values of '{name}' are nan or infinite"):
        import_checkpoint(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_formats_are_called_by_their_names(tmp_path):
    path = tmp_path / "a.pth"
    with tarfile.open(path, "w") as file:
        file.add(__file__)
    with pytest.raises(CheckpointError, match=r"torch's first format, a tar archive, .* save the network's state_dict"):
        import_checkpoint(path, tmp_path / "run")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/constants.pkl", "")
    with pytest.raises(CheckpointError, match="a TorchScript program, which is never run"):
        import_checkpoint(path, tmp_path / "run")
    save_file({"a.b": torch.ones(3)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"cannot be read .*download it again"):
        import_checkpoint(path, tmp_path / "run")
    weights = PublishedNetwork([8, 16]).state_dict()
    torch.save({**in_wrappers("module.")(weights), **weights}, path)
    with pytest.raises(CheckpointError, match=r"holds two tensors for 'backbone\.encoders\.0"):
        import_checkpoint(path, tmp_path / "run")


@pytest.mark.parametrize("is_zip", [True, False])
def test_damaged_files_of_weights_are_refused_or_read(tmp_path, is_zip):
    torch.save(PublishedNetwork([8, 16]).state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    sound, rng, num_refused = (tmp_path / "a.pth").read_bytes(), np.random.default_rng(0), 0
    for _ in range(40):
        data = bytearray(sound)
        for at in rng.integers(0, [len(data), 900, 900, 900]):
            data[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.pth").write_bytes(data)
        try:
            read_weights(tmp_path / "b.pth")
        except CheckpointError as error:
            num_refused += "b.pth: " in str(error)
    assert num_refused > 20, "No damage is an error of another kind, and the file is named."


@pytest.mark.parametrize("length", range(20, 1_500, 97))
def test_old_files_that_are_cut_short_are_refused(tmp_path, length):
    torch.save(PublishedNetwork([8, 16]).state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"b\.pth: is "):
        import_checkpoint(tmp_path / "b.pth", tmp_path / "run")


def test_the_published_network_has_its_published_size(tmp_path):
    network = PublishedNetwork([32, 64, 128, 256])
    torch.save({"model_state_dict": network.state_dict()}, tmp_path / "checkpoint.pth")
    model = load_model(import_checkpoint(tmp_path / "checkpoint.pth", tmp_path / "run"), "cpu")
    assert count_parameters(model) == 7_068_961
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in network.state_dict().items())


class RunsCode:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["beside", "within"])
def test_a_file_that_carries_code_is_refused_and_its_code_not_run(tmp_path, where):
    network, code = PublishedNetwork([8, 16]), RunsCode(tmp_path / "code_ran")
    path = tmp_path / "checkpoint.pth"
    if where == "beside":
        save_published(path, network, config=code)
    else:
        edited(path, network, lambda weights: weights.update({"backbone.final_conv.bias": code}))
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth: needs code to be read \('posix\.mkdir'\), .*refused"):
        import_checkpoint(path, tmp_path / "run")
    assert not (tmp_path / "code_ran").exists()
    assert not (tmp_path / "run").exists(), "Nothing is written for a file that was refused."


def test_a_whole_pickled_network_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "network.pth")
    with pytest.raises(
        CheckpointError, match=r"network\.pth: needs code to be read \('torch.nn.modules.linear.Linear'"
    ):
        import_checkpoint(tmp_path / "network.pth", tmp_path / "run")


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(CheckpointError, match=r"a\.pth: no such file"):
        import_checkpoint(path, tmp_path / "run")
    path.write_text("a page that says: not found")
    with pytest.raises(CheckpointError, match=r"a\.pth: is not a checkpoint of torch\.save"):
        import_checkpoint(path, tmp_path / "run")
    save_published(path, PublishedNetwork([8, 16]))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=r"a\.pth: is not a checkpoint of torch\.save or safetensors, or is cut"):
        import_checkpoint(path, tmp_path / "run")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "b")
    with pytest.raises(CheckpointError, match=r"a\.pth: is not a checkpoint of torch\.save, or is damaged"):
        import_checkpoint(path, tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"optimizer": {}, "epoch": 1},
            r"no dictionary 'model_state_dict' .*; it holds a dictionary of \['epoch', 'opt",
        ),
        ([1, 2], "no dictionary 'model_state_dict' .*; it holds list"),
        ({"state_dict": {}, "epoch": 1}, "not those of a residual 3-D U-Net.*found nothing"),
        ({"model_state_dict": [1]}, "no dictionary 'model_state_dict'"),
        ({"model_state_dict": {}}, "not those of a residual 3-D U-Net.*found nothing"),
        ({"model_state_dict": {"a": 1}}, r"must be tensors; \['a'\] are none"),
        (
            {"model_state_dict": {"fc.weight": torch.ones(2)}},
            r"not those of a residual.*found \['fc\.weight'\]",
        ),
    ],
)
def test_other_contents_are_named(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(tmp_path / "a.pth", tmp_path / "run")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.update({"head.weight": torch.ones(1)}), r"f_maps \[8, 16\]: .*Unexpected key.*head.weight"),
        (lambda w: w.pop("backbone.final_conv.bias"), r"Missing key.*backbone.final_conv.bias"),
        (
            lambda w: w.update({"backbone.final_conv.weight": torch.ones(2, 8, 1, 1, 1)}),
            r"f_maps \[8, 16\]: .*final_conv.weight.*\[2, 8, 1, 1, 1\].*\[1, 8, 1, 1, 1\]",
        ),
        (
            lambda w: w.update({"backbone.encoders.1.basic_module.conv1.bias": torch.ones(12)}),
            r"\[12\] cannot be split into num_groups=8.*fit no network",
        ),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, edit, message):
    path = edited(tmp_path / "a.pth", PublishedNetwork([8, 16]), edit)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(path, tmp_path / "run")


@pytest.mark.parametrize("start_us", [0, UNIX_US])
def test_a_published_set_is_evaluated_on_one_clock(tmp_path, start_us):
    save_published_set(tmp_path / "input", tmp_path / "target", start_us=start_us)
    network = PublishedNetwork([8, 16])
    nn.init.zeros_(network.backbone.final_conv.weight)
    nn.init.zeros_(network.backbone.final_conv.bias)
    torch.save({"model_state_dict": network.state_dict()}, tmp_path / "checkpoint.pth")
    model = load_model(import_checkpoint(tmp_path / "checkpoint.pth", tmp_path / "run"), "cpu")
    data = EventVoxelDataset(tmp_path / "input", tmp_path / "target", (12, 16), ids=(470,))
    result = evaluate(model, data, progress=False)
    for method in ("input", "network"):
        scores = result.scores[method]
        assert list(scores) == ["composed_00470"]
        one_event = 1 / (8 * 12 * 16) / 5
        assert scores["composed_00470"]["mse"] == pytest.approx(one_event), "Only the first event is not in the target."
        assert scores["composed_00470"]["count_ratio"] == pytest.approx(4 / 3)


def test_the_published_test_configuration_names_the_published_recordings():
    config = load_config(TestConfig, PROJECT_ROOT / "configs" / "published_test_config.yaml")
    spans = [(470, 472), (474, 474), (477, 484), (487, 488), (490, 494), (496, 498), (975, 978), (982, 983), (986, 986)]
    spans += [(988, 989), (991, 991), (994, 996)]
    assert config.data.ids == tuple(number for first, last in spans for number in range(first, last + 1))
    assert len(config.data.ids) == 35
    assert config.data.sensor_size == (480, 640), "The files do not state it."
