"""Event-faithful output of whole recordings: hostile ones, drawn by hypothesis, and sensors of every size."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.recordings import make_events, same_events

from deflare_core.codec import events_to_voxel, voxel_to_events
from deflare_core.config import ModelConfig
from deflare_core.deflaring.host import run_voxel
from deflare_core.events import WINDOW_US, Events
from deflare_core.inference import deflare_recording
from deflare_core.io.recordings import load_events, save_events
from deflare_core.model import build_model
from deflare_core.windows import Window

SIZE, NUM_WINDOWS = (2, 3), 4
BORDERS = [t for bin_us in range(0, NUM_WINDOWS * WINDOW_US, 2_500) for t in (bin_us, bin_us + 2_499)]
"""The first and the last microsecond of every bin, and with them of every window."""


class AnyChange(torch.nn.Module):
    """A backbone whose output has nothing to do with its input: drawn, with many cells left alone."""

    def __init__(self, seed: int, size: float) -> None:
        super().__init__()
        self.seed, self.size, self.weight = seed, size, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A change of the same shape, which the window's events decide."""
        generator = torch.Generator().manual_seed(self.seed + int(x.abs().sum()))
        change = self.size * torch.randn(x.shape, generator=generator)
        return change * (torch.rand(x.shape, generator=generator) < 0.5)


@st.composite
def hostile_events(draw):
    """Events on the borders of bins and windows, thousands in a cell, pairs that cancel, and windows without any."""
    times = st.one_of(st.sampled_from(BORDERS), st.integers(0, NUM_WINDOWS * WINDOW_US - 1))
    cell = st.tuples(times, st.integers(0, SIZE[1] - 1), st.integers(0, SIZE[0] - 1))
    counts = st.one_of(st.integers(0, 3), st.sampled_from([0, 1_000, 5_000]))
    rows = []
    for (t, x, y), num_on, num_off in draw(st.lists(st.tuples(cell, counts, counts), max_size=12)):
        rows += [(t, x, y, 1)] * num_on + [(t, x, y, -1)] * num_off
        rows += [(t, x, y, 1), (t, x, y, -1)] * draw(st.integers(0, 2))
    return Events.from_array(np.array(sorted(rows), np.int64).reshape(-1, 4), SIZE)


@settings(max_examples=60)
@given(hostile_events(), st.integers(0, 99), st.sampled_from([0.0, 0.7, 3.0, 900.0]))
def test_hostile_recordings_come_out_as_the_output_demands_and_no_more(tmp_path_factory, events, seed, size):
    folder = tmp_path_factory.mktemp("hostile")
    model = build_model(ModelConfig(f_maps=(8, 16), num_levels=2), 0)
    model.backbone = AnyChange(seed, size)
    clock_us = (0, NUM_WINDOWS * WINDOW_US)
    save_events(folder / "in.h5", events, source="test", clock_us=clock_us)
    summary = deflare_recording(model, folder / "in.h5", folder / "out.h5", seed=seed, flags=True, progress=False)
    out = load_events(folder / "out.h5")
    with h5py.File(folder / "out.h5") as file:
        kept = file["input_kept"][()].astype(bool) if len(events) else np.zeros(0, bool)
        synthesised = file["events/synthesised"][()].astype(bool) if len(out) else np.zeros(0, bool)
    assert same_events(out[~synthesised], events[kept]), "What was kept is recorded events, with their exact times."
    assert (summary.num_in, summary.num_kept) == (len(events), int(kept.sum()))
    assert summary.num_removed == int((~kept).sum()), "What is not kept is counted as removed."
    assert summary.num_synthesised == int(synthesised.sum())
    for t0_us in range(*clock_us, WINDOW_US):
        window = events.window(t0_us, t0_us + WINDOW_US)
        before = events_to_voxel(window, t0_us=t0_us)
        expected = np.rint(run_voxel(model, before))
        found = events_to_voxel(out.window(t0_us, t0_us + WINDOW_US), t0_us=t0_us)
        assert np.array_equal(found, expected), f"The window at {t0_us} us encodes to the rounded output."
        bins = (window.t - t0_us) * 8 // WINDOW_US
        untouched = (expected == before)[bins, window.y.astype(int), window.x.astype(int)]
        first, end = np.searchsorted(events.t, [t0_us, t0_us + WINDOW_US])
        assert kept[first:end][untouched].all(), "An untouched cell passes everything, cancelling pairs included."


@pytest.mark.parametrize(
    "sensor_size", [(260, 346), (180, 240), pytest.param((720, 1280), marks=pytest.mark.slow), (61, 83), (1, 1)]
)
def test_nothing_is_lost_at_the_borders_of_any_sensor(tmp_path, sensor_size):
    height, width = sensor_size
    inside = make_events(num=3_000, sensor_size=sensor_size)
    corners = [(5, x, y, p) for x in (0, width - 1) for y in (0, height - 1) for p in (1, 1, -1)]
    rows = np.concatenate([inside.to_array(), np.array(corners)])
    events = Events.from_array(rows[np.argsort(rows[:, 0], kind="stable")], sensor_size)
    save_events(tmp_path / "in.h5", events, source="test")
    model = build_model(ModelConfig(f_maps=(8, 16), num_levels=2), seed=0)
    deflare_recording(model, tmp_path / "in.h5", tmp_path / "same.h5", progress=False)
    assert same_events(load_events(tmp_path / "same.h5"), events), "The identity keeps every event, the corners' too."
    with torch.no_grad():
        model.backbone.final_conv.bias.fill_(1)
    summary = deflare_recording(model, tmp_path / "in.h5", tmp_path / "more.h5", progress=False)
    assert summary.num_removed + summary.num_synthesised == 8 * height * width, "Every cell of the frame is one higher."


@pytest.mark.parametrize("listed", [2, 1 << 14])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_what_a_gpu_misses_is_drawn_on_the_host_however_much_it_is(monkeypatch, listed, num_channels):
    pytest.importorskip("triton")
    from deflare_core.deflaring import gpu as gpu

    monkeypatch.setattr(gpu, "LISTED", listed)
    missing = torch.zeros((num_channels, 8, 3, 4), dtype=torch.int32)
    missing[0, 2, 1, 3], missing[0, 7, 0, 0], missing[-1, 0, 2, 2], missing[-1, 5, 0, 1] = 2, -1, -3, 1
    choice = gpu.Choice(torch.ones(0), missing, missing.count_nonzero(), torch.tensor(0))
    window = Window(40_000, Events.empty((3, 4)), 9)
    kept, cells = torch.ones(0, dtype=torch.bool), gpu.list_cells(missing, listed)
    begun = gpu.GpuBegun(window, choice, missing, kept, cells, None, None)
    found = gpu.synthesise(begun, int(choice.num_missing), WINDOW_US)
    parts = [voxel_to_events(m.numpy(), t0_us=40_000, seed=9 + 2 * k + 1) for k, m in enumerate(missing)]
    assert found.t.tolist() == sorted(t for part in parts for t in part.t.tolist())
    assert np.array_equal(events_to_voxel(found, t0_us=40_000), missing.sum(0).numpy())
    assert len(found) == int(missing.abs().sum())


def test_cells_are_listed_in_order_with_what_they_hold():
    pytest.importorskip("triton")
    from deflare_core.deflaring import gpu as gpu

    voxel = torch.tensor([[[[4, 0, -2], [0, 0, 1]]]], dtype=torch.int32)
    assert gpu.list_cells(voxel, 3).tolist() == [[0, 2, 5], [4, -2, 1]]
    assert gpu.list_cells(voxel, 2).tolist() == [[0, 2], [4, -2]], "Of more only the first."
    assert gpu.list_cells(voxel, 4).tolist() == [[0, 2, 5, 0], [4, -2, 1, 4]], "Of fewer, the first cell follows."
