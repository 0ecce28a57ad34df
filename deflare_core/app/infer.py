"""The command that deflares recordings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from deflare_core.app.commands import describe_error
from deflare_core.config import InferenceConfig
from deflare_core.io.reading import Reading


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
    from deflare_core.deflaring.jobs import list_jobs, list_text_files
    from deflare_core.inference import configure_method, deflare_each
    from deflare_core.system.processes import join_processes

    config = config.model_copy(update={"method": config.method.replace("-", "_")})
    settings = config.model_dump(include={"window_us", "num_bins", "seed", "flags"}) | {"reading": reading}
    failures = []
    with join_processes(config.device) as processes:
        method = configure_method(config, str(processes.device))
        jobs = processes.share(list_jobs(input, output))
        if processes.is_first and (left_out := list_text_files(input)):
            names = ", ".join(path.name for path in left_out)
            print(f"{input}: text files are left out ({names}); name one to deflare it")
        done = deflare_each(method, jobs, settings, skip_done=input.is_dir(), progress=processes.is_first)
        for source, target, outcome in done:
            if isinstance(outcome, Exception):
                why = describe_error(outcome)
                failures.append(why if source.name in why or str(target) in why else f"{source}: {why}")
            else:
                skipped = "skipped, since it holds the same recording deflared in the same way"
                print(f"{target}: {outcome or skipped}")
        # Before the processes part: torchrun ends all others when the first has failed.
        for failure in failures:
            print(f"deflare infer: error: {failure}", file=sys.stderr)
    return 1 if failures else 0
