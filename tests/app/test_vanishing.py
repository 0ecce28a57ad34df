"""Files and folders that vanish, or become pipes, while a command runs: a line each, and what remains is done."""

import multiprocessing
import shutil
from pkgutil import resolve_name

import pytest
from support.faults import replace_by_pipe
from support.recordings import make_events, same_events

from deflare_core.app.commands import main
from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.method import BaselineMethod
from deflare_core.io import verify
from deflare_core.io.recordings import load_events, save_events
from deflare_core.scores.evaluation import evaluate_methods
from deflare_core.system.signals import Terminated
from deflare_core.system.unfinished import dated_folder

TRAINING = """
model: {f_maps: [8, 16], num_levels: 2}
data: &pairs {noisy_dir: noisy, clean_dir: clean}
validation: *pairs
trainer: {max_steps: 30, device: cpu, output_dir: run}
"""


def remove(path) -> None:
    """Take a file or a folder away."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def at_call(monkeypatch):
    """Let something happen just before a call of a function, by its dotted name: the first one, or a later one."""

    def arrange(name, act, count=1):
        calls, called = [], resolve_name(name)

        def calling(*arguments, **settings):
            calls.append(name)
            if len(calls) == count:
                act()
            return called(*arguments, **settings)

        monkeypatch.setattr(name, calling)

    return arrange


@pytest.fixture
def pairs(tmp_path):
    """Two folders of three pairs, named a, b and c."""
    for seed, name in enumerate("abc"):
        events = make_events(seed=seed, num=600, duration_us=60_000)
        save_events(tmp_path / "noisy" / f"{name}.h5", events, source="test")
        save_events(tmp_path / "clean" / f"{name}.h5", events[::2], source="test")
    return tmp_path


def said_in_one_line(capsys, *words) -> bool:
    """Whether the errors are one line that holds the words."""
    lines = capsys.readouterr().err.splitlines()
    found = [line for line in lines if "error" in line]
    assert len(found) == 1, f"One line, not {lines}."
    assert all(word in found[0] for word in words), f"{words} should stand in: {found[0]}"
    assert "Errno" not in found[0], "An error's number tells a person nothing."
    return True


@pytest.mark.parametrize(("act", "word"), [(remove, "no such file"), (replace_by_pipe, "is a pipe")])
@pytest.mark.parametrize("method", ["baf", "network"])
def test_a_recording_that_vanishes_does_not_stop_its_folder(pairs, at_call, act, word, method, checkpoint, capsys):
    at_call("deflare_core.inference.deflare_recording", lambda: act(pairs / "noisy" / "b.h5"))
    chosen = ["--method", "baf"] if method == "baf" else [f"checkpoint={checkpoint}", "device=cpu"]
    assert main(["infer", "-i", str(pairs / "noisy"), "-o", str(pairs / "out"), *chosen]) == 1
    assert said_in_one_line(capsys, "b.h5", word)
    assert {path.name for path in (pairs / "out").iterdir()} == {"a.h5", "c.h5"}


def test_a_recording_that_was_deflared_and_vanishes_is_named(pairs, capsys):
    words = ["infer", "-i", str(pairs / "noisy"), "-o", str(pairs / "out"), "--method", "baf"]
    assert main(words) == 0
    (pairs / "noisy" / "b.h5").rename(pairs / "elsewhere.h5")
    (pairs / "noisy" / "b.h5").symlink_to(pairs / "gone.h5")
    assert main(words) == 1
    assert said_in_one_line(capsys, "b.h5", "gone.h5, which is not there")


@pytest.mark.parametrize(
    "command", ["infer --method baf -i IN -o OUT", "infer device=cpu -i IN -o OUT", "convert IN OUT"]
)
def test_an_output_folder_that_vanishes_is_said(pairs, at_call, command, checkpoint, capsys):
    out = pairs / "out" / "a.h5"
    at_call("deflare_core.io.writer.RecordingWriter._finish", lambda: remove(out.parent))
    places = {"IN": str(pairs / "noisy" / "a.h5"), "OUT": str(out)}
    assert main([places.get(word, word) for word in command.split()]) == 1
    assert said_in_one_line(capsys, f"{out}: its folder was removed meanwhile; run it again.")


def test_the_next_recordings_have_their_folder_made_again(pairs, at_call, capsys):
    at_call("deflare_core.io.writer.RecordingWriter._finish", lambda: remove(pairs / "out"), count=2)
    assert main(["infer", "-i", str(pairs / "noisy"), "-o", str(pairs / "out"), "--method", "baf"]) == 1
    assert said_in_one_line(capsys, "b.h5", "run it again")
    assert {path.name for path in (pairs / "out").iterdir()} == {"c.h5"}
    assert main(["infer", "-i", str(pairs / "noisy"), "-o", str(pairs / "out"), "--method", "baf"]) == 0
    assert len(list((pairs / "out").iterdir())) == 3


@pytest.fixture
def evaluated(pairs, monkeypatch):
    """The words of an evaluation of the pairs by two baselines."""
    monkeypatch.chdir(pairs)
    (pairs / "test.yaml").write_text("device: cpu\n")
    return [
        "evaluate",
        "--config",
        "test.yaml",
        "data.noisy_dir=noisy",
        "data.clean_dir=clean",
        "output_dir=out",
        "methods=[input,baf]",
    ]


@pytest.mark.parametrize("act", [remove, replace_by_pipe])
@pytest.mark.parametrize("folder", ["noisy", "clean"])
def test_a_pair_that_vanishes_does_not_stop_the_others(pairs, at_call, act, folder):
    at_call("deflare_core.scores.evaluation.begin_scoring", lambda: act(pairs / folder / "b.h5"), count=2)
    data = EventVoxelDataset(pairs / "noisy", pairs / "clean")
    found = evaluate_methods([BaselineMethod("input")], data, cache=pairs / "out", progress=False)
    assert found.failures.keys() == {"b"}
    assert f"{folder}/b.h5: " in found.failures["b"]
    assert found.scores["input"].keys() == {"a", "c"}


@pytest.mark.slow
def test_a_pair_that_vanishes_does_not_stop_the_report(pairs, evaluated, at_call, capsys):
    at_call("deflare_core.scores.evaluation.begin_scoring", lambda: remove(pairs / "clean" / "b.h5"), count=2)
    assert main(evaluated) == 1
    assert said_in_one_line(capsys, "b was not scored", "clean/b.h5: ")
    assert "2 recordings (1 more could not be scored)" in (pairs / "out" / "report.md").read_text()


@pytest.mark.slow
def test_a_pair_that_vanishes_before_it_is_pictured_leaves_its_scores(pairs, evaluated, at_call, caplog):
    at_call("deflare_core.show.report.draw_cases", lambda: remove(pairs / "noisy" / "b.h5"))
    assert main(evaluated) == 0
    assert "b is scored but not pictured: noisy/b.h5: no such file" in caplog.text
    assert "\nbaf,b," in (pairs / "out" / "recordings.csv").read_text()


def test_a_partner_that_vanishes_is_one_problem_of_a_verification(pairs, at_call, capsys):
    at_call("deflare_core.io.verify._find_mismatch", lambda: remove(pairs / "clean" / "a.h5"))
    assert main(["verify", str(pairs / "noisy"), str(pairs / "clean")]) == 1
    assert said_in_one_line(capsys, "clean/a.h5: no such file")
    assert len(verify.verify_folders(pairs / "noisy", pairs / "noisy").checks) == 6


@pytest.mark.parametrize("act", [remove, replace_by_pipe])
@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_pair_that_vanishes_while_it_trains_is_said(pairs, monkeypatch, at_call, act, num_workers, capsys):
    monkeypatch.chdir(pairs)
    (pairs / "train.yaml").write_text(TRAINING)
    at_call("deflare_core.training.train_step", lambda: act(pairs / "clean" / "b.h5"))
    assert main(["train", "--config", "train.yaml", f"trainer.num_workers={num_workers}"]) == 1
    assert said_in_one_line(capsys, "deflare train: error: clean/b.h5: ")
    assert not multiprocessing.active_children(), "The command waits for its processes when it ends."


@pytest.mark.slow
def test_a_process_that_loads_for_a_training_and_is_killed_is_said(pairs, monkeypatch, at_call, capsys):
    monkeypatch.chdir(pairs)
    (pairs / "train.yaml").write_text(TRAINING)
    at_call("deflare_core.training.train_step", lambda: [child.kill() for child in multiprocessing.active_children()])
    assert main(["train", "--config", "train.yaml", "trainer.num_workers=1"]) == 1
    assert said_in_one_line(capsys, "A process that loads batches ended before its time", "num_workers")
    assert not multiprocessing.active_children()


def test_a_run_whose_folder_vanishes_says_so(pairs, monkeypatch, at_call, capsys):
    monkeypatch.chdir(pairs)
    (pairs / "train.yaml").write_text(TRAINING)
    at_call("deflare_core.training.train_step", lambda: remove(pairs / "run"), count=3)
    assert main(["train", "--config", "train.yaml", "trainer.num_workers=0"]) == 1
    assert said_in_one_line(capsys, "run/metrics.jsonl: ")


def test_a_data_set_whose_folder_vanishes_is_not_said_to_be_there(tmp_path, at_call, capsys):
    at_call("data_simu.pairs.write_pair", lambda: remove(tmp_path / "data" / "background_with_flare_events"), count=2)
    settings = ["sensor_size=[12,16]", "duration_us=20000", "num_train=2", "num_test=0"]
    (tmp_path / "simu.yaml").write_text("scene: {}\n")
    words = ["simulate", "--config", str(tmp_path / "simu.yaml"), "--output-dir", str(tmp_path / "data"), *settings]
    assert main([*words, "--workers", "1"]) == 1
    assert said_in_one_line(capsys, "composed_00000_bg_flare.h5: was removed meanwhile; run it again")
    assert main([*words, "--workers", "1"]) == 0


def test_a_recording_removed_while_it_is_read_is_read_to_its_end(pairs, at_call):
    source, before = pairs / "noisy" / "a.h5", load_events(pairs / "noisy" / "a.h5")
    at_call("deflare_core.io.writer.RecordingWriter.append", lambda: remove(source))
    assert main(["infer", "-i", str(source), "-o", str(pairs / "out.h5"), "--method", "input"]) == 0
    assert same_events(load_events(pairs / "out.h5"), before)


def test_a_report_of_a_killed_run_goes_and_those_of_others_stay(tmp_path):
    with dated_folder(tmp_path, "runs") as running, dated_folder(tmp_path, "done") as done:
        pass
    (killed := tmp_path / "killed").mkdir()
    (killed / ".unfinished").touch()
    (done / "notes.txt").touch()
    with dated_folder(tmp_path, "runs") as running, dated_folder(tmp_path, "other") as other:
        assert running.is_dir(), "Another run does not take a running one for a killed one."
        assert not killed.exists(), "What was left by a process that is gone is cleared away."
    assert {path.name for path in done.iterdir()} == {"notes.txt"}, "A finished one has no mark."
    assert list(other.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
def test_a_signal_takes_half_a_report_away(tmp_path, error):
    with pytest.raises(error), dated_folder(tmp_path, "half"):
        raise error(143)
    assert list(tmp_path.iterdir()) == []
