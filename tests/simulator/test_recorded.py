"""Recorded backgrounds: what is left of a recording by hand, and pairs that have one instead of a drawn scene."""

import json
from contextlib import closing

import numpy as np
import pytest
from support.recordings import make_events, same_events

from data_simu import SimulationConfig, simulate
from data_simu.composition import compose_events
from data_simu.config import OpticsConfig, SourceConfig
from data_simu.pairs import digest_config, write_dataset
from data_simu.sensor.firing import BACKGROUND, FLARE, LIGHT, NOISE
from data_simu.sensor.sensor import LabelledEvents
from data_simu.simulation import set_up
from data_simu.stream import SimulatedPairs
from deflare_core.events import Events
from deflare_core.io.recordings import RecordingError, save_events

SMALL = SimulationConfig(sensor_size=(24, 32), duration_us=30_000, warmup_us=5_000)
BACKGROUND_SIZE = (30, 40)


def events_at(*times_us, polarities=1):
    """Events of a sensor of one pixel."""
    zeros = np.zeros(len(times_us))
    return Events.from_columns(np.array(times_us), zeros, zeros, np.broadcast_to(polarities, len(times_us)), (1, 1))


def left_of(times_us, weight, layer_us=(), phase=0.0, dead_us=0.0):
    """Times and causes of what a pixel fires on a recording and a layer of flare."""
    layer = LabelledEvents(events_at(*layer_us), np.full(len(layer_us), FLARE, np.uint8))
    found = compose_events(events_at(*times_us), layer, *np.float32([[weight], [phase]]), dead_us)
    return found.events.t.tolist(), found.label.tolist()


def test_what_is_left_of_a_recording_by_hand():
    assert left_of((1, 2, 3, 4), 1.0) == ([1, 2, 3, 4], [BACKGROUND] * 4)
    assert left_of((1, 2, 3, 4), 0.5)[0] == [2, 4], "Of four half events two are whole."
    assert left_of((1, 2, 3, 4), 0.5, phase=0.5)[0] == [1, 3]
    assert left_of((1, 2, 3, 4), 0.25, phase=0.5)[0] == [2]
    assert left_of((5, 9), 1.0, layer_us=(5, 7)) == ([5, 5, 7, 9], [BACKGROUND, FLARE, FLARE, BACKGROUND])


def test_a_pixel_is_dead_after_an_event_of_the_other_kind():
    assert left_of((10, 40), 1.0, layer_us=(20, 50), dead_us=15) == ([10, 40], [BACKGROUND] * 2)
    assert left_of((25, 40), 1.0, layer_us=(20,), dead_us=15) == ([20, 40], [FLARE, BACKGROUND])
    assert left_of((10, 12, 14), 1.0, dead_us=15)[0] == [10, 12, 14], "What the camera did, it could do."


@pytest.fixture
def recorded(tmp_path):
    """A configuration whose backgrounds are one recording, and that recording."""
    events = make_events(5, 4_000, BACKGROUND_SIZE, 1_000, 50_000)
    save_events(tmp_path / "street.h5", events, source="a camera", clock_us=(1_000, 51_000))
    (tmp_path / "street.json").write_text("{}")
    return SMALL.model_copy(update={"backgrounds": str(tmp_path)}), events


def test_without_lamps_the_recording_comes_back_from_its_place_on_both_sides(recorded):
    config = recorded[0].model_copy(update={"sources": SourceConfig(num_sources=(0, 0))})
    for seed in range(3):
        pair = simulate(config, seed)
        part = pair.plan["background"]
        cut = recorded[1].window(part["start_us"], part["start_us"] + 30_000)
        y, x = cut.y.astype(int) - part["row"], cut.x.astype(int) - part["column"]
        inside = (y >= 0) & (y < 24) & (x >= 0) & (x < 32)
        t, x, y, p = (column[inside] for column in (cut.t - part["start_us"], x, y, cut.p))
        order = np.lexsort((y * 32 + x, t))
        expected = Events.from_columns(*(column[order] for column in (t, x, y, p)), (24, 32))
        assert same_events(pair.flare, pair.clean)
        assert sorted(pair.flare.to_array().tolist()) == sorted(expected.to_array().tolist())


def test_lamps_and_flare_come_over_a_recording_without_noise_of_their_own(recorded):
    config = recorded[0].model_copy(update={"target": "subset", "optics": OpticsConfig(log10_scatter=(-1, -0.6))})
    labels = np.zeros(4, int)
    for seed in range(4):
        pair, again = simulate(config, seed), simulate(config, seed)
        assert same_events(pair.flare, again.flare)
        assert same_events(pair.clean, again.clean)
        assert (np.diff(pair.flare.t) >= 0).all()
        labels += np.bincount(pair.flare_label, minlength=4)
        assert np.bincount(pair.flare_label)[BACKGROUND] <= len(set_up(config, seed).recorded.t_us)
    assert labels[NOISE] == 0, "The noise is that of the recording."
    assert labels[[LIGHT, FLARE]].min() > 100


def test_a_share_of_the_pairs_has_a_recorded_background(recorded):
    config = recorded[0].model_copy(update={"background_share": 0.5})
    plans = [set_up(config, seed) for seed in range(12)]
    assert 2 < sum(setup.recorded is not None for setup in plans) < 10
    drawn = next(seed for seed, setup in enumerate(plans) if setup.recorded is None)
    assert same_events(simulate(config, drawn).flare, simulate(SMALL, drawn).flare), "The others are as they were."


def test_a_data_set_and_a_stream_have_the_same_recorded_backgrounds(recorded, tmp_path):
    config = recorded[0].model_copy(update={"num_train": 1, "num_test": 0})
    manifest = json.loads(write_dataset(config, tmp_path / "pairs", workers=1, progress=False).read_text())
    with closing(SimulatedPairs(config, "cpu", workers=0).pairs()) as pairs:
        pair = next(pairs)
    (entry,) = manifest["recordings"]
    assert entry["num_events"] == [len(side.to_events()) for side in (pair.flare, pair.clean)]
    assert entry["plan"]["background"] == pair.plan["background"]
    assert digest_config(config) != digest_config(SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sensor_size": (31, 32)}, r"street\.h5: its sensor of 40x30 is smaller than a pair, 32x31;.*\[30,32\]"),
        ({"duration_us": 60_000}, r"street\.h5: its 50000 us are shorter than a pair, 60000 us"),
        ({"backgrounds": "nowhere"}, r"nowhere: no such file or folder of recordings"),
    ],
)
def test_recordings_that_do_not_fit_are_refused_before_the_first_pair(recorded, tmp_path, change, message):
    config = recorded[0].model_copy(update=change)
    with pytest.raises(RecordingError, match=message):
        write_dataset(config, tmp_path / "pairs", workers=1, progress=False)
    assert not (tmp_path / "pairs").exists()
    with pytest.raises(RecordingError, match=message):
        SimulatedPairs(config, "cpu")


def test_a_folder_without_recordings_says_so(tmp_path):
    with pytest.raises(RecordingError, match="holds no recordings"):
        SimulatedPairs(SMALL.model_copy(update={"backgrounds": str(tmp_path)}), "cpu")
