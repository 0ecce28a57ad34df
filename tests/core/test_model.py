import pytest
import torch

from deflare_core.config import ModelConfig
from deflare_core.model import TrueResidualUNet3D, build_model, count_parameters
from deflare_core.system.devices import multiplies_bfloat16
from deflare_core.system.settings import ConfigError

SMALL = {"f_maps": (8, 16), "num_levels": 2}


@pytest.mark.parametrize(
    ("f_maps", "expected"),
    [
        ((32, 64, 128), 1_725_985),
        ((48, 96, 144), 2_882_113),
        ((64, 128, 256), 6_900_801),
        ((32, 64, 128, 256), 7_068_961),
    ],
)
def test_parameter_counts(f_maps, expected):
    assert count_parameters(build_model(ModelConfig(f_maps=f_maps, num_levels=len(f_maps)), seed=0)) == expected


@pytest.mark.parametrize("backbone", ["ResidualUNet3D", "UNet3D", "ResidualUNet2D"])
@pytest.mark.parametrize("size", [(8, 12), (13, 9), (26, 35)])
def test_the_untrained_network_is_the_identity_to_the_last_bit(backbone, size):
    voxel = torch.randn(2, 1, 8, *size) * 10
    for training in (True, False):
        model = TrueResidualUNet3D(backbone, **SMALL).train(training)
        assert torch.equal(model(voxel), voxel), f"{backbone} changes a voxel of {size} before it was trained."


def test_the_plain_backbone_is_not_the_identity():
    voxel = torch.randn(1, 1, 8, 16, 16)
    plain = build_model(ModelConfig(name="ResidualUNet3D", **SMALL), seed=0)
    assert not torch.allclose(plain(voxel), voxel)


def test_output_is_input_plus_backbone_once_trained():
    model = build_model(ModelConfig(**SMALL), seed=0)
    torch.nn.init.normal_(model.backbone.final_conv.weight)
    voxel = torch.randn(2, 1, 8, 8, 8)
    assert torch.equal(model(voxel), voxel + model.backbone(voxel))
    assert torch.allclose(model(voxel[:1]), model(voxel)[:1], atol=1e-5), (
        "A window alone gives what it gives in a batch."
    )
    assert (model(voxel) < 0).any(), "The output is not squeezed through a sigmoid."


def test_the_border_reaches_the_backbone():
    """Pooling alone would drop the last row and column of an odd size."""
    model = build_model(ModelConfig(**SMALL), seed=0)
    torch.nn.init.normal_(model.backbone.final_conv.weight)
    voxel = torch.zeros(1, 1, 8, 9, 11)
    marked = voxel.clone()
    marked[..., 8, 10] = 5
    assert not torch.equal(model(voxel)[..., 8, 10], model(marked)[..., 8, 10] - 5)


def test_the_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, second, other = (build_model(ModelConfig(**SMALL), seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_state_names_are_those_of_the_published_checkpoints():
    names = set(build_model(ModelConfig(), seed=0).state_dict())
    expected = {
        "backbone.encoders.0.basic_module.conv1.weight",
        "backbone.encoders.2.basic_module.conv3.groupnorm.weight",
        "backbone.decoders.0.upsampling.upsample.conv_transposed.weight",
        "backbone.final_conv.bias",
    }
    assert expected <= names


@pytest.mark.parametrize("backbone", ["ResidualUNet3D", "UNet3D", "ResidualUNet2D"])
def test_checkpointing_each_level_changes_no_gradient(backbone):
    voxel, gradients = torch.randn(1, 1, 8, 12, 12), []
    for use_checkpoint in (False, True):
        config = ModelConfig(backbone=backbone, f_maps=(8, 16, 32), use_checkpoint=use_checkpoint)
        model = build_model(config, seed=0)
        torch.nn.init.ones_(model.backbone.final_conv.weight)
        model(voxel).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


def test_the_first_gradient_reaches_the_last_layer():
    model = build_model(ModelConfig(**SMALL), seed=0)
    voxel = torch.randn(1, 1, 8, 8, 8)
    (model(voxel) - 0.5 * voxel).square().mean().backward()
    assert model.backbone.final_conv.weight.grad.norm() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"f_maps": (32, 64)}, "num_levels is 3 but f_maps"),
        ({"f_maps": (12, 24, 48)}, "cannot be split into num_groups=8"),
        ({"backbone": "ResUNet"}, "ResidualUNet3D"),
        ({"f_maps": (32,), "num_levels": 1}, "a U-Net has at least two"),
        ({"dropout_prob": 2}, "dropout_prob"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        TrueResidualUNet3D(**settings)
    assert "\n" not in str(caught.value)


def test_too_many_levels_for_the_bins_are_refused():
    model = TrueResidualUNet3D(f_maps=(8, 8, 8, 8, 8), num_levels=5)
    with pytest.raises(ValueError, match="there are 8; use at most 4 levels"):
        model(torch.zeros(1, 1, 8, 16, 16))
    with pytest.raises(ValueError, match=r"takes \(N, 1, bins, height, width\)"):
        model(torch.zeros(8, 16, 16))


def test_a_flat_backbone_sees_all_bins_and_polarities_as_one_picture():
    model = build_model(ModelConfig(backbone="ResidualUNet2D", polarity="split", **SMALL), seed=0)
    torch.nn.init.normal_(model.backbone.final_conv.weight)
    voxel = torch.randn(2, 2, 8, 8, 12)
    picture = voxel.reshape(2, 16, 8, 12)
    assert torch.allclose(model(voxel), (picture + model.backbone(picture)).reshape(voxel.shape), atol=1e-5)
    assert {p.ndim for p in model.parameters()} == {1, 4}, "Nothing is convolved over time."
    with pytest.raises(ValueError, match="num_bins=8 bins; received 4"):
        model(torch.zeros(1, 2, 4, 8, 12))


@pytest.mark.parametrize("backbone", ["ResidualUNet3D", "ResidualUNet2D"])
def test_aligned_upsampling_moves_no_cell(backbone):
    x = torch.randn(1, 16, 3, 5, 4)[(...,) if backbone.endswith("3D") else (slice(None), slice(None), 0)]
    size = [2 * n for n in x.shape[2:]]
    stretch = {}
    for upsampling in ("shifted", "aligned"):
        model = build_model(ModelConfig(backbone=backbone, upsampling=upsampling, **SMALL), seed=0)
        stretch[upsampling] = model.backbone.decoders[0].upsampling.upsample
    with torch.no_grad():
        shifted, aligned = (each(x, size) for each in stretch.values())
        assert torch.equal(aligned, stretch["aligned"].conv_transposed(x)), "Nothing is stretched."
    inner = (slice(None), slice(None))
    moved = shifted[(*inner, *(slice(1, None) for _ in size))]
    assert torch.equal(moved, aligned[(*inner, *(slice(None, -1) for _ in size))]), "Otherwise all moves by a cell."


def test_a_flat_network_gives_the_same_without_gradients():
    settings = {"backbone": "ResidualUNet2D", "polarity": "split", "precision": "single", **SMALL}
    model = build_model(ModelConfig(**settings), seed=0).eval()
    torch.nn.init.normal_(model.backbone.final_conv.weight)
    voxel = torch.randn(1, 2, 8, 20, 12)
    expected = model(voxel).detach()
    with torch.no_grad():
        assert torch.allclose(model(voxel), expected, atol=1e-5), "The order in memory changes no more than rounding."


@pytest.mark.parametrize("size", [(24, 40), (23, 37)])
def test_a_patch_of_two_sees_squares_of_pixels_as_channels(size):
    settings = {"backbone": "ResidualUNet2D", "f_maps": (16, 16), "num_levels": 2, "polarity": "split"}
    model = TrueResidualUNet3D(**settings, precision="single", patch=2).eval()
    voxel = torch.rand(1, 2, 8, *size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(voxel), voxel), "It is the identity before training."
    torch.nn.init.normal_(model.backbone.final_conv.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    rows, columns = (-n % 4 for n in size)
    planes = torch.nn.functional.pad(voxel, (0, columns, 0, rows)).flatten(1, 2)
    seen = torch.stack([planes[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 2).flatten(1, 2)
    with torch.no_grad():
        made = model.backbone(seen).unflatten(1, (16, 2, 2))
        out = model.residual(voxel)
    for i in (0, 1):
        for j in (0, 1):
            part = out.flatten(1, 2)[:, :, i::2, j::2]
            expected = made[:, :, i, j, : part.shape[2], : part.shape[3]]
            assert torch.allclose(part, expected, atol=1e-5), f"Pixel ({i}, {j}) of each square differs."


def test_a_patch_needs_a_flat_backbone():
    with pytest.raises(ConfigError, match=r"patch=2 is of a 2-D backbone; set backbone=ResidualUNet2D"):
        TrueResidualUNet3D(patch=2)


@pytest.mark.parametrize("flags", ["avx512f avx512_bf16", "fp asimd bf16", "avx512f avx2"])
def test_a_processor_that_multiplies_bfloat16_does_so(flags, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(f"model name : some processor\nflags : {flags}\n")
    monkeypatch.setattr("deflare_core.system.devices.CPU_INFO", tmp_path / "cpuinfo")
    multiplies_bfloat16.cache_clear()
    models = [build_model(ModelConfig(**SMALL, precision=precision), seed=0).eval() for precision in ("half", "single")]
    for model in models:
        torch.nn.init.normal_(model.backbone.final_conv.weight, generator=torch.Generator().manual_seed(1))
    voxel = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        half, single = (model.residual(voxel) for model in models)
    with_gradients = models[0].residual(voxel).detach()
    multiplies_bfloat16.cache_clear()
    difference = float((half - single).norm() / single.norm())
    assert torch.equal(with_gradients, single), "Training is in 32 bits."
    assert half.dtype == torch.float32
    assert (difference == 0) == ("bf16" not in flags), f"They differ by {difference:.2g}."
    assert difference < 0.05, "bfloat16 has 8 bits of mantissa."
