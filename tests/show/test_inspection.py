import numpy as np
import pytest
from support.recordings import same_events

from deflare_core.events import Events
from deflare_core.io.recordings import load_events
from deflare_core.show.inspection import Inspected, find_busiest_window_us, read_inspected, tabulate_facts


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
