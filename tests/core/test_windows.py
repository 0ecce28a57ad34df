"""Streams of windows: blending of overlapping ones, baselines in stretches, and no seams at any border."""

import numpy as np
import pytest
import torch
from support.recordings import make_events, same_events

from deflare_core.codec import events_to_voxel
from deflare_core.config import ModelConfig
from deflare_core.deflaring.stream import baseline_windows, blended, deflare_overlapping, deflare_windows, run_network
from deflare_core.events import WINDOW_US, Events
from deflare_core.model import build_model
from deflare_core.streams.baselines import BASELINES

SIZE = (24, 32)


def network(std: float, seed: int = 0):
    model = build_model(ModelConfig(f_maps=(8, 16), num_levels=2), seed)
    with torch.no_grad():
        torch.nn.init.normal_(model.backbone.final_conv.weight, std=std, generator=torch.Generator().manual_seed(seed))
    return model


def cut(events: Events, count: int):
    starts = [k * WINDOW_US for k in range(count)]
    return [(t0_us, events.window(t0_us, t0_us + WINDOW_US), t0_us) for t0_us in starts]


def test_blending_weights_are_a_triangle():
    one, two, three = (np.full((8, 1, 1), value, np.float32) for value in (1, 10, 100))
    expected = [1 * w + 10 * (1 - w) for w in (1 / 8, 3 / 8, 5 / 8, 7 / 8)]
    expected += [1 * w + 100 * (1 - w) for w in (7 / 8, 5 / 8, 3 / 8, 1 / 8)]
    assert np.allclose(blended(one, two, three)[:, 0, 0], expected)
    voxel = np.random.default_rng(0).integers(-9, 9, (8, 3, 3)).astype(np.float32)
    shifted = np.concatenate([voxel[4:], voxel[:4]])
    assert np.array_equal(blended(voxel, shifted, shifted), voxel), "Whole numbers that agree are given back exactly."


def test_the_identity_stays_one_when_windows_overlap():
    events = make_events(3, 4000, SIZE, duration_us=5 * WINDOW_US)
    found = list(deflare_overlapping(network(0), cut(events, 5), WINDOW_US, 8))
    assert len(found) == 5
    assert same_events(Events.concatenate([w.events for w in found]), events)
    assert list(deflare_overlapping(network(0), [], WINDOW_US, 8)) == []


def test_an_overlapping_output_is_the_blend_of_three():
    model, events = network(0.5), make_events(3, 4000, SIZE, duration_us=3 * WINDOW_US)
    windows = cut(events, 3)
    before, now, after = (events_to_voxel(w, t0_us=t0_us) for t0_us, w, _ in windows)
    earlier, later = np.concatenate([before[4:], now[:4]]), np.concatenate([now[4:], after[:4]])
    expected = np.rint(blended(*(run_network(model, voxel) for voxel in (now, earlier, later))))
    found = list(deflare_overlapping(model, windows, WINDOW_US, 8))[1].events
    assert np.array_equal(events_to_voxel(found, t0_us=WINDOW_US), expected)
    with pytest.raises(ValueError, match="must be even, received 7"):
        list(deflare_overlapping(model, windows, WINDOW_US, 7))


def constant_rate(num_bins: int, seed: int = 0) -> Events:
    """The same few events at the same pixels in every bin of 2.5 ms."""
    counts = np.random.default_rng(seed).poisson(4, SIZE[0] * SIZE[1])
    y, x = np.divmod(np.repeat(np.arange(counts.size), counts), SIZE[1])
    t = np.repeat(np.arange(num_bins) * 2_500 + 1_000, len(x))
    return Events.from_columns(t, np.tile(x, num_bins), np.tile(y, num_bins), np.ones_like(t), SIZE)


def test_overlapping_windows_have_no_seams():
    """A network that adds the mean of three bins sees nothing beyond its window: two thirds of it at the borders."""
    windows, model = cut(constant_rate(48), 6), network(0)
    model.backbone = torch.nn.Conv3d(1, 1, (3, 1, 1), padding=(1, 0, 0), bias=False)
    torch.nn.init.constant_(model.backbone.weight, 1 / 3)

    def rates(deflare) -> np.ndarray:
        """Events of each of the eight places in a window over those recorded; the first and last window left out."""
        found = [w.events for w in deflare(model, windows, WINDOW_US, 8)][1:-1]
        given = [events_to_voxel(events, t0_us=(k + 1) * WINDOW_US) for k, events in enumerate(found)]
        return np.sum(given, (0, 2, 3)) / np.sum([events_to_voxel(w[1], t0_us=w[0]) for w in windows[1:-1]], (0, 2, 3))

    assert rates(deflare_windows) == pytest.approx([5 / 3, *[2] * 6, 5 / 3], rel=0.02)
    assert rates(deflare_overlapping) == pytest.approx([2] * 8, rel=0.025), "No seam is larger than rounding makes it."


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"encode_decode", "efr"}))
def test_a_baseline_in_stretches_is_the_baseline_on_the_whole(name):
    events = make_events(2, 30_000, SIZE, duration_us=2_500_000)
    windows = cut(events, 125)
    found = list(baseline_windows(BASELINES[name], windows, WINDOW_US, seed=0))
    assert len(found) == len(windows)
    whole = BASELINES[name](events, (0, 2_500_000), 0)
    assert same_events(Events.concatenate([w.events for w in found]), whole)
    assert sum(int(w.kept.sum()) for w in found) == len(whole)
    assert not any(w.synthesised.any() for w in found)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_takes_silence_and_tells_what_it_made_up(name):
    loud = make_events(2, 3000, SIZE, duration_us=300_000)
    windows = cut(loud, 80)
    found = list(baseline_windows(BASELINES[name], windows, WINDOW_US, seed=0))
    for window, (t0_us, recorded, _) in zip(found, windows, strict=True):
        assert len(window.kept) == len(recorded)
        assert int((~window.synthesised).sum()) == int(window.kept.sum()), "What was not made up was kept."
        assert len(window.events) == 0 or t0_us <= window.events.t[0] <= window.events.t[-1] < t0_us + WINDOW_US
    if name == "encode_decode":
        assert any(w.synthesised.any() for w in found), "Decoded events have times of their own."
