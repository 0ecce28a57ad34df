"""A committee: what two gates say is added up, each bounded; its checkpoint is used as any other."""

import json

import numpy as np
import pytest
import torch
from support.checkpoints import save_small_checkpoint
from support.networks import gate
from support.recordings import make_events, same_events

from deflare_core.app.commands import main
from deflare_core.checkpoint import CONFIG, load_model
from deflare_core.deflaring.committee import LEAST_CHANGE, Committee
from deflare_core.deflaring.method import NetworkMethod
from deflare_core.io.recordings import load_events, save_events
from deflare_core.model import KEEP_LOGIT
from deflare_core.system.errors import DeflareError

FLAT = {"backbone": "ResidualUNet2D", "context": 1}
VOXEL = torch.from_numpy(np.random.default_rng(0).poisson(0.3, (1, 6, 8, 12, 16)).astype(np.float32))


def saying(change, **settings):
    """A gate that changes the logit of every cell by the same."""
    model = gate(**FLAT | settings).eval()
    torch.nn.init.constant_(model.backbone.final_conv.bias, change)
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    ("first", "second", "change"),
    [(0, 0, 0), (-4, -2, 0.3 * -4 - 2), (-4, 3, 0.3 * -4), (5, -2, -2), (-50, -2, 0.3 * LEAST_CHANGE - 2)],
)
def test_judgements_are_weighed_and_none_outvotes_the_other_for_ever(first, second, change):
    both = Committee([saying(first), saying(second)], (0.3, 1))
    assert both.keep_logits(VOXEL).numpy() == pytest.approx(KEEP_LOGIT + change, abs=1e-5)
    kept = torch.sigmoid(torch.tensor(KEEP_LOGIT + change)) / torch.sigmoid(torch.tensor(KEEP_LOGIT))
    assert both(VOXEL).numpy() == pytest.approx((VOXEL[:, :2] * kept).numpy(), abs=1e-5)
    if not change:
        assert torch.equal(both(VOXEL), VOXEL[:, :2]), "Who sees no flare changes nothing, to the last bit."


@pytest.mark.parametrize(
    ("first", "second", "shares", "why"),
    [
        (FLAT, {"context": 0}, (1, 1), "context=1 and 0"),
        (FLAT, {"residual": "free"}, (1, 1), "gate"),
        (FLAT | {"backbone": "ResidualUNet3D"}, {"backbone": "ResidualUNet3D"}, (1, 1), "2-D"),
        (FLAT, FLAT, (1,), r"received \[1\]"),
        (FLAT, FLAT, (1, 0), "above 0"),
        (FLAT, FLAT, (1, float("nan")), "above 0"),
    ],
)
def test_those_who_see_different_things_cannot_judge_together(first, second, shares, why):
    with pytest.raises(DeflareError, match=why):
        Committee([gate(**FLAT | first), gate(**FLAT | second)], shares)


@pytest.fixture
def runs(tmp_path):
    """Two runs with gates that judge differently."""
    return [save_small_checkpoint(tmp_path / name, gate(std, **FLAT)).parent for name, std in (("a", 3.0), ("b", 1.0))]


def test_a_checkpoint_of_two_is_used_as_any_other(runs, tmp_path, capsys):
    events = make_events(num=4_000, duration_us=90_000)
    save_events(tmp_path / "in.h5", events, source="test")
    combine = ["combine", *map(str, runs), str(tmp_path / "both"), "--shares", "0.3", "1"]
    assert main(combine) == 0
    both = load_model(tmp_path / "both", "cpu")
    members = [load_model(run, "cpu") for run in runs]
    with torch.no_grad():
        changes = [member.run_backbone(VOXEL).clamp(LEAST_CHANGE, 0) for member in members]
        assert torch.allclose(both.run_backbone(VOXEL), 0.3 * changes[0] + changes[1], atol=1e-6)
    outputs = {}
    for name in ("a/run", "b/run", "both"):
        words = ["infer", "-i", "in.h5", "-o", f"{name[:4].replace('/', '')}.h5", f"checkpoint={tmp_path / name}"]
        words = [str(tmp_path / word) if word.endswith(".h5") else word for word in words]
        assert main([*words, "device=cpu", "overlap=true"]) == 0, capsys.readouterr().err
        outputs[name] = load_events(words[4])
    assert not same_events(outputs["both"], outputs["a/run"])
    assert not same_events(outputs["both"], outputs["b/run"])
    assert main(combine) == 1, "What is there is not replaced."
    assert "holds a checkpoint already" in capsys.readouterr().err
    assert main(["combine", str(tmp_path / "both"), str(runs[0]), str(tmp_path / "three")]) == 1
    assert "is of two networks already" in capsys.readouterr().err


def test_shares_are_part_of_what_a_method_is(runs):
    members = [load_model(run, "cpu") for run in runs]
    keys = {NetworkMethod(Committee(members, shares)).key for shares in ((0.3, 1), (1, 0.3), (0.5, 0.5))}
    assert len(keys) == 3, "Predictions of other shares are others."


@pytest.mark.parametrize("shares", ["ab", [1], [1, -1], 5, [1, "a"], None])
def test_damaged_shares_are_refused(runs, tmp_path, shares):
    assert main(["combine", *map(str, runs), str(tmp_path / "both")]) == 0
    description = json.loads((tmp_path / "both" / CONFIG).read_text())
    (tmp_path / "both" / CONFIG).write_text(json.dumps(description | {"shares": shares}))
    with pytest.raises(DeflareError):
        load_model(tmp_path / "both", "cpu")
