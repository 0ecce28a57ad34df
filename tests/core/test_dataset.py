import re

import h5py
import numpy as np
import pytest
import torch
from support.recordings import make_events
from torch.utils.data import DataLoader

from deflare_core.codec import events_to_voxel
from deflare_core.dataset import EventVoxelDataset
from deflare_core.events import BACKGROUND, FLARE, LIGHT, Events
from deflare_core.io.pairs import find_pairs
from deflare_core.io.reading import Reading
from deflare_core.io.recordings import RecordingError, load_events, save_events
from deflare_core.io.verify import verify_folders


def events_at(times_us):
    """One positive event of pixel (0, 0) at each time."""
    zeros = np.zeros(len(times_us), int)
    return Events.from_columns(np.array(times_us), zeros, zeros, zeros + 1, (12, 16))


def test_samples_are_the_windows_of_the_pairs_in_order(pair_folders):
    data = EventVoxelDataset(*pair_folders)
    assert len(data) == 3 * 5
    sample = data[7]
    assert data.window_name(7) == f"{pair_folders[0]}/composed_00001_bg_flare.h5[2]"
    assert sample["raw"].shape == sample["label"].shape == (1, 8, 12, 16)
    assert sample["raw"].dtype == torch.float32
    for name, folder, suffix in (("raw", pair_folders[0], "flare"), ("label", pair_folders[1], "light")):
        events = load_events(folder / f"composed_00001_bg_{suffix}.h5").window(40_000, 60_000)
        assert np.array_equal(sample[name][0], events_to_voxel(events, t0_us=40_000)), f"{name} is another window."


def test_workers_deliver_the_same_samples(pair_folders):
    data = EventVoxelDataset(*pair_folders)
    data[0]
    with_workers = list(DataLoader(data, batch_size=2, num_workers=2))
    alone = list(DataLoader(data, batch_size=2, num_workers=0))
    assert all(torch.equal(a["raw"], b["raw"]) for a, b in zip(with_workers, alone, strict=True))


def test_a_silent_window_is_still_a_window(tmp_path):
    for folder in ("noisy", "clean"):
        events = make_events(t_start_us=45_000, duration_us=10_000)
        save_events(tmp_path / folder / "a.h5", events, source="test", clock_us=(0, 100_000))
    data = EventVoxelDataset(tmp_path / "noisy", tmp_path / "clean")
    totals = [float(data[k]["raw"].abs().sum()) for k in range(5)]
    assert [total > 0 for total in totals] == [False, False, True, False, False]


def test_a_shared_clock_may_start_anywhere(tmp_path):
    start = 7_000_000_000
    for folder in ("noisy", "clean"):
        events = make_events(num=50, t_start_us=start + 21_000, duration_us=2_000)
        save_events(tmp_path / folder / "a.h5", events, source="test", clock_us=(start, start + 100_000))
    data = EventVoxelDataset(tmp_path / "noisy", tmp_path / "clean")
    assert data[1]["raw"][0, 0].abs().sum() + data[1]["raw"][0, 1].abs().sum() > 0, "21 ms is bin 0 of window 1."
    assert data[0]["raw"].abs().sum() == 0


@pytest.mark.parametrize(
    ("noisy_us", "clean_us", "start_us"),
    [
        ((21_000, 99_999), (35_000, 90_000), 0),
        ((0, 100_000), (5, 99_990), 0),
        ((50_000, 149_999), (61_000, 149_000), 40_000),
        ((50_000, 99_000), (21_000, 100_000), 20_000),
        (
            (1_700_000_000_012_345, 1_700_000_000_112_000),
            (1_700_000_000_025_000, 1_700_000_000_112_000),
            1_700 * 10**12,
        ),
        ((-30_000, 50_000), (-29_000, 50_000), -40_000),
    ],
)
def test_a_pair_without_a_declared_clock_has_one_start(tmp_path, noisy_us, clean_us, start_us):
    for folder, times in (("noisy", noisy_us), ("clean", clean_us)):
        save_events(tmp_path / folder / "a.h5", events_at(times), source="test")
    data = EventVoxelDataset(tmp_path / "noisy", tmp_path / "clean", num_segments=5)
    starts = [window.t0_us for window in data.windows(data.pairs[0])]
    num_windows = 4 if start_us == 20_000 else 5
    assert starts == [start_us + k * 20_000 for k in range(num_windows)], "They end with the events."
    if noisy_us[1] < start_us + 100_000:
        for name, times in (("raw", noisy_us), ("label", clean_us)):
            bins = [(t - start_us) // 20_000 for t in times]
            found = [k for k in range(num_windows) if data[k][name].abs().sum()]
            assert found == sorted({int(k) for k in bins if k < num_windows}), f"{name} is not on the shared clock."


def save_both(root, name, times_us, clock_us=None):
    """A pair whose two files hold the same events."""
    for folder in ("noisy", "clean"):
        save_events(root / folder / f"{name}.h5", events_at(times_us), source="test", clock_us=clock_us)


@pytest.mark.parametrize(
    ("times_us", "clock_us", "starts_us"),
    [
        ((5, 19_000), None, [0]),
        ((5, 99_990), None, [0, 20_000, 40_000, 60_000, 80_000]),
        ((5, 100_000), None, [0, 20_000, 40_000, 60_000, 80_000]),
        ((21_000, 21_100), None, [20_000]),
        ((1_000_050_000, 1_000_079_000), None, [1_000_040_000, 1_000_060_000]),
        ((5, 6_000), (0, 10_000), [0]),
        ((45_000, 45_100), (0, 70_000), [0, 20_000, 40_000]),
        ((8_000, 47_500), (7_000, 47_600), [7_000, 27_000]),
    ],
)
def test_a_pair_has_the_whole_windows_that_its_clock_holds(tmp_path, times_us, clock_us, starts_us):
    save_both(tmp_path, "a", times_us, clock_us)
    data = EventVoxelDataset(tmp_path / "noisy", tmp_path / "clean")
    assert list(data.starts_us(data.pairs[0])) == starts_us
    assert [window.t0_us for window in data.windows(data.pairs[0])] == starts_us
    assert len(data) == len(starts_us)


def test_pairs_may_have_different_numbers_of_windows(tmp_path):
    for name, length_us in (("a", 40_000), ("b", 10_000), ("c", 80_000)):
        save_both(tmp_path, name, range(1_000, length_us, 20_000), (0, length_us))
    data = EventVoxelDataset(tmp_path / "noisy", tmp_path / "clean")
    places = [data.place(k) for k in range(len(data))]
    named = ["a[0]", "a[1]", "b[0]", "c[0]", "c[1]", "c[2]", "c[3]"]
    assert [f"{pair.name}[{k}]" for pair, k in places] == named
    assert data.window_name(2).endswith("noisy/b.h5[0]")
    assert [float(data[k]["label"].sum()) for k in range(7)] == [1.0] * 7, "Every window holds its one event."
    with pytest.raises(IndexError, match="Sample 7 of 7"):
        data[7]
    few = EventVoxelDataset(tmp_path / "noisy", tmp_path / "clean", num_segments=3)
    assert [len(few.starts_us(pair)) for pair in few.pairs] == [2, 1, 3], "A number is the most that is taken."


def test_the_earlier_of_two_declared_ends_counts(tmp_path):
    for folder, end_us in (("noisy", 100_000), ("clean", 60_000)):
        save_events(tmp_path / folder / "a.h5", events_at([5, 50_000]), source="test", clock_us=(0, end_us))
    assert len(EventVoxelDataset(tmp_path / "noisy", tmp_path / "clean")) == 3, "Beyond it the target is not known."


def test_undeclared_clocks_that_have_nothing_in_common_are_refused(tmp_path):
    for folder, start_us in (("noisy", 0), ("clean", 10**12)):
        save_events(tmp_path / folder / "a.h5", events_at([start_us, start_us + 50_000]), source="test")
    data = EventVoxelDataset(tmp_path / "noisy", tmp_path / "clean")
    with pytest.raises(RecordingError, match=r"clean/a\.h5: its events lie in .* outside its pair's clock"):
        data.starts_us(data.pairs[0])


def save_pair_of(root, noisy_us, clean_us, clock_us=None):
    for folder, times in (("noisy", noisy_us), ("clean", clean_us)):
        save_events(root / folder / "a.h5", events_at(times), source="test", clock_us=clock_us)
    return root / "noisy", root / "clean"


@pytest.mark.parametrize(
    ("noisy_us", "clean_us", "clock_us", "found"),
    [
        (range(0, 100_000, 500), range(0, 100_000, 5_000), None, None),
        (range(0, 100_000, 500), range(0, 50_000, 5_000), None, "10 events span 45.001 ms, those of .* 99.501 ms"),
        (range(0, 100_000, 500), range(0, 50_000, 5_000), (0, 100_000), None),
        (range(0, 100_000, 500), (3, 4), None, None),
        (range(0, 100_000, 500), range(100), (0, 100_000), "100 events span 0.1 ms"),
        (range(0, 100_000_000, 500_000), range(0, 100_000, 500), None, "clean/a.h5: its 200 events span 99.501 ms"),
        (range(0, 100_000, 500), (), (0, 100_000), "clean/a.h5: holds no events, its partner .* 200;"),
        ((), range(0, 100_000, 500), None, "noisy/a.h5: holds no events"),
    ],
)
def test_partners_last_as_long_as_each_other(tmp_path, noisy_us, clean_us, clock_us, found):
    folders = save_pair_of(tmp_path, noisy_us, clean_us, clock_us)
    problems, data = verify_folders(*folders).problems, EventVoxelDataset(*folders)
    if found:
        assert re.search(found, problems[0])
        with pytest.raises(RecordingError, match=found):
            len(data)
    else:
        assert problems == [], "Few events may lie close together, and a declared clock says that silence is real."
        assert len(data) == 5


def test_partners_differ(tmp_path):
    folders = save_pair_of(tmp_path, range(0, 100_000, 500), range(0, 100_000, 500))
    with pytest.raises(RecordingError, match=r"noisy/a\.h5 and .*clean/a\.h5: hold the same 200 events"):
        EventVoxelDataset(*folders).check_pairs()
    other = Events.from_array(events_at(range(0, 100_000, 500)).to_array() * [1, 1, 1, -1], (12, 16))
    save_events(folders[1] / "a.h5", other, source="test")
    EventVoxelDataset(*folders).check_pairs()


@pytest.mark.parametrize(("cause", "is_right"), [(BACKGROUND, True), (LIGHT, True), (FLARE, False)])
def test_partners_are_the_same_where_no_event_is_of_flare(tmp_path, cause, is_right):
    """As of a perfect lens; the folder with flare given twice is still refused."""
    events = events_at(range(0, 100_000, 500))
    for folder, columns in (("noisy", {"label": np.full(200, cause, np.uint8)}), ("clean", {})):
        save_events(tmp_path / folder / "a.h5", events, source="test", columns=columns)
    data = EventVoxelDataset(tmp_path / "noisy", tmp_path / "clean")
    problems = verify_folders(tmp_path / "noisy", tmp_path / "clean").problems
    if is_right:
        data.check_pairs()
        assert problems == []
    else:
        with pytest.raises(RecordingError, match="hold the same 200 events"):
            data.check_pairs()
        assert len(problems) == 1


def test_one_folder_may_hold_both_kinds(pair_folders):
    noisy_dir, clean_dir = pair_folders
    for path in clean_dir.iterdir():
        path.rename(noisy_dir / path.name)
    pairs = find_pairs(noisy_dir, noisy_dir)
    assert [(p.noisy.stem[-5:], p.clean.stem[-5:]) for p in pairs] == [("flare", "light")] * 3
    assert verify_folders(noisy_dir, noisy_dir).problems == []


def test_ids_restrict_the_pairs(pair_folders):
    assert [pair.name for pair in find_pairs(*pair_folders, ids=(2, 0))] == ["composed_00000", "composed_00002"]
    assert len(EventVoxelDataset(*pair_folders, ids=(1,))) == 5
    (pair_folders[1] / "composed_00001_bg_light.h5").unlink()
    assert len(find_pairs(*pair_folders, ids=(0, 2))) == 2, "A recording that was not asked for needs no partner."
    with pytest.raises(RecordingError, match=r"composed_00001_bg_flare\.h5: has no partner"):
        find_pairs(*pair_folders, ids=(0, 1))
    with pytest.raises(RecordingError, match=r"noisy: holds no recordings with the ids \[7, 12\]"):
        find_pairs(*pair_folders, ids=(0, 7, 12))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda noisy, clean: (clean / "composed_00001_bg_light.h5").unlink(),
            "composed_00001_bg_flare.h5: has no partner",
        ),
        (
            lambda noisy, clean: [p.unlink() for p in noisy.iterdir()],
            "noisy: holds no recordings .* `deflare convert`",
        ),
        (lambda noisy, clean: save_events(noisy / "composed_00001.h5", make_events(), source=""), "has the same name"),
    ],
)
def test_folders_that_do_not_pair_are_refused(pair_folders, break_it, message):
    break_it(*pair_folders)
    with pytest.raises(RecordingError, match=message):
        find_pairs(*pair_folders)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(RecordingError, match=r"nowhere: no such folder of recordings; `deflare simulate`"):
        EventVoxelDataset(tmp_path / "nowhere", tmp_path)


def test_nothing_is_replaced_by_zeros(pair_folders):
    noisy_dir, clean_dir = pair_folders
    data = EventVoxelDataset(*pair_folders)
    assert len(data) == 15
    target = clean_dir / "composed_00000_bg_light.h5"
    target.write_bytes(target.read_bytes()[:500])
    with pytest.raises(RecordingError, match=r"composed_00000_bg_light\.h5"):
        data[0]
    with pytest.raises(RecordingError, match=r"composed_00000_bg_light\.h5"):
        len(EventVoxelDataset(*pair_folders))
    far = make_events(t_start_us=10**9, duration_us=100_000)
    for path in (noisy_dir / "composed_00001_bg_flare.h5", clean_dir / "composed_00002_bg_light.h5"):
        save_events(path, far, source="test")
    for index, name in ((5, "composed_00001_bg_flare.h5"), (10, "composed_00002_bg_light.h5")):
        with pytest.raises(RecordingError, match=f"{name}.* outside its pair's clock"):
            data[index]


def test_a_wrong_sensor_size_is_refused_with_the_file(pair_folders):
    with pytest.raises(RecordingError, match=r"composed_00000_bg_flare.h5: the sensor is \(12, 16\)"):
        EventVoxelDataset(*pair_folders, sensor_size=(480, 640))[0]


def test_two_clocks_in_one_pair_are_refused(pair_folders):
    path = pair_folders[1] / "composed_00000_bg_light.h5"
    save_events(path, load_events(path), source="test", clock_us=(-20_000, 100_000))
    with pytest.raises(RecordingError, match=r"clocks start at \[-20000, 0\] us"):
        EventVoxelDataset(*pair_folders)[0]


def test_causes_match_the_windows_events(pair_folders):
    data = EventVoxelDataset(*pair_folders)
    for _, noisy, clean, causes in data.windows(data.pairs[0]):
        assert len(causes) == len(noisy)
        assert (causes == BACKGROUND).sum() == len(clean), "In these pairs the clean file holds the events labelled 0."


def test_verification_finds_files_that_do_not_belong_together(pair_folders):
    noisy_dir, clean_dir = pair_folders
    far = make_events(t_start_us=18_000_000_000, duration_us=100_000)
    save_events(clean_dir / "composed_00000_bg_light.h5", far, source="test")
    for folder, seed in ((noisy_dir, "3"), (clean_dir, "4")):
        path = next(folder.glob("*_00001_*"))
        save_events(path, load_events(path), source="test", attributes={"seed": seed})
    problems = verify_folders(noisy_dir, clean_dir).problems
    assert len(problems) == 2, "Each mismatched pair is told once."
    assert "composed_00000_bg_light.h5: its events lie in [18000" in problems[0]
    assert "pair files of one scene" in problems[0], "The error says what to do."
    assert "composed_00001_bg_light.h5: were simulated with the seeds 3 and 4" in problems[1]


def test_files_that_do_not_state_their_sensor_are_verified_with_it(pair_folders):
    for path in [path for folder in pair_folders for path in folder.iterdir()]:
        with h5py.File(path, "a") as file:
            del file["events"].attrs["height"], file["events"].attrs["width"]
    assert "--sensor-size" in verify_folders(*pair_folders).problems[0]
    report = verify_folders(*pair_folders, Reading((12, 16)))
    assert (report.num_pairs, report.problems) == (3, [])
    assert {check.sensor_size for check in report.checks} == {(12, 16)}


def test_verification_reports_what_is_there_and_what_is_wrong(pair_folders):
    noisy_dir, clean_dir = pair_folders
    report = verify_folders(noisy_dir, clean_dir)
    assert (report.num_pairs, report.problems) == (3, [])
    assert {check.num_events for check in report.checks} == {4000, 2000}
    assert {check.sensor_size for check in report.checks} == {(12, 16)}
    (clean_dir / "composed_00002_bg_light.h5").write_bytes(b"not HDF5")
    (noisy_dir / "composed_00001_bg_flare.h5").unlink()
    save_events(noisy_dir / "composed_00000_bg_flare.h5", make_events(sensor_size=(5, 5)), source="test")
    problems = " ".join(verify_folders(noisy_dir, clean_dir).problems)
    assert "composed_00002_bg_light.h5: is text, but line 1 holds neither numbers" in problems
    assert "composed_00001_bg_light.h5: has no partner" in problems
    assert "2 sensor sizes" in problems
