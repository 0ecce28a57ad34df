"""Networks that also see the windows beside their own: what they take in, and streams, files and runs of them."""

import itertools

import numpy as np
import pytest
import torch
from support.networks import gate
from support.recordings import make_events, same_events

from deflare_core.checkpoint import load_model
from deflare_core.codec import events_to_voxel, polarity_voxel
from deflare_core.config import TrainConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.stream import (
    applied,
    blended,
    deflare_overlapping,
    deflare_windows,
    encoded,
    neighbourhoods,
    run_network,
)
from deflare_core.events import WINDOW_US, Events
from deflare_core.inference import deflare_recording
from deflare_core.io.recordings import load_events, save_events
from deflare_core.scores.evaluation import evaluate
from deflare_core.scores.roc import kept_shares
from deflare_core.show.debug import debug_training, decoded_windows
from deflare_core.system.settings import make_config
from deflare_core.training import fit
from deflare_core.windows import neighbour_offsets

NUM_WINDOWS = 4


def network(**settings):
    return gate(**{"std": 0.5, "context": 1} | settings)


def recording(seed: int = 0) -> Events:
    return make_events(seed, 6000, duration_us=NUM_WINDOWS * WINDOW_US)


def cut(events: Events):
    starts = range(0, NUM_WINDOWS * WINDOW_US, WINDOW_US)
    return [(t0_us, events.window(t0_us, t0_us + WINDOW_US), t0_us) for t0_us in starts]


def one_by_one(model, events: Events) -> Events:
    """What the network makes of each window when it is given the whole recording."""
    found = []
    for t0_us, _, seed in cut(events):
        seen = encoded(model, events, t0_us, WINDOW_US, 8)
        found.append(applied(model, (t0_us, events, seed), seen, run_network(model, seen), WINDOW_US).events)
    return Events.concatenate(found)


def test_a_window_comes_first_then_those_before_and_after():
    assert neighbour_offsets(0) == (0,)
    assert neighbour_offsets(2) == (0, -2, -1, 1, 2)
    assert list(neighbourhoods("abc", 1)) == [("a", None, "b"), ("b", "a", "c"), ("c", "b", None)]
    assert list(neighbourhoods("ab", 0)) == [("a",), ("b",)]
    assert list(neighbourhoods("", 2)) == []


def test_a_stream_gives_a_window_as_soon_as_its_neighbours_are_there():
    asked = []
    stream = neighbourhoods((asked.append(k) or k for k in itertools.count()), 1)
    assert next(stream) == (0, None, 1)
    assert asked == [0, 1], "Nothing is read ahead of need: recordings may be endless."


@pytest.mark.parametrize("polarity", ["signed", "split"])
def test_a_network_takes_its_neighbours_voxels_as_channels(polarity):
    events, model = recording(), network(polarity=polarity)
    encode = (lambda e, t: polarity_voxel(e, 8, WINDOW_US, t)) if polarity == "split" else events_to_voxel
    alone = [encode(e, t0_us) if polarity == "split" else encode(e, t0_us=t0_us)[None] for t0_us, e, _ in cut(events)]
    seen = encoded(model, events, WINDOW_US, WINDOW_US, 8)
    assert np.array_equal(seen, np.concatenate([alone[1], alone[0], alone[2]]))
    first = encoded(model, events, 0, WINDOW_US, 8)
    assert not first[len(alone[0]) : 2 * len(alone[0])].any(), "Before the first window there is silence."
    assert len(seen) == model.inputs == 3 * model.channels


@pytest.mark.parametrize("backbone", ["ResidualUNet3D", "ResidualUNet2D"])
@pytest.mark.parametrize("residual", ["free", "gate"])
def test_untrained_it_is_the_identity(backbone, residual):
    events, model = recording(), network(std=0, backbone=backbone, residual=residual)
    for deflare in (deflare_windows, deflare_overlapping):
        found = deflare(model, cut(events), WINDOW_US, 8)
        assert same_events(Events.concatenate([window.events for window in found]), events)
    with pytest.raises(ValueError, match=r"takes \(N, 6, bins, height, width\); received \(1, 2, 8, 12, 16\)"):
        model(torch.zeros(1, 2, 8, 12, 16))


@pytest.mark.parametrize("settings", [{}, {"backbone": "ResidualUNet2D", "context": 2}, {"polarity": "signed"}])
def test_a_stream_gives_what_each_window_gives_by_itself(settings):
    events, model = recording(), network(std=2, **settings)
    expected = one_by_one(model, events)
    found = Events.concatenate([window.events for window in deflare_windows(model, cut(events), WINDOW_US, 8)])
    assert 0 < len(found) < len(events), "The network does something."
    assert same_events(found, expected)
    alone = [next(deflare_windows(model, [window], WINDOW_US, 8)).events for window in cut(events)]
    assert not same_events(found, Events.concatenate(alone)), "Its neighbours matter."


def test_windows_half_a_length_later_have_neighbours_too():
    events, model = recording(), network()

    def output(t0_us: int) -> np.ndarray:
        return run_network(model, encoded(model, events, t0_us, WINDOW_US, 8))

    half_us = WINDOW_US // 2
    wanted = np.rint(blended(output(WINDOW_US), output(WINDOW_US - half_us), output(WINDOW_US + half_us)))
    found = list(deflare_overlapping(model, cut(events), WINDOW_US, 8))[1].events
    assert np.array_equal(polarity_voxel(found, 8, WINDOW_US, WINDOW_US), wanted)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(overlap, tmp_path, monkeypatch):
    events, model = recording(), network()
    source, whole, resumed = (tmp_path / name for name in ("in.h5", "whole.h5", "resumed.h5"))
    save_events(source, events, source="test", clock_us=(0, NUM_WINDOWS * WINDOW_US))
    deflare_recording(model, source, whole, overlap=overlap, progress=False)
    calls = itertools.count()

    def failing(*arguments):
        if next(calls) == (5 if overlap else 2):
            raise KeyboardInterrupt
        return run_network(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("deflare_core.deflaring.stream.run_network", failing)
        deflare_recording(model, source, resumed, overlap=overlap, progress=False)
    assert not resumed.exists()
    deflare_recording(model, source, resumed, overlap=overlap, progress=False)
    assert same_events(load_events(whole), load_events(resumed))
    assert overlap or same_events(load_events(whole).window(0, WINDOW_US), one_by_one_of_file(model, source, tmp_path))


def one_by_one_of_file(model, source, tmp_path) -> Events:
    """The first window of a recording, deflared from a file of its first two."""
    save_events(tmp_path / "two.h5", load_events(source).window(0, 2 * WINDOW_US), source="t", clock_us=(0, 40_000))
    deflare_recording(model, tmp_path / "two.h5", tmp_path / "two_out.h5", progress=False)
    return load_events(tmp_path / "two_out.h5").window(0, WINDOW_US)


def test_a_data_set_gives_the_windows_beside(pair_folders):
    alone = EventVoxelDataset(*pair_folders, split_polarity=True)
    seen = EventVoxelDataset(*pair_folders, split_polarity=True, context=1)
    before, now, after = (alone[k]["raw"] for k in (5, 6, 7))
    assert torch.equal(seen[6]["raw"], torch.cat([now, before, after]))
    assert torch.equal(seen[6]["label"], alone[6]["label"])
    assert not seen[5]["raw"][2:4].any(), "Another recording's last window is no neighbour."
    model = network()
    t0_us, around, _ = next(itertools.islice(seen.events(seen.pairs[1], 1), 1, None))
    assert np.array_equal(encoded(model, around, t0_us, WINDOW_US, 8), seen[6]["raw"].numpy())
    own_events = around.window(t0_us, t0_us + WINDOW_US)
    assert len(kept_shares(model, around, t0_us, WINDOW_US, 8)) == len(own_events) < len(around)


def test_voxels_in_memory_are_decoded_window_by_window():
    voxels = torch.zeros(6, 8, 3, 4).numpy()
    voxels[0, 7, 1, 2], voxels[3, 0, 0, 0], voxels[4, 3, 2, 1] = 2, 1, 1
    found = decoded_windows(voxels, 2)
    assert [(t // WINDOW_US, p) for t, p in zip(found.t, found.p, strict=True)] == [(-1, -1), (0, 1), (0, 1), (1, 1)]


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
