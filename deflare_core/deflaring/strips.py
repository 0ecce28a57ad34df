"""Frames too large for a GPU's memory: the network layer by layer, each layer in strips of rows.

The features of a whole frame are in host memory, and the device holds one strip of one layer. A strip is convolved
with the rows above and below it that its kernel reaches, and groups are normalised by the statistics of the whole
frame, so the result is that of the whole frame up to rounding. It is slower: features cross to the device and back at
every layer. Tiles that are run through the whole network would need a margin as wide as the network sees (about 60
rows) and would each be normalised by statistics of their own, which changes the output.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional

from deflare_core.model import VoxelNetwork
from deflare_core.system.errors import DeflareError


def cut_in_strips(model: VoxelNetwork, rows: int) -> VoxelNetwork:
    """A network of the same weights, on the same device, that works on strips of `rows` rows; for inference.

    Raises
    ------
    DeflareError
        When `rows` is not positive, the backbone is a 2-D one, or a convolution has a stride or a dilation.
    """
    if rows < 1:
        raise DeflareError(f"A strip has at least one row; received {rows}.")
    if model.is_flat:
        raise DeflareError("Strips are of 3-D backbones; a 2-D one needs an eighth of the memory on whole frames.")
    found = copy.deepcopy(model).eval()
    # The GPU kernels work on whole frames.
    found.config = model.config.model_copy(update={"precision": "single"})
    for module in list(found.backbone.modules()):
        for name, child in module.named_children():
            if type(child) in WRAPPERS or isinstance(child, nn.GroupNorm):
                setattr(module, name, WRAPPERS.get(type(child), NormInStrips)(child, rows))
    found.backbone.final_conv.stays = True
    return found


class LayerInStrips(nn.Module):
    """A layer that takes and gives features in host memory, and works on its own device."""

    def __init__(self, layer: nn.Module, rows: int) -> None:
        super().__init__()
        self.layer, self.rows, self.stays = layer, rows, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output for the whole frame, put together from strips."""
        out: torch.Tensor | None = None
        for start, end in self._spans(self._height(x.shape[3])):
            strip = self._strip(x, start, end)
            if out is None:
                shape = (*strip.shape[:3], self._height(x.shape[3]), strip.shape[4])
                out = torch.empty(shape, device=strip.device if self.stays else "cpu")
            out[:, :, :, start:end] = strip
        assert out is not None, "A frame has at least one row."
        return out

    def _height(self, rows: int) -> int:
        """The output's rows for this number of rows of the input."""
        return rows

    def _strip(self, x: torch.Tensor, start: int, end: int) -> torch.Tensor:
        """The output's rows from start to end."""
        raise NotImplementedError

    def _spans(self, height: int) -> Iterator[tuple[int, int]]:
        """Start and end of each strip of a frame of this height."""
        return ((start, min(start + self.rows, height)) for start in range(0, height, self.rows))

    def _on_device(self, x: torch.Tensor, start: int, end: int) -> torch.Tensor:
        """Rows of the input on the layer's device."""
        return x[:, :, :, start:end].to(next(self.layer.parameters()).device)


class ConvInStrips(LayerInStrips):
    """A convolution of stride 1, each strip with the rows that its kernel reaches; zeros beyond the frame."""

    layer: nn.Conv3d

    def __init__(self, layer: nn.Conv3d, rows: int) -> None:
        super().__init__(layer, rows)
        if set(layer.stride) | set(layer.dilation) != {1}:
            raise DeflareError(f"Strips need convolutions without stride and dilation; received {layer}.")

    def _height(self, rows: int) -> int:
        return rows + 2 * int(self.layer.padding[1]) - self.layer.kernel_size[1] + 1

    def _strip(self, x: torch.Tensor, start: int, end: int) -> torch.Tensor:
        before, reach = int(self.layer.padding[1]), self.layer.kernel_size[1] - 1
        first, last = start - before, end - before + reach
        inside = self._on_device(x, max(first, 0), min(last, x.shape[3]))
        padded = functional.pad(inside, (0, 0, max(-first, 0), max(last - x.shape[3], 0)))
        padding = (self.layer.padding[0], 0, self.layer.padding[2])
        return functional.conv3d(padded, self.layer.weight, self.layer.bias, padding=padding)  # type: ignore[arg-type]


class TransposedConvInStrips(LayerInStrips):
    """A transposed convolution, each strip from more input rows than reach it, of which the surplus is cut off."""

    layer: nn.ConvTranspose3d

    def _height(self, rows: int) -> int:
        stride, padding = self.layer.stride[1], int(self.layer.padding[1])
        return (rows - 1) * stride - 2 * padding + self.layer.kernel_size[1] + self.layer.output_padding[1]

    def _strip(self, x: torch.Tensor, start: int, end: int) -> torch.Tensor:
        stride, reach = self.layer.stride[1], self.layer.kernel_size[1]
        first = max(start // stride - reach, 0)
        found = self.layer(self._on_device(x, first, min(end // stride + reach + 1, x.shape[3])))
        return found[:, :, :, start - first * stride : end - first * stride]


class NormInStrips(LayerInStrips):
    """GroupNorm by the mean and variance of the whole frame."""

    layer: nn.GroupNorm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The normalised features."""
        self.scale, self.shift = self._scale_and_shift(x)
        return super().forward(x)

    def _strip(self, x: torch.Tensor, start: int, end: int) -> torch.Tensor:
        return self._on_device(x, start, end) * self.scale + self.shift

    def _scale_and_shift(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What each channel is multiplied by, and what is then added, `(N, C, 1, 1, 1)`, from two passes."""
        layer = self.layer
        count = x[0].numel() // layer.num_groups
        mean = self._total(x, lambda strip: strip) / count
        squares = self._total(x, lambda strip: (strip - mean.float()[..., None]).square())
        rate = torch.rsqrt(squares / count + layer.eps)
        channels = layer.num_channels // layer.num_groups
        scale = layer.weight.double() * rate.repeat_interleave(channels, 1)
        shift = layer.bias.double() - scale * mean.repeat_interleave(channels, 1)
        return scale.float()[..., None, None, None], shift.float()[..., None, None, None]

    def _total(self, x: torch.Tensor, of_strip: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The sum over each group's cells of what is made of a strip `(N, groups, cells)`; float64 `(N, groups)`."""
        found = torch.zeros(len(x), self.layer.num_groups, dtype=torch.float64, device=self.layer.weight.device)
        for span in self._spans(x.shape[3]):
            strip = self._on_device(x, *span)
            found += of_strip(strip.reshape(*found.shape, -1)).sum(2, dtype=torch.float64)
        return found


WRAPPERS: dict[type[nn.Module], type[LayerInStrips]] = {
    nn.Conv3d: ConvInStrips,
    nn.ConvTranspose3d: TransposedConvInStrips,
}
