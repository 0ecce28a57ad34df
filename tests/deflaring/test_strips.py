"""Layers and networks in strips of rows against the same on whole frames."""

import pytest
import torch
from torch import nn

from deflare_core.config import ModelConfig
from deflare_core.deflaring.strips import ConvInStrips, NormInStrips, TransposedConvInStrips, cut_in_strips
from deflare_core.model import build_model


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 4, 5, 100])
@pytest.mark.parametrize(
    ("wrapper", "layer"),
    [
        (ConvInStrips, nn.Conv3d(4, 6, 3, padding=1)),
        (ConvInStrips, nn.Conv3d(4, 6, 1)),
        (ConvInStrips, nn.Conv3d(4, 6, (1, 5, 3), padding=(0, 2, 1))),
        (ConvInStrips, nn.Conv3d(4, 6, 3)),
        (TransposedConvInStrips, nn.ConvTranspose3d(4, 6, 3, stride=2, padding=1, bias=False)),
        (TransposedConvInStrips, nn.ConvTranspose3d(4, 6, 2, stride=2)),
        (NormInStrips, nn.GroupNorm(2, 4)),
    ],
)
@torch.no_grad()
def test_a_layer_in_strips_is_the_layer(wrapper, layer, rows):
    x = 3 + 5 * draw(2, 4, 4, 11, 6)
    if wrapper is NormInStrips:
        layer.weight.copy_(draw(4))
        layer.bias.copy_(draw(4, seed=1))
    expected = layer(x)
    found = wrapper(layer, rows)(x)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=2e-5), f"They differ by {(found - expected).abs().max():.2g}."


@pytest.mark.parametrize("backbone", ["ResidualUNet3D", "UNet3D"])
@pytest.mark.parametrize(("size", "rows"), [((37, 50), 8), ((24, 32), 7), ((16, 16), 100), ((130, 173), 50)])
@torch.no_grad()
def test_a_network_in_strips_is_the_network(backbone, size, rows):
    model = build_model(ModelConfig(backbone=backbone, f_maps=(8, 16, 32), precision="single"), seed=0).eval()
    nn.init.normal_(model.backbone.final_conv.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    voxel = 2 * draw(1, 1, 8, *size)
    expected, found = model(voxel), cut_in_strips(model, rows)(voxel)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (expected - voxel).abs().max() > 0.1, "The network does something."


def test_the_network_itself_is_left_alone():
    model = build_model(ModelConfig(f_maps=(8, 16), num_levels=2), seed=0)
    before = [name for name, _ in model.named_modules()]
    cut_in_strips(model, 8)
    assert [name for name, _ in model.named_modules()] == before
    with pytest.raises(ValueError, match="at least one row; received 0"):
        cut_in_strips(model, 0)
    with pytest.raises(ValueError, match="without stride"):
        ConvInStrips(nn.Conv3d(1, 1, 3, stride=2), 4)


def test_a_flat_network_is_not_cut_in_strips():
    with pytest.raises(ValueError, match="Strips are of 3-D backbones"):
        cut_in_strips(build_model(ModelConfig(backbone="ResidualUNet2D"), seed=0), 8)
