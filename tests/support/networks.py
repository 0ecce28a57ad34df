"""Small networks."""

import torch

from deflare_core.config import ModelConfig
from deflare_core.model import VoxelNetwork, build_model

FOLDED = {
    "32, 64": {"f_maps": (32, 64)},
    "48, 96": {"f_maps": (48, 96)},
    "split, aligned": {"f_maps": (32, 64), "polarity": "split", "upsampling": "aligned"},
    "flat": {"f_maps": (32, 64, 64), "backbone": "ResidualUNet2D", "polarity": "split"},
    "flat, with context": {"f_maps": (32, 64), "backbone": "ResidualUNet2D", "polarity": "split", "context": 1},
    "flat, aligned, as many maps as channels": {
        "f_maps": (16, 48),
        "backbone": "ResidualUNet2D",
        "polarity": "split",
        "upsampling": "aligned",
    },
}
"""Networks of every shape that the GPU's folded network takes."""


def gate(std=0.0, **settings) -> VoxelNetwork:
    """A small gate of two polarities, or what the settings make of it, its last weights of that deviation."""
    given = {"f_maps": (8, 16), "num_levels": 2, "polarity": "split", "residual": "gate"} | settings
    model = build_model(ModelConfig(**given), seed=0)
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(model.backbone.final_conv.weight, std=std, generator=generator)
    return model
