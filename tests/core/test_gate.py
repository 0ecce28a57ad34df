"""The gate: bounded residuals per polarity, losses on what is kept, the decode of split voxels, and the ROC curve."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.by_hand import cut_windows, deflare_window, look_at
from support.networks import gate
from support.recordings import make_events, same_events

from deflare_core.app.commands import main
from deflare_core.checkpoint import load_model, read_checkpoint
from deflare_core.codec import apply_voxel, encode_window, events_to_voxel
from deflare_core.config import LOSSES, ModelConfig, TrainConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.decision_level import round_at_level
from deflare_core.deflaring.stream import deflare_windows
from deflare_core.events import Events
from deflare_core.inference import deflare_recording
from deflare_core.io.recordings import load_events, save_events
from deflare_core.losses import FUNCTIONS
from deflare_core.model import KEEP_LOGIT, build_model, removed_share
from deflare_core.scores.evaluation import evaluate
from deflare_core.scores.roc import Roc, find_shares, measure_roc
from deflare_core.system.settings import ConfigError, make_config
from deflare_core.training import fit
from deflare_core.windows import USUAL_CUT, Window


def test_a_polarity_voxel_counts_each_by_itself():
    events = Events.from_array(np.array([[0, 1, 0, 1], [1, 1, 0, -1], [2, 1, 0, -1], [19_999, 0, 1, -1]]), (2, 2))
    voxel = encode_window(events, 0, channels=2)
    assert (voxel[0, 0, 0, 1], voxel[1, 0, 0, 1], voxel[1, 7, 1, 0], voxel.sum()) == (1, 2, 1, 4)
    random = make_events(3, 4000)
    split = encode_window(random, 0, channels=2)
    assert np.array_equal(split[0] - split[1], events_to_voxel(random, t0_us=0))


@pytest.mark.parametrize("polarity", ["signed", "split"])
@pytest.mark.parametrize("residual", ["free", "gate"])
def test_every_variant_starts_as_the_identity(polarity, residual):
    model = build_model(gate(polarity=polarity, residual=residual).config, seed=0)
    events = make_events(0, 3000)
    voxel, output = look_at(model, events, 0)
    assert np.array_equal(output, voxel), "Untrained, the output is the input to the last bit."
    window = next(deflare_windows(model, [Window(0, events, 0)], USUAL_CUT))
    assert same_events(window.events, events)


def test_the_gate_opens_from_nothing_to_all():
    change = torch.tensor([3.0, 0.0, -KEEP_LOGIT, -100.0, -1e6], requires_grad=True)
    removed = removed_share(change)
    half = 1 - 0.5 * (1 + math.exp(-KEEP_LOGIT))
    assert removed.tolist() == pytest.approx([0, 0, half, 1, 1])
    assert removed[1] == 0, "Exactly: the untrained gate removes nothing."
    removed.sum().backward()
    assert torch.isfinite(change.grad).all()


def test_a_gates_output_lies_between_nothing_and_the_input():
    model = gate(std=3)
    voxel, output = look_at(model, make_events(0, 3000), 0)
    assert ((output >= 0) & (output <= voxel)).all()
    assert 0.05 < output.sum() / voxel.sum() < 0.95, "It does something."


def test_the_kept_loss_by_hand():
    class Fixed(torch.nn.Module):
        def keep_logits(self, raw):
            return torch.zeros_like(raw)

        def take_window(self, raw):
            return raw

    raw, label = torch.zeros(1, 2, 1, 1, 2), torch.zeros(1, 2, 1, 1, 2)
    raw[0, 0, 0, 0, 0], label[0, 0, 0, 0, 0] = 3, 1
    raw[0, 1, 0, 0, 1], label[0, 1, 0, 0, 1] = 1, 5
    assert float(FUNCTIONS["kept"](Fixed(), raw, label)) == pytest.approx(math.log(2)), (
        "An even chance surprises by a bit."
    )
    # Expected to be kept are 1.5 and 0.5, wanted 1 and 1: they share 1 and 0.5 of 2 + 2.
    assert float(FUNCTIONS["kept_dice"](Fixed(), raw, label)) == pytest.approx(math.log(2) + 1 - 2 * 1.5 / 4)
    signed = raw[:, :1] - raw[:, 1:]
    assert float(FUNCTIONS["kept"](Fixed(), signed, label[:, :1] - label[:, 1:])) == pytest.approx(math.log(2))
    assert float(FUNCTIONS["kept"](Fixed(), raw * 0, label)) == 0, "Nothing to keep is no surprise."


@pytest.mark.parametrize("loss", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_batchs_loss_is_the_mean_of_its_windows_however_many_events_each_has(loss):
    model = gate(std=3)
    voxels = [look_at(model, make_events(0, num_events), 0)[0] for num_events in (30, 3000)]
    raw = torch.from_numpy(np.stack(voxels))
    label = (raw - 1).clamp(min=0)
    each = [loss(model, raw[k : k + 1], label[k : k + 1]).item() for k in range(2)]
    assert abs(each[0] - each[1]) > 0.01 * max(each), "The two windows differ, or this would show nothing."
    assert loss(model, raw, label).item() == pytest.approx(sum(each) / 2, rel=1e-5)


def test_a_loss_of_a_gate_needs_one():
    with pytest.raises(ValueError, match=r"residual=gate says"):
        FUNCTIONS["kept"](build_model(ModelConfig(f_maps=(8, 16), num_levels=2), 0), *torch.zeros(2, 1, 1, 8, 8, 8))
    with pytest.raises(ConfigError, match=r"of a gate; set model\.residual=gate"):
        folders = {"noisy_dir": "a", "clean_dir": "b"}
        make_config(TrainConfig, {"data": folders, "validation": folders, "trainer": {"loss": "kept"}}, origin="here")
    with pytest.raises(ConfigError, match=r"UNet3D has no residual"):
        make_config(ModelConfig, {"name": "UNet3D", "residual": "gate"}, origin="here")


@given(seed=st.integers(0, 1000), factor=st.floats(0, 2), num=st.integers(0, 800))
def test_a_split_output_is_reached_exactly(seed, factor, num):
    events = make_events(seed, num)
    voxel = encode_window(events, 0, channels=2)
    wanted = np.rint(voxel * np.float32(factor))
    found = apply_voxel(events, voxel, wanted, t0_us=0, seed=seed)
    assert np.array_equal(encode_window(found.events, 0, channels=2), wanted)
    assert same_events(found.events[~found.synthesised], events[found.kept]), "Kept events are recorded ones."
    assert factor > 1 or not found.synthesised.any()
    assert factor != 1 or found.kept.all()


def test_levels():
    voxel = torch.tensor([0.2, 0.4, 0.6, -0.4, -0.2, 1.3, 1.4])
    assert round_at_level(0.4, voxel, voxel).tolist() == [0, 1, 1, -1, 0, 1, 2]
    assert round_at_level(0.7, voxel, voxel).tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert round_at_level(0.5, voxel, voxel) is voxel, "Half is left to rounding."
    model, events = gate(std=1), make_events(0, 2000)
    low, high = (int(deflare_window(_at(model, level), events, 0, seed=0).kept.sum()) for level in (0.2, 0.8))
    assert low > high, "A lower level keeps more."


def _at(model, level):
    model.config = model.config.model_copy(update={"level": level})
    return model


def test_overlapping_windows_work_split():
    events = make_events(3, 4000, duration_us=60_000)
    found = deflare_windows(gate(), cut_windows(events, 3), USUAL_CUT, overlap=True)
    assert same_events(Events.concatenate([w.events for w in found]), events)


def test_the_roc_curve_by_hand():
    flare, others = np.zeros(1001, int), np.zeros(1001, int)
    flare[[0, 500]], others[[500, 1000]] = [3, 1], [1, 3]
    found = Roc(flare, others)
    assert found.area == pytest.approx(1 - 0.5 / 16), "Of 16 pairs one is a tie."
    assert found.removed_at(0.95) == pytest.approx(0.75)
    assert found.threshold_at(0.95) == 500
    assert found.level_at(0.95) == 0.5
    assert Roc(others, flare).level_at(1) == 0.001, "A level of 0 would be none."
    assert found.removed_at(0.75) == 1
    assert Roc(others, others).area == pytest.approx(0.5)


def test_the_shares_of_events_are_those_of_their_cells():
    events = make_events(0, 500)
    untouched = torch.from_numpy(look_at(gate(), events, 0)[1])
    assert (find_shares(events, untouched, 0, USUAL_CUT) == 1).all()
    voxel, output = look_at(gate(std=2), events, 0)
    share = find_shares(events, torch.from_numpy(output), 0, USUAL_CUT)
    k = 123
    cell = (int(events.p[k] < 0), int(events.t[k]) * 8 // 20_000, events.y[k], events.x[k])
    assert share[k] == pytest.approx(output[cell] / voxel[cell])


def test_a_gate_is_trained_saved_evaluated_and_used(pair_folders, tmp_path):
    noisy_dir, clean_dir = pair_folders
    folders = {"noisy_dir": noisy_dir, "clean_dir": clean_dir}
    trainer = {"output_dir": tmp_path / "run", "max_steps": 12, "loss": "kept_dice", "device": "cpu", "num_workers": 0}
    model = gate().config.model_dump() | {"level": 0.4}
    settings = {"model": model, "data": folders, "validation": folders, "trainer": trainer}
    settings["optimizer"] = {"learning_rate": 3e-3}
    last = fit(make_config(TrainConfig, settings, origin="test"), progress=False)
    assert read_checkpoint(last).model.level == 0.4
    trained = load_model(last, "cpu")
    data = EventVoxelDataset(noisy_dir, clean_dir)
    scores = evaluate(trained, data, progress=False).summary()["network"]
    assert scores["invented"] == 0, "A gate invents nothing."
    assert 0 <= measure_roc(trained, data).area <= 1
    settings = [f"checkpoint={last}", f"output_dir={tmp_path}", "device=cpu"]
    settings += [f"data.noisy_dir={noisy_dir}", f"data.clean_dir={clean_dir}"]
    assert main(["roc", *settings]) == 0
    assert read_checkpoint(last).model.level == 0.4, "Looking changes nothing."
    assert main(["roc", "--set-level", "--kept", "0.9", *settings]) == 0
    assert (tmp_path / "roc.png").stat().st_size > 0
    assert read_checkpoint(last).model.level == measure_roc(trained, data).level_at(0.9)
    source = data.pairs[0].noisy
    summary = deflare_recording(trained, source, tmp_path / "out.h5", progress=False)
    assert summary.num_synthesised == 0
    assert summary.num_kept == len(load_events(tmp_path / "out.h5"))


def test_the_data_set_splits_polarities(pair_folders):
    noisy_dir, clean_dir = pair_folders
    plain, split = EventVoxelDataset(noisy_dir, clean_dir), EventVoxelDataset(noisy_dir, clean_dir, split_polarity=True)
    for name in ("raw", "label"):
        one, two = plain[3][name], split[3][name]
        assert one.shape == (1, *two.shape[1:])
        assert torch.equal(two[0] - two[1], one[0])
        assert (two >= 0).all()


def test_recordings_without_causes_have_no_roc(tmp_path):
    for kind in ("noisy", "clean"):
        save_events(tmp_path / kind / "a.h5", make_events(num=10), source="test", clock_us=(0, 100_000))
    with pytest.raises(ValueError, match="carries no causes"):
        measure_roc(gate(), EventVoxelDataset(tmp_path / "noisy", tmp_path / "clean"))


def test_every_loss_that_can_be_configured_has_a_function():
    assert LOSSES.keys() == FUNCTIONS.keys(), "config.LOSSES and losses.FUNCTIONS list the same names."
