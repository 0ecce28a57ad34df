"""A check of the installation: import what the notebooks import, run what they run, and say plainly what is wrong."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import torch

from deflare_core.codec import events_to_voxel, voxel_to_events
from deflare_core.config import ModelConfig
from deflare_core.model import build_model
from deflare_core.system.devices import device_name, pick_device
from deflare_core.system.places import PROJECT_ROOT
from deflare_core.system.revision import find_revision, list_versions

MODULES = (
    *("anywidget", "ipykernel", "ipywidgets", "jupyterlab", "mistune", "nbconvert", "papermill"),
    *("h5py", "hdf5plugin", "lz4", "numba", "numpy", "scipy", "zstandard", "matplotlib", "plotly", "PIL", "av"),
    *("pydantic", "pydantic_settings", "tqdm", "yaml"),
    *("torch", "pytorch3dunet.unet3d.model", "safetensors", "tensorboard", "tornado", "data_simu"),
)


def examine() -> Iterator[tuple[str, bool, str]]:
    """Each part of the installation, whether it works, and what was seen; none that fails stops the others."""
    checks: dict[str, Callable[[], str]] = {
        "packages": _import_packages,
        "codec": _try_codec,
        "network": _try_network,
        "device": lambda: device_name(pick_device("auto")),
        "threads": lambda: f"{os.cpu_count()} processors, torch uses {torch.get_num_threads()}",
        "disk": lambda: f"{shutil.disk_usage(PROJECT_ROOT).free / 1e9:.0f} GB free at {PROJECT_ROOT}",
        "versions": lambda: ", ".join(f"{name} {version}" for name, version in list_versions().items()),
        "revision": find_revision,
    }
    for subject, check in checks.items():
        try:
            works, seen = True, check()
        except Exception as error:
            works, seen = False, f"{type(error).__name__}: {error}"
        yield subject, works, seen


def _import_packages() -> str:
    failed = {}
    for name in MODULES:
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            failed[name] = str(error).splitlines()[0]
    if failed:
        raise ImportError("; ".join(f"{k}: {v}" for k, v in failed.items()) + "; run `make setup` again")
    return f"all {len(MODULES)} import"


def _try_codec() -> str:
    voxel = np.zeros((8, 4, 6), np.float32)
    voxel[3, 2, 5], voxel[7, 0, 0] = 2, -1
    events = voxel_to_events(voxel, t0_us=0, seed=0)
    if not np.array_equal(events_to_voxel(events, t0_us=0), voxel):
        raise RuntimeError("a decoded voxel does not encode to itself")
    return "decode and encode give the voxel back"


def _try_network() -> str:
    model = build_model(ModelConfig(f_maps=(8, 16), num_levels=2), seed=0)
    voxel = torch.rand(1, 1, 8, 9, 11)
    if not torch.equal(model(voxel), voxel):
        raise RuntimeError("the untrained network is not the identity")
    return "the untrained network is the identity"
