"""What a run says of its duration, by a clock that the test turns."""

import numpy as np
import pytest
from support.recordings import make_events

from deflare_core.codec import AppliedVoxel
from deflare_core.deflaring.progress import Progress, tell_duration

WINDOW = AppliedVoxel(make_events(num=2), np.zeros(2, np.bool_), np.ones(2, np.bool_))


class Clock:
    """A clock that a window moves on by the seconds that it takes."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def work(self, durations_s):
        for duration_s in durations_s:
            self.now_s += duration_s
            yield WINDOW


def watch(durations_s, num_recalled=0, **options):
    clock = Clock()
    progress = Progress(clock=clock, **options)
    assert len(list(progress.watch(clock.work(durations_s), len(durations_s), num_recalled))) == len(durations_s)


def test_slow_work_says_how_long_it_will_take_and_what_would_be_quicker(capsys):
    watch([9, *[2] * 100], label="2 of 3", advice="Quicker: a GPU.")
    told = capsys.readouterr().err
    assert "99 windows are left, 2 s each: about 3 minutes. Quicker: a GPU." in told, "The first is not counted."
    assert told.count("windows are left") == 1, "It says so once."
    assert "2 of 3" in told


@pytest.mark.parametrize(
    ("durations_s", "options"),
    [
        ([9, *[0.1] * 300], {"advice": "a GPU"}),
        ([9, *[2] * 100], {}),
        ([9, *[2] * 100], {"advice": "a GPU", "is_shown": False}),
        ([2], {"advice": "a GPU"}),
        ([], {"advice": "a GPU"}),
    ],
    ids=["quick", "without advice", "quiet", "one window", "none"],
)
def test_what_is_quick_or_quiet_says_nothing_of_its_duration(durations_s, options, capsys):
    watch(durations_s, **options)
    assert "windows are left" not in capsys.readouterr().err


def test_windows_that_were_done_before_say_nothing_of_time(capsys):
    watch([*[0.01] * 500, 9, *[2] * 100], num_recalled=500, advice="a GPU")
    assert "99 windows are left, 2 s each" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(61, "61 seconds"), (120, "2 minutes"), (7199, "120 minutes"), (9000, "2.5 hours")]
)
def test_durations_are_said_as_a_person_does(seconds, text):
    assert tell_duration(seconds) == text
