"""Evaluation end to end: predictions that are made once, scores, intervals, failures, reports."""

import csv
import json
import re
import time
from pathlib import Path
from urllib.parse import unquote

import h5py
import numpy as np
import pytest
import torch
from support.recordings import make_events

from deflare_core.app.commands import main
from deflare_core.checkpoint import save_checkpoint
from deflare_core.config import ModelConfig, TestConfig
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.stream import run_network
from deflare_core.io.recordings import RecordingError, load_events, save_events
from deflare_core.model import build_model
from deflare_core.scores.evaluation import Evaluation, bootstrap_interval, evaluate, evaluate_methods, methods_of
from deflare_core.scores.predictions import (
    Method,
    Prediction,
    baseline_method,
    checkpoint_method,
    network_method,
    oracle_method,
    predicted,
    prediction_key,
)
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
    found = evaluate_methods([oracle_method(), baseline_method("empty")], data, legacy=True, progress=False)
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
    def add_one(data, pair):
        first = next(data.events(pair))[1]
        extra = first[:1]
        moved = type(first)(extra.t, (extra.x + 1) % 16, extra.y, extra.p, extra.sensor_size)
        return Prediction(type(first).concatenate([moved]))

    scores = evaluate_methods([Method("one", "", add_one)], data, progress=False).mean("one")
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
    assert result.ranked("better") == ["d", "c", "b", "a"], "The largest gain comes first."


def test_a_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for k in range(200):
        low, high = bootstrap_interval(rng.normal(1.0, 1.0, 50), seed=k)
        covered += low <= 1.0 <= high
    assert 180 <= covered <= 199, f"{covered} of 200 intervals of 95 % hold the true mean."


def test_predictions_are_made_once_and_anew_when_anything_changes(data, tmp_path):
    calls = []

    def count(data, pair):
        calls.append(pair.name)
        return Prediction(next(data.events(pair))[1], loss=0.25)

    cache = tmp_path / "predictions"
    first = evaluate_methods([Method("count", "1", count)], data, cache=cache, progress=False)
    again = evaluate_methods([Method("count", "1", count)], data, cache=cache, progress=False)
    assert first == again
    assert len(calls) == 3, "The second time everything lies on disk."
    assert predicted(Method("count", "1", count), data, data.pairs[0], cache).loss == 0.25
    assert len(calls) == 3
    evaluate_methods([Method("count", "2", count)], data, cache=cache, progress=False)
    assert len(calls) == 6, "Another method is another key."
    changed = data.pairs[0].noisy
    save_events(changed, make_events(9, 500, duration_us=100_000), source="test", clock_us=(0, 100_000))
    evaluate_methods([Method("count", "1", count)], data, cache=cache, progress=False)
    assert len(calls) == 7, "A recording with another content is predicted anew."


def test_a_bad_recording_is_named_and_the_others_are_scored(data, tmp_path):
    data.pairs[1].noisy.write_bytes(b"not a recording")
    found = evaluate_methods([baseline_method("input")], data, progress=False)
    assert list(found.scores["input"]) == [data.pairs[0].name, data.pairs[2].name]
    assert str(data.pairs[1].noisy) in found.failures[data.pairs[1].name]
    assert data.pairs[1].name in tabulate_scores(found), "The report says what is missing."
    with pytest.raises(RecordingError, match="composed_00001"):
        evaluate(build_model(MODEL, seed=0), data, progress=False)


def test_other_processes_score_alike(data, tmp_path):
    data.pairs[1].noisy.write_bytes(b"not a recording")
    methods = [baseline_method("input"), baseline_method("pfd_b")]
    here = evaluate_methods(methods, data, legacy=True, progress=False)
    cache = tmp_path / "predictions"
    for workers in (2, 0):
        found = evaluate_methods(methods, data, cache=cache, legacy=True, workers=workers, progress=False)
        assert found == here, "Scores, their order and failures are the same, computed elsewhere or kept."


def test_recordings_without_labels_have_no_oracle(data):
    pair = data.pairs[0]
    save_events(pair.noisy, make_events(9, 500, duration_us=100_000), source="test", clock_us=(0, 100_000))
    found = evaluate_methods([oracle_method()], data, progress=False)
    assert "causes" in found.failures[pair.name]


def test_the_report_is_a_page_with_its_pictures(data, tmp_path):
    methods = [baseline_method("input"), network_method(build_model(MODEL, seed=0), "0")]
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
    row = found.scores["network"]["composed_00001"]
    assert f"MSE {row['mse']:.4f} before and {row['mse']:.4f} after" in text, "Captions tell the gain."


def test_a_file_name_that_is_html_is_shown_as_text(data, tmp_path):
    name = "a<svg onload=alert(1)>"
    for path in (data.pairs[0].noisy, data.pairs[0].clean):
        path.rename(path.with_name(path.name.replace("composed_00000", name)))
    data = EventVoxelDataset(data.pairs[0].noisy.parent, data.pairs[0].clean.parent)
    data.pairs[-1].clean.write_bytes(b"not HDF5")
    methods = [baseline_method("input")]
    found = evaluate_methods(methods, data, progress=False)
    page = write_report(found, methods, data, None, tmp_path / "report", f"Of {name}").read_text()
    assert "<svg" not in page, "A browser would run what the name says."
    assert "a&lt;svg onload=alert(1)&gt;, the best for input" in page, "A caption names the recording."
    assert "<title>Of a&lt;svg" in page
    picture = re.search(r'src="(best_a[^"]*)"', page)
    assert (tmp_path / "report" / unquote(picture[1])).exists(), "The picture's address leads to its file."
    assert f"{data.pairs[-1].name}: " in page, "What failed is named as well."


def test_other_sources_or_another_kind_of_device_make_other_predictions(data, monkeypatch):
    def keys(device):
        methods = [baseline_method("baf"), oracle_method(), network_method(build_model(MODEL, seed=0).to(device), "0")]
        return [prediction_key(method, data, data.pairs[0]) for method in methods]

    before = keys("cpu")
    assert keys("cpu") == before
    assert [a == b for a, b in zip(before, keys("meta"), strict=True)] == [True, True, False], "Networks have a device."
    monkeypatch.setattr("deflare_core.scores.predictions.hash_sources", lambda: "of other sources")
    assert not set(before) & set(keys("cpu")), "Any source may decide what any method gives."


def test_a_configuration_names_its_methods(data, pair_folders, tmp_path):
    model = build_model(MODEL, seed=0)
    checkpoint = save_checkpoint_of(model, tmp_path / "run")
    settings = {"checkpoint": checkpoint, "data": dict(zip(("noisy_dir", "clean_dir"), pair_folders, strict=True))}
    config = make_config(
        TestConfig, settings | {"methods": ["input", f"other={checkpoint}", "network"], "device": "cpu"}
    )
    methods = methods_of(config)
    assert [method.name for method in methods] == ["input", "other", "network"]
    assert methods[1].key == methods[2].key
    cut = config.model_copy(update={"data": config.data.model_copy(update={"num_bins": 4})})
    with pytest.raises(ValueError, match=r"iter_000001: was trained with num_bins=8, and the data are cut with 4; set"):
        methods_of(cut)
    with pytest.raises(ValueError, match="known are network, oracle"):
        methods_of(config.model_copy(update={"methods": ("median",)}))
    for names, message in (
        (["network", f"network={checkpoint}"], "'methods': names network more than once; give each a name"),
        (["input", "empty", "input"], "names input more than once"),
        ([], "names no method; give at least one"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_config(TestConfig, settings | {"methods": names})


def test_a_plain_network_is_a_baseline_like_any_other(data, tmp_path):
    plain = build_model(MODEL.model_copy(update={"name": "ResidualUNet3D"}), seed=0)
    method = checkpoint_method(save_checkpoint_of(plain, tmp_path / "plain"), "cpu", name="plain")
    assert method.about.startswith("ResidualUNet3D, feature maps [8, 16]")
    losses = [((run_network(plain, s["raw"][0].numpy()) - s["label"][0].numpy()) ** 2).mean() for s in data]
    found = evaluate_methods([baseline_method("input"), method], data, progress=False)
    assert found.mean("plain")["loss"] == pytest.approx(np.mean(losses), rel=1e-5), "Nothing is added to the input."


def test_without_the_input_recordings_are_ranked_by_their_own_score():
    rows = {name: {"mse": value} for name, value in zip("abc", (2.0, 1.0, 3.0), strict=True)}
    assert Evaluation({"network": rows}).ranked("network") == ["b", "a", "c"]


@pytest.fixture
def settings(pair_folders, tmp_path, monkeypatch):
    """Arguments of the command line that name the small data set and an untrained network; the folder is a new one."""
    monkeypatch.chdir(tmp_path)
    checkpoint = save_checkpoint_of(build_model(MODEL, seed=0), tmp_path / "run")
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


@pytest.mark.parametrize("labelled", [True, False])
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
        time.sleep(1)
    first, second = sorted(Path("reports").glob("*_comparison"))
    found = [list(json.loads((folder / "summary.json").read_text())["mean"]) for folder in (first, second)]
    assert found == [["input"], ["empty"]], "Each has a folder of its own."


def save_checkpoint_of(model, folder: Path) -> Path:
    optimizer = torch.optim.Adam(model.parameters())
    return save_checkpoint(folder, model, optimizer, epoch=0, step=1, metrics={}, training={})
