"""Small recordings made from a seed."""

import numpy as np

from deflare_core.events import Events


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


def list_rows(events: Events) -> list[tuple]:
    """Events as a list of rows t, x, y, p."""
    return [tuple(row) for row in events.to_array().tolist()]
