"""What all tests share: their tiers, one thread each, machine code compiled beforehand, and small data to work on."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# A worker has one processor; more threads would only wait for each other. Libraries read these when they are imported.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))
# The notebooks that tests run leave nothing in the reports; workers have the folder of the process that started them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    RUNS = tempfile.TemporaryDirectory(prefix="deflare-notebooks-", ignore_cleanup_errors=True)
    os.environ["DEFLARE_INTERACTIVE"] = RUNS.name
# Processes that tests start find `support` too.
HERE = str(Path(__file__).parent)
os.environ["PYTHONPATH"] = os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from support.checkpoints import save_small_checkpoint  # noqa: E402
from support.recordings import make_events  # noqa: E402

from deflare_core.io.recordings import save_events  # noqa: E402

# How long an example takes says more about what else the machine does than about the example. Examples are drawn by
# chance, and one that fails is printed with its seed: `--hypothesis-seed=N` draws the same ones.
settings.register_profile("unhurried", deadline=None, print_blob=True, derandomize=False)
settings.load_profile("unhurried")


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and tests in them, in another order")


def pytest_sessionstart(session):
    """Let one process compile what all workers load."""
    # A shell that starts tests in the background has them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(session.config, "workerinput") and not session.config.option.collectonly:
        subprocess.run([sys.executable, "-m", "support.warm_up"], check=True)


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "slow" in item.path.relative_to(config.rootpath).parts[:-1]:
            item.add_marker(pytest.mark.slow)
    if (seed := config.getoption("shuffle")) is not None:
        files = list(dict.fromkeys(item.path for item in items))
        places = {item: random.Random(f"{seed} {item.nodeid}").random() for item in items}
        random.Random(seed).shuffle(files)
        # A notebook's cells keep their order: sorting is stable.
        items.sort(key=lambda item: (files.index(item.path), 0 if item.path.suffix == ".ipynb" else places[item]))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The checkpoint folder of a network that is quick on a CPU; not to be changed."""
    return save_small_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def three_pairs(tmp_path_factory):
    """Two folders with three pairs of 100 ms: the clean file holds every second event of the noisy one."""
    folder = tmp_path_factory.mktemp("pairs")
    noisy_dir, clean_dir = folder / "noisy", folder / "clean"
    for k in range(3):
        noisy = make_events(seed=k, num=4000, duration_us=100_000)
        clean = noisy[np.arange(len(noisy)) % 2 == 0]
        labels = np.where(np.arange(len(noisy)) % 2 == 0, 0, 2).astype(np.uint8)
        clock = {"source": "test", "clock_us": (0, 100_000)}
        save_events(noisy_dir / f"composed_{k:05d}_bg_flare.h5", noisy, columns={"label": labels}, **clock)
        save_events(clean_dir / f"composed_{k:05d}_bg_light.h5", clean, **clock)
    return folder


@pytest.fixture
def pair_folders(three_pairs, tmp_path):
    """Copies of the two folders with three pairs, to be changed at will."""
    return tuple(shutil.copytree(three_pairs / name, tmp_path / name) for name in ("noisy", "clean"))
