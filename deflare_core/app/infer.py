"""The command that deflares recordings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from deflare_core.app.advice import advise_on_speed, advise_to_look
from deflare_core.app.commands import OF_INPUT, describe_error
from deflare_core.config import InferenceConfig
from deflare_core.io.reading import Reading
from deflare_core.system.errors import DeflareError, make_plain

if TYPE_CHECKING:
    from deflare_core.deflaring.method import Method
    from deflare_core.deflaring.progress import Progress
    from deflare_core.deflaring.summary import InferenceSummary
    from deflare_core.io.excerpt import Part
    from deflare_core.system.processes import Processes

Seconds = Annotated[float, Field(gt=-1e12, lt=1e12)] | None
SECONDS = {"metavar": "SECONDS"}
BY_DEFAULT = "deflared recording to write (.h5), or the folder; none: INPUT_deflared next to the input"
CROP = {"nargs": 4, "metavar": "TOP LEFT HEIGHT WIDTH"}
Input = Annotated[Path, Field(description="recording with flare, or a folder of them")]
Output = Annotated[Path | None, Field(description=BY_DEFAULT)]
From = Annotated[
    Seconds, Field(description="only what comes from then on, by the recording's clock", json_schema_extra=SECONDS)
]
To = Annotated[
    Seconds, Field(description="only what comes before then, by the recording's clock", json_schema_extra=SECONDS)
]
Crop = Annotated[
    tuple[int, int, int, int] | None,
    Field(description="only this part of the frame, which becomes the output's sensor", json_schema_extra=CROP),
]
Quiet = Annotated[bool, Field(description="say nothing but warnings and errors")]


def infer(
    *,
    input: Input,
    output: Output = None,
    from_: From = None,
    to: To = None,
    crop: Crop = None,
    quiet: Quiet = False,
    reading: Reading,
    config: InferenceConfig,
) -> int:
    """Deflare recordings, shared among the processes of torchrun, and return 1 if some could not be.

    What was done of a folder before is skipped; what cannot be deflared is named at the end.
    """
    from deflare_core.deflaring.jobs import list_jobs, name_output
    from deflare_core.inference import configure_method
    from deflare_core.io.excerpt import Part
    from deflare_core.system.processes import join_processes

    config = config.model_copy(update={"method": config.method.replace("-", "_")})
    start_us, end_us = (None if time_s is None else round(time_s * 1e6) for time_s in (from_, to))
    rules = Rules(skips_done=output is None or input.is_dir(), replaces=output is not None)
    asked = Asked(config, reading, Part(start_us, end_us, crop), rules, quiet)
    with join_processes(config.device) as processes:
        method = configure_method(config, str(processes.device))
        jobs = number_jobs(list_jobs(input, output or name_output(input)))
        if processes.is_first and not quiet:
            tell_left_out(input)
        failures = deflare_jobs(method, jobs, asked, processes)
        # Before the processes part: torchrun ends all others when the first has failed.
        for failure in failures:
            print(f"deflare infer: error: {make_plain(failure)}", file=sys.stderr)
    return 1 if failures else 0


class Rules(NamedTuple):
    """What may become of files that are there: whether to leave one that is done as it is, and to replace others."""

    skips_done: bool
    replaces: bool


class Asked(NamedTuple):
    """What is asked for of every recording.

    Parameters
    ----------
    config : of the method, which works on it.
    reading : what the recording does not say itself.
    part : of the recording.
    rules : what may become of files that are there.
    quiet : whether nothing is said but warnings and errors.
    """

    config: InferenceConfig
    reading: Reading
    part: Part
    rules: Rules
    quiet: bool

    @property
    def settings(self) -> dict[str, Any]:
        """What `deflare_recording` takes of it."""
        settings = self.config.model_dump(include={"window_us", "num_bins", "seed", "flags"})
        return settings | {"reading": self.reading, "part": self.part}


def number_jobs(jobs: Sequence[tuple[Path, Path]]) -> list[tuple[str, Path, Path]]:
    """The jobs, each behind its place among them, such as "2 of 3"; of a single one it is empty."""
    return [(f"{k} of {len(jobs)}" if len(jobs) > 1 else "", *job) for k, job in enumerate(jobs, 1)]


def tell_left_out(input: Path) -> None:
    """Say which files of a folder may be recordings, and are not deflared."""
    from deflare_core.deflaring.jobs import list_text_files

    if left_out := list_text_files(input):
        names = ", ".join(path.name for path in left_out)
        print(f"{input}: text files are left out ({names}); name one to deflare it")


def deflare_jobs(
    method: Method, jobs: Sequence[tuple[str, Path, Path]], asked: Asked, processes: Processes
) -> list[str]:
    """Deflare this process's share of the jobs, and return why some could not be."""
    from deflare_core.deflaring.progress import Progress

    failures = []
    for place, source, target in processes.share(jobs):
        advice = advise_on_speed(asked.config, processes.device)
        progress = Progress(processes.is_first and not asked.quiet, place, advice)
        try:
            done = deflare_file(method, source, target, asked, progress)
        except (DeflareError, OSError, *OF_INPUT) as error:
            failures.append(explain_failure(error, source, target))
        else:
            tell_done(done, place, source, target, asked)
    return failures


def explain_failure(error: Exception, source: Path, target: Path) -> str:
    """Why a recording could not be deflared, in a line that names it or its output."""
    why = describe_error(error)
    named = any(make_plain(str(name)) in why for name in (source.name, target))
    return why if named else f"{source}: {why}"


def tell_done(done: InferenceSummary | None, place: str, source: Path, target: Path, asked: Asked) -> None:
    """Say what was done of a recording, and warn where a network removed much of it."""
    if not asked.quiet:
        skipped = "skipped, since it holds the same recording deflared in the same way"
        print(f"{place}{place and ': '}{target}: {done or skipped}")
    if done and done.is_much and asked.config.method == "network":
        advice = advise_to_look(source, target, asked.reading, is_cropped=asked.part.crop is not None)
        print(f"deflare infer: warning: {target}: {advice}", file=sys.stderr)


def deflare_file(
    method: Method, source: Path, target: Path, asked: Asked, progress: Progress
) -> InferenceSummary | None:
    """A summary of the deflared recording that was written, or None where it was there; see `deflare_recording`.

    Raises
    ------
    DeflareError
        When the recording cannot be deflared, or another file is there that is not to be replaced.
    """
    from deflare_core.deflaring.jobs import is_deflared
    from deflare_core.deflaring.journal import remove_journal
    from deflare_core.inference import deflare_recording

    if asked.rules.skips_done and is_deflared(method, source, target, asked.settings):
        remove_journal(target)
        return None
    if target.exists() and not asked.rules.replaces:
        raise DeflareError(
            f"{target}: is there already, and is not what this command would write; name the output with -o, the same "
            "to replace it."
        )
    return deflare_recording(method, source, target, **asked.settings, progress=progress)
