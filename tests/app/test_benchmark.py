"""The benchmark that a user can run, on a machine without a GPU: its rows, its table, and what feeds training."""

import json

import pytest
import torch
from benchmarks import machine_speed as benchmark

from deflare_core.config import ModelConfig, SimulatedDataConfig
from deflare_core.model import build_model

SMALL = ModelConfig(f_maps=(8, 16), num_levels=2)
CPU = torch.device("cpu")


@pytest.mark.slow
def test_each_way_of_feeding_a_training_step_is_timed(tmp_path):
    (tmp_path / "simu.yaml").write_text("sensor_size: [24, 32]\nwarmup_us: 5000\n")
    simulated = SimulatedDataConfig(simulation=tmp_path / "simu.yaml", workers=0)
    rows = list(benchmark.measure_feeding(build_model(SMALL, seed=0), (24, 32), simulated, num_steps=2))
    assert [row.way for row in rows] == ["windows that lie ready", "windows from files", "a new pair every ten steps"]
    assert all(row.ms > 0 for row in rows)


def test_of_each_new_pair_ten_steps_are_made(tmp_path):
    (tmp_path / "simu.yaml").write_text("sensor_size: [24, 32]\nwarmup_us: 5000\n")
    windows = benchmark.simulate_windows(SimulatedDataConfig(simulation=tmp_path / "simu.yaml", workers=0), CPU)
    seen = [next(windows)[0] for _ in range(11)]
    windows.close()
    assert all(torch.equal(a, b) for a, b in zip(seen[:10:2], seen[1:10:2], strict=True)), "Each window comes twice."
    assert len({tensor.sum().item() for tensor in seen}) > 1


def test_a_step_learns():
    model = build_model(SMALL, seed=0)
    raw, label = (benchmark.draw_voxel((16, 16), CPU, seed) for seed in (0, 1))
    step = benchmark.make_step(model, model, raw)
    before = (model(raw) - label).square().mean()
    for _ in range(20):
        step(raw, label)
    assert (model(raw) - label).square().mean() < before


@pytest.mark.slow
def test_the_tables_of_a_processor(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "CPU_SENSOR_SIZE", (24, 32))
    monkeypatch.setattr(benchmark, "PROCESSOR_SIZE", (24, 32))
    monkeypatch.setattr(benchmark, "EVENTS_PER_WINDOW", 2000)
    monkeypatch.setattr(benchmark, "CUBE", 512)
    text = benchmark.run_benchmark(CPU, tmp_path)
    rows = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    works = {row["work"] for row in rows}
    assert works >= {"network", "training step [32, 64, 128]", "whole window, default", "whole window, pretrained"}
    ways = {(row["work"], row["way"]) for row in rows}
    assert ("pretrained network on the processor", "single, 1 core") in ways
    singly = [row["error"] for row in rows if row["way"].startswith("single")]
    assert max(singly) < 1e-4, "On one core and on all the same comes out, to rounding."
    assert {("read EVT3, 10,000 events", "ours"), ("read EVT3, 10,000 events", "faery")} <= ways, "Peers are rows."
    errors = {row["way"]: row["error"] for row in rows if row["work"] == "network"}
    assert errors["ours, single"] == pytest.approx(errors["usual"], abs=1e-5), "The same weights give the same result."
    assert "could not run" not in text, "Every group runs."
    assert all(row["limit"] for row in rows if row["work"] not in ("1e12 operations", "1 GB moved")), (
        "Rows have bounds."
    )
    assert (tmp_path / "benchmark.md").read_text() == text
    assert (tmp_path / "benchmark.png").stat().st_size > 0
    assert "network: usual" in capsys.readouterr().err, "Each row is printed as it comes."


def test_a_group_that_cannot_run_costs_its_own_rows(tmp_path):
    def break_down():
        yield benchmark.Row("first", "until then", 1.0)
        raise AttributeError("no such thing\nat all")

    rows = list(
        benchmark.collect_rows({"first": break_down, "second": lambda: [benchmark.Row("second", "after", 2.0)]})
    )
    assert [row.way for row in rows] == ["until then", "could not run: AttributeError: no such thing", "after"]
    benchmark.write_rows(rows, "machine", tmp_path)
    table = (tmp_path / "benchmark.md").read_text()
    assert "| second | after | 2.00 |" in table, "What came after is in the table."
    assert "| first | could not run: AttributeError: no such thing |  |" in table, (
        "The table says what failed, and why."
    )


def test_the_work_of_convolutions_is_counted():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(5, 2, 1))
    operations = 2 * (4 * 6 * 5 * 27 + 4 * 6 * 2 * 5)
    assert benchmark.count_convolutions(model, (1, 3, 4, 6)) == (operations, 24 * (3 + 5 + 5 + 2))


def test_the_slowest_part_bounds_a_row():
    assert benchmark.name_limit(10, {"reading": 2, "network": 8}) == "network, 80% of it"
