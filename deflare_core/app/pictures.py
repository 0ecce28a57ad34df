"""The commands that picture recordings before and after: video, sheet and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from deflare_core.io.reading import Reading
from deflare_core.system.errors import DeflareError

if TYPE_CHECKING:
    from deflare_core.io.recordings import Recording

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


def pictures(
    files: Annotated[list[Path], Field(description="BEFORE [AFTER]")],
    reading: Reading,
    window: Annotated[
        int | None, Field(ge=0, description="its number, from 0; none: where most was removed, of one the middle")
    ] = None,
    output_dir: Annotated[Path, Field(description="folder of the pictures")] = Path("reports/pictures"),
) -> None:
    """Picture a window of a recording, or of two: in 3-D, as a series of red and blue, and as the bins of its voxel."""
    from deflare_core.codec import events_to_voxel
    from deflare_core.events import WINDOW_US
    from deflare_core.io.recordings import open_together
    from deflare_core.show.debug import write_window_pictures
    from deflare_core.show.room import PICTURES, TAKE_A_PART, check_room

    if len(files) > 2:
        raise DeflareError(f"Name one or two recordings; received {len(files)} names.")
    with open_together(dict(zip(("before", "after"), files, strict=False)), reading) as recordings:
        starts = recordings["before"].window_starts(WINDOW_US)
        number = choose_window(list(recordings.values()), starts) if window is None else window
        if number >= len(starts):
            raise DeflareError(
                f"{files[0]}: has {len(starts)} windows, numbered from 0; it has none of number {number}."
            )
        window_us = [(starts[number], starts[number] + WINDOW_US)]
        check_room(PICTURES, recordings["before"].sensor_size, recordings.values(), window_us, TAKE_A_PART)
        for name, recording in recordings.items():
            events = recording.window(starts[number], starts[number] + WINDOW_US)
            voxel = events_to_voxel(events, t0_us=starts[number])
            for path in write_window_pictures(output_dir, f"window_{number}_{name}", events, voxel, starts[number]):
                print(path)


def choose_window(recordings: list[Recording], starts: range) -> int:
    """The number of the window in which the second recording lacks most events of the first; of one, the middle one."""
    from deflare_core.show.stretches import INPUT, OUTPUT, Source, Timeline

    if len(recordings) < 2:
        return len(starts) // 2
    sources = dict(zip((INPUT, OUTPUT), map(Source, recordings), strict=True))
    return Timeline(sources, starts.start, len(starts) * starts.step).find_most("removed", starts.step)


def split_names(files: list[Path], output: Path | None, suffixes: tuple[str, ...]) -> tuple[dict[str, Path], Path]:
    """The one or two recordings named, and the file to write, which is the last one named if no other is."""
    from deflare_core.system.atomic_files import check_output

    *sources, target = [*files, output] if output else files
    if not 1 <= len(sources) <= 2:
        raise DeflareError(f"Name one or two recordings and the file to write; received {len(sources) + 1} names.")
    for source in sources:
        check_output(target, source, suffixes)
    return dict(zip(("input", "output"), sources, strict=False)), target
