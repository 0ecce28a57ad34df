import shutil

import numpy as np
import pytest
from support.recordings import make_events, same_events

from deflare_core.events import Events
from deflare_core.io.recordings import load_events, save_events
from deflare_core.io.verify import verify_folders
from deflare_core.show.inspection import (
    Inspected,
    choose_pair,
    find_busiest_window_us,
    find_folders,
    read_inspected,
    tabulate_facts,
    tabulate_integrity,
)
from deflare_core.system.markdown import align_tables, markdown_table


def recording(t, clock_us) -> Inspected:
    zeros = np.zeros(len(t), int)
    p = np.where(np.arange(len(t)) % 4, 1, -1)
    return Inspected(Events.from_columns(np.asarray(t), zeros, zeros, p, (2, 5)), clock_us)


def test_facts_by_hand():
    table = tabulate_facts({"mine": recording([10_000, 10_500, 20_000, 40_000], (10_000, 50_000))})
    cells = [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]
    assert cells == ["mine", "5 x 2", "10.0", "50.0", "4", "0.0001", "75.0%", "10.0%"]


def test_the_busiest_window_has_the_most_events():
    found = recording([100, 20_000, 20_001, 20_002, 40_000, 40_001, 60_500], (0, 61_000))
    assert find_busiest_window_us(found) == 20_000, "1, 3 and 2 events; the fourth window is not whole."
    shifted = recording([5100, 5200, 25_000], (5000, 45_000))
    assert find_busiest_window_us(shifted) == 5000, "Windows are counted from the clock's start."
    with pytest.raises(ValueError, match="19999 us are shorter than a window of 20000"):
        find_busiest_window_us(recording([1], (0, 19_999)))


def test_a_file_is_read_with_its_labels(pair_folders):
    noisy, clean = (sorted(folder.iterdir())[0] for folder in pair_folders)
    found = read_inspected(noisy)
    assert same_events(found.events, load_events(noisy))
    assert found.clock_us == (0, 100_000)
    assert found.labels.tolist() == [0, 2] * 2000
    assert read_inspected(clean).labels is None, "This one carries none."


def cells(table, row) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[2 + row].strip("|").split("|")]


def test_a_table_is_markdown():
    assert markdown_table(["a", "b"], [["1", "x|y"]]) == "| a | b |\n| --- | ---: |\n| 1 | x\\|y |"


def test_tables_are_even_in_a_terminal_and_text_stays_as_it_is():
    text = "Text | more.\n\n" + markdown_table(["abcd", "e"], [["1", "x|yz"], ["-", ""]]) + "\n\nEnd.\n"
    table = ["| abcd |     e |", "| ---- | ----: |", r"| 1    | x\|yz |", "| -    |       |"]
    assert align_tables(text) == "\n".join(["Text | more.", "", *table, "", "End.", ""])


def test_a_sound_data_set_is_one_row(pair_folders):
    table = tabulate_integrity({"training": verify_folders(*pair_folders)})
    assert cells(table, 0) == ["training", "3", "0", "0", "16 x 12", "100.0", "2,000 to 4,000", "0"]
    assert table.endswith("Nothing is wrong.")


def test_what_is_wrong_is_counted_and_named(pair_folders):
    noisy, clean = pair_folders
    (noisy / "composed_00000_bg_flare.h5").write_bytes(b"no recording")
    (noisy / "composed_00001_bg_flare.h5").unlink()
    clock = {"source": "test", "clock_us": (0, 50_000)}
    save_events(clean / "composed_00002_bg_light.h5", make_events(sensor_size=(4, 5)), **clock)
    table = tabulate_integrity({"training": verify_folders(noisy, clean)})
    expected = ["training", "2", "1", "1", "5 x 4, 16 x 12", "50.0 to 100.0", "500 to 4,000", "3"]
    assert cells(table, 0) == expected
    problems = [line for line in table.splitlines() if line.startswith("- ")]
    assert len(problems) == 3
    assert any("composed_00000_bg_flare.h5" in line for line in problems), "The unreadable file is named."
    assert any("composed_00001_bg_light.h5: has no partner" in line for line in problems)


def test_the_test_set_counts_where_there_is_one(pair_folders, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(pair_folders[0], root / "background_with_flare_events")
    shutil.copytree(pair_folders[1], root / "background_with_light_events")
    assert list(find_folders(root)) == ["training"]
    assert verify_folders(*find_folders(root)["training"]).num_pairs == 3
    (root / "background_with_flare_events_test").mkdir()
    assert list(find_folders(root)) == ["training", "test"], "Half a test set is one that is wrong, not none."


def test_the_window_with_most_flare_is_found_where_causes_are_known():
    found = recording([100, 101, 102, 20_000, 40_000, 40_001], (0, 60_000))
    labelled = Inspected(found.events, found.clock_us, np.array([0, 0, 2, 0, 2, 2], np.uint8))
    assert find_busiest_window_us(labelled, cause=2) == 40_000
    assert find_busiest_window_us(labelled) == find_busiest_window_us(found, cause=2) == 0, (
        "Else that with most events."
    )


def test_a_pair_is_chosen_by_name_from_any_of_the_folders(pair_folders, tmp_path):
    root = tmp_path / "set"
    for name, source in zip(("flare", "light"), pair_folders, strict=True):
        for below in ("", "validation"):
            shutil.copytree(source, root / below / f"background_with_{name}_events")
    folders = find_folders(root)
    assert list(folders) == ["training", "validation"]
    assert choose_pair(folders).name == "composed_00000"
    (folders["training"][0] / "composed_00002_bg_flare.h5").unlink()
    (folders["training"][1] / "composed_00002_bg_light.h5").unlink()
    assert choose_pair(folders, "composed_00002").noisy.parent == folders["validation"][0]
    assert choose_pair(folders, "composed_00001").noisy.parent == folders["training"][0]
    with pytest.raises(ValueError, match="no pair 'composed_1' among 3; did you mean 'composed_00001'"):
        choose_pair(folders, "composed_1")
