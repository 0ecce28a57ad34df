"""deflare: remove lens flare from event-camera recordings. The names below are the public face.

Each is imported when it is first asked for, so that `import deflare_core` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deflare_core.checkpoint import load_model, load_pretrained
    from deflare_core.codec import apply_voxel, encode_window, events_to_voxel, voxel_to_events
    from deflare_core.config import ModelConfig, TestConfig, TrainConfig
    from deflare_core.dataset import EventVoxelDataset
    from deflare_core.deflaring.method import NetworkMethod
    from deflare_core.events import Events
    from deflare_core.inference import deflare, deflare_recording, load_method
    from deflare_core.io.reading import Reading
    from deflare_core.io.recordings import load_events, open_recording, save_events
    from deflare_core.model import TrueResidualUNet3D, build_model
    from deflare_core.scores.evaluation import evaluate
    from deflare_core.show.viewer import VoxelBinViewer
    from deflare_core.system.errors import DeflareError
    from deflare_core.system.settings import load_config
    from deflare_core.training import fit

__version__ = "0.1.0"

_HOMES = {
    "checkpoint": ("load_model", "load_pretrained"),
    "codec": ("apply_voxel", "encode_window", "events_to_voxel", "voxel_to_events"),
    "config": ("ModelConfig", "TestConfig", "TrainConfig"),
    "dataset": ("EventVoxelDataset",),
    "deflaring.method": ("NetworkMethod",),
    "events": ("Events",),
    "inference": ("deflare", "deflare_recording", "load_method"),
    "io.reading": ("Reading",),
    "io.recordings": ("load_events", "open_recording", "save_events"),
    "model": ("TrueResidualUNet3D", "build_model"),
    "scores.evaluation": ("evaluate",),
    "show.viewer": ("VoxelBinViewer",),
    "system.errors": ("DeflareError",),
    "system.settings": ("load_config",),
    "training": ("fit",),
}
"""The public names of each module."""
__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
