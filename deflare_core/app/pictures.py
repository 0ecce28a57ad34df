"""The commands that picture recordings before and after: video and sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from deflare_core.io.reading import Reading
from deflare_core.system.errors import DeflareError

Output = Annotated[Path | None, Field(description="file to write; none: the last one named")]


def video(
    files: Annotated[list[Path], Field(description="BEFORE [AFTER] OUT.mp4, or BEFORE [AFTER] with --output")],
    reading: Reading,
    output: Output = None,
    frame_us: Annotated[int, Field(gt=0, description="recorded time in a frame, us")] = 2000,
) -> None:
    """Film a recording, or two side by side."""
    from deflare_core.show.video import write_video

    recordings, target = split_names(files, output, (".mp4",))
    print(write_video(recordings, target, frame_us=frame_us, reading=reading))


def sheet(
    files: Annotated[list[Path], Field(description="BEFORE [AFTER] OUT.png, or BEFORE [AFTER] with --output")],
    reading: Reading,
    output: Output = None,
) -> None:
    """Picture a recording, or two, from start to end."""
    from deflare_core.show.contact_sheet import draw_contact_sheet
    from deflare_core.show.figures import save_figure

    recordings, target = split_names(files, output, (".png", ".pdf", ".svg"))
    print(f"{save_figure(draw_contact_sheet(recordings, reading=reading), target)}")


def split_names(files: list[Path], output: Path | None, suffixes: tuple[str, ...]) -> tuple[dict[str, Path], Path]:
    """The one or two recordings named, and the file to write, which is the last one named if no other is."""
    from deflare_core.system.atomic_files import check_output

    *sources, target = [*files, output] if output else files
    if not 1 <= len(sources) <= 2:
        raise DeflareError(f"Name one or two recordings and the file to write; received {len(sources) + 1} names.")
    for source in sources:
        check_output(target, source, suffixes)
    return dict(zip(("before", "after"), sources, strict=False)), target
