"""The command that shows recordings in a browser."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from deflare_core.io.reading import Reading
from deflare_core.system.errors import DeflareError
from deflare_core.system.signals import Terminated


def view(
    files: Annotated[list[Path], Field(description="FILE [OUTPUT] [TARGET]")],
    reading: Reading,
    port: Annotated[int, Field(ge=0, le=65535, description="on this machine; 0: any that is free")] = 0,
    no_browser: Annotated[bool, Field(description="only print the address")] = False,
) -> None:
    """Show a recording in a browser, with what it became and what it should become, until Ctrl+C."""
    from deflare_core.app.view_server import serve

    if len(files) > 3:
        raise DeflareError(f"Name a recording, its output and its target at most; received {len(files)} names.")

    def tell(address: str) -> None:
        print(f"{files[0]} is shown at\n  {address}\nto you alone; Ctrl+C ends it.", flush=True)

    with suppress(KeyboardInterrupt, Terminated):  # It is how this command is meant to end.
        serve(files, reading, port, tell, opens=not no_browser)
