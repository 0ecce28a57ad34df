"""The memory of a training step by part, measured on torch's meta device: each tensor is made, none is filled.

It is that of float32 in torch's own layers; kernels of a GPU in half precision need less.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from pytorch3dunet.unet3d.model import ResidualUNet3D
from torch.nn.functional import mse_loss
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from deflare_core.config import ModelConfig, OptimizerConfig
from deflare_core.events import NUM_BINS, SensorSize
from deflare_core.loop.optimizer import make_optimizer
from deflare_core.model import build_model, count_parameters
from deflare_core.system.markdown import markdown_table

RECORD_F_MAPS = ((32, 64, 128), (48, 96, 144), (64, 128, 256), (32, 64, 128, 256))
"""The networks of the project's record."""


class StorageWatch(TorchDispatchMode):
    """How many bytes the tensors hold that were made while it is open, `held`, and the most at one time, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What the operation gives, after its new storages were counted."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.held)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            self.held += storage.nbytes()
            weakref.finalize(storage, self._release, storage._cdata)

    def _release(self, key: int) -> None:
        self.held -= self._sizes.pop(key)


def measure_step_memory(config: ModelConfig, sensor_size: SensorSize, num_bins: int = NUM_BINS) -> dict[str, int]:
    """Bytes that a training step on one window needs, by part: weights, gradients, optimizer, activations, peak.

    Activations are what else the backward pass finds at its peak; the peak is of all parts together.
    """
    model = build_model(config.model_copy(update={"precision": "single"}), seed=0).to("meta").train()
    optimizer = make_optimizer(OptimizerConfig(), model)
    shape = (1, model.inputs * model.channels, num_bins, *sensor_size)
    with StorageWatch() as watch:
        output = model(torch.zeros(shape, device="meta"))
        mse_loss(output, torch.zeros_like(output)).backward()
    optimizer.step()
    parameters = list(model.parameters())
    weights, gradients = (_count_bytes(each) for each in (parameters, [p.grad for p in parameters]))
    state = _count_bytes([value for values in optimizer.state.values() for value in values.values()])
    parts = {"weights": weights, "gradients": gradients, "optimizer": state, "activations": watch.peak - gradients}
    return parts | {"peak": sum(parts.values())}


def _count_bytes(tensors: Sequence[Any]) -> int:
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))


def tabulate_networks(sensor_size: SensorSize = (480, 640)) -> str:
    """The networks of the record as a table in Markdown: their parameters, and the memory of a step by part.

    Below them is pytorch-3dunet's own default, which has a level more than windows of eight bins can be halved.
    """
    rows = [_tabulate_network(f_maps, sensor_size) for f_maps in RECORD_F_MAPS]
    with torch.device("meta"):
        default = count_parameters(ResidualUNet3D(1, 1, is_segmentation=False))
    rows.append(["pytorch-3dunet's default", f"{default:,}", f"{4 * default / 2**20:.1f}", *["-"] * 6])
    small = [f"{name}, MiB" for name in ("weights", "gradients", "optimizer")]
    large = [f"{name}{how}, GiB" for name in ("activations", "peak") for how in ("", " with use_checkpoint")]
    return markdown_table(["f_maps", "parameters", *small, *large], rows)


def _tabulate_network(f_maps: tuple[int, ...], sensor_size: SensorSize) -> list[str]:
    config = ModelConfig(f_maps=f_maps, num_levels=len(f_maps))
    plain, saving = (
        measure_step_memory(config.model_copy(update={"use_checkpoint": use}), sensor_size) for use in (False, True)
    )
    small = [f"{plain[name] / 2**20:.1f}" for name in ("weights", "gradients", "optimizer")]
    large = [f"{each[name] / 2**30:.2f}" for name in ("activations", "peak") for each in (plain, saving)]
    with torch.device("meta"):
        parameters = count_parameters(build_model(config, seed=0))
    return [f"[{', '.join(map(str, f_maps))}]", f"{parameters:,}", *small, *large]
