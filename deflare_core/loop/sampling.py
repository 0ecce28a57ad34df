"""Sampling: which windows make a step, as a function of the settings and the step's number alone."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from deflare_core.config import TrainerConfig


def sample_indices(trainer: TrainerConfig, num_samples: int, step: int) -> list[int]:
    """The windows of a step: its place in the shuffled order of its epoch; the first step's when overfitting."""
    size = windows_per_step(trainer)
    epoch, place = divmod(0 if trainer.overfit_one_batch else step, steps_per_epoch(trainer, num_samples))
    return _order(trainer.seed, epoch, num_samples)[place * size : (place + 1) * size].tolist()


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
    """The windows as an epoch shuffles them; kept, since every step of it asks."""
    return np.random.default_rng([seed, epoch]).permutation(num_samples)


def step_batches(trainer: TrainerConfig, num_samples: int, step: int) -> list[list[int]]:
    """The windows of a step, cut into the batches that pass through the network at once."""
    size, indices = trainer.batch_size, sample_indices(trainer, num_samples, step)
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
