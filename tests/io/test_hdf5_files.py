"""HDF5 files on which HDF5 itself fails, and how often a sound one is tried."""

import h5py
import hdf5plugin
import pytest
from support.faults import COLUMNS, EVENTS, h5_crashing
from support.recordings import same_events

from deflare_core.app.commands import main
from deflare_core.io import hdf5_files
from deflare_core.io.reading import Reading
from deflare_core.io.recordings import load_events, save_events
from deflare_core.io.verify import verify_folders


@pytest.fixture
def trials(monkeypatch):
    """How often a file was tried."""
    count = []
    find_failure = hdf5_files.find_failure
    monkeypatch.setattr(hdf5_files, "find_failure", lambda function: count.append(1) or find_failure(function))
    return count


def test_a_file_is_tried_once_for_each_state_and_way_to_read_it(tmp_path, trials):
    path = tmp_path / "a.h5"
    for num_trials in (1, 2):
        save_events(path, EVENTS[num_trials:], source="test")
        for _ in range(3):
            assert same_events(load_events(path), EVENTS[num_trials:])
        assert len(trials) == num_trials, "Only a file that was changed is tried again."
    load_events(path, Reading(polarity="lenient"))
    assert len(trials) == 3, "Another reading may come further."


def test_a_file_that_crashes_is_tried_once_whatever_is_guessed_of_it(tmp_path, trials, capsys):
    h5_crashing(path := tmp_path / "a.h5")
    assert main(["info", str(path)]) == 1
    assert "HDF5 crashes (SIGSEGV)" in capsys.readouterr().err
    assert len(trials) == 1


def test_in_a_folder_the_others_are_read(tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "c"):
        save_events(folder / f"{name}.h5", EVENTS, source="test")
    h5_crashing(folder / "b.h5")
    assert main(["infer", "-i", str(folder), "-o", str(out), "--method", "input", "--quiet"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert all(same_events(load_events(out / f"{name}.h5"), EVENTS) for name in ("a", "c"))
    problems = verify_folders(folder, out).problems
    assert sum("HDF5 crashes (SIGSEGV)" in problem for problem in problems) == 1


@pytest.mark.parametrize(("settings", "num_times"), [(hdf5plugin.Bitshuffle(), 1), (hdf5plugin.Blosc(), 0)])
def test_values_in_code_that_may_crash_are_tried_whole(tmp_path, monkeypatch, settings, num_times):
    path, allowed = tmp_path / "a.h5", []
    with h5py.File(path, "w") as file:
        for name, values in COLUMNS.items():
            file.create_dataset(f"events/{name}", data=values, chunks=(500,), **settings)
        file["events"].attrs.update({"height": 12, "width": 16})
    monkeypatch.setattr(hdf5_files, "find_failure", lambda function: function() or "")
    monkeypatch.setattr(hdf5_files, "allow_seconds", allowed.append)
    assert same_events(load_events(path), EVENTS)
    assert allowed == [2_000 / hdf5_files.SLOWEST_EVENTS] * num_times, "Bitshuffle crashes where a length is changed."
