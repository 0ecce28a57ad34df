"""Sampling: which windows make a step, as a function of the settings and the step's number alone."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deflare_core.config import TrainerConfig

FIRST_PART = 8
"""A pool that is renewed begins with this part of its windows, so that training need not wait for all of them."""


class Supply(NamedTuple):
    """The windows that steps are made of.

    Parameters
    ----------
    num_windows : how many there are at a time.
    sizes : of each window a number that stands for its sensor size, `(num_windows,)`; None: all are alike. New windows
        repeat the order of the first ones.
    fresh_share : the share of a step's windows that new ones replace after it, oldest first; 0: all stay.
    """

    num_windows: int
    sizes: NDArray[np.int64] | None = None
    fresh_share: float = 0.0


def sample_indices(trainer: TrainerConfig, supply: Supply, step: int) -> list[int]:
    """The windows of a step: its place in the shuffled order of its epoch; the first step's when overfitting.

    Where new windows replace old ones, they are drawn from those that there are at that step, all of one size.
    """
    step = 0 if trainer.overfit_one_batch else step
    if supply.fresh_share:
        return _draw_from_pool(trainer, supply, step)
    size = windows_per_step(trainer)
    epoch, place = divmod(step, steps_per_epoch(trainer, supply.num_windows))
    return _order(trainer.seed, epoch, supply.num_windows)[place * size : (place + 1) * size].tolist()


def list_pool(trainer: TrainerConfig, supply: Supply, step: int) -> range:
    """The numbers of the windows that there are at a step.

    ```
    step 0      |== FIRST_PART ==|
    later       |===================|->  grows by fresh_share of each step's windows
    at last          |========= num_windows =========|->  the oldest leave
    ```
    """
    at_first = -(-supply.num_windows // FIRST_PART)
    end = at_first + int(step * windows_per_step(trainer) * supply.fresh_share)
    return range(max(end - supply.num_windows, 0), end)


def _draw_from_pool(trainer: TrainerConfig, supply: Supply, step: int) -> list[int]:
    """Windows of one size from the pool of a step; how often a size comes follows its share of the pool."""
    pool, rng = list_pool(trainer, supply, step), np.random.default_rng([trainer.seed, step])
    windows = np.arange(pool.start, pool.stop)
    if supply.sizes is not None:
        sizes = supply.sizes[windows % supply.num_windows]
        windows = windows[sizes == rng.choice(sizes)]
    return rng.choice(windows, min(windows_per_step(trainer), len(windows)), replace=False).tolist()


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
    """The windows as an epoch shuffles them; kept, since every step of it asks."""
    return np.random.default_rng([seed, epoch]).permutation(num_samples)


def step_batches(trainer: TrainerConfig, supply: Supply, step: int) -> list[list[int]]:
    """The windows of a step, cut into the batches that pass through the network at once."""
    size, indices = trainer.batch_size, sample_indices(trainer, supply, step)
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def windows_per_step(trainer: TrainerConfig) -> int:
    """Windows that make one optimizer step, in all processes together."""
    return trainer.batch_size * (trainer.accumulate_steps or 1)


def steps_per_epoch(trainer: TrainerConfig, num_samples: int) -> int:
    """Steps that pass over the data once; the last one may be smaller."""
    return -(-num_samples // windows_per_step(trainer))


def derive_batch_seed(trainer: TrainerConfig, step: int, batch: int) -> int:
    """The seed of dropout in one batch of a step, unrelated to that of any other."""
    return int(np.random.SeedSequence([trainer.seed, step, batch]).generate_state(1, np.uint64)[0])
