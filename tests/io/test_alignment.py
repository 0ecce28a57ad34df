"""Partners that lie turned, moved or late against their recording are told with figures; those that fit are not."""

import numpy as np
import pytest

from deflare_core.app.commands import main
from deflare_core.events import Events
from deflare_core.io.alignment import Fit, compare_places, compare_times
from deflare_core.io.recordings import save_events
from deflare_core.io.verify import verify_folders

SIZE = (12, 16)


def events_of(t, y, x, p) -> Events:
    order = np.argsort(t, kind="stable")
    return Events.from_columns(t[order], x[order], y[order], p[order], SIZE)


@pytest.fixture
def scene() -> Events:
    """Ten thousand events of 100 ms, most of them in the upper left corner."""
    rng = np.random.default_rng(0)
    y, x = (np.floor(size * rng.uniform(size=10_000) ** 3).astype(int) for size in SIZE)
    return events_of(np.sort(rng.integers(0, 100_000, 10_000)), y, x, rng.choice([-1, 1], 10_000))


def verify(folder, noisy: Events, clean: Events, **columns: np.ndarray) -> list[str]:
    """The warnings about a pair; the columns are the partner's."""
    save_events(folder / "noisy" / "a.h5", noisy, source="test")
    save_events(folder / "clean" / "a.h5", clean, source="test", columns=columns)
    return verify_folders(folder / "noisy", folder / "clean").warnings


CHANGES = {
    "mirrored from left to right: 100%": lambda e: events_of(e.t, e.y, 15 - e.x, e.p),
    "upside down: 100%": lambda e: events_of(e.t, 11 - e.y, e.x, e.p),
    "turned by half: 100%": lambda e: events_of(e.t, 11 - e.y, 15 - e.x, e.p),
    "moved -3 columns and +2 rows: 100%": lambda e: events_of(e.t, (e.y + 10) % 12, (e.x + 3) % 16, e.p),
    "with -100 us added to its times: 100%": lambda e: events_of(e.t + 100, e.y, e.x, e.p),
    "with -50,000 us added to its times: 5": lambda e: events_of((e.t + 50_000) % 100_000, e.y, e.x, e.p),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_partner_that_lies_otherwise_is_told_by_how_much(tmp_path, scene, how, capsys):
    (line,) = verify(tmp_path, scene, CHANGES[how](scene[::2]))
    assert f"{tmp_path / 'clean' / 'a.h5'}: fits {tmp_path / 'noisy' / 'a.h5'} better {how}" in line
    assert main(["verify", str(tmp_path / "noisy"), str(tmp_path / "clean")]) == 0
    told = capsys.readouterr()
    assert told.err == f"deflare verify: warning: {line}\n"
    assert "all is well" not in told.out


def test_a_partner_that_fits_is_not_judged(tmp_path, scene):
    assert verify(tmp_path, scene, scene[::2]) == []
    noise = events_of(
        *np.random.default_rng(1).integers(0, [[100_000], [12], [16], [1]], (4, 900)),
    )
    assert verify(tmp_path, scene, noise) == [], "A thousand events may fall anywhere."


def test_folders_in_each_other_s_place_are_told_by_labels_or_by_numbers(tmp_path, scene):
    labels = np.repeat([0, 2], 5_000).astype(np.uint8)
    labelled, more = verify(tmp_path, scene[::2], scene, label=labels)
    assert "clean/a.h5: 5,000 of its events are labelled as flare; name the folder with flare first." in labelled
    assert more.startswith("The second folder holds 10,000 events, the first 5,000; flare adds events")
    assert verify(tmp_path, scene[::2], scene) == [more]
    assert verify(tmp_path, scene[:9_500], scene) == [], "A veil hides some events."


def test_places_and_times_by_hand():
    ours = np.array([[4, 0, 0], [0, 2, 0]])
    assert compare_places(ours, np.array([[0, 0, 4], [0, 2, 0]])) == Fit(2 / 6, 1.0, "mirrored from left to right")
    recording = events_of(*np.array([[5, 8, 9], [0, 0, 1], [0, 0, 1], [1, 1, 1]]))
    sample = events_of(*np.array([[15, 19], [0, 1], [0, 1], [1, 1]]))
    assert compare_times(recording, sample) == Fit(0.0, 1.0, "with -10 us added to its times")
