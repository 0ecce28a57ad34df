"""What several tests need: a small data set of pairs."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from support.recordings import make_events

from deflare_core.io.recordings import save_events

# Processes that tests start find `support` too.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]).rstrip(
    os.pathsep
)
# How long an example takes says more about what else the machine does than about the example.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture
def pair_folders(tmp_path):
    """Two folders with three pairs of 100 ms: the clean file holds every second event of the noisy one."""
    noisy_dir, clean_dir = tmp_path / "noisy", tmp_path / "clean"
    for k in range(3):
        noisy = make_events(seed=k, num=4000, duration_us=100_000)
        clean = noisy[np.arange(len(noisy)) % 2 == 0]
        labels = np.where(np.arange(len(noisy)) % 2 == 0, 0, 2).astype(np.uint8)
        clock = {"source": "test", "clock_us": (0, 100_000)}
        save_events(noisy_dir / f"composed_{k:05d}_bg_flare.h5", noisy, columns={"label": labels}, **clock)
        save_events(clean_dir / f"composed_{k:05d}_bg_light.h5", clean, **clock)
    return noisy_dir, clean_dir
