"""Evaluation end to end: predictions that are made once, scores, intervals, failures, reports."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import h5py
import numpy as np
import pytest
import torch
from support.checkpoints import save_small_checkpoint
from support.networks import gate
from support.recordings import make_events, same_events

from deflare_core.app.commands import main
from deflare_core.codec import AppliedVoxel, encode_window
from deflare_core.config import ModelConfig, TestConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.host import run_voxel
from deflare_core.deflaring.method import BaselineMethod, NetworkMethod, OracleMethod
from deflare_core.events import BACKGROUND, FLARE, Events, digest_events
from deflare_core.inference import deflare_recording, load_method
from deflare_core.io.recordings import RecordingError, load_events, save_events
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.scores.evaluation import (
    Evaluation,
    evaluate,
    evaluate_methods,
    find_interval,
    find_least_mse,
    load_methods,
    mark_near_flare,
    score_events,
    score_recording,
)
from deflare_core.scores.predictions import Prediction, load_or_predict, predict, prediction_key
from deflare_core.show.report import tabulate_scores, write_report, write_tables
from deflare_core.streams.baselines import BASELINES
from deflare_core.system.settings import ConfigError, make_config

MODEL = ModelConfig(f_maps=(8, 16), num_levels=2)


@pytest.fixture
def data(pair_folders):
    return EventVoxelDataset(*pair_folders)


def test_the_identity_scores_as_the_input(data, tmp_path):
    result = evaluate(build_model(MODEL, seed=0), data, progress=False)
    scores, network = result.mean("input"), result.mean("network")
    assert {name: network[name] for name in scores} == scores
    assert network["loss"] == scores["mse"], "Before rounding the identity is off by as much."
    assert scores["flare_removed"] == 0
    assert scores["background_kept"] == 1
    assert scores["invented"] == 0
    assert scores["count_ratio"] == pytest.approx(2), "The noisy files hold twice the clean files' events."
    assert "light_kept" not in scores, "A cause without events has no share."
    write_tables(result, tmp_path / "out")
    with (tmp_path / "out/recordings.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 3
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["mean"]["input"]["mse"] == pytest.approx(scores["mse"])
    assert "| network |" in (tmp_path / "out/summary.md").read_text()


def test_the_oracle_is_perfect_where_only_flare_was_added(data):
    found = evaluate_methods([OracleMethod(), BaselineMethod("empty")], data, legacy=True, progress=False)
    best, nothing = found.mean("oracle"), found.mean("empty")
    assert (best["mse"], best["r_f1"], best["chamfer_both"], best["flare_removed"], best["count_ratio"]) == (
        0,
        1,
        0,
        1,
        1,
    )
    assert best["legacy_r_f1"] == 1
    assert (nothing["flare_removed"], nothing["background_kept"], nothing["chamfer"]) == (1, 0, 0)
    assert nothing["chamfer_back"] == 200, "Deleting everything looks perfect in the published direction only."


def test_what_was_invented_is_counted(data):
    pair = data.pairs[0]
    first = next(data.windows(pair)).noisy[:1]
    moved = Events(first.t, (first.x + 1) % 16, first.y, first.p, first.sensor_size)
    scores = score_recording(Prediction(moved), data, pair, legacy=False)
    assert scores["invented"] == 1
    assert scores["background_kept"] == 0


def test_means_and_intervals_are_over_recordings():
    rows = {name: {"mse": value} for name, value in zip("abcd", (1.0, 2.0, 3.0, 6.0), strict=True)}
    rows["a"]["light_kept"] = 0.5
    result = Evaluation({"input": rows, "better": {name: {"mse": row["mse"] / 2} for name, row in rows.items()}})
    assert result.mean("input") == {"mse": 3.0, "light_kept": 0.5}
    low, high = result.intervals("input")["mse"]
    assert 1 <= low < 3 < high <= 6
    assert result.intervals("input")["mse"] == (low, high), "The same recordings are drawn each time."
    assert result.intervals("input")["light_kept"] == (0.5, 0.5)
    assert result.rank("better") == ["d", "c", "b", "a"], "The largest gain comes first."


def test_methods_are_compared_recording_by_recording():
    """Recordings differ more than methods do: only their differences tell that `a` is worse than `b`."""
    values = {"a": (1.2, 5.2, 9.3, 7.3), "b": (1.0, 5.0, 9.0, 7.0), "input": (1.1, 5.1, 9.1, 8.1)}
    rows = {name: {key: {"mse": v} for key, v in zip("wxyz", of, strict=True)} for name, of in values.items()}
    for name in "ab":
        rows[name]["w"]["loss"] = 1.0
    result = Evaluation(rows)
    mean, (low, high) = result.difference("a", "b", "mse")
    assert mean == pytest.approx(0.25)
    assert 0.2 <= low + 1e-9 < 0.25 < high - 1e-9 < 0.3 + 1e-9
    assert result.difference("a", "b", "r_f1") is None, "No recording has it."
    assert result.comparisons() == [("a", "input"), ("b", "input"), ("a", "b")]
    told = tabulate_scores(result)
    assert re.search(r"\| a - b \| \+0\.2500 \[\+0\.2\d*,\s\+0\.\d+\] worse \|", told)
    assert "is worse than its input" not in told, "It gains where it lost before: nobody knows."
    for key in "wxyz":
        rows["b"][key]["mse"] = rows["input"][key]["mse"] + 0.5
    assert "**b is worse than its input** by mse." in tabulate_scores(Evaluation(rows))


def test_a_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for k in range(200):
        low, high = find_interval(rng.normal(1.0, 1.0, 50), seed=k)
        covered += low <= 1.0 <= high
    assert 180 <= covered <= 199, f"{covered} of 200 intervals of 95 % hold the true mean."


def test_predictions_are_made_once_and_anew_when_anything_changes(data, tmp_path):
    @dataclass(frozen=True)
    class Count:
        calls: list
        key: str
        name: str = "count"
        about: str = "every window as it is, counted"
        reach: int = 0

        def deflare(self, windows, cut, skip=0):
            for window in windows:
                self.calls.append(window.t0_us)
                size, output = len(window.events), np.zeros((1, cut.num_bins, *window.events.sensor_size), np.float32)
                yield AppliedVoxel(window.events, np.zeros(size, bool), np.ones(size, bool), torch.from_numpy(output))

    calls, cache = [], tmp_path / "predictions"
    first = evaluate_methods([Count(calls, "1")], data, cache=cache, progress=False)
    again = evaluate_methods([Count(calls, "1")], data, cache=cache, progress=False)
    assert first == again
    assert len(calls) == 15, "The second time everything is on disk."
    found = load_or_predict(Count(calls, "1"), data, data.pairs[0], cache)
    wanted = [encode_window(w.clean, w.t0_us, data.cut) for w in data.windows(data.pairs[0])]
    assert found.loss == pytest.approx(np.square(wanted).mean()), "The loss is kept, here of an output of zeros."
    assert len(calls) == 15
    evaluate_methods([Count(calls, "2")], data, cache=cache, progress=False)
    assert len(calls) == 30, "Another method is another key."
    changed = data.pairs[0].noisy
    save_events(changed, make_events(9, 500, duration_us=100_000), source="test", clock_us=(0, 100_000))
    evaluate_methods([Count(calls, "1")], data, cache=cache, progress=False)
    assert len(calls) == 35, "A recording with another content is predicted again."


@pytest.mark.parametrize("backbone", ["ResidualUNet2D", "ResidualUNet3D"])
@pytest.mark.parametrize("overlap", [False, True])
def test_the_events_that_are_scored_are_those_that_infer_writes(data, tmp_path, backbone, overlap):
    """To the byte, for gates and free residuals, with neighbours and without; so are those of a baseline."""
    is_flat = backbone == "ResidualUNet2D"
    model = gate(
        std=1,
        backbone=backbone,
        context=int(is_flat),
        polarity="split" if is_flat else "signed",
        residual="gate" if is_flat else "free",
        level="balanced" if is_flat else 0.5,
    )
    for method in (NetworkMethod(model, overlap), BaselineMethod("pfd_b"), BaselineMethod("encode_decode")):
        for pair in data.pairs:
            scored = load_or_predict(method, data, pair, tmp_path / "predictions").events
            deflare_recording(method, pair.noisy, tmp_path / "out.h5", progress=False)
            written = load_events(tmp_path / "out.h5")
            assert 0 < len(written) != len(load_events(pair.noisy)) or method.name == "encode_decode"
            assert digest_events(scored) == digest_events(written), f"{method.name} is scored as it deflares."


def test_fewer_windows_are_scored_as_in_the_whole_recording(pair_folders, tmp_path):
    few = EventVoxelDataset(*pair_folders, num_segments=2)
    method = NetworkMethod(gate(std=1, context=1))
    deflare_recording(method, few.pairs[0].noisy, tmp_path / "out.h5", progress=False)
    written = load_events(tmp_path / "out.h5").window(0, 40_000)
    assert same_events(predict(method, few, few.pairs[0]).events, written), "The last one's neighbour is seen too."


def test_a_bad_recording_is_named_and_the_others_are_scored(data, tmp_path):
    data.pairs[1].noisy.write_bytes(b"not a recording")
    found = evaluate_methods([BaselineMethod("input")], data, progress=False)
    assert list(found.scores["input"]) == [data.pairs[0].name, data.pairs[2].name]
    assert str(data.pairs[1].noisy) in found.failures[data.pairs[1].name]
    assert data.pairs[1].name in tabulate_scores(found), "The report says what is missing."
    with pytest.raises(RecordingError, match="composed_00001"):
        evaluate(build_model(MODEL, seed=0), data, progress=False)


@pytest.mark.slow
def test_other_processes_score_alike(data, tmp_path):
    data.pairs[1].noisy.write_bytes(b"not a recording")
    methods = [BaselineMethod("input"), BaselineMethod("pfd_b")]
    here = evaluate_methods(methods, data, legacy=True, progress=False)
    cache = tmp_path / "predictions"
    for workers in (2, 0):
        found = evaluate_methods(methods, data, cache=cache, legacy=True, workers=workers, progress=False)
        assert found == here, "Scores, their order and failures are the same, computed elsewhere or kept."


def test_recordings_without_labels_have_no_oracle(data):
    pair = data.pairs[0]
    save_events(pair.noisy, make_events(9, 500, duration_us=100_000), source="test", clock_us=(0, 100_000))
    found = evaluate_methods([OracleMethod()], data, progress=False)
    assert "causes" in found.failures[pair.name]


def test_the_report_is_a_page_with_its_pictures(data, tmp_path):
    methods = [BaselineMethod("input"), NetworkMethod(build_model(MODEL, seed=0))]
    found = evaluate_methods(methods, data, legacy=True, progress=False)
    page = write_report(found, methods, data, None, tmp_path / "report", "Test")
    text = page.read_text()
    pictures = sorted(path.name for path in page.parent.glob("*.png"))
    assert len(pictures) == 4
    assert all(f'src="{name}"' in text for name in pictures), "Every picture is on the page."
    assert "on other data" in text, "Published figures are marked as such."
    assert "E-Flare-R, 28 real recordings" in text
    assert text.index("Legacy mode") < text.index("on other data") < text.index("<img"), "They stand beside ours."
    assert f"<code>{methods[1].key}</code>): TrueResidualUNet3D" in text, "It says what was scored."
    assert text.index("In short") < text.index("Voxels"), "The figures that answer come first."
    row = found.scores["network"]["composed_00001"]
    assert f"MSE {row['mse']:.4f} before and {row['mse']:.4f} after" in text, "Captions tell the gain."


def test_a_file_name_that_is_html_is_shown_as_text(data, tmp_path):
    name = "a<svg onload=alert(1)>"
    for path in (data.pairs[0].noisy, data.pairs[0].clean):
        path.rename(path.with_name(path.name.replace("composed_00000", name)))
    data = EventVoxelDataset(data.pairs[0].noisy.parent, data.pairs[0].clean.parent)
    data.pairs[-1].clean.write_bytes(b"not HDF5")
    methods = [BaselineMethod("input")]
    found = evaluate_methods(methods, data, progress=False)
    page = write_report(found, methods, data, None, tmp_path / "report", f"Of {name}").read_text()
    assert "<svg" not in page, "A browser would run what the name says."
    assert "a&lt;svg onload=alert(1)&gt;, the best for input" in page, "A caption names the recording."
    assert "<title>Of a&lt;svg" in page
    picture = re.search(r'src="(best_a[^"]*)"', page)
    assert (tmp_path / "report" / unquote(picture[1])).exists(), "The picture's address leads to its file."
    assert f"{data.pairs[-1].name}: " in page, "What failed is named as well."


def test_other_sources_or_another_kind_of_device_make_other_predictions(data, monkeypatch):
    methods = [BaselineMethod("baf"), OracleMethod(), NetworkMethod(build_model(MODEL, seed=0))]

    def keys():
        return [prediction_key(method, data, data.pairs[0]) for method in methods]

    before = keys()
    assert keys() == before
    monkeypatch.setattr(VoxelNetwork, "device", torch.device("cuda"))
    methods[2] = NetworkMethod(build_model(MODEL, seed=0))
    assert [a == b for a, b in zip(before, keys(), strict=True)] == [True, True, False], "Networks have a device."
    monkeypatch.setattr("deflare_core.scores.predictions.hash_sources", lambda: "of other sources")
    assert not set(before) & set(keys()), "Any source may decide what any method gives."


def test_a_configuration_names_its_methods(data, pair_folders, checkpoint):
    settings = {"checkpoint": checkpoint, "data": dict(zip(("noisy_dir", "clean_dir"), pair_folders, strict=True))}
    config = make_config(
        TestConfig, settings | {"methods": ["input", f"other={checkpoint}", "network"], "device": "cpu"}
    )
    methods = load_methods(config)
    assert [method.name for method in methods] == ["input", "other", "network"]
    assert methods[1].key == methods[2].key
    cut = config.model_copy(update={"data": config.data.model_copy(update={"num_bins": 4})})
    with pytest.raises(ValueError, match=r"iter_000001: was trained with num_bins=8, and the data are cut with 4; set"):
        load_methods(cut)
    with pytest.raises(ValueError, match="known are network, oracle"):
        load_methods(config.model_copy(update={"methods": ("median",)}))
    for names, message in (
        (["network", f"network={checkpoint}"], "'methods': names network more than once; give each a name"),
        (["input", "empty", "input"], "names input more than once"),
        ([], "names no method; give at least one"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_config(TestConfig, settings | {"methods": names})


def test_a_plain_network_is_a_baseline_like_any_other(data, tmp_path):
    plain = build_model(MODEL.model_copy(update={"name": "ResidualUNet3D"}), seed=0)
    method = load_method(f"plain={save_small_checkpoint(tmp_path / 'plain', plain)}", device="cpu")
    assert method.about.startswith("ResidualUNet3D, feature maps [8, 16]")
    losses = [((run_voxel(plain, s["raw"][0].numpy()) - s["label"][0].numpy()) ** 2).mean() for s in data]
    found = evaluate_methods([BaselineMethod("input"), method], data, progress=False)
    assert found.mean("plain")["loss"] == pytest.approx(np.mean(losses), rel=1e-5), "Nothing is added to the input."


def test_without_the_input_recordings_are_ranked_by_their_own_score():
    rows = {name: {"mse": value} for name, value in zip("abc", (2.0, 1.0, 3.0), strict=True)}
    assert Evaluation({"network": rows}).rank("network") == ["b", "a", "c"]


@pytest.fixture
def settings(pair_folders, checkpoint, tmp_path, monkeypatch):
    """Arguments of the command line that name the small data set and an untrained network; the folder is a new one."""
    monkeypatch.chdir(tmp_path)
    data = dict(zip(("noisy_dir", "clean_dir"), map(str, pair_folders), strict=True))
    config = {"checkpoint": str(checkpoint), "data": data, "output_dir": "scores", "device": "cpu"}
    Path("test_config.yaml").write_text(json.dumps(config))
    return ["--config", "test_config.yaml"]


def test_one_bad_recording_costs_its_own_row_and_picture_only(settings, data, capsys):
    data.pairs[0].noisy.write_bytes(b"not a recording")
    assert main(["evaluate", *settings, "--debug", "--debug-dir", "pictures"]) == 1, "The exit code tells."
    captured = capsys.readouterr()
    others = [pair.name for pair in data.pairs[1:]]
    assert f"{data.pairs[0].name} was not scored" in captured.err
    assert captured.err.count("deflare: error") + captured.err.count("deflare evaluate: error") == 1
    pictured = sorted(path.name for path in Path("pictures").iterdir())
    assert pictured == [f"{name}_window_0" for name in others]
    with Path("scores/recordings.csv").open() as file:
        assert [row["recording"] for row in csv.DictReader(file)] == others * 2


@pytest.mark.parametrize("labelled", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_one_command_compares_all_methods(settings, data, labelled, capsys):
    if not labelled:
        for path in (path for pair in data.pairs for path in (pair.noisy, pair.clean)):
            events = load_events(path)
            with h5py.File(path, "w") as file:
                for name in "txyp":
                    file[f"events/{name}"] = getattr(events, name)
    assert main(["compare", *settings, "data.sensor_size=[12,16]"]) == 0, capsys.readouterr().err
    (folder,) = Path("reports").glob("*_comparison")
    summary = json.loads((folder / "summary.json").read_text())["mean"]
    assert list(summary) == [*BASELINES, *(["oracle"] if labelled else []), "network"], "No oracle without labels."
    assert summary["encode_decode"]["mse"] == summary["input"]["mse"]
    assert summary["encode_decode"]["t_f1"] == summary["input"]["t_f1"]
    assert "legacy_r_f1" in summary["network"]
    assert {"report.md", "index.html", "scores.png"} <= {path.name for path in folder.iterdir()}


def test_a_second_comparison_leaves_the_first_as_it_is(settings):
    for name in ("input", "empty"):
        assert main(["compare", *settings, f"methods=[{name}]"]) == 0
    first, second = sorted(Path("reports").glob("*_comparison*"), key=lambda folder: folder.stat().st_ctime_ns)
    found = [list(json.loads((folder / "summary.json").read_text())["mean"]) for folder in (first, second)]
    assert found == [["input"], ["empty"]], "Each has a folder of its own."


def test_events_near_flare_by_hand():
    # Flare at (row 3, column 4): columns 2 to 6 are near in its row, and rows 1 to 5 in its column.
    x, y = np.array([4, 2, 7, 6, 4]), np.array([3, 3, 3, 5, 0])
    events = Events.from_columns(np.arange(5), x, y, np.ones(5, int), (8, 9))
    causes = np.array([FLARE, BACKGROUND, BACKGROUND, BACKGROUND, BACKGROUND], np.uint8)
    near = mark_near_flare(events, causes)
    assert near.tolist() == [True, True, False, True, False]
    scores = score_events(events[1:3], events, events[1:], [causes], [near])
    assert scores["near_kept"] == 0.5, "Of two near ones one was kept."
    assert scores["background_kept"] == 0.5
    assert scores["flare_removed"] == 1
    assert not mark_near_flare(events, np.full(5, BACKGROUND, np.uint8)).any()


def test_the_least_error_that_removing_can_reach_by_hand():
    noisy, clean = np.zeros((2, 1, 1, 2), np.float32), np.zeros((2, 1, 1, 2), np.float32)
    noisy[0, 0, 0], clean[0, 0, 0] = (5, 1), (2, 3)
    assert find_least_mse(noisy, clean) == 2, "The first cell can be right, the second lacks two: 4 / 2 cells."
