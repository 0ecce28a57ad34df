"""Silent windows: the events are those of a stream that treats every window alike, and the network runs seldom."""

import numpy as np
import pytest
import torch
from support.networks import gate
from support.recordings import make_events, same_events

from deflare_core.deflaring import stream
from deflare_core.deflaring.host import HostPath
from deflare_core.deflaring.method import BaselineMethod
from deflare_core.deflaring.stream import deflare_windows
from deflare_core.events import WINDOW_US, Events
from deflare_core.inference import deflare_recording
from deflare_core.io.recordings import load_events, open_recording, read_windows, save_events
from deflare_core.streams.baselines import BASELINES
from deflare_core.windows import USUAL_CUT

BUSY = (2, 3, 20, 40)
"""The windows that hold events, of 41."""


def recording() -> Events:
    return Events.concatenate([make_events(k, 300, t_start_us=k * WINDOW_US) for k in BUSY])


@pytest.fixture
def source(tmp_path):
    save_events(tmp_path / "in.h5", recording(), source="test", clock_us=(0, 41 * WINDOW_US))
    return tmp_path / "in.h5"


def network(bias: float, **settings):
    """A network whose output for silence is `bias` in each cell, and something else next to events."""
    model = gate(**{"std": 1.5, "residual": "free"} | settings)
    torch.nn.init.constant_(model.backbone.final_conv.bias, bias)
    return model


def deflare(model, source, overlap: bool) -> Events:
    with open_recording(source) as opened:
        windows = read_windows(opened, opened.window_starts(WINDOW_US), WINDOW_US, seed=5)
        found = list(deflare_windows(model, windows, USUAL_CUT, overlap=overlap))
    assert len(found) == 41
    return Events.concatenate([window.events for window in found])


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("settings", [{}, {"context": 1}, {"context": 2, "polarity": "signed"}, {"residual": "gate"}])
@pytest.mark.parametrize("bias", [0.0, 0.6])
def test_silence_gives_the_events_that_every_window_by_itself_gives(source, settings, bias, overlap, monkeypatch):
    model, runs, run = network(bias, **settings), [], HostPath.run
    monkeypatch.setattr(HostPath, "run", lambda path, seen: runs.append(1) or run(path, seen))
    found, num_runs = deflare(model, source, overlap), len(runs)
    monkeypatch.setattr(stream, "recall_silence", lambda run, silent: run)
    monkeypatch.setattr(stream.SilentDecode, "_remember", lambda decode, output, applied: applied)
    assert same_events(found, deflare(model, source, overlap)), "What silence gives is the same."
    reach = model.config.context
    busy = {k + offset for k in BUSY for offset in range(-reach, reach + 1)} & set(range(41))
    assert len(runs) - num_runs == 41 + 42 * overlap
    assert num_runs <= len(busy) + 1 if not overlap else num_runs <= 2 * len(busy) + 2 * reach + 8


def test_what_comes_of_silence_is_drawn_for_each_window(source):
    model = network(0.6)
    found = deflare(model, source, overlap=False)
    drawn = found.window(5 * WINDOW_US, 6 * WINDOW_US), found.window(6 * WINDOW_US, 7 * WINDOW_US)
    assert len(drawn[0]) == len(drawn[1]) > 0, "The network makes events of nothing."
    assert not np.array_equal(drawn[0].t + WINDOW_US, drawn[1].t), "Each window has a seed of its own."


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_leaves_silence_as_it_is(name, tmp_path):
    events = Events.concatenate([make_events(1, 300), make_events(2, 300, t_start_us=10_000_000)])
    save_events(tmp_path / "in.h5", events, source="test")
    deflare_recording(BaselineMethod(name), tmp_path / "in.h5", tmp_path / "out.h5", progress=False)
    found = load_events(tmp_path / "out.h5")
    assert not len(found.window(20_000, 10_000_000))


def test_windows_of_a_recording_are_the_same_whatever_lies_between(source):
    events = recording()
    with open_recording(source) as opened:
        windows = list(read_windows(opened, range(-60_000, 900_000, WINDOW_US), WINDOW_US, seed=5))
    for window in windows:
        assert same_events(window.events, events.window(window.t0_us, window.t0_us + WINDOW_US))
    assert len({window.seed for window in windows}) == len(windows)


def test_causes_of_silence_are_none(tmp_path):
    events = recording()
    save_events(tmp_path / "a.h5", events, source="test", columns={"label": np.ones(len(events), np.uint8)})
    with open_recording(tmp_path / "a.h5") as opened:
        for window in read_windows(opened, opened.window_starts(WINDOW_US), WINDOW_US, seed=0):
            assert len(window.causes) == len(window.events)
