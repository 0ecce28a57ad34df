"""Pairs as a whole: what input and target share, targets, repeatability, and the data set on disk."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import yaml
from support.processes import start_command
from support.waiting import poll

from data_simu import SimulationConfig, render, simulate, write_dataset
from data_simu.config import OpticsConfig, SourceConfig
from data_simu.optics.lens import draw_lens
from data_simu.pairs import derive_seed, digest_config, list_pair_files
from data_simu.scalars import DARK
from data_simu.scene import row_bands as bands
from data_simu.sensor.firing import FLARE, NOISE
from data_simu.sensor.sensor import LabelledEvents
from data_simu.sensor.targets import make_target
from data_simu.simulation import set_up
from data_simu.tools.pictures import FAINTEST, draw_pair, main, name_lamps
from deflare_core.events import Events, digest_events
from deflare_core.io.recordings import RecordingError, open_recording
from deflare_core.io.verify import verify_folders
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.settings import load_config

SMALL = SimulationConfig(sensor_size=(48, 64), duration_us=60_000, num_train=2, num_test=1)
FLARING = 7
PRESETS = ("demo", "no_flicker", "reflective_only", "flare_free")


@pytest.fixture(scope="module")
def pair():
    return simulate(SMALL, FLARING)


def test_without_flare_input_and_target_are_one():
    perfect_lens = SMALL.model_copy(update={"optics": OpticsConfig(scatter_strength=0, ghost_strength=0)})
    for target in ("physical", "snapped", "subset"):
        found = simulate(perfect_lens.model_copy(update={"target": target}), FLARING)
        assert np.array_equal(found.flare.to_array(), found.clean.to_array()), target
        assert not (found.flare_label == FLARE).any()
        assert len(found.clean) > 1_000


def test_outside_the_flare_the_recordings_are_identical_event_for_event():
    weak = OpticsConfig(scatter_strength=0.02, ghost_strength=0.02)
    config = SMALL.model_copy(update={"target": "physical", "min_flare_share": 0.05, "optics": weak})
    setup, found = set_up(config, FLARING), simulate(config, FLARING)
    share = np.zeros(config.sensor_size)
    for t_us in np.linspace(-config.warmup_us, config.duration_us, 30):
        ideal, real = render(config, FLARING, t_us)
        share = np.maximum(share, (real - ideal) / (ideal + DARK))
    peak = max(waveform.values.max() for waveform in setup.scene.waveforms)
    quiet = share * peak < 0.01
    assert 0.05 < quiet.mean() < 1, "This scene has pixels that flare reaches and pixels that it does not."
    cut = [e[quiet[e.y.astype(int), e.x.astype(int)]] for e in (found.flare, found.clean)]
    assert len(cut[0]) > 100
    assert np.array_equal(cut[0].to_array(), cut[1].to_array())


@pytest.mark.parametrize("target", ["physical", "snapped", "subset"])
def test_no_target_holds_an_event_that_flare_caused(target):
    found = simulate(SMALL.model_copy(update={"target": target}), FLARING)
    assert (found.flare_label == FLARE).sum() > 100, "The input of this seed has flare."
    assert not (found.clean_label == FLARE).any()
    assert len(found.flare_label) == len(found.flare)
    assert len(found.clean_label) == len(found.clean)


def test_a_subset_target_is_a_subset_and_a_snapped_one_shares_more_times_than_the_physical():
    found = {t: simulate(SMALL.model_copy(update={"target": t}), FLARING) for t in ("physical", "snapped", "subset")}
    rows = {kind: set(map(tuple, f.clean.to_array().tolist())) for kind, f in found.items()}
    given = set(map(tuple, found["subset"].flare.to_array().tolist()))
    assert rows["subset"] <= given
    assert len(found["snapped"].clean) == len(found["physical"].clean), "Snapping moves events, it removes none."
    assert len(rows["snapped"] & given) > len(rows["physical"] & given)


def test_snapping_by_hand():
    def labelled(*rows):
        events = Events.from_array(np.array(rows), (1, 3))
        return LabelledEvents(events, np.zeros(len(rows), np.uint8))

    clean = labelled((1_000, 0, 0, 1), (2_000, 0, 0, 1), (3_000, 1, 0, 1), (9_000, 2, 0, -1))
    real = labelled((1_400, 0, 0, 1), (2_900, 1, 0, -1), (9_000, 0, 0, 1), (20_000, 2, 0, -1))
    snapped = make_target("snapped", clean, real).events
    assert sorted(map(tuple, snapped.to_array().tolist())) == [
        (1_400, 0, 0, 1),  # 400 us away: moved
        (2_000, 0, 0, 1),  # its only candidate is 7 ms away
        (3_000, 1, 0, 1),  # the candidate has the other polarity
        (9_000, 2, 0, -1),  # 11 ms away
    ]


def test_steady_lamps_fire_no_periodic_events():
    """With lamps that do not flicker and a camera that hardly moves, only noise is left."""
    steady = SourceConfig(flicker_shares={"constant": 1.0})
    scene = SMALL.scene.model_copy(
        update={"speed_m_s": (0, 0), "turn_deg_s": (0, 0), "num_objects": (0, 0), "families": ("wall",)}
    )
    still = SMALL.model_copy(update={"sources": steady, "scene": scene})
    flickering = still.model_copy(update={"sources": SourceConfig(flicker_shares={"pwm": 1.0})})
    counts = [np.bincount(simulate(config, 3).flare_label, minlength=4) for config in (still, flickering)]
    assert counts[0][:3].sum() < 0.1 * counts[1][:3].sum()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_scene(pair):
    again, other = simulate(SMALL, FLARING), simulate(SMALL, 2)
    assert pair.flare.to_array().tobytes() == again.flare.to_array().tobytes()
    assert pair.clean_label.tobytes() == again.clean_label.tobytes()
    assert pair.plan == again.plan
    assert other.plan["scene"] != pair.plan["scene"]
    assert len(other.flare) != len(pair.flare)


def test_the_plan_is_plain_json(pair):
    assert json.loads(json.dumps(pair.plan)) == pair.plan
    assert {"seed", "scene", "lens", "sensor", "target"} <= set(pair.plan)


def test_events_are_sorted_and_inside_the_clock(pair):
    for events in (pair.flare, pair.clean):
        assert (np.diff(events.t) >= 0).all()
        assert events.t[0] >= 0
        assert events.t[-1] < SMALL.duration_us
    assert pair.clock_us == (0, SMALL.duration_us)


def test_bands_change_how_often_rows_are_rendered_and_little_else(monkeypatch):
    street = SMALL.scene.model_copy(update={"families": ("street",)})
    config = SMALL.model_copy(update={"sensor_size": (240, 320), "duration_us": 20_000, "scene": street})
    seeds = (3, 4, 8)
    banded = [simulate(config, seed) for seed in seeds]
    assert all(len(bands.plan_bands(config, set_up(config, seed).scene)) == 2 for seed in seeds)
    monkeypatch.setattr(bands, "MOST_BANDS", 1)
    whole = [simulate(config, seed) for seed in seeds]
    rates = [
        np.sum([np.bincount(p.clean.y[p.clean_label != NOISE] // 12, minlength=20) for p in pairs], axis=0)
        for pairs in (banded, whole)
    ]
    assert np.abs(rates[0] - rates[1]).max() < 0.1 * rates[1].max()
    assert rates[0].sum() == pytest.approx(rates[1].sum(), rel=0.03), "Single scenes lose up to 5 % of their events."


def test_a_figure_shows_six_panels(pair):
    figure = draw_pair(SMALL, FLARING, t_us=20_000, pair=pair)
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 6
    assert f"{len(pair.flare.window(20_000, 40_000)):,}" in titles[3]
    ideal, real, added = (10 ** axes.images[0].get_array() - 10**FAINTEST for axes in figure.axes[:3])
    assert added.max() > 0.1, "The lens of this seed adds light."
    assert np.abs(real - ideal - added).max() < 1e-3 * real.max(), "The third panel is the second less the first."


def test_lamps_are_named_once_and_counted():
    lamps = [("headlight", "pwm", 199.6), ("sign", "constant", 0.0), ("headlight", "pwm", 199.6)]
    scene = {"lamps": [{"kind": kind, "flicker": flicker, "flicker_hz": hz} for kind, flicker, hz in lamps]}
    assert name_lamps(scene) == "2 x headlight, pwm 200 Hz; sign, constant"


def test_an_exposure_shows_a_lamp_that_is_dark_at_its_start():
    pulsing = SourceConfig(num_sources=(1, 1), flicker_shares={"pwm": 1.0}, pwm_hz=(100.0,))
    config = SMALL.model_copy(update={"sources": pulsing})
    (waveform,) = set_up(config, FLARING).scene.waveforms
    dark_us = next(t for t in range(10_000) if waveform.at(np.array([t])) == 0)
    flares = [np.subtract(*render(config, FLARING, dark_us, exposure_us)[::-1]) for exposure_us in (0, 10_000, 20_000)]
    assert not flares[0].any(), "At that moment the lamp is dark, and so is its flare."
    assert flares[1].max() > 0.01
    assert flares[2] == pytest.approx(flares[1], rel=1e-3), "The mean of two periods is that of one."


def test_the_command_draws_pairs_of_a_data_set(tmp_path):
    (tmp_path / "config.yaml").write_text("sensor_size: [24, 32]\nduration_us: 60000\nwarmup_us: 0\n")
    out = tmp_path / "out"
    main(["--config", str(tmp_path / "config.yaml"), "--pairs", "3", "1", "--split", "test", "--output-dir", str(out)])
    assert sorted(path.name for path in out.iterdir()) == ["test_00001.png", "test_00003.png"]
    first, second = (matplotlib.image.imread(path)[..., :3] for path in sorted(out.iterdir()))
    assert np.ptp(first) == 1, "Something is drawn."
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_a_data_set_is_complete_repeatable_and_continues(tmp_path):
    manifest = json.loads(write_dataset(SMALL, tmp_path / "a", workers=2, progress=False).read_text())
    folders = [tmp_path / "a" / name for name in ("background_with_flare_events", "background_with_light_events")]
    report = verify_folders(*folders)
    assert (report.num_pairs, report.problems) == (2, [])
    assert [entry["split"] for entry in manifest["recordings"]] == ["train", "train", "test"]
    victim = folders[0] / "composed_00001_bg_flare.h5"
    before, kept = victim.read_bytes(), (folders[0] / "composed_00000_bg_flare.h5").stat().st_mtime_ns
    victim.unlink()
    again = json.loads(write_dataset(SMALL, tmp_path / "a", workers=1, progress=False).read_text())
    assert victim.read_bytes() == before, "A recording made again alone is the same to the byte."
    assert (folders[0] / "composed_00000_bg_flare.h5").stat().st_mtime_ns == kept, "Finished pairs are kept."
    assert again == manifest
    with pytest.raises(RecordingError, match="made with another configuration"):
        write_dataset(SMALL.model_copy(update={"target": "subset"}), tmp_path / "a", progress=False)


def test_fewer_pairs_leave_those_that_stand_in_the_manifest(tmp_path):
    config = SMALL.model_copy(update={"sensor_size": (24, 32), "duration_us": 20_000})
    full = json.loads(write_dataset(config, tmp_path, workers=1, progress=False).read_text())
    few = config.model_copy(update={"num_train": 1, "num_test": 0})
    assert json.loads(write_dataset(few, tmp_path, workers=1, progress=False).read_text()) == full
    (tmp_path / full["recordings"][1]["files"][0]).unlink()
    left = json.loads(write_dataset(few, tmp_path, workers=1, progress=False).read_text())
    assert left["recordings"] == full["recordings"][::2], "A pair whose file is gone is no longer named."
    assert (left["config"]["num_train"], left["config"]["num_test"]) == (1, 1)


def test_a_manifest_holds_pairs_of_one_configuration(tmp_path):
    config = SMALL.model_copy(update={"sensor_size": (24, 32), "duration_us": 20_000, "num_train": 1, "num_test": 0})
    write_dataset(config, tmp_path, workers=1, progress=False)
    other = config.model_copy(update={"target": "subset", "num_train": 0, "num_test": 1})
    with pytest.raises(RecordingError, match=r"manifest\.json: its pairs were made with another configuration or seed"):
        write_dataset(other, tmp_path, workers=1, progress=False)
    assert not (tmp_path / "background_with_flare_events_test").exists(), "Nothing was simulated before the refusal."


def test_a_killed_data_set_goes_on_to_the_same_events(tmp_path):
    settings = {"sensor_size": [24, 32], "duration_us": 60_000, "num_train": 20, "num_test": 1}
    (tmp_path / "simu_config.yaml").write_text(yaml.safe_dump(settings))
    config, root = load_config(SimulationConfig, tmp_path / "simu_config.yaml"), tmp_path / "data"
    words = ["simulate", "--workers", 1, "--output-dir", root, "--config", tmp_path / "simu_config.yaml"]
    run = start_command(words, tmp_path / "streams")
    run.wait_for(lambda: len(list(root.rglob("composed_*.h5"))) >= 4)
    run.send(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, run.err
    finished = {path: path.stat().st_mtime_ns for path in root.rglob("composed_*.h5")}
    assert 4 <= len(finished) < 42, "It was killed half-way."
    assert not (root / "manifest.json").exists()
    manifest = json.loads(write_dataset(config, root, workers=1, progress=False).read_text())
    kept = [path.stat().st_mtime_ns == time_ns for path, time_ns in finished.items()]
    assert sum(kept) >= len(kept) - 1, "All pairs but one that lacked a file are kept."
    for entry, file in zip(manifest["recordings"], list_pair_files(config, root), strict=True):
        pair = simulate(config, file.seed)
        assert entry["digests"] == [digest_events(pair.flare), digest_events(pair.clean)], file.flare.name


def test_one_worker_is_this_process(tmp_path, monkeypatch):
    config = SMALL.model_copy(update={"sensor_size": (24, 32), "duration_us": 20_000})
    simulated = []
    monkeypatch.setattr("data_simu.pairs.simulate", lambda *given: simulated.append(given) or simulate(*given))
    write_dataset(config, tmp_path, workers=1, progress=False)
    assert len(simulated) == 3, "All three pairs were simulated here."


def process_state(pid):
    """The letter that /proc gives for the state of a process, None once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None


def test_workers_end_with_the_process_that_was_killed(tmp_path):
    (tmp_path / "simu_config.yaml").write_text("sensor_size: [24, 32]\nduration_us: 60000\nnum_train: 400\n")
    words = ["simulate", "--workers", 2, "--output-dir", tmp_path, "--config", tmp_path / "simu_config.yaml"]
    run = start_command(words, tmp_path / "streams")
    try:
        run.wait_for(lambda: len(list(tmp_path.rglob("composed_*.h5"))) >= 12)
        workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        run.send(signal.SIGKILL)
        run.wait()
        assert len(workers) >= 2, "Two processes simulate."
        poll(lambda: {process_state(pid) for pid in workers} <= {None, "Z"}, "the end of workers without a parent")
    finally:
        run.send_all(signal.SIGKILL)


@pytest.mark.slow
def test_the_process_that_compiles_makes_the_events_of_all_others(tmp_path):
    program = "from data_simu import SimulationConfig, simulate; from deflare_core.events import digest_events; "
    program += "config = SimulationConfig(sensor_size=(24, 32), duration_us=60_000); "
    program += "print(*(digest_events(simulate(config, seed).flare) for seed in (0, 2, 4)))"
    command = [sys.executable, "-c", program]
    first, later, without = (
        subprocess.run(
            command,
            env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for cache in (tmp_path, tmp_path, "/proc/nowhere")
    )
    assert first == later == without, "Also where nothing that was compiled can be kept."


def test_the_manifest_says_what_the_files_hold(tmp_path):
    config = SMALL.model_copy(update={"num_train": 1, "num_test": 0})
    manifest = json.loads(write_dataset(config, tmp_path, workers=1, progress=False).read_text())
    (entry,) = manifest["recordings"]
    with open_recording(tmp_path / entry["files"][0]) as recording:
        events, label = recording.load(), recording.column("label", *recording.clock_us)
        assert recording.clock_us == (0, SMALL.duration_us)
    assert len(events) == entry["num_events"][0]
    assert digest_events(events) == entry["digests"][0]
    assert np.bincount(label, minlength=4).tolist() == list(entry["input_events"].values())
    assert simulate(config, entry["plan"]["seed"]).plan == entry["plan"]


def test_the_full_configuration_shows_every_setting_at_its_default():
    shown = yaml.safe_load((PROJECT_ROOT / "configs/simu_config.yaml").read_text())
    defaults = SimulationConfig().model_dump(mode="json")
    for part in ("scene", "sources", "optics", "sensor"):
        assert list(shown[part]) == list(defaults[part]), f"{part}: settings are missing, or in another order."
    assert shown == defaults


def test_presets_hold_what_they_are_named_after():
    found = {name: load_config(SimulationConfig, PROJECT_ROOT / f"configs/{name}_simu_config.yaml") for name in PRESETS}
    lens = {name: draw_lens(config.optics, (48, 64), np.random.default_rng(0)) for name, config in found.items()}
    assert [(bool(lens[name].kernel.any()), len(lens[name].ghosts) > 0) for name in PRESETS] == [
        (True, True),
        (True, True),
        (False, True),
        (False, False),
    ]
    flickers = {w.kind for seed in range(20) for w in set_up(found["no_flicker"], seed).scene.waveforms}
    assert flickers == {"constant"}
    assert found["demo"].sensor_size < found["no_flicker"].sensor_size == SimulationConfig().sensor_size


def test_training_and_test_seeds_never_meet():
    config = SMALL.model_copy(update={"num_train": 500, "num_test": 50})
    seeds = [file.seed for file in list_pair_files(config, Path("anywhere"))]
    assert len(set(seeds)) == 550
    assert derive_seed(0, "train", 3) != derive_seed(1, "train", 3)


def test_the_key_of_a_configuration_follows_the_material_from_outside(tmp_path):
    plain = digest_config(SMALL)
    with_pictures = SMALL.model_copy(update={"scene": SMALL.scene.model_copy(update={"backdrops": str(tmp_path)})})
    (tmp_path / "one.npy").write_bytes(b"1")
    first = digest_config(with_pictures)
    (tmp_path / "two.npy").write_bytes(b"1")
    assert len({plain, first, digest_config(with_pictures)}) == 3, "Another picture makes other recordings."
    assert digest_config(SMALL.model_copy(update={"num_train": 9})) == plain
