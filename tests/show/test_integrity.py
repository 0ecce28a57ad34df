import shutil

from support.recordings import make_events

from deflare_core.io.recordings import save_events
from deflare_core.io.verify import verify_folders
from deflare_core.show.integrity import find_folders, tabulate_integrity
from deflare_core.system.markdown import markdown_table


def cells(table, row) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[2 + row].strip("|").split("|")]


def test_a_table_is_markdown():
    assert markdown_table(["a", "b"], [["1", "x|y"]]) == "| a | b |\n| --- | ---: |\n| 1 | x\\|y |"


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
