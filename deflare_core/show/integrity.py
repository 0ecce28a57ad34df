"""The integrity of a data set's folders as a table to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deflare_core.io.verify import FolderReport, RecordingCheck
from deflare_core.system.markdown import markdown_table


def tabulate_integrity(reports: dict[str, FolderReport]) -> str:
    """A Markdown table with a row for each named pair of folders, then a list of everything that is wrong.

    Parameters
    ----------
    reports : what `verify_folders` found, by a name such as "training" or "test".
    """
    head = ["", "pairs", "orphans", "unreadable", "sensor, pixels", "length, ms", "events a file", "problems"]
    table = markdown_table(head, [[name, *_row(report)] for name, report in reports.items()])
    problems = [f"- {problem}" for report in reports.values() for problem in report.problems]
    return "\n".join([table, "", *(problems or ["Nothing is wrong."])])


def find_folders(root: str | Path) -> dict[str, tuple[Path, Path]]:
    """The folders of inputs and of targets under a data set's root: "training", and "test" where there is one."""
    pairs = {}
    for name, suffix in (("training", ""), ("test", "_test")):
        noisy, clean = (Path(root) / f"background_with_{kind}_events{suffix}" for kind in ("flare", "light"))
        if name == "training" or noisy.is_dir() or clean.is_dir():
            pairs[name] = (noisy, clean)
    return pairs


def _row(report: FolderReport) -> list[str]:
    readable = [check for check in report.checks if check.problem is None]
    sizes = sorted({check.sensor_size for check in readable if check.sensor_size})
    return [
        f"{report.num_pairs:,}",
        f"{len(report.orphans):,}",
        f"{len(report.checks) - len(readable):,}",
        ", ".join(f"{width} x {height}" for height, width in sizes) or "none",
        _range([_length_us(check) / 1e3 for check in readable], "{:,.1f}"),
        _range([check.num_events for check in readable], "{:,.0f}"),
        f"{len(report.problems):,}",
    ]


def _length_us(check: RecordingCheck) -> int:
    return check.clock_us[1] - check.clock_us[0]


def _range(values: list[float], form: str) -> str:
    """The least and the greatest of the values, or the one that all have."""
    if not values:
        return "none"
    ends = [form.format(end) for end in (np.min(values), np.max(values))]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
