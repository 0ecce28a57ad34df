"""What `deflare infer` advises: how to be quicker, and when to look."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from deflare_core.config import InferenceConfig
from deflare_core.io.reading import Reading

if TYPE_CHECKING:
    import torch


def advise_on_speed(config: InferenceConfig, device: torch.device) -> str:
    """What makes the work quicker that a configuration asks for on a device, in a sentence."""
    import torch

    ways = []
    if config.method == "network" and device.type == "cpu":
        ways.append("device=cuda" if torch.cuda.is_available() else "a machine with a GPU")
    if config.overlap:
        ways.append("overlap=false")
    return f"Quicker: {', '.join([*ways, 'fewer windows (--from, --to)', 'a part of the frame (--crop)'])}."


def advise_to_look(source: Path, target: Path, reading: Reading, *, is_cropped: bool) -> str:
    """That unusually much was removed of a recording, and the command that shows it before and after.

    A cropped output has another sensor than its input, so one viewer cannot show both.
    """
    from deflare_core.deflaring.summary import MUCH
    from deflare_core.io.description import list_options

    files = [str(path) for path in ([target] if is_cropped else [source, target])]
    command = " ".join(["deflare view", shlex.join(files), *([] if is_cropped else list_options(reading))])
    remedy = "; --method input with the same options and another output cuts out what it was made of" * is_cropped
    return f"unusually much was removed, more than {MUCH:.0%}: look with `{command}`{remedy}"
