import errno
import re
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.processes import Started
from support.recordings import make_events, same_events

from deflare_core.app.commands import main
from deflare_core.checkpoint import load_pretrained
from deflare_core.codec import AppliedVoxel, events_to_voxel
from deflare_core.config import ModelConfig
from deflare_core.deflaring.host import run_voxel
from deflare_core.deflaring.jobs import list_jobs
from deflare_core.deflaring.journal import Journal
from deflare_core.deflaring.method import BaselineMethod, NetworkMethod
from deflare_core.inference import deflare_recording
from deflare_core.io.hdf5_files import CACHE_BYTES
from deflare_core.io.recordings import Recording, RecordingError, load_events, open_recording, save_events
from deflare_core.io.writer import RecordingWriter
from deflare_core.model import build_model
from deflare_core.streams.baselines import BASELINES
from deflare_core.system.errors import DeflareError
from deflare_core.system.processes import Processes
from deflare_core.windows import derive_seed


@pytest.fixture
def model():
    return build_model(ModelConfig(f_maps=(8, 16), num_levels=2), seed=0)


@pytest.fixture
def halving_model(model):
    """A network whose output is about half of its input: an odd stretch of its own, but a real forward pass."""
    with torch.no_grad():
        torch.nn.init.normal_(model.backbone.final_conv.weight, std=0.5)
    return model


@pytest.mark.parametrize("t_start_us", [0, 7_000_000_000, 1_700_000_000_013_000])
@pytest.mark.parametrize("num", [0, 1, 5_000])
def test_the_untrained_network_gives_every_event_back(model, tmp_path, t_start_us, num):
    events = make_events(num=num, t_start_us=t_start_us + 15_000, duration_us=250_000)
    save_events(tmp_path / "in.h5", events, source="test")
    summary = deflare_recording(model, tmp_path / "in.h5", tmp_path / "out.h5", progress=False)
    assert same_events(load_events(tmp_path / "out.h5"), events)
    assert (summary.num_in, summary.num_kept, summary.num_removed, summary.num_synthesised) == (num, num, 0, 0)


def test_a_trained_network_gives_its_rounded_output(halving_model, tmp_path):
    events = make_events(num=8_000, duration_us=100_000)
    save_events(tmp_path / "in.h5", events, source="test", clock_us=(0, 100_000))
    summary = deflare_recording(halving_model, tmp_path / "in.h5", tmp_path / "out.h5", progress=False)
    out = load_events(tmp_path / "out.h5")
    assert summary.num_removed > 0
    assert summary.num_kept + summary.num_synthesised == len(out)
    for t0_us in range(0, 100_000, 20_000):
        voxel = events_to_voxel(events.window(t0_us, t0_us + 20_000), t0_us=t0_us)
        expected = np.rint(run_voxel(halving_model, voxel))
        found = events_to_voxel(out.window(t0_us, t0_us + 20_000), t0_us=t0_us)
        assert np.array_equal(found, expected), "The written events encode to the rounded output voxel."


def test_the_same_command_twice_gives_the_same_bytes(halving_model, tmp_path):
    save_events(tmp_path / "in.h5", make_events(num=3_000, duration_us=60_000), source="test")
    for name in ("a.h5", "b.h5"):
        deflare_recording(halving_model, tmp_path / "in.h5", tmp_path / name, seed=5, progress=False)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_windows_result_does_not_depend_on_where_the_work_began(halving_model, tmp_path):
    events = make_events(num=6_000, duration_us=100_000)
    save_events(tmp_path / "all.h5", events, source="test")
    save_events(tmp_path / "part.h5", events.window(40_000, 100_000), source="test")
    for name in ("all", "part"):
        deflare_recording(halving_model, tmp_path / f"{name}.h5", tmp_path / f"{name}_out.h5", progress=False)
    whole, part = (load_events(tmp_path / f"{name}_out.h5") for name in ("all", "part"))
    assert same_events(whole.window(40_000, 100_000), part)
    assert derive_seed(0, 40_000) != derive_seed(0, 60_000)


def test_a_failed_run_leaves_no_output(model, tmp_path):
    events = make_events(num=3_000, duration_us=60_000)
    save_events(tmp_path / "in.h5", events, source="test")
    with torch.no_grad():
        model.backbone.final_conv.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        deflare_recording(model, tmp_path / "in.h5", tmp_path / "out.h5", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5"]
    with pytest.raises(ValueError, match="is the recording itself"):
        deflare_recording(model, tmp_path / "in.h5", tmp_path / "in.h5", progress=False)


def test_the_output_keeps_the_declared_clock(model, tmp_path):
    save_events(tmp_path / "in.h5", make_events(num=50), source="test", clock_us=(0, 100_000))
    summary = deflare_recording(model, tmp_path / "in.h5", tmp_path / "out.h5", progress=False)
    assert summary.num_windows == 5, "Silent windows at the end are windows."
    with open_recording(tmp_path / "out.h5") as recording:
        assert recording.clock_us == (0, 100_000)


def test_a_folder_is_shared_among_the_processes(tmp_path):
    for name in ("c.h5", "a.h5", "b.hdf5"):
        save_events(tmp_path / "in" / name, make_events(num=50), source="test")
    (tmp_path / "in" / "notes.txt").write_text("not a recording")
    jobs = list_jobs(tmp_path / "in", tmp_path / "out")
    assert [(source.name, target.name) for source, target in jobs] == [
        (name,) * 2 for name in ("a.h5", "b.hdf5", "c.h5")
    ]
    shares = [Processes(torch.device("cpu"), rank, count=2).share(jobs) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == jobs, "Every recording is deflared by one process."
    assert list_jobs(tmp_path / "in" / "a.h5", tmp_path / "x.h5")[0][1] == tmp_path / "x.h5"
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordingError, match="empty: holds no recordings"):
        list_jobs(tmp_path / "empty", tmp_path / "out")


@pytest.mark.slow
def test_the_command_deflares_a_folder_in_two_processes(tmp_path):
    names = ["a.h5", "b.h5", "c.h5"]
    for k, name in enumerate(names):
        save_events(tmp_path / "in" / name, make_events(seed=k, num=500), source="test")
        deflare_recording(load_pretrained("cpu"), tmp_path / "in" / name, tmp_path / "here" / name, progress=False)
    folders = ["--input", tmp_path / "in", "--output", tmp_path / "out", "device=cpu"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "deflare_core", "infer", *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [re.findall(rf"{name}: [\d,]+ of 500 events removed", done.stdout) for name in names]
    assert [len(found) for found in lines] == [1, 1, 1], f"Each has its line, once: {done.stdout}"
    for name in names:
        here, there = (load_events(tmp_path / folder / name) for folder in ("here", "out"))
        assert same_events(here, there), "Several processes leave what one does."


def test_a_folder_whose_results_would_overwrite_something_is_refused(tmp_path, capsys):
    folder = tmp_path / "in"
    save_events(folder / "b.npz.h5", make_events(num=50), source="test")
    (folder / "b.npz").write_bytes(b"not read")
    with pytest.raises(RecordingError, match=r"out/b.npz.h5: b.npz and b.npz.h5 would both be written there"):
        list_jobs(folder, tmp_path / "out")
    for target in (folder, folder / "b.npz"):
        with pytest.raises(RecordingError, match="needs another folder"):
            list_jobs(folder, target)
    (folder / "b.npz").rename(folder / "b.txt")
    assert main(["infer", "--input", str(folder), "--output", str(tmp_path / "out"), "--method", "input"]) == 0
    assert "text files are left out (b.txt)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "reason"), [("in.h5", "the recording itself"), ("folder.h5", "is a folder"), ("out.csv", "must end in")]
)
def test_a_file_that_cannot_be_the_result_is_refused_before_any_work(tmp_path, name, reason, capsys):
    save_events(tmp_path / "in.h5", make_events(num=50), source="test")
    save_events(tmp_path / "folder.h5" / "kept.h5", make_events(num=50), source="test")
    for command in (["infer", "--method", "input", "--input", "in.h5", "--output", name], ["decode", "in.h5", name]):
        paths = [str(tmp_path / word) if word.endswith((".h5", ".csv")) else word for word in command]
        assert main(paths) == 1, "Nothing is made."
        assert reason in capsys.readouterr().err, "The command says why."
    assert len(load_events(tmp_path / "folder.h5" / "kept.h5")) == 50, "What stands in the folder stays."


def failed_of(stderr: str) -> list[str]:
    """The names of the recordings that the command says have failed."""
    return [Path(line.split(": ")[2]).name for line in stderr.splitlines() if line.startswith("deflare infer: error")]


def test_a_bad_recording_of_a_folder_does_not_stop_it_and_what_is_done_is_skipped(tmp_path, capsys):
    sources, outputs = tmp_path / "in", tmp_path / "out"
    for name in ("a.h5", "c.h5", "e.h5"):
        save_events(sources / name, make_events(num=500), source="test")
    for name in ("b.h5", "d.h5"):
        (sources / name).write_bytes(b"")
    command = ["infer", "--input", str(sources), "--output", str(outputs), "--method", "baf"]
    assert main(command) == 1, "The exit code tells that recordings failed."
    told = capsys.readouterr()
    assert failed_of(told.err) == ["b.h5", "d.h5"], "All that failed are named at the end."
    assert told.out.count("of 500 events removed") == 3, "The others are deflared all the same."

    save_events(sources / "b.h5", make_events(num=400), source="test")
    save_events(sources / "c.h5", make_events(num=300), source="test")
    before = (outputs / "a.h5").stat().st_mtime_ns
    assert main(command) == 1
    told = capsys.readouterr()
    assert failed_of(told.err) == ["d.h5"]
    lines = [line.split(": ", 2) for line in told.out.splitlines() if not line.startswith(" ")]
    assert [place for place, _, _ in lines] == ["1 of 5", "2 of 5", "3 of 5", "5 of 5"], "Each has its place."
    skipped = {Path(name).name: text.startswith("skipped") for _, name, text in lines}
    expected = {"a.h5": True, "b.h5": False, "c.h5": False, "e.h5": True}
    assert skipped == expected, "What failed or changed is made; what is done is said to be skipped."
    assert (outputs / "a.h5").stat().st_mtime_ns == before

    (sources / "d.h5").unlink()
    for changed in ("seed=1", "flags=true", "method=pfd_a"):
        words = [word for word in command if word not in ("--method", "baf")] if "method" in changed else command
        assert main([*words, changed]) == 0
        assert "skipped" not in capsys.readouterr().out, f"With {changed} it is other work."


class Interrupted(KeyboardInterrupt):
    """What Ctrl-C raises, from where the test wants it."""


@pytest.mark.parametrize("overlap", [False, True])
def test_an_interrupted_run_goes_on_where_it_stopped(halving_model, tmp_path, overlap, monkeypatch):
    save_events(tmp_path / "in.h5", make_events(num=9_000, duration_us=200_000), source="test")
    method, settings = NetworkMethod(halving_model, overlap), {"flags": True, "progress": False}
    deflare_recording(method, tmp_path / "in.h5", tmp_path / "whole.h5", **settings)

    taken = []
    noted = Journal.append

    def interrupting(journal, window):
        taken.append(window)
        if len(taken) == 5:
            raise Interrupted
        noted(journal, window)

    monkeypatch.setattr(Journal, "append", interrupting)
    with pytest.raises(Interrupted):
        deflare_recording(method, tmp_path / "in.h5", tmp_path / "out.h5", **settings)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.h5.journal", "in.h5", "whole.h5"]
    deflare_recording(method, tmp_path / "in.h5", tmp_path / "out.h5", **settings)
    assert len(taken) == 5 + 6, "Of ten windows four were noted, so six are made."
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5", "out.h5", "whole.h5"]


def test_another_input_or_network_begins_anew(halving_model, tmp_path, monkeypatch):
    save_events(tmp_path / "in.h5", make_events(num=900, duration_us=100_000), source="test")
    with Journal(tmp_path / "out.h5", "of other work") as journal:
        journal.append(apply_nothing(make_events(num=3)))
    summary = deflare_recording(halving_model, tmp_path / "in.h5", tmp_path / "out.h5", progress=False)
    assert summary.num_in == 900


def apply_nothing(events):
    return AppliedVoxel(events, np.zeros(len(events), bool), np.ones(len(events), bool))


def test_flags_tell_what_became_of_each_event(halving_model, tmp_path):
    events = make_events(num=8_000, duration_us=100_000)
    save_events(tmp_path / "in.h5", events, source="test")
    summary = deflare_recording(halving_model, tmp_path / "in.h5", tmp_path / "out.h5", flags=True, progress=False)
    out = load_events(tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        synthesised, kept = file["events/synthesised"][()].astype(bool), file["input_kept"][()].astype(bool)
    assert (len(kept), len(synthesised)) == (len(events), len(out))
    assert (int(kept.sum()), int(synthesised.sum())) == (summary.num_kept, summary.num_synthesised)
    assert summary.num_synthesised > 0
    assert same_events(out[~synthesised], events[kept]), "What was not synthesised are the kept events, times and all."


def test_baselines_share_the_path(tmp_path):
    events = make_events(num=4_000, duration_us=200_000)
    save_events(tmp_path / "in.h5", events, source="test")
    summary = deflare_recording(BaselineMethod("pfd_b"), tmp_path / "in.h5", tmp_path / "out.h5", progress=False)
    expected = BASELINES["pfd_b"](events, (0, 200_000), 0)
    assert same_events(load_events(tmp_path / "out.h5"), expected)
    assert (summary.num_in, summary.num_kept, summary.num_synthesised) == (4_000, len(expected), 0)
    with pytest.raises(ValueError, match="There is no method 'pfd'"):
        deflare_recording(BaselineMethod("pfd"), tmp_path / "in.h5", tmp_path / "x.h5", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5", "out.h5"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path):
    """Of 120 MiB more of a recording, no more than the reader's caches may stay; told by processes of their own."""
    peaks = {}
    for count in (50, 650):
        with RecordingWriter(tmp_path / f"{count}.h5", (12, 16), source="test") as writer:
            for k in range(count):
                writer.append(make_events(seed=k, num=16_000, t_start_us=k * 20_000))
        files = [tmp_path / f"{count}{part}.h5" for part in ("", "_out")]
        run = Started(deflare_and_write_peak, *files, folder=tmp_path / f"{count}")
        assert run.wait() == 0, run.err
        peaks[count] = float(run.out)
    assert peaks[650] < peaks[50] + 4 * CACHE_BYTES / 2**20 + 10, f"MiB at the peak, by windows: {peaks}"


def deflare_and_write_peak(source: Path, target: Path) -> None:
    """Deflare a recording, and write how many MiB of memory this process has had at most."""
    deflare_recording(build_model(ModelConfig(f_maps=(8, 16), num_levels=2), 0), source, target, progress=False)
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def out_of_memory(*_):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize(
    ("backbone", "advice"),
    [("ResidualUNet3D", r"Let it .* strip_rows=8, or use device=cpu\."), ("ResidualUNet2D", r"Use device=cpu\.")],
)
def test_a_gpu_without_memory_is_told_what_helps(tmp_path, backbone, advice):
    save_events(tmp_path / "in.h5", make_events(num=900), source="test")
    model = build_model(ModelConfig(backbone=backbone, f_maps=(8, 16), num_levels=2), seed=0)
    model.backbone.register_forward_pre_hook(out_of_memory)
    with pytest.raises(ValueError, match=r"frames of 12 x 16 \(CUDA out .* 20.00 GiB.\)\. " + advice):
        deflare_recording(model, tmp_path / "in.h5", tmp_path / "out.h5", progress=False)


def unreadable(*_):
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("fault", ["memory", "disk"])
def test_a_failure_that_may_pass_loses_no_window(halving_model, tmp_path, fault, monkeypatch):
    save_events(tmp_path / "in.h5", make_events(num=9_000, duration_us=200_000), source="test")
    noted, hooks = [], []
    note = Journal.append

    def failing(journal, window):
        if len(noted) == 4 and fault == "disk":
            monkeypatch.setattr(Recording, "_slice", unreadable)
        elif len(noted) == 4:
            hooks.append(halving_model.backbone.register_forward_pre_hook(out_of_memory))
        noted.append(note(journal, window))

    monkeypatch.setattr(Journal, "append", failing)
    with pytest.raises((DeflareError, OSError), match=r"Input/output error|CUDA out of memory"):
        deflare_recording(halving_model, tmp_path / "in.h5", tmp_path / "out.h5", progress=False)
    num_before = len(noted)
    assert 4 <= num_before < 10, "It failed on the way."
    monkeypatch.undo()
    for hook in hooks:
        hook.remove()
    monkeypatch.setattr(Journal, "append", lambda journal, window: noted.append(note(journal, window)))
    deflare_recording(halving_model, tmp_path / "in.h5", tmp_path / "out.h5", progress=False)
    assert len(noted) == 10, "The windows noted before are not made again."


def test_the_command_works_in_strips(tmp_path, checkpoint):
    events = make_events(num=900, sensor_size=(60, 80))
    save_events(tmp_path / "in.h5", events, source="test")
    files = ["--input", str(tmp_path / "in.h5"), "--output", str(tmp_path / "out.h5")]
    assert main(["infer", *files, "strip_rows=16", "device=cpu", f"checkpoint={checkpoint}"]) == 0
    assert same_events(load_events(tmp_path / "out.h5"), events)
