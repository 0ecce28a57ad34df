import json
import math
import threading

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from support.waiting import poll

from deflare_core.app import live_curves
from deflare_core.app.commands import main
from deflare_core.loop.run_log import RunLog, RunLogError, read_log
from deflare_core.show.curves import average_steps, draw_learning_curve, draw_training_curves, find_best_epoch, read_run

STEPS_PER_EPOCH = 25


def step_line(step) -> dict:
    loss = 0.3 * math.exp(-step / 60) * (1 + 0.3 * math.sin(7 * step))
    rate = 2e-4 * (1 + math.cos(math.pi * step / 200)) / 2
    details = {"learning_rate": rate, "gradient_norm": 5 * loss, "seconds": 0.1 + 0.01 * (step % 3)}
    return {"step": step, "epoch": (step - 1) // STEPS_PER_EPOCH, "loss": loss} | details


def validation_line(step) -> dict:
    return {"step": step, "epoch": step // STEPS_PER_EPOCH, "validation": {"loss": 0.1 + (step - 150) ** 2 / 1e5}}


@pytest.fixture
def run_dir(tmp_path):
    """The log of a made-up run of 200 steps, in both forms, whose validation is best at step 150."""
    log = RunLog(tmp_path / "run", 0, tensorboard=True)
    for step in range(1, 201):
        log.append(step_line(step))
        if step % 50 == 0:
            log.append(validation_line(step))
    log.close()
    return tmp_path / "run"


def axes_by_label(figure) -> dict:
    labels = [axes.get_ylabel() for axes in figure.axes]
    return dict(zip(["batch", "epoch", *labels[2:]], figure.axes, strict=True))


def test_the_moving_average_of_a_ramp_is_a_ramp():
    assert average_steps(np.arange(5.0), 3).tolist() == pytest.approx([1, 2, 3])


def test_the_curves_show_what_the_log_says(run_dir):
    panels = axes_by_label(draw_training_curves(run_dir))
    assert list(panels) == ["batch", "epoch", "learning rate"]
    assert panels["batch"].get_yscale() == panels["epoch"].get_yscale() == "log"
    raw, smooth = panels["batch"].lines
    assert raw.get_ydata().tolist() == [step_line(step)["loss"] for step in range(1, 201)]
    assert smooth.get_xdata()[0] == 4, "The mean of 4 steps, a fiftieth of the run, begins at step 4."
    assert smooth.get_ydata()[0] == pytest.approx(np.mean([step_line(step)["loss"] for step in (1, 2, 3, 4)]))
    assert len(panels["epoch"].collections) == 8, "200 steps are 8 epochs."
    assert panels["epoch"].lines[0].get_xdata().tolist() == [50, 100, 150, 200]
    assert panels["learning rate"].lines[0].get_ydata()[-1] == pytest.approx(0, abs=1e-12)


def test_the_best_epoch_stands_in_a_light_green_box(run_dir):
    (text,) = axes_by_label(draw_training_curves(run_dir))["epoch"].texts
    assert text.get_text() == "best: epoch 6, step 150, validation loss 0.1"
    assert text.get_bbox_patch().get_facecolor() == to_rgba("lightgreen")


def test_without_validation_the_best_epoch_is_that_of_the_training_loss():
    entries = [{"step": k + 1, "epoch": k // 2, "loss": loss} for k, loss in enumerate([4, 2, 1, 2, 2, 2])]
    assert find_best_epoch(entries) == "best: epoch 2, mean training loss 1.5"


def test_the_details_are_the_gradient_and_the_duration(run_dir):
    assert list(axes_by_label(draw_training_curves(run_dir, detailed=True)))[3:] == [
        "gradient norm",
        "seconds per step",
    ]


def test_tensorboard_scalars_stand_in_for_a_missing_log(run_dir):
    written = read_log(run_dir)
    (run_dir / "metrics.jsonl").unlink()
    for found, expected in zip(read_run(run_dir), written, strict=True):
        figures = expected.get("validation", expected)
        assert found.get("validation", found) == pytest.approx(figures), "All of them, in float32."
    (text,) = axes_by_label(draw_training_curves(run_dir))["epoch"].texts
    assert text.get_text().startswith("best: epoch 6, step 150")


def test_a_log_of_an_earlier_version_is_drawn_too(tmp_path):
    lines = [{"step": 1, "loss": 0.2, "seconds": 0.1}, {"step": 1, "epoch": 0, "validation": {"loss": 0.3}}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(axes_by_label(draw_training_curves(tmp_path))) == ["batch", "epoch"], "It has no learning rate."


def test_the_command_writes_the_picture_under_reports(run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["curves", str(run_dir), "--detailed"]) == 0
    path = tmp_path / "reports/training_curves/run/training_loss_curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in path.parent.iterdir()] == [path.name], "No temporary file is left."
    assert "training_loss_curves.png" in capsys.readouterr().out


def test_the_learning_curve_has_a_mean_only_where_it_is_one():
    def labels(num):
        log = [{"step": k + 1, "loss": 1 / (k + 1)} for k in range(num)]
        figure = draw_learning_curve([*log, {"step": num, "validation": {"loss": 0.5}}])
        return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]

    assert labels(99) == ["training, each step", "validation"]
    assert labels(150) == ["training, each step", "mean of the last 3 steps", "validation"]
    assert draw_learning_curve([]).axes[0].get_legend() is None, "A run that has not begun is an empty picture."


def test_live_curves_follow_the_log_while_it_grows(tmp_path, monkeypatch):
    """A stand-in for the notebook's cell takes the pictures; the run only writes its log."""
    drawn = []

    class Cell:
        def update(self, figure):
            drawn.append(sum(len(line.get_xdata()) for line in figure.axes[0].lines[:1]))

    monkeypatch.setattr(live_curves, "display", lambda figure, display_id: Cell())
    log, threads = RunLog(tmp_path / "run", 0), set(threading.enumerate())
    with live_curves.live_curves(tmp_path / "run", every_s=0.01):
        for step in range(1, 4):
            log.append(step_line(step))
            poll(lambda step=step: step in drawn, f"Step {step} is drawn while the run goes on")
        log.append(step_line(4))
    assert drawn[-1] == 4, "The last picture shows the whole run."
    assert set(threading.enumerate()) <= threads, "Nothing draws afterwards."


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunLogError, match=r"has no metrics\.jsonl or TensorBoard scalars"):
        draw_training_curves(tmp_path)
