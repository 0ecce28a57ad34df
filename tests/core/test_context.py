"""Networks that also see the windows beside their own: what they take in, and streams, files and runs of them."""

import itertools

import numpy as np
import pytest
import torch
from support.by_hand import cut_windows, deflare_all, look_at
from support.networks import gate
from support.recordings import make_events, same_events

from deflare_core.checkpoint import load_model
from deflare_core.codec import encode_window
from deflare_core.config import TrainConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.host import HostPath
from deflare_core.deflaring.method import NetworkMethod
from deflare_core.deflaring.overlap import blend
from deflare_core.deflaring.stream import deflare_windows
from deflare_core.events import WINDOW_US, Events
from deflare_core.inference import deflare_recording
from deflare_core.io.recordings import load_events, save_events
from deflare_core.scores.evaluation import evaluate
from deflare_core.show.debug import debug_training, decode_windows
from deflare_core.system.settings import make_config
from deflare_core.training import fit
from deflare_core.windows import USUAL_CUT, find_neighbours, neighbour_offsets

NUM_WINDOWS = 4


def network(**settings):
    return gate(**{"std": 0.5, "context": 1} | settings)


def recording(seed: int = 0) -> Events:
    return make_events(seed, 6000, duration_us=NUM_WINDOWS * WINDOW_US)


def cut(events: Events):
    return cut_windows(events, NUM_WINDOWS)


def test_a_window_comes_first_then_those_before_and_after():
    assert neighbour_offsets(0) == (0,)
    assert neighbour_offsets(2) == (0, -2, -1, 1, 2)
    assert list(find_neighbours("abc", 1)) == [("a", None, "b"), ("b", "a", "c"), ("c", "b", None)]
    assert list(find_neighbours("ab", 0)) == [("a",), ("b",)]
    assert list(find_neighbours("", 2)) == []


def test_a_stream_gives_a_window_as_soon_as_its_neighbours_are_there():
    asked = []
    stream = find_neighbours((asked.append(k) or k for k in itertools.count()), 1)
    assert next(stream) == (0, None, 1)
    assert asked == [0, 1], "Nothing is read ahead of need: recordings may be endless."


@pytest.mark.parametrize("polarity", ["signed", "split"])
def test_a_network_takes_its_neighbours_voxels_as_channels(polarity):
    events, model = recording(), network(polarity=polarity)
    alone = [torch.from_numpy(encode_window(w.events, w.t0_us, channels=model.channels)) for w in cut(events)]
    asked = []
    model.register_forward_pre_hook(lambda _, voxels: asked.append(voxels[0][0].clone()))
    list(deflare_windows(model, cut(events), USUAL_CUT))
    assert torch.equal(asked[1], torch.cat([alone[1], alone[0], alone[2]]))
    assert torch.equal(asked[0], torch.cat([alone[0], 0 * alone[0], alone[1]])), "Before the first there is silence."
    assert len(asked[0]) == model.inputs == 3 * model.channels


@pytest.mark.parametrize("backbone", ["ResidualUNet3D", "ResidualUNet2D"])
@pytest.mark.parametrize("residual", ["free", "gate"])
def test_untrained_it_is_the_identity(backbone, residual):
    events, model = recording(), network(std=0, backbone=backbone, residual=residual)
    for overlap in (False, True):
        found = deflare_windows(model, cut(events), USUAL_CUT, overlap=overlap)
        assert same_events(Events.concatenate([window.events for window in found]), events)
    with pytest.raises(ValueError, match=r"takes \(N, 6, bins, height, width\); received \(1, 2, 8, 12, 16\)"):
        model(torch.zeros(1, 2, 8, 12, 16))


@pytest.mark.parametrize("settings", [{}, {"backbone": "ResidualUNet2D", "context": 2}, {"polarity": "signed"}])
def test_a_stream_gives_what_each_window_gives_by_itself(settings):
    events, model = recording(), network(std=2, **settings)
    expected = deflare_all(model, events, cut(events))
    found = Events.concatenate([window.events for window in deflare_windows(model, cut(events), USUAL_CUT)])
    assert 0 < len(found) < len(events), "The network does something."
    assert same_events(found, expected)
    alone = [next(deflare_windows(model, [window], USUAL_CUT)).events for window in cut(events)]
    assert not same_events(found, Events.concatenate(alone)), "Its neighbours matter."


def test_windows_half_a_length_later_have_neighbours_too():
    events, model = recording(), network()

    half_us = WINDOW_US // 2
    outputs = [look_at(model, events, t0_us)[1] for t0_us in (WINDOW_US, WINDOW_US - half_us, WINDOW_US + half_us)]
    wanted = blend(*map(torch.from_numpy, outputs)).round().numpy()
    found = list(deflare_windows(model, cut(events), USUAL_CUT, overlap=True))[1].events
    assert np.array_equal(encode_window(found, WINDOW_US, channels=2), wanted)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(overlap, tmp_path, monkeypatch):
    events, method = recording(), NetworkMethod(network(), overlap=overlap)
    source, whole, resumed = (tmp_path / name for name in ("in.h5", "whole.h5", "resumed.h5"))
    save_events(source, events, source="test", clock_us=(0, NUM_WINDOWS * WINDOW_US))
    deflare_recording(method, source, whole, progress=False)
    calls, run = itertools.count(), HostPath.run

    def failing(*arguments):
        if next(calls) == (5 if overlap else 2):
            raise KeyboardInterrupt
        return run(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(HostPath, "run", failing)
        deflare_recording(method, source, resumed, progress=False)
    assert not resumed.exists()
    deflare_recording(method, source, resumed, progress=False)
    assert same_events(load_events(whole), load_events(resumed))
    assert overlap or same_events(load_events(whole).window(0, WINDOW_US), one_by_one_of_file(method, source, tmp_path))


def one_by_one_of_file(method, source, tmp_path) -> Events:
    """The first window of a recording, deflared from a file of its first two."""
    save_events(tmp_path / "two.h5", load_events(source).window(0, 2 * WINDOW_US), source="t", clock_us=(0, 40_000))
    deflare_recording(method, tmp_path / "two.h5", tmp_path / "two_out.h5", progress=False)
    return load_events(tmp_path / "two_out.h5").window(0, WINDOW_US)


def test_a_data_set_gives_the_windows_beside(pair_folders):
    alone = EventVoxelDataset(*pair_folders, split_polarity=True)
    seen = EventVoxelDataset(*pair_folders, split_polarity=True, context=1)
    before, now, after = (alone[k]["raw"] for k in (5, 6, 7))
    assert torch.equal(seen[6]["raw"], torch.cat([now, before, after]))
    assert torch.equal(seen[6]["label"], alone[6]["label"])
    assert not seen[5]["raw"][2:4].any(), "Another recording's last window is no neighbour."
    events = Events.concatenate([window.events for window in seen.read_input(seen.pairs[1], reach=1)])
    assert np.array_equal(look_at(network(), events, WINDOW_US)[0], seen[6]["raw"].numpy())
    assert len(list(seen.read_input(seen.pairs[1], reach=1))) == len(list(seen.windows(seen.pairs[1]))) + 2


def test_voxels_in_memory_are_decoded_window_by_window():
    voxels = torch.zeros(6, 8, 3, 4).numpy()
    voxels[0, 7, 1, 2], voxels[3, 0, 0, 0], voxels[4, 3, 2, 1] = 2, 1, 1
    windows = decode_windows(voxels, 2)
    assert [window.t0_us for window in windows] == [-WINDOW_US, 0, WINDOW_US]
    found = Events.concatenate([window.events for window in windows])
    assert [(t // WINDOW_US, p) for t, p in zip(found.t, found.p, strict=True)] == [(-1, -1), (0, 1), (0, 1), (1, 1)]


@pytest.mark.slow
def test_a_run_with_context_is_trained_evaluated_and_pictured(pair_folders, tmp_path):
    noisy_dir, clean_dir = pair_folders
    folders = {"noisy_dir": noisy_dir, "clean_dir": clean_dir}
    trainer = {"output_dir": tmp_path / "run", "max_steps": 3, "loss": "kept", "device": "cpu", "num_workers": 0}
    model = network().config.model_dump()
    config = make_config(
        TrainConfig, {"model": model, "data": folders, "validation": folders, "trainer": trainer}, origin="test"
    )
    assert len(debug_training(config, tmp_path / "debug")) == 2
    trained = load_model(fit(config, progress=False), "cpu")
    assert trained.config.context == 1
    found = evaluate(trained, EventVoxelDataset(noisy_dir, clean_dir), progress=False).summary()["network"]
    assert found["invented"] == 0
    assert np.isfinite(found["mse"])
