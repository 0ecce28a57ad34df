"""The network: a backbone that knows nothing, inside the residual rule `output = input + backbone(input)`.

A 3-D backbone sees time as a third axis; a 2-D one takes the bins of all polarities as channels of one picture, which
costs a fraction: a 3x3x3 convolution over 8 bins becomes a 3x3 one. The backbones come from pytorch-3dunet and keep
their state-dict names, under the prefix `backbone.`. The last 1x1x1 convolution of `TrueResidualUNet3D` starts at zero,
so the untrained network is the identity to the last bit.

Facts of that package that decide how it is built here:
`is_segmentation=False` is what leaves the output unbounded; `num_levels` is ignored when `f_maps` is a list, so the
two are compared; an explicit `upsample="deconv"` would build another network, so the default is kept; its residual
blocks ignore `conv_padding` and `dropout_prob`; dropout acts only if `layer_order` contains d.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from deflare_core.config import ModelConfig
from deflare_core.kernels.compiler import has_triton
from deflare_core.kernels.group_norm import speed_up_norms
from deflare_core.system.devices import multiplies_bfloat16
from deflare_core.system.errors import DeflareError
from deflare_core.system.late_imports import import_late
from deflare_core.system.limits import check_memory
from deflare_core.system.settings import make_config
from deflare_core.windows import neighbour_offsets

if TYPE_CHECKING:
    from pytorch3dunet.unet3d.model import AbstractUNet

ONEDNN_FROM = 20_480
"""Channels times depth times height beyond which torch convolves with oneDNN."""
KEEP_LOGIT = 4.0
"""The logit of keeping an event from which a gate starts: nearly sure, but not deaf to being wrong."""
REMOVED_AT_START = 1 / (1 + math.exp(KEEP_LOGIT))
LARGEST_EXPONENT = 60.0
"""Its exponential is still a float32 number."""
FOLDED_CHANNELS = 16
"""The GPU kernels take numbers of feature maps that are multiples of this."""


class VoxelNetwork(nn.Module):
    """A backbone applied to voxels of any sensor size: padded to whole pooling cells, and cropped after.

    Called with float32 `(N, inputs, bins, H, W)`, it returns float32 `(N, C, bins, H, W)`. C is 1 for signed voxels, 2
    for those of positive and of negative events (see `codec.encode_window`). Without context, inputs is C; with it,
    the channels of the window come first, then those of its neighbours (`neighbour_offsets`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.channels: int = 2 if config.polarity == "split" else 1
        self.inputs: int = self.channels * len(neighbour_offsets(config.context))
        self.is_flat = config.backbone == "ResidualUNet2D"
        planes = config.num_bins * config.patch**2 if self.is_flat else 1
        alike = ("num_levels", "layer_order", "num_groups", "conv_padding", "dropout_prob")
        with import_late("skimage.color"):  # Half a second for pictures of its training, which is not used here.
            from pytorch3dunet.unet3d import model as backbones

        self.backbone = getattr(backbones, config.backbone)(
            in_channels=self.inputs * planes,
            out_channels=self.channels * planes,
            f_maps=list(config.f_maps),
            is_segmentation=False,
            **{name: getattr(config, name) for name in alike},
        )
        speed_up_norms(self.backbone)
        if config.upsampling == "aligned":
            align_upsampling(self.backbone)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def forward(self, voxel: torch.Tensor) -> torch.Tensor:
        """The output `(N, C, bins, H, W)` of a voxel `(N, inputs, bins, H, W)`: the backbone's."""
        return self.run_backbone(voxel)

    def keep_logits(self, voxel: torch.Tensor) -> torch.Tensor:
        """The logit `(N, C, bins, H, W)` of a gate's chance to keep an event, of a voxel `(N, inputs, bins, H, W)`."""
        if self.config.residual != "gate":
            raise DeflareError("Only a network with model.residual=gate says with which chance it keeps an event.")
        return KEEP_LOGIT + self.run_backbone(voxel)

    def run_backbone(self, voxel: torch.Tensor) -> torch.Tensor:
        """The backbone's output `(N, C, bins, H, W)` for a voxel `(N, inputs, bins, H, W)` of any height and width."""
        self._check_shape(voxel)
        cell = self.config.patch * 2 ** (self.config.num_levels - 1)
        bins, height, width = voxel.shape[2:]
        padded = functional.pad(voxel, (0, -width % cell, 0, -height % cell, 0, 0 if self.is_flat else -bins % cell))
        if voxel.device.type == "cpu" and self._needs_a_batch(padded):
            padded = padded.expand(2, -1, -1, -1, -1)  # The second copy is dropped below.
        output = self._run_flat(padded.flatten(1, 2)) if self.is_flat else self._run(padded)
        output = output.reshape(len(padded), self.channels, *padded.shape[2:])
        return output[: len(voxel), :, :bins, :height, :width]

    def take_window(self, voxel: torch.Tensor) -> torch.Tensor:
        """The channels `(N, C, bins, H, W)` of the window itself, without those of its neighbours."""
        return voxel[:, : self.channels]

    def _run_flat(self, planes: torch.Tensor) -> torch.Tensor:
        """The output of a 2-D backbone that sees each square of `patch` times `patch` pixels as one of more channels.

        ```
        (N, C, H, W) -> (N, C patch^2, H / patch, W / patch) -> backbone -> the same way back
        ```
        """
        patch = self.config.patch
        if patch == 1:
            return self._run(planes)
        return functional.pixel_shuffle(self._run(functional.pixel_unshuffle(planes, patch)), patch)

    def _run(self, features: torch.Tensor) -> torch.Tensor:
        if self.is_folded_on(features.device):
            from deflare_core.kernels.folded_unet import run_folded

            trains = torch.is_grad_enabled()
            dtype = torch.bfloat16 if trains else torch.float16
            return run_folded(self.backbone, features, dtype, self.config.use_checkpoint and trains)
        return self._run_in_half(features) if self.is_half_on(features.device) else self._run_plain(features)

    def _run_plain(self, features: torch.Tensor) -> torch.Tensor:
        if self.is_flat and features.device.type == "cpu" and not torch.is_grad_enabled():
            # A processor convolves so 1.5 times as fast; backwards, torch 2.13 crashes.
            features = features.contiguous(memory_format=torch.channels_last)
        recompute = self.config.use_checkpoint and torch.is_grad_enabled()
        return _run_by_level(self.backbone, features) if recompute else self.backbone(features)

    def _run_in_half(self, features: torch.Tensor) -> torch.Tensor:
        """The backbone with products in bfloat16, which nothing is too large for, and channels last in memory."""
        order = torch.channels_last if self.is_flat else torch.channels_last_3d
        with torch.autocast(features.device.type, torch.bfloat16, cache_enabled=False):
            return self._run_plain(features.contiguous(memory_format=order)).float().contiguous()

    def _needs_a_batch(self, voxel: torch.Tensor) -> bool:
        """Whether a CPU takes two copies of the voxel several times as fast as one.

        torch gives a 3-D convolution to oneDNN only for batches, or for pictures larger than this.
        """
        small = self.config.f_maps[0] * voxel.shape[2] * voxel.shape[3] <= ONEDNN_FROM
        return small and len(voxel) == 1 and not self.is_flat

    def is_half_on(self, device: torch.device) -> bool:
        """Whether the backbone multiplies in 16 bits there: on a GPU, and on some processors where none are trained."""
        if self.config.precision == "single":
            return False
        return device.type == "cuda" or (not torch.is_grad_enabled() and multiplies_bfloat16(device))

    def is_recorded_on(self, device: torch.device) -> bool:
        """Whether a training step can be recorded there: not where torch's checkpoints restore random states."""
        return (
            device.type == "cuda"
            and self.is_half_on(device)
            and (self.is_folded_on(device) or not self.config.use_checkpoint)
        )

    def is_folded_on(self, device: torch.device) -> bool:
        """Whether the backbone runs through `kernels/folded_unet.py` there, or as pytorch-3dunet has it.

        A folded norm makes weights of each window's own. So 2-D ones train unfolded: all windows are one tensor.
        """
        known = self.config.backbone != "UNet3D" and self.config.layer_order == "gcr"
        fits = not any(n % FOLDED_CHANNELS for n in self.config.f_maps)
        is_one_tensor = self.is_flat and torch.is_grad_enabled() and not self.config.use_checkpoint
        on_gpu = device.type == "cuda" and self.is_half_on(device) and has_triton()
        return known and fits and on_gpu and not is_one_tensor

    def _check_shape(self, voxel: torch.Tensor) -> None:
        if voxel.ndim != 5 or voxel.shape[1] != self.inputs:
            shape = f"(N, {self.inputs}, bins, height, width)"
            raise DeflareError(f"The network takes {shape}; received {tuple(voxel.shape)}.")
        bins, levels = voxel.shape[2], self.config.num_levels
        if self.is_flat and bins != self.config.num_bins:
            raise DeflareError(f"The network takes model.num_bins={self.config.num_bins} bins; received {bins}.")
        if not self.is_flat and bins < 2 ** (levels - 1):
            raise DeflareError(
                f"{levels} levels halve the time bins {levels - 1} times, but there are {bins}; "
                f"use at most {bins.bit_length()} levels, or more bins."
            )


class TrueResidualUNet3D(VoxelNetwork):
    """`output = input + residual(input)`, the identity to the last bit before training.

    It takes the settings of `ModelConfig` by name, and raises ConfigError unless they fit each other.
    """

    def __init__(self, backbone: str = "ResidualUNet3D", **settings: Any) -> None:
        super().__init__(make_config(ModelConfig, {"backbone": backbone, **settings}, origin="TrueResidualUNet3D"))
        nn.init.zeros_(self.backbone.final_conv.weight)
        nn.init.zeros_(self.backbone.final_conv.bias)

    def forward(self, voxel: torch.Tensor) -> torch.Tensor:
        """The window plus what the backbone has learned to add (minus the flare), `(N, C, bins, H, W)`."""
        return self.take_window(voxel) + self.residual(voxel)

    def residual(self, voxel: torch.Tensor) -> torch.Tensor:
        """What is added to the voxel, `(N, C, bins, H, W)`; through a gate it only removes what is there."""
        if self.config.residual == "free":
            return self.run_backbone(voxel)
        return -self.take_window(voxel) * removed_share(self.run_backbone(voxel))


def removed_share(change: torch.Tensor) -> torch.Tensor:
    """The share of a cell's events that a gate removes, of any shape: exactly 0 from a change of 0 on, towards 1 below.

    It is 1 - sigmoid(KEEP_LOGIT + change) / sigmoid(KEEP_LOGIT), written so that no rounding disturbs the 0.
    """
    odds = REMOVED_AT_START * torch.expm1((-change).clamp(0, LARGEST_EXPONENT))
    return odds / (1 + odds)


def build_model(config: ModelConfig, seed: int) -> VoxelNetwork:
    """The network that the configuration describes, with initial weights drawn from `seed`."""
    cells = 9 if config.backbone == "ResidualUNet2D" else 27
    check_memory(4 * cells * 3 * sum(n * n for n in config.f_maps), f"a network of f_maps {config.f_maps}", "use fewer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.name == "TrueResidualUNet3D":
            return TrueResidualUNet3D(**config.model_dump(exclude={"name"}))
        return VoxelNetwork(config.model_copy(update={"backbone": config.name}))


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def align_upsampling(backbone: nn.Module) -> None:
    """Let every transposed convolution give twice as many cells as it takes, so that none is stretched after it.

    As it comes it gives one cell less, and nearest-neighbour stretching doubles the first: every level moves what comes
    from the coarser ones by one of its cells.
    """
    for module in backbone.modules():
        if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
            module.output_padding = (1,) * len(module.kernel_size)


def _run_by_level(backbone: AbstractUNet, voxel: torch.Tensor) -> torch.Tensor:
    """The backbone's output, of which only each level's result is kept for the backward pass.

    Checkpointing the backbone as a whole would save nothing: all of it is recomputed at once.
    """
    features, skips = voxel, []
    for encoder in backbone.encoders:
        features = checkpoint(encoder, features, use_reentrant=False)
        skips.append(features)
    for decoder, skip in zip(backbone.decoders, reversed(skips[:-1]), strict=True):
        features = checkpoint(decoder, skip, features, use_reentrant=False)
    return backbone.final_conv(features)
