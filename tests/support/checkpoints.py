"""Checkpoints of small networks."""

from pathlib import Path

import torch

from deflare_core.checkpoint import save_checkpoint
from deflare_core.config import ModelConfig
from deflare_core.model import VoxelNetwork, build_model

SMALL = ModelConfig(f_maps=(8, 16), num_levels=2)


def save_small_checkpoint(folder: Path, model: VoxelNetwork | None = None) -> Path:
    """The checkpoint folder of a network, else of an untrained small one, in a run's folder."""
    model = model or build_model(SMALL, seed=0)
    optimizer = torch.optim.Adam(model.parameters())
    return save_checkpoint(folder / "run", model, optimizer, epoch=0, step=1, metrics={}, training={})
