"""A run that kills itself by SIGKILL at a chosen stage."""

import os
import signal
from pathlib import Path

import torch

from deflare_core.config import ModelConfig
from deflare_core.deflaring import journal
from deflare_core.inference import deflare_recording
from deflare_core.io import recordings
from deflare_core.io import writer as recording_writer
from deflare_core.model import build_model
from deflare_core.system import atomic_files as output

STAGES = {
    "the input is opened": (recordings.Recording, "__init__", 1),
    "the journal is begun": (journal.Journal, "_write", 1),
    "the first window is read": (recordings.Recording, "window", 1),
    "the first window is noted": (journal.Journal, "append", 1),
    "the sixth window is noted": (journal.Journal, "append", 6),
    "a window's events are written": (recording_writer.RecordingWriter, "append", 4),
    "the file is finished": (recording_writer.RecordingWriter, "_finish", 1),
    "the file is given its name": (output, "_replace", 1),
    "the journal is taken away": (journal.Journal, "remove", 1),
}
"""Where a run is killed: just before a call, the first or a later one, of these."""


def deflare(folder: Path, name: str) -> bytes:
    """The bytes of the recording in a folder after a network that removes and invents, with flags."""
    model = build_model(ModelConfig(f_maps=(8, 16), num_levels=2), seed=0)
    with torch.no_grad():
        torch.nn.init.normal_(model.backbone.final_conv.weight, std=0.5, generator=torch.Generator().manual_seed(1))
    deflare_recording(model, folder / "in.h5", folder / name, flags=True, progress=False)
    return (folder / name).read_bytes()


def deflare_until(stage: str, folder: Path) -> None:
    """Deflare the recording in a folder, and be killed at a stage."""
    kill_before(*STAGES[stage])
    deflare(folder, "out.h5")


def kill_before(owner: object, name: str, count: int) -> None:
    """Let the process be killed at a call of a function."""
    called, calls = getattr(owner, name), []

    def killing(*arguments: object, **settings: object) -> object:
        calls.append(name)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return called(*arguments, **settings)

    setattr(owner, name, killing)
