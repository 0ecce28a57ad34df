"""Augmentation: parts and mirror images of a batch, so that few scenes go further; what a step trains on."""

from __future__ import annotations

import torch

from deflare_core.config import TrainerConfig
from deflare_core.events import SensorSize

Batch = dict[str, torch.Tensor]
"""Voxels of the same windows by name, float32: raw `(N, inputs, bins, H, W)`, label `(N, C, bins, H, W)`."""


def augment_batch(batch: Batch, trainer: TrainerConfig) -> Batch:
    """The batch cropped and mirrored as configured, all its voxels alike, by draws from torch's generator."""
    batch = crop_batch(batch, trainer.crop_size)
    axes = [axis for axis in (-2, -1) if trainer.mirror and torch.rand(()) < 0.5]
    return {name: voxel.flip(axes) for name, voxel in batch.items()} if axes else batch


def crop_batch(batch: Batch, size: SensorSize | None) -> Batch:
    """The same part of all voxels of a batch, drawn from torch's generator; all of a frame that is not larger."""
    if size is None:
        return batch
    frame = batch["raw"].shape[-2:]
    firsts = [int(torch.randint(max(whole - part, 0) + 1, ())) for whole, part in zip(frame, size, strict=True)]
    rows, columns = (slice(first, first + part) for first, part in zip(firsts, size, strict=True))
    return {name: voxel[..., rows, columns].contiguous() for name, voxel in batch.items()}
