"""Camera files as cameras wrote them, against HDF5 versions of the same events that other readers made.

DEFLARE_RECORDINGS=FOLDER names a folder of `*.h5` with a folder `raw` in it; without it the tests are skipped. A camera
file that does not state its sensor is read with the sizes of the HDF5 files.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from deflare_core.io.convert import convert
from deflare_core.io.reading import Reading
from deflare_core.io.recordings import load_events, open_recording

FOLDER = Path(os.environ.get("DEFLARE_RECORDINGS", "nowhere"))
RAW = sorted(FOLDER.glob("raw/*"))
pytestmark = pytest.mark.skipif(not RAW, reason="DEFLARE_RECORDINGS names no folder of recordings with raw/ in it")


def digest(events):
    """A digest of the events, with times counted from the first: some converters count so."""
    columns = (events.t - events.t[0], events.x, events.y, events.p)
    return hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns)).hexdigest()


@pytest.fixture(scope="module")
def decoded():
    """The sensor size by the digest of each HDF5 recording."""
    found = {}
    for path in FOLDER.glob("*.h5"):
        with open_recording(path) as recording:
            found[digest(recording.load())] = recording.sensor_size
    return found


@pytest.mark.parametrize("path", RAW, ids=lambda path: path.name)
def test_a_camera_file_is_its_hdf5_version_through_every_format(path, decoded, tmp_path):
    sizes = set(decoded.values())
    found = [(size, events) for size in sizes if (events := events_or_none(path, size)) is not None]
    matching = [(size, events) for size, events in found if decoded.get(digest(events)) == size]
    assert len(matching) == 1, f"{path.name} holds the events of one of the HDF5 files."
    size, events = matching[0]
    for suffix in ("h5", "npz", "npy", "csv"):
        convert(path, tmp_path / f"a.{suffix}", Reading(size), progress=False)
        again = load_events(tmp_path / f"a.{suffix}", Reading(size))
        assert digest(again) == digest(events), f"The events come back from {suffix}."
        assert again.t[0] == events.t[0], f"Absolute times come back from {suffix}."


def events_or_none(path, size):
    """The events as of a sensor of that size, or None where they do not fit it."""
    try:
        return load_events(path, Reading(size))
    except ValueError:
        return None
