"""Small networks."""

import torch

from deflare_core.config import ModelConfig
from deflare_core.model import VoxelNetwork, build_model


def gate(std=0.0, **settings) -> VoxelNetwork:
    """A small gate of two polarities, or what the settings make of it, its last weights of that deviation."""
    given = {"f_maps": (8, 16), "num_levels": 2, "polarity": "split", "residual": "gate"} | settings
    model = build_model(ModelConfig(**given), seed=0)
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(model.backbone.final_conv.weight, std=std, generator=generator)
    return model
