"""Reports: an evaluation as tables, figures and pages, written to one folder."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.figure import Figure

from deflare_core.dataset import EventVoxelDataset
from deflare_core.deflaring.method import Method
from deflare_core.io.pairs import RecordingPair
from deflare_core.io.recordings import RecordingError, load_events
from deflare_core.scores.evaluation import Evaluation, Interval, Scores
from deflare_core.scores.metrics import DECISIVE, HEADLINES, SCORES, find_score
from deflare_core.scores.predictions import load_or_predict
from deflare_core.scores.published import PUBLISHED, PUBLISHED_SCORES
from deflare_core.show.figures import draw_events, draw_scores, save_figure
from deflare_core.show.page import make_page, render_markdown
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.markdown import as_text, markdown_table
from deflare_core.system.revision import find_revision

LEGACY = "Legacy mode: as published numbers were computed"
NOTES = {
    "Voxels": "Strict mode: absolute windows that output and target share.",
    "Distances": "Strict mode: nearest events in (x, y, p, t), each axis 100 long on one scale. `chamfer` and `gauss`, "
    "from output to target alone, reward deleting.",
    "Events": "An event is kept only with its own timestamp, pixel and polarity: a method that draws new times, such "
    "as encode_decode, keeps next to none.",
}
PAIRED = "Differences of the same recordings, with 95 % intervals: better or worse where these leave out 0."
LEGACY_NOTE = "With the quirks that `deflare_core/scores/legacy.py` names; none where a method left no events."
FEW_RECORDINGS = 10


def tabulate_scores(evaluation: Evaluation) -> str:
    """The tables of an evaluation: a row for each method, means over recordings with their 95 % intervals."""
    summary, intervals = evaluation.summary(), _intervals(evaluation)
    parts = []
    for title, scores in SCORES.items():
        if known := _known(summary, [score.name for score in scores]):
            meanings = "; ".join(f"`{name}` is {find_score(name).about}" for name in known)
            parts.append(f"### {title}\n\n{NOTES[title]} {meanings}.\n\n{_table(summary, intervals, known)}\n")
    parts.append(tabulate_differences(evaluation))
    if known := _known(summary, [f"legacy_{name}" for name in PUBLISHED]):
        parts.append(f"### {LEGACY}\n\n{LEGACY_NOTE}\n\n{_table(summary, intervals, known)}\n")
        parts.append(tabulate_published())
    if evaluation.failures:
        parts += [
            "### Not scored\n",
            *(f"- {as_text(name)}: {as_text(message)}" for name, message in evaluation.failures.items()),
            "",
        ]
    return "\n".join(parts)


def tabulate_differences(evaluation: Evaluation) -> str:
    """The table of how methods differ in the scores that decide, and which of them are worse than their input."""
    rows, worse = [], []
    for method, other in evaluation.comparisons():
        found = {name: evaluation.difference(method, other, name) for name in DECISIVE}
        verdicts = {name: judge(name, one[1]) for name, one in found.items() if one}
        cells = [f"{_cell(*one, sign='+')} {verdicts[name]}".rstrip() if one else "-" for name, one in found.items()]
        rows.append([f"{as_text(method)} - {as_text(other)}", *cells])
        if other == "input" and (names := ", ".join(name for name in DECISIVE if verdicts.get(name) == "worse")):
            worse.append(f"**{as_text(method)} is worse than its input** by {names}.")
    if not rows:
        return ""
    table = markdown_table(["first - second", *(find_score(name).head for name in DECISIVE)], rows)
    return "\n".join([f"### Differences\n\n{PAIRED}\n\n{table}\n", *(f"{line}\n" for line in worse)])


def judge(name: str, interval: Interval) -> str:
    """Whether a difference in a score is better or worse, if its interval leaves out 0."""
    low, high = interval if find_score(name).better == "higher" else (-interval[1], -interval[0])
    return "better" if low > 0 else "worse" if high < 0 else ""


def write_tables(evaluation: Evaluation, folder: str | Path) -> None:
    """Write `recordings.csv`, `summary.json` and `summary.md` into the folder."""
    folder = Path(folder)
    rows = [{"method": m, "recording": r, **s} for m, by_name in evaluation.scores.items() for r, s in by_name.items()]
    with (
        complete_or_absent(folder / "recordings.csv") as path,
        path.open("w", newline="", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    means, intervals = evaluation.summary(), _intervals(evaluation)
    summary: dict[str, Any] = {"mean": means, "interval_95": intervals, "failures": evaluation.failures}
    summary["difference"] = {
        f"{method} - {other}": {
            name: {"mean": found[0], "interval_95": found[1]}
            for name in DECISIVE
            if (found := evaluation.difference(method, other, name))
        }
        for method, other in evaluation.comparisons()
    }
    _write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    _write_text(folder / "summary.md", tabulate_scores(evaluation))


def draw_summary(evaluation: Evaluation) -> Figure:
    """The most telling scores of all methods, side by side."""
    summary = evaluation.summary()
    return draw_scores(summary, _known(summary, HEADLINES), _intervals(evaluation))


def draw_cases(
    evaluation: Evaluation, method: Method, data: EventVoxelDataset, cache: Path | None
) -> dict[str, Figure]:
    """Input, output and target of the recordings that a method helps most, middling and least, by place and name.

    Gains are in MSE against the input; the pictures show the recordings' middle window.
    """
    pairs = {pair.name: pair for pair in data.pairs}
    ranked = evaluation.rank(method.name)
    figures = {}
    for place, name in (("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])):
        try:
            figures[f"{place}_{name}"] = _draw_case(pairs[name], method, data, cache)
        except RecordingError as error:
            logging.warning(f"{name} is scored but not pictured: {error}")
    return figures


def _draw_case(pair: RecordingPair, method: Method, data: EventVoxelDataset, cache: Path | None) -> Figure:
    starts_us = data.starts_us(pair)
    middle = starts_us[len(starts_us) // 2]
    shown = {
        "input": load_events(pair.noisy, data.reading),
        "output": load_or_predict(method, data, pair, cache).events,
        "target": load_events(pair.clean, data.reading),
    }
    return draw_events(shown, middle, middle + data.cut.window_us)


def describe_case(stem: str, evaluation: Evaluation, method: Method) -> str:
    """What a picture of a report shows: place and name of a recording, its error before and after; or all scores."""
    place, _, name = stem.partition("_")
    if not name:
        return "Means of every method; lines across the bars' ends are 95 % intervals."
    before = evaluation.scores.get("input", {}).get(name, {}).get("mse")
    gain = "" if before is None else f"{_number(before)} before and "
    after = _number(evaluation.scores[method.name][name]["mse"])
    return f"{name}, the {place} for {method.name}: MSE {gain}{after} after"


def write_report(
    evaluation: Evaluation,
    methods: Sequence[Method],
    data: EventVoxelDataset,
    cache: Path | None,
    folder: str | Path,
    title: str,
) -> Path:
    """The page `index.html` of a report; its folder also gets the same in Markdown, the tables and the pictures."""
    folder = Path(folder)
    write_tables(evaluation, folder)
    about = "\n".join(f"- **{as_text(method.name)}** (`{method.key}`): {as_text(method.about)}" for method in methods)
    summary = evaluation.summary()
    short = _table(summary, _intervals(evaluation), _known(summary, HEADLINES))
    parts = [
        f"# {as_text(title)}\n\n{_about(evaluation, data)}\n\n{about}\n",
        f"### In short\n\n{short}\n",
        tabulate_scores(evaluation),
        "### Pictures\n",
    ]
    figures = {"scores": draw_summary(evaluation)} | draw_cases(evaluation, methods[-1], data, cache)
    for name, figure in figures.items():
        path = save_figure(figure, folder / f"{name}.png")
        caption = as_text(describe_case(name, evaluation, methods[-1]))
        parts.append(f"![{as_text(name)}]({quote(os.fsencode(path.name))})\n\n*{caption}*\n")
    text = "\n".join(parts)
    _write_text(folder / "report.md", text)
    _write_text(folder / "index.html", make_page(title, render_markdown(text)))
    return folder / "index.html"


def tabulate_published() -> str:
    """The published scores, marked as published on other data, a row for each method and data set."""
    rows = [
        [f"{method}, {data}", *(_number(scores[name]) for name in PUBLISHED)]
        for (data, method), scores in PUBLISHED_SCORES.items()
    ]
    note = "Published in arXiv 2512.09016 on other data, computed by others: to be compared in kind only."
    head = ["method, data", *(find_score(name).head for name in PUBLISHED)]
    return f"### Published, on other data\n\n{note}\n\n{markdown_table(head, rows)}\n"


def _about(evaluation: Evaluation, data: EventVoxelDataset) -> str:
    """What was scored, and how to read the tables."""
    count, first = len(data.pairs) - len(evaluation.failures), data.pairs[0]
    height, width = data.sensor_size
    numbers = set()
    for pair in data.pairs:
        with suppress(RecordingError):  # It was not scored, or has been removed since.
            numbers.add(len(data.starts_us(pair)))
    windows = " to ".join(str(number) for number in sorted({min(numbers, default=0), max(numbers, default=0)}))
    missing = f" ({len(evaluation.failures)} more could not be scored)" if evaluation.failures else ""
    few = f" Of fewer than {FEW_RECORDINGS} recordings such intervals are too narrow." if count < FEW_RECORDINGS else ""
    return (
        f"{count} recordings{missing} at {width}x{height} pixels, each {windows} windows of "
        f"{data.cut.window_us / 1e3:g} ms in {data.cut.num_bins} bins. Input: {as_text(first.noisy.parent)}, target: "
        f"{as_text(first.clean.parent)}. Revision {find_revision()}.\n\nMeans over windows, then over recordings, with "
        f"bootstrap 95 % intervals over recordings.{few} Arrows say which way is better."
    )


def _intervals(evaluation: Evaluation) -> dict[str, dict[str, Interval]]:
    return {method: evaluation.intervals(method) for method in evaluation.scores}


def _known(summary: dict[str, Scores], names: Sequence[str]) -> list[str]:
    """Those of the scores that some method has."""
    return [name for name in names if any(name in scores for scores in summary.values())]


def _table(summary: dict[str, Scores], intervals: dict[str, dict[str, Interval]], names: Sequence[str]) -> str:
    rows = [
        [as_text(method), *(_cell(scores.get(name), intervals[method].get(name)) for name in names)]
        for method, scores in summary.items()
    ]
    return markdown_table(["method", *(find_score(name).head for name in names)], rows)


def _cell(mean: float | None, interval: Interval | None, sign: str = "") -> str:
    """A mean and its interval, which is not broken over two lines; with the sign "+" also that of positive numbers."""
    if mean is None:
        return "-"
    ends = "" if interval is None else " [{},\N{NO-BREAK SPACE}{}]".format(*(_number(end, sign) for end in interval))
    return _number(mean, sign) + ends


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if abs(value) < 10 else f"{value:{sign}.2f}"


def _write_text(path: Path, text: str) -> None:
    with complete_or_absent(path) as temporary:
        temporary.write_text(text)
