"""Streams of windows: blending of overlapping ones, baselines in stretches, and no seams at any border."""

import numpy as np
import pytest
import torch
from support.by_hand import cut_windows, look_at
from support.recordings import make_events, same_events

from deflare_core.codec import events_to_voxel
from deflare_core.config import ModelConfig
from deflare_core.deflaring.overlap import blend
from deflare_core.deflaring.stream import deflare_windows
from deflare_core.deflaring.stretches import deflare_stretches
from deflare_core.events import WINDOW_US, Events
from deflare_core.model import build_model
from deflare_core.streams.baselines import BASELINES
from deflare_core.system.errors import DeflareError
from deflare_core.windows import USUAL_CUT, Cut

SIZE = (24, 32)


def network(std: float, seed: int = 0):
    model = build_model(ModelConfig(f_maps=(8, 16), num_levels=2), seed)
    with torch.no_grad():
        torch.nn.init.normal_(model.backbone.final_conv.weight, std=std, generator=torch.Generator().manual_seed(seed))
    return model


def test_blending_weights_are_a_triangle():
    one, two, three = (torch.full((1, 8, 1, 1), float(value)) for value in (1, 10, 100))
    expected = [1 * w + 10 * (1 - w) for w in (1 / 8, 3 / 8, 5 / 8, 7 / 8)]
    expected += [1 * w + 100 * (1 - w) for w in (7 / 8, 5 / 8, 3 / 8, 1 / 8)]
    assert np.allclose(blend(one, two, three)[0, :, 0, 0], expected)
    voxel = torch.randint(-9, 9, (2, 8, 3, 3), generator=torch.Generator().manual_seed(0)).float()
    shifted = torch.cat([voxel[:, 4:], voxel[:, :4]], dim=1)
    assert torch.equal(blend(voxel, shifted, shifted), voxel), "Whole numbers that agree are given back exactly."


def test_the_identity_stays_one_when_windows_overlap():
    events = make_events(3, 4000, SIZE, duration_us=5 * WINDOW_US)
    found = list(deflare_windows(network(0), cut_windows(events, 5), USUAL_CUT, overlap=True))
    assert len(found) == 5
    assert same_events(Events.concatenate([w.events for w in found]), events)
    assert list(deflare_windows(network(0), [], USUAL_CUT, overlap=True)) == []


def test_an_overlapping_output_is_the_blend_of_three():
    model, events = network(0.5), make_events(3, 4000, SIZE, duration_us=3 * WINDOW_US)
    half_us = WINDOW_US // 2
    outputs = [look_at(model, events, t0_us)[1] for t0_us in (WINDOW_US, WINDOW_US - half_us, WINDOW_US + half_us)]
    expected = blend(*map(torch.from_numpy, outputs)).round()[0].numpy()
    windows = cut_windows(events, 3)
    found = list(deflare_windows(model, windows, USUAL_CUT, overlap=True))[1].events
    assert np.array_equal(events_to_voxel(found, t0_us=WINDOW_US), expected)
    with pytest.raises(DeflareError, match="must be even, received 7"):
        list(deflare_windows(model, windows, Cut(num_bins=7), overlap=True))


@pytest.mark.parametrize("overlap", [False, True])
def test_windows_that_are_only_seen_change_nothing_else(overlap):
    model, events = network(0.5), make_events(3, 4000, SIZE, duration_us=4 * WINDOW_US)
    windows = cut_windows(events, 4)
    whole = list(deflare_windows(model, windows, USUAL_CUT, overlap=overlap))[2:]
    for expected, found in zip(whole, deflare_windows(model, windows, USUAL_CUT, overlap=overlap, skip=2), strict=True):
        assert same_events(found.events, expected.events)


def constant_rate(num_bins: int, seed: int = 0) -> Events:
    """The same few events at the same pixels in every bin of 2.5 ms."""
    counts = np.random.default_rng(seed).poisson(4, SIZE[0] * SIZE[1])
    y, x = np.divmod(np.repeat(np.arange(counts.size), counts), SIZE[1])
    t = np.repeat(np.arange(num_bins) * 2_500 + 1_000, len(x))
    return Events.from_columns(t, np.tile(x, num_bins), np.tile(y, num_bins), np.ones_like(t), SIZE)


def test_overlapping_windows_have_no_seams():
    """A network that adds the mean of three bins sees nothing beyond its window: two thirds of it at the borders."""
    windows, model = cut_windows(constant_rate(48), 6), network(0)
    model.backbone = torch.nn.Conv3d(1, 1, (3, 1, 1), padding=(1, 0, 0), bias=False)
    torch.nn.init.constant_(model.backbone.weight, 1 / 3)

    def rates(overlap: bool) -> np.ndarray:
        """Events of each of the eight places in a window over those recorded; the first and last window left out."""
        found = [w.events for w in deflare_windows(model, windows, USUAL_CUT, overlap=overlap)][1:-1]
        given = [events_to_voxel(events, t0_us=(k + 1) * WINDOW_US) for k, events in enumerate(found)]
        return np.sum(given, (0, 2, 3)) / np.sum([events_to_voxel(w[1], t0_us=w[0]) for w in windows[1:-1]], (0, 2, 3))

    assert rates(False) == pytest.approx([5 / 3, *[2] * 6, 5 / 3], rel=0.02)
    assert rates(True) == pytest.approx([2] * 8, rel=0.025), "No seam is larger than rounding makes it."


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"encode_decode", "efr"}))
def test_a_baseline_in_stretches_is_the_baseline_on_the_whole(name):
    events = make_events(2, 30_000, SIZE, duration_us=2_500_000)
    windows = cut_windows(events, 125)
    found = list(deflare_stretches(BASELINES[name], windows, WINDOW_US, seed=0))
    assert len(found) == len(windows)
    whole = BASELINES[name](events, (0, 2_500_000), 0)
    assert same_events(Events.concatenate([w.events for w in found]), whole)
    assert sum(int(w.kept.sum()) for w in found) == len(whole)
    assert not any(w.synthesised.any() for w in found)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_takes_silence_and_tells_what_it_made_up(name):
    loud = make_events(2, 3000, SIZE, duration_us=300_000)
    windows = cut_windows(loud, 80)
    found = list(deflare_stretches(BASELINES[name], windows, WINDOW_US, seed=0))
    for window, (t0_us, recorded, *_) in zip(found, windows, strict=True):
        assert len(window.kept) == len(recorded)
        assert int((~window.synthesised).sum()) == int(window.kept.sum()), "What was not made up was kept."
        assert len(window.events) == 0 or t0_us <= window.events.t[0] <= window.events.t[-1] < t0_us + WINDOW_US
    if name == "encode_decode":
        assert any(w.synthesised.any() for w in found), "Decoded events have times of their own."
