"""Every bad input gets one clear line and the right exit code, and leaves nothing; what is merely unusual works.

The table of them is `FAULTS.md`. Here too: runs that are killed or meet a full disk, two runs on one output, and
changed bytes in files of every format.
"""

import ast
import gzip
import re
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from support.camera_bytes import aedat4, dat_bytes, es, evt2_bytes, evt3_bytes
from support.faults import COLUMNS, EVENTS, EVERY_READER, FAULTS, TABLE, Fault, answer, h5, recording
from support.processes import Started, start_command
from support.recordings import make_events, same_events
from support.waiting import poll

import deflare_core
from deflare_core.app.commands import main
from deflare_core.deflaring.journal import Journal
from deflare_core.deflaring.method import BaselineMethod
from deflare_core.inference import deflare_recording
from deflare_core.io.convert import convert
from deflare_core.io.reading import Reading
from deflare_core.io.recordings import RecordingError, load_events, save_events
from deflare_core.io.writer import RecordingWriter


def check_answer(fault: Fault, folder: Path, command: str) -> str:
    """Return the last line that a command says of a bad input; the answer is short and clear, and nothing is left."""
    code, lines, left = answer(fault, folder, command)
    assert code == 1, f"The exit code must be 1: {lines}"
    assert lines[-1].startswith(f"deflare {command.split()[0]}: error: "), lines
    assert sum("error" in line for line in lines) == 1, f"One line, not {lines}."
    assert left == [], "Nothing may be left behind."
    assert not (folder / "pickle_was_run").exists(), "No code of a file is ever run."
    return lines[-1]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_bad_input_gets_a_clear_answer_and_leaves_nothing(fault, tmp_path):
    line = check_answer(fault, tmp_path, fault.command)
    assert all(word in line for word in fault.words), f"{fault.words} should stand in: {line}"


FIRST, *OTHERS = EVERY_READER


@pytest.mark.parametrize(
    "command",
    [FIRST, *(pytest.param(command, marks=pytest.mark.slow) for command in OTHERS)],
    ids=lambda command: command.split()[0],
)
@pytest.mark.parametrize("fault", [each for each in FAULTS if each.is_of_a_recording], ids=lambda fault: fault.name)
def test_every_command_refuses_a_bad_recording_by_its_name(fault, command, tmp_path):
    line = check_answer(fault, tmp_path, command + " --sensor-size 12 16" * ("--sensor-size" in fault.command))
    assert str(tmp_path / fault.file) in line, f"The file should be named in: {line}"


def test_the_table_of_faults_names_them_all():
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    named = [row.split(" | ")[0].removeprefix("| ") for row in rows[1:]]
    assert named == [fault.name for fault in FAULTS], "Run PYTHONPATH=tests python -m support.faults."
    assert len(named) >= 40


@pytest.mark.parametrize("t", [COLUMNS["t"] - 50_000, COLUMNS["t"] // 1000 * 1000, COLUMNS["t"].astype(float)])
def test_unusual_times_are_read_as_they_are(tmp_path, t):
    h5(t=t)(tmp_path / "a.h5")
    deflare_recording(BaselineMethod("input"), tmp_path / "a.h5", tmp_path / "out.h5", progress=False)
    assert load_events(tmp_path / "out.h5").t.tolist() == t.tolist(), "Negative, equal or whole float times are times."


def test_no_recording_is_ever_unpickled():
    for path in Path(deflare_core.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                settings = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert settings.get("weights_only") == "True", f"{path.name}, line {node.lineno}"


def long_recording(path: Path, num_windows: int = 60) -> Path:
    with RecordingWriter(path, (120, 160), source="test") as writer:
        for k in range(num_windows):
            writer.append(make_events(seed=k, num=5_000, sensor_size=(120, 160), t_start_us=k * 20_000))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_no_output_and_goes_on(tmp_path, checkpoint, number):
    source, out, journal = long_recording(tmp_path / "in.h5", 150), tmp_path / "out.h5", tmp_path / ".out.h5.journal"
    words = ["infer", "--input", source, "--output", out, "device=cpu", f"checkpoint={checkpoint}"]
    run = start_command(words, tmp_path / "streams")
    run.wait_for(lambda: journal.exists() and journal.stat().st_size > 2_500)
    # Python drops a signal that comes while it frees an object, so it is sent until it is heard.
    poll(lambda: run.send(number) or not run.runs(), "the end of the run", pause_s=0.5)
    assert run.wait() != 0
    assert not out.exists(), "The output is complete or absent."
    assert main(list(map(str, words))) == 0
    assert same_events(load_events(out), load_events(source))
    assert {p.name for p in tmp_path.iterdir()} == {"in.h5", "out.h5", "streams"}


def test_two_runs_on_one_output_do_not_mix(tmp_path, checkpoint, capsys):
    source, out = long_recording(tmp_path / "in.h5", 6), tmp_path / "out.h5"
    words = ["infer", "--input", source, "--output", out, "device=cpu", f"checkpoint={checkpoint}"]
    with Journal(out, "of a run that takes long"):
        assert main(list(map(str, words))) == 1
        assert "out.h5: another run is writing this file" in capsys.readouterr().err
        assert not out.exists()
    assert main(list(map(str, words))) == 0, "When the other has ended, its place is free."
    assert same_events(load_events(out), load_events(source))


def run_on_a_full_disk(words: list[str]) -> int:
    """The exit status of a command that may write no file of more than 200 kB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    return main(words)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("infer --method input --input IN --output OUT", "out.h5"),
        ("convert IN OUT", "out.h5"),
        ("convert IN OUT", "out.npz"),
        ("convert IN OUT", "out.csv"),
        ("encode IN OUT", "out.npy"),
        ("encode IN OUT", "out.pt"),
    ],
)
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, command, name):
    source = long_recording(tmp_path / "in.h5")
    words = [{"IN": str(source), "OUT": str(tmp_path / name)}.get(word, word) for word in command.split()]
    run = Started(run_on_a_full_disk, words, folder=tmp_path / "streams")
    assert run.wait() == 1, run.err
    assert f"{name}: cannot be written (File too large); make room for it." in run.err.splitlines()[-1]
    left = {p.name for p in tmp_path.iterdir()}
    assert left <= {"in.h5", ".out.h5.journal", "streams"}


@pytest.mark.slow
def test_a_full_disk_ends_a_training_in_one_line(tmp_path, pair_folders):
    noisy, clean = pair_folders
    text = f"data: &pair {{noisy_dir: {noisy}, clean_dir: {clean}}}\nvalidation: *pair\n"
    (tmp_path / "a.yaml").write_text(text + "trainer: {max_steps: 1, device: cpu, num_workers: 0}\n")
    words = ["train", "--config", str(tmp_path / "a.yaml"), f"trainer.output_dir={tmp_path / 'run'}"]
    run = Started(
        run_on_a_full_disk, [*words, "model.f_maps=[32,64]", "model.num_levels=2"], folder=tmp_path / "streams"
    )
    assert run.wait() == 1, run.err
    assert "cannot be written (File too large); make room for it." in run.err.splitlines()[-1]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.jsonl"], "No checkpoint is half there."


@pytest.mark.parametrize("command", ["encode IN OUT.npy", "convert IN OUT.h5 --sort", "convert IN OUT.csv"])
def test_a_full_folder_for_temporary_files_is_no_damage_of_the_input(tmp_path, monkeypatch, command):
    convert(long_recording(tmp_path / "in.h5"), tmp_path / "in.npz", progress=False)
    (tmp_path / "small").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "small"))
    places = {"IN": tmp_path / "in.npz", "OUT": tmp_path / "out"}
    words = [re.sub("IN|OUT", lambda match: str(places[match[0]]), word) for word in command.split()]
    run = Started(run_on_a_full_disk, words, folder=tmp_path / "streams")
    assert run.wait() == 1, run.err
    assert f"{tmp_path / 'small'}: no room for" in (line := run.err.splitlines()[-1])
    assert "set TMPDIR" in line
    assert {path.name for path in tmp_path.iterdir()} == {"in.h5", "in.npz", "small", "streams"}
    assert list((tmp_path / "small").iterdir()) == [], "Nothing is left there either."


def sound_files(folder: Path) -> dict[str, bytes]:
    """The bytes of a sound recording in every format."""
    save_events(folder / "a.h5", EVENTS, source="test")
    files = {"a.h5": recording(folder / "a.h5")}
    for suffix in ("npz", "npy", "csv"):
        convert(folder / "a.h5", folder / f"a.{suffix}", progress=False)
        files[f"a.{suffix}"] = (folder / f"a.{suffix}").read_bytes()
    files["a.csv.gz"] = gzip.compress(files["a.csv"])
    rows = EVENTS.to_array().tolist()
    cameras = {"2.raw": evt2_bytes(EVENTS), "3.raw": evt3_bytes(EVENTS), "a.dat": dat_bytes(EVENTS), "a.es": es(rows)}
    return files | cameras | {"a.aedat4": aedat4({("A", "events"): [rows[:999], rows[999:]]})}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes cut short, or with some of them changed, zeroed, repeated or left out."""
    raw = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(raw)) if rng.uniform() < 0.7 else rng.integers(min(600, len(raw))))
        length = int(rng.integers(1, 40))
        kind = rng.choice(["flip", "zero", "cut", "repeat", "omit"])
        if kind == "flip":
            raw[at] ^= 1 << int(rng.integers(8))
        elif kind == "cut" and at:
            del raw[at:]
        elif kind == "omit" and len(raw) > 2 * length:
            del raw[at : at + length]
        elif kind == "repeat":
            raw[at:at] = raw[at : at + length]
        else:
            raw[at : at + length] = bytes(len(raw[at : at + length]))
    return bytes(raw)


def fuzz(folder: Path, seed: int, rounds: int) -> None:
    """Write how many damaged files were read all the same; each gives sound events, or an error that names it."""
    rng, num_read, unnamed = np.random.default_rng(seed), 0, 0
    files = sound_files(folder)
    for k in range(rounds):
        name = list(files)[k % len(files)]
        path = folder / name
        path.write_bytes(damaged(files[name], rng))
        try:
            events = load_events(path, Reading((12, 16)))
        except RecordingError as error:
            unnamed += str(path) not in str(error)
            continue
        num_read += 1
        assert (np.diff(events.t) >= 0).all(), "Events that were read are in order."
        assert (events.x < 16).all(), "They are on the sensor."
        assert (events.y < 12).all()
    assert unnamed == 0, "Every error names its file."
    sys.stdout.write(str(num_read))


@pytest.mark.parametrize("rounds", [90, pytest.param(420, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_or_read_as_sound_events(tmp_path, rounds):
    """In a process of its own, which a fault of a decoder may end."""
    run = Started(fuzz, tmp_path, 0, rounds, folder=tmp_path / "streams")
    assert run.wait() == 0, run.err
    assert 0 < int(run.out) < rounds, "Some damage goes unnoticed in formats without checksums, some is refused."
