"""Write how the folded network and the GPU's decode compare with the plain ones, as JSON; `test_folded` runs it.

Run by itself on a machine with a GPU, `python tests/folded_agreement.py cuda`, it compares at full size and in half
precision. In Triton's interpreter (TRITON_INTERPRET=1) it compares small voxels in float32, tiles made small too.
"""

import json
import sys

import numpy as np
import torch
from conftest import make_events

from deflare_core import folded
from deflare_core.codec import apply_voxel, events_to_voxel
from deflare_core.config import ModelConfig
from deflare_core.event_tensors import EventTensors, cells_of
from deflare_core.gpu_decode import choose_kept_on_gpu
from deflare_core.model import VoxelNetwork, build_model

NETWORKS = (((32, 64), "signed"), ((48, 96), "signed"), ((32, 64), "split"))


def lively(f_maps: tuple[int, ...], polarity: str, device: str) -> VoxelNetwork:
    """A network whose norms, biases and last layer are as after training, not as before."""
    model = build_model(ModelConfig(f_maps=f_maps, num_levels=len(f_maps), polarity=polarity, precision="single"), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter.normal_(std=0.3, generator=generator)
    return model.to(device)


def gradients(model: VoxelNetwork, run, voxel: torch.Tensor, target: torch.Tensor):
    """The output, and the gradients of all parameters by name."""
    model.zero_grad()
    output = run(voxel)
    (output - target).square().mean().backward()
    return output.detach(), {name: p.grad.clone() for name, p in model.backbone.named_parameters()}


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """How far b is from a, relative to a."""
    return float((a.double() - b.double()).norm() / a.double().norm())


def network_agreement(
    f_maps: tuple[int, ...], polarity: str, size: tuple[int, ...], device: str, dtype: torch.dtype
) -> dict:
    """Relative differences between the plain backbone and the folded one: output, and largest over the gradients."""
    model = lively(f_maps, polarity, device)
    generator = torch.Generator().manual_seed(2)
    voxel, target = (torch.randn(1, model.channels, *size, generator=generator).round().to(device) for _ in range(2))
    plain, plain_gradients = gradients(model, model.backbone, voxel, target)
    found = {}
    for recompute in (False, True):

        def run(voxel, recompute=recompute):
            return folded.run_folded(model.backbone, voxel, dtype, recompute)

        output, folded_gradients = gradients(model, run, voxel, target)
        worst = max(difference(plain_gradients[name], folded_gradients[name]) for name in plain_gradients)
        found["recomputed" if recompute else "kept"] = {"output": difference(plain, output), "gradients": worst}
    return found


def decode_agreement(seed: int, num: int, size: tuple[int, int], device: str) -> dict:
    """Whether the GPU keeps the events that the CPU keeps, and misses as many."""
    events, rng = make_events(seed, num, size), np.random.default_rng(seed)
    voxel = events_to_voxel(events, t0_us=0)
    output = (voxel * rng.choice([0, 0.4, 1, 1.5], voxel.shape)).astype(np.float32)
    large_seed = 2**63 - 5 - seed
    applied = apply_voxel(events, voxel, output, t0_us=0, seed=large_seed)
    tensors = EventTensors.from_events(events, device)
    before, after = (torch.from_numpy(v).to(device) for v in (voxel, output))
    choice = choose_kept_on_gpu(tensors, cells_of(tensors, 8, 20_000, 0), before, after, large_seed)
    return {
        "removed": int((~applied.kept).sum()),
        "kept_otherwise": int((choice.kept.cpu().numpy() != applied.kept).sum()),
        "synthesised": int(applied.synthesised.sum()),
        "missing": int(choice.num_missing),
        "unfit": int(choice.num_unfit),
    }


def main(device: str) -> None:
    """Print all agreements."""
    interpreted = device == "cpu"
    if interpreted:
        folded.CONVOLVE_ROWS, folded.CONVOLVE_LINES = 4, 2
        folded.WEIGHT_GRADIENT_ROWS, folded.WEIGHT_GRADIENT_LINES = 4, 2
    size, dtype = ((2, 4, 6), torch.float32) if interpreted else ((8, 480, 640), torch.bfloat16)
    networks = {f"{kind}": network_agreement(*kind, size, device, dtype) for kind in NETWORKS}
    num, frame = (2_000, (12, 16)) if interpreted else (200_000, (120, 160))
    decodes = [decode_agreement(seed, num, frame, device) for seed in range(3)]
    sys.stdout.write(json.dumps({"networks": networks, "decodes": decodes}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
