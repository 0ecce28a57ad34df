"""The command that deflares recordings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from deflare_core.app.commands import in_words
from deflare_core.config import InferenceConfig
from deflare_core.io.reading import Reading
from deflare_core.system.errors import DeflareError

if TYPE_CHECKING:
    from deflare_core.deflaring.method import Method


def infer(
    *,
    input: Annotated[Path, Field(description="recording with flare, or a folder of them")],
    output: Annotated[Path, Field(description="deflared recording to write (.h5), or the folder")],
    reading: Reading,
    config: InferenceConfig,
) -> int:
    """Deflare recordings, shared among the processes of torchrun, and return 1 if some could not be.

    What was done of a folder before is skipped; what cannot be deflared is named at the end.
    """
    from deflare_core.deflaring.jobs import recordings_to_deflare, text_files
    from deflare_core.inference import configure_method
    from deflare_core.system.processes import join_processes

    config = config.model_copy(update={"method": config.method.replace("-", "_")})
    settings = {name: getattr(config, name) for name in ("window_us", "num_bins", "seed", "flags")}
    settings |= asdict(reading)
    with join_processes(config.device) as processes:
        method = configure_method(config, str(processes.device))
        jobs = processes.share(recordings_to_deflare(input, output))
        if processes.is_first and (left_out := text_files(input)):
            names = ", ".join(path.name for path in left_out)
            print(f"{input}: text files are left out ({names}); name one to deflare it")
        failures = infer_each(method, jobs, settings, skip=input.is_dir(), progress=processes.is_first)
        # Before the processes part: torchrun ends all others when the first has failed.
        for failure in failures:
            print(f"deflare infer: error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def infer_each(
    method: Method, jobs: Sequence[tuple[Path, Path]], settings: dict[str, Any], skip: bool, progress: bool
) -> list[str]:
    """Why recordings could not be deflared, by name; of the others a line is printed, also where one is skipped."""
    from deflare_core.deflaring.jobs import is_deflared
    from deflare_core.inference import deflare_recording

    failures = []
    for source, target in jobs:
        try:
            if skip and is_deflared(method, source, target, settings):
                print(f"{target}: skipped, since it holds the same recording deflared in the same way")
            else:
                print(f"{target}: {deflare_recording(method, source, target, **settings, progress=progress)}")
        except (DeflareError, OSError) as error:
            why = in_words(error)
            failures.append(why if source.name in why or str(target) in why else f"{source}: {why}")
    return failures
