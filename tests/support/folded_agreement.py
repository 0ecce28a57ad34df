"""Write how the folded network and the GPU's decode compare with the plain ones, as JSON; `test_folded` runs it.

Run by itself on a machine with a GPU, `PYTHONPATH=tests python -m support.folded_agreement cuda`, it compares at full
size and in half precision. In Triton's interpreter (TRITON_INTERPRET=1) it compares what is named, a network or the
decode, on small voxels in float32.
"""

import json
import sys

import numpy as np
import torch

from deflare_core.codec import apply_voxel, encode_window
from deflare_core.config import ModelConfig
from deflare_core.deflaring.stream import deflare_windows
from deflare_core.events import Events
from deflare_core.kernels import folded_steps
from deflare_core.kernels import folded_unet as folded
from deflare_core.kernels.codec_triton import choose_kept_on_gpu
from deflare_core.kernels.cuda_graphs import GraphedGradient
from deflare_core.kernels.event_tensors import EventTensors, find_cells
from deflare_core.losses import FUNCTIONS
from deflare_core.model import VoxelNetwork, build_model
from deflare_core.training import list_gradients
from deflare_core.windows import USUAL_CUT
from support.by_hand import cut_windows, deflare_window
from support.networks import FOLDED
from support.recordings import make_events, same_events


def lively(settings: dict, device: str) -> VoxelNetwork:
    """A network whose norms, biases and last layer are as after training, not as before."""
    settings = {"num_levels": len(settings["f_maps"]), "precision": "single"} | settings
    model = build_model(ModelConfig(**settings), 0)
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


def network_agreement(settings: dict, size: tuple[int, ...], device: str, dtype: torch.dtype) -> dict:
    """Relative differences between the plain backbone and the folded one: output, and largest over the gradients."""
    model = lively(settings, device)
    generator = torch.Generator().manual_seed(2)
    voxel, target = (
        torch.randn(1, channels, *size, generator=generator).round().to(device)
        for channels in (model.inputs, model.channels)
    )
    if model.is_flat:
        voxel, target = voxel.flatten(1, 2), target.flatten(1, 2)
    plain, plain_gradients = gradients(model, model.backbone, voxel, target)
    found = {}
    for recompute in (False, True):

        def run(voxel, recompute=recompute):
            return folded.run_folded(model.backbone, voxel, dtype, recompute)

        output, folded_gradients = gradients(model, run, voxel, target)
        worst = max(difference(plain_gradients[name], folded_gradients[name]) for name in plain_gradients)
        found["recomputed" if recompute else "kept"] = {"output": difference(plain, output), "gradients": worst}
    return found


def batch_agreement(settings: dict, device: str) -> float:
    """How far the gradient of four windows side by side in a graph is from the sum of each by itself."""
    model = lively(settings | {"precision": "half"}, device)
    generator = torch.Generator().manual_seed(2)
    raw, label = (
        torch.randn(4, channels, 8, 120, 160, generator=generator).abs().round().to(device)
        for channels in (model.inputs, model.channels)
    )
    found = []
    for size in (1, 4):
        model.zero_grad()
        total = list_gradients(model)
        graph = GraphedGradient(model, FUNCTIONS["mse"], raw[:size], label[:size])
        for part, its_label in zip(raw.split(size), label.split(size), strict=True):
            graph(part, its_label, size / 4)
        found.append(torch.cat([gradient.flatten() for gradient in total]))
    return difference(*found)


def decode_agreement(seed: int, num: int, size: tuple[int, int], device: str, split: bool) -> dict:
    """Whether the GPU keeps the events that the CPU keeps, and misses as many."""
    events, rng = make_events(seed, num, size), np.random.default_rng(seed)
    voxel = encode_window(events, 0, channels=2 if split else 1)
    output = (voxel * rng.choice([0, 0.4, 1, 1.5], voxel.shape)).astype(np.float32)
    large_seed = 2**63 - 5 - seed
    applied = apply_voxel(events, voxel, output, 20_000, t0_us=0, seed=large_seed)
    tensors = EventTensors.from_events(events, device)
    cells = find_cells(tensors, 8, 20_000, 0, split)
    if split:
        voxel, output = (np.stack([v[0], -v[1]]) for v in (voxel, output))
    before, after = (torch.from_numpy(v).to(device) for v in (voxel, output))
    choice = choose_kept_on_gpu(tensors, cells, before, after, large_seed)
    return {
        "removed": int((~applied.kept).sum()),
        "kept_otherwise": int((choice.kept.cpu().numpy() != applied.kept).sum()),
        "synthesised": int(applied.synthesised.sum()),
        "missing": int(choice.missing.abs().sum()),
        "unfit": int(choice.num_unfit),
    }


def window_agreement(settings: dict, device: str) -> dict:
    """Of some windows, how many come out of the GPU's pipeline as out of its network with the CPU's decode."""
    model = build_model(ModelConfig(num_levels=len(settings["f_maps"]), **settings), 0).to(device)
    torch.nn.init.normal_(model.backbone.final_conv.weight, std=0.3, generator=torch.Generator(device).manual_seed(1))
    recording = Events.concatenate([make_events(k, 200_000, (480, 640), 20_000 * k) for k in range(4)])
    windows = [window._replace(seed=2**63 - 5 - k) for k, window in enumerate(cut_windows(recording, 4))]
    same = 0
    for window, found in zip(windows, deflare_windows(model, windows, USUAL_CUT), strict=True):
        same += same_events(deflare_window(model, recording, window.t0_us, window.seed).events, found.events)
    return {"windows": len(windows), "same": same, "events": len(found.events), "of": len(window.events)}


def make_tiles_small() -> None:
    """Let voxels that the interpreter can work through have several tiles."""
    folded_steps.CONVOLVE_ROWS, folded_steps.CONVOLVE_LINES = 4, 2
    folded_steps.WEIGHT_GRADIENT_ROWS, folded_steps.WEIGHT_GRADIENT_LINES = 4, 2
    folded_steps.CONVOLVE_LINES_OF_ONE = folded_steps.WEIGHT_GRADIENT_LINES_OF_ONE = 3


def interpreted(part: str) -> dict | list[dict]:
    """The agreement of one network by its name, or of the decode."""
    if part == "decode":
        return [decode_agreement(seed, 2_000, (12, 16), "cpu", split=seed > 1) for seed in range(4)]
    make_tiles_small()
    settings = FOLDED[part]
    return network_agreement(settings, (8, 4, 8) if "backbone" in settings else (2, 4, 6), "cpu", torch.float32)


def on_gpu() -> dict:
    """All agreements at full size."""
    networks = {name: network_agreement(each, (8, 480, 640), "cuda", torch.bfloat16) for name, each in FOLDED.items()}
    gate = {"residual": "gate", "level": 0.1}
    adaptive = gate | {"level": "balanced"}
    chosen = (FOLDED["32, 64"], FOLDED["flat"] | gate, FOLDED["flat, with context"] | adaptive)
    return {
        "networks": networks,
        "decodes": [decode_agreement(seed, 200_000, (120, 160), "cuda", split=seed > 1) for seed in range(4)],
        "batch": batch_agreement(FOLDED["flat, with context"], "cuda"),
        "windows": [window_agreement(each, "cuda") for each in chosen],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(on_gpu() if sys.argv[1] == "cuda" else interpreted(sys.argv[1])) + "\n")
