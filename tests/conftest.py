"""What several tests need: small recordings made from a seed, and a small data set of pairs."""

import numpy as np
import pytest
import torch
from hypothesis import settings

from deflare_core.config import ModelConfig
from deflare_core.events import Events
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.recordings import save_events

# How long an example takes says more about what else the machine does than about the example.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def make_events(seed=0, num=500, sensor_size=(12, 16), t_start_us=0, duration_us=20_000) -> Events:
    """Events at random pixels and times of `[t_start, t_start + duration)`."""
    rng = np.random.default_rng(seed)
    height, width = sensor_size
    t = np.sort(rng.integers(t_start_us, t_start_us + duration_us, num))
    x, y = rng.integers(0, width, num), rng.integers(0, height, num)
    return Events.from_columns(t, x, y, rng.choice([-1, 1], num), sensor_size)


def same_events(a: Events, b: Events) -> bool:
    """Whether two recordings hold the same events of the same sensor."""
    columns = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in "txyp")
    return columns and a.sensor_size == b.sensor_size


def gate(std=0.0, **settings) -> VoxelNetwork:
    """A small gate of two polarities, or what the settings make of it, its last weights of that deviation."""
    given = {"f_maps": (8, 16), "num_levels": 2, "polarity": "split", "residual": "gate"} | settings
    model = build_model(ModelConfig(**given), seed=0)
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(model.backbone.final_conv.weight, std=std, generator=generator)
    return model


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
