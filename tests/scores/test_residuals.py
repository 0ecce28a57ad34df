import numpy as np
import pytest
import torch
from support.recordings import make_events

from deflare_core.codec import events_to_voxel
from deflare_core.config import ModelConfig
from deflare_core.events import CAUSES, Events
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.scores.residuals import (
    correlate,
    describe_learning,
    encode_causes,
    measure_gradients,
    measure_residual,
    share_residual,
    tabulate_claims,
    tabulate_residuals,
)

NAMES = ("ResidualUNet3D", "TrueResidualUNet3D")


class Scaled(VoxelNetwork):
    """The simplest network: `output = gain * input`, with one weight in each of two layers."""

    def __init__(self, gain, before=1.0) -> None:
        torch.nn.Module.__init__(self)
        self.config = ModelConfig()
        self.channels = self.inputs = 1
        self.first, self.final_conv = torch.nn.Conv3d(1, 1, 1, bias=False), torch.nn.Conv3d(1, 1, 1, bias=False)
        torch.nn.init.constant_(self.first.weight, before)
        torch.nn.init.constant_(self.final_conv.weight, gain)

    def forward(self, voxel):
        return self.final_conv(self.first(voxel))


RAW = np.array([2, -1, 1, 0], np.float32).reshape(1, 2, 2)
TRUTH = np.array([2, -1, 0, 0], np.float32).reshape(1, 2, 2)


def small(name) -> VoxelNetwork:
    return build_model(ModelConfig(name=name, f_maps=(8, 16), num_levels=2), seed=0)


def window(seed) -> tuple:
    events = make_events(seed=seed, num=600)
    return tuple(events_to_voxel(part, t0_us=0) for part in (events, events[events.x < 10]))


def test_the_identity_keeps_everything():
    report = measure_residual(Scaled(1), RAW, TRUTH)
    assert (report["energy_kept"], report["positive_kept"], report["is_identity"]) == (1, 1, 1)
    assert (report["relative_difference"], report["residual_std"]) == (0, 0)
    assert report["error_over_input"] == 1, "Doing nothing is as good as doing nothing."
    assert np.isnan(report["correlation"]), "A constant correlates with nothing."
    assert (report["wanted_mean"], report["wanted_std"]) == pytest.approx((-1 / 4, np.sqrt(3) / 4))


def test_a_network_that_returns_nothing_keeps_nothing():
    report = measure_residual(Scaled(0), RAW, TRUTH)
    assert (report["energy_kept"], report["positive_kept"], report["is_identity"]) == (0, 0, 0)
    assert report["relative_difference"] == 1, "The residual is minus the input."
    assert report["residual_mean"] == -0.5
    assert report["error_over_input"] == 5, "It is wrong by 4 + 1 where the input is wrong by 1."


def test_halving_by_hand():
    report = measure_residual(Scaled(0.5), RAW, TRUTH)
    assert report["energy_kept"] == 0.25
    assert report["positive_kept"] == 0.5, "Half of 2 is an event; half of 1 rounds to none."
    assert report["error_over_input"] == 1 + 0.25 + 0.25
    assert report["correlation"] == pytest.approx(np.corrcoef([-1, 0.5, -0.5, 0], [0, 0, -1, 0])[0, 1])


def test_gradients_by_hand():
    last, rest = measure_gradients(Scaled(gain=3, before=2), RAW, TRUTH)
    slope = 2 / 4 * ((6 * RAW - TRUTH) * RAW).sum()
    assert last == pytest.approx(2 * slope), "By the last weight: what the layer before hands it."
    assert rest == pytest.approx(3 * slope)
    assert measure_gradients(Scaled(0), RAW, TRUTH)[1] == 0, "Behind a last layer of zeros nothing learns yet."


def test_correlation_is_signed():
    a = np.array([0.0, 1, 2])
    assert correlate(a, 3 * a) == pytest.approx(1)
    assert correlate(a, -a) == pytest.approx(-1)


def test_where_a_residual_is_spent_by_hand():
    columns = [0, 1, 2, 12_000], [0, 0, 1, 1], [0, 0, 0, 0], [1, -1, 1, 1]
    events = Events.from_columns(*map(np.array, columns), (1, 3))
    labels = np.array([0, 2, 2, 3], np.uint8)
    residual = np.array([[[-2, 3, 1]], [[0, 4, 0]]], np.float32)
    spent = share_residual(residual, events, labels, t0_us=0)
    expected = {"background": 1, "light": 0, "flare": 1 + 3, "noise": 4, "empty": 1}
    assert spent == {name: pytest.approx(part / 10) for name, part in expected.items()}, (
        "The first cell's 2 are halved between background and flare, whose signs cancel in the voxel."
    )
    assert all(np.isnan(share) for share in share_residual(0 * residual, events, labels, t0_us=0).values())


def test_every_event_is_in_the_voxel_of_its_cause():
    events = make_events(seed=4, num=400)
    labels = np.random.default_rng(4).integers(0, 4, 400).astype(np.uint8)
    voxels = encode_causes(events, labels)
    assert voxels.shape == (4, 8, 12, 16)
    assert voxels.sum((1, 2, 3)).tolist() == [(labels == label).sum() for label in CAUSES]
    residual = np.random.default_rng(5).normal(size=(8, 12, 16))
    assert sum(share_residual(residual, events, labels, t0_us=0).values()) == pytest.approx(1)


def test_the_true_residual_network_starts_as_the_identity_and_its_last_layer_learns():
    plain, true = (measure_residual(small(name), *window(1)) for name in NAMES)
    assert (true["is_identity"], true["energy_kept"], true["error_over_input"]) == (1, 1, 1)
    assert true["gradient_last"] > 0
    assert true["gradient_rest"] == 0, "Behind a last layer of zeros nothing learns in the first step."
    assert plain["is_identity"] == 0
    assert plain["positive_kept"] < 0.9, "It has not learned yet to hand events through."
    assert plain["error_over_input"] > 1


def test_reports_stand_side_by_side():
    table = tabulate_residuals(
        {
            "before": {"energy_kept": 1.0, "correlation": np.nan},
            "after": {"energy_kept": 0.51234} | {"correlation": 0.25},
        }
    )
    assert table.splitlines()[0] == "|  | before | after |"
    assert table.splitlines()[2:] == ["| energy kept | 1 | 0.5123 |", "| correlation | nan | 0.25 |"]


def test_what_is_said_of_a_run_is_of_that_run():
    def report(wrong, kept):
        return {"error_over_input": wrong, "positive_kept": kept, "energy_kept": 1.33, "relative_difference": 0.5}

    reports = {"plain, before": report(3, 0.1), "residual, before": report(1, 1)}
    reports |= {"plain, after": report(0.46, 0.76), "residual, after": report(0.54, 0.81)}
    text = describe_learning(reports, 60)
    assert "after 60 steps they have 0.46 and 0.54: the plain one is nearer" in text
    assert "keeps 76%, the residual one 81%" in text
    swapped = {**reports, "residual, after": report(0.2, 0.81)}
    assert "the residual one is nearer" in describe_learning(swapped, 60)
    table = tabulate_claims(reports["plain, before"], reports["residual, before"])
    assert "| energy kept | -46 % | 133 % | 100 % | 133 % |" in table
    assert "| positive values kept | 13.6 % | 10 % | 100 % | 100 % |" in table
