"""Whether a data set is the one that a manifest describes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.recordings import make_events

from deflare_core.app.commands import main
from deflare_core.events import digest_events
from deflare_core.io.manifest import find_differences, read_manifest
from deflare_core.io.pairs import find_pairs
from deflare_core.io.recordings import RecordingError, load_events, save_events
from deflare_core.system.places import PROJECT_ROOT


@pytest.fixture
def manifest(pair_folders, tmp_path):
    entries = [
        {
            "split": "test",
            "files": [f"noisy/{pair.noisy.name}", f"clean/{pair.clean.name}"],
            "num_events": [len(load_events(path)) for path in (pair.noisy, pair.clean)],
            "digests": [digest_events(load_events(path)) for path in (pair.noisy, pair.clean)],
        }
        for pair in find_pairs(*pair_folders)
    ]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"recordings": [*entries, {"split": "train", "files": ["other"], "digests": []}]}))
    return path


def test_the_same_events_have_the_same_digest_and_others_another():
    events = make_events(seed=1)
    assert digest_events(events) == digest_events(make_events(seed=1)) != digest_events(make_events(seed=2))
    assert digest_events(events[:-1]) != digest_events(events)


def test_a_data_set_is_the_one_of_its_manifest_until_an_event_changes(manifest, pair_folders):
    assert find_differences(read_manifest(manifest), *pair_folders) == ([], 0)
    assert main(["verify", *map(str, pair_folders), "--manifest", str(manifest)]) == 0
    path = find_pairs(*pair_folders)[1].clean
    events = load_events(path)
    save_events(path, events[:-1], source="test", clock_us=(0, 100_000))
    assert find_differences(read_manifest(manifest), *pair_folders).problems == [
        f"{path}: holds {len(events) - 1:,} events, the manifest says {len(events):,}; simulate it again."
    ]
    assert main(["verify", *map(str, pair_folders), "--manifest", str(manifest)]) == 1
    for pair in find_pairs(*pair_folders)[:1]:
        pair.noisy.unlink()
        pair.clean.unlink()
    assert "lacks composed_00000" in find_differences(read_manifest(manifest), *pair_folders).problems[0]


def test_what_another_processor_rounds_is_said_and_no_problem(manifest, pair_folders, capsys):
    path = find_pairs(*pair_folders)[1].clean
    events = load_events(path)
    moved = replace(events, t=events.t + (np.arange(len(events)) == len(events) - 1))
    save_events(path, moved, source="test", clock_us=(0, 100_000))
    assert find_differences(read_manifest(manifest), *pair_folders) == ([], 1)
    assert main(["verify", *map(str, pair_folders), "--manifest", str(manifest)]) == 0
    assert "1 of 3 pairs have other digests than the manifest" in capsys.readouterr().out
    entries = read_manifest(manifest)
    for entry in entries.values():
        entry["num_events"] = [round(num * 1.001) for num in entry["num_events"]]
    assert len(find_differences(entries, *pair_folders).problems) == 6, "One event in a thousand is another recording."


def test_what_is_no_manifest_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("[1, 2]")
    with pytest.raises(RecordingError, match=r"other.json: is no manifest"):
        read_manifest(tmp_path / "other.json")


def test_the_held_out_set_is_fixed_by_a_manifest():
    entries = read_manifest(PROJECT_ROOT / "configs" / "test_manifest.json")
    assert len(entries) == 50
    assert all(len(digest) == 64 for entry in entries.values() for digest in entry["digests"])
    assert len({entry["digests"][0] for entry in entries.values()}) == 50, "No two recordings are the same."
    untouched = [entry for entry in entries.values() if len(set(entry["digests"])) == 1]
    assert 0 < len(untouched) < 50, "Some recordings are without flare."
    assert not any(entry["input_events"]["flare"] for entry in untouched), "Where there is flare the target differs."
