"""The page that lists every run whose report stands in a folder, the newest first."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from deflare_core.show.page import make_page, render_markdown
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.markdown import as_text, markdown_table

REPORTS = Path("reports")
"""Where commands leave their reports, in the folder that they run in."""
PAGES = ("index.html", "benchmark.md")
"""The page of a report that is no notebook's."""
LONGEST = 100
"""Characters of what was asked that a row shows."""


class RunRow(NamedTuple):
    """A run: when its report was written, seconds since 1970, its page, how it ended and what it was asked."""

    written_s: float
    page: Path
    outcome: str
    asked: str


def write_index(reports: Path) -> Path:
    """The page `index.html` in a folder of reports, with a row for each of them."""
    rows = [
        [
            f"[{as_text(row.page.parent.name)}]({quote(os.fsencode(row.page.relative_to(reports)))})",
            f"{datetime.fromtimestamp(row.written_s):%Y-%m-%d %H:%M}",
            as_text(row.outcome),
            as_text(row.asked),
        ]
        for row in sorted(list_runs(reports), reverse=True)
    ]
    text = "# Reports\n\n" + markdown_table(["run", "written", "outcome", "asked"], rows)
    with complete_or_absent(reports / "index.html") as temporary:
        temporary.write_text(make_page("Reports", render_markdown(text)))
    return reports / "index.html"


def list_report(folder: Path) -> None:
    """Let the page of the reports list one more, if it was written among them."""
    if folder.resolve().parent == REPORTS.resolve():
        write_index(folder.resolve().parent)


def list_runs(reports: Path) -> Iterator[RunRow]:
    """Every run that left a page in a folder of its own."""
    for folder in (path for path in reports.iterdir() if path.is_dir()):
        record = folder / "run.json"
        if record.is_file():
            yield _read_run(record)
            continue
        for page in (folder / name for name in PAGES):
            if page.is_file():
                yield RunRow(page.stat().st_mtime, page, "done", "")
                break


def _read_run(path: Path) -> RunRow:
    """The run of a notebook, by its record; one that cannot be read says so."""
    written_s = path.stat().st_mtime
    try:
        record = json.loads(path.read_text())
        page = path.with_name(record["notebook"]).with_suffix(".html")
        asked = ", ".join(f"{name} {value}" for name, value in record.get("asked", {}).items())
        return RunRow(written_s, page, str(record["status"])[:LONGEST], asked[:LONGEST])
    except (ValueError, KeyError, TypeError, AttributeError):
        return RunRow(written_s, path, "its record cannot be read", "")
