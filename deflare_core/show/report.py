"""Reports: an evaluation as tables, figures and pages, written to one folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from nbconvert.filters import markdown2html

from deflare_core.dataset import EventVoxelDataset
from deflare_core.io.recordings import load_events
from deflare_core.scores.evaluation import PEAK_EVENTS, Evaluation
from deflare_core.scores.metrics import HIGHER_IS_BETTER
from deflare_core.scores.predictions import Method, predicted
from deflare_core.scores.published import PUBLISHED_SCORES
from deflare_core.show.figures import draw_events, draw_scores, save_figure
from deflare_core.system.atomic_files import complete_or_absent
from deflare_core.system.markdown import markdown_table
from deflare_core.system.revision import find_revision

LEGACY = "Legacy mode: as published numbers were computed"
TABLES = {
    "Voxels": ("mse", "pmse_2", "pmse_4", "psnr_db", "r_f1", "t_f1", "tp_f1", "loss"),
    "Distances": ("chamfer", "chamfer_back", "chamfer_both", "gauss", "gauss_back", "gauss_both"),
    "Events": ("count_ratio", "invented", "flare_removed", "background_kept", "light_kept", "noise_kept"),
    LEGACY: tuple(
        f"legacy_{name}" for name in ("chamfer", "gauss", "mse", "pmse_2", "pmse_4", "r_f1", "t_f1", "tp_f1")
    ),
}
NOTES = {
    "Voxels": f"Strict mode: absolute windows that output and target share. PSNR is that of the mean MSE, for a peak "
    f"of {PEAK_EVENTS} events in a cell; `loss` is a network's MSE before its output is rounded to events.",
    "Distances": "Strict mode: nearest events in (x, y, p, t), each axis 100 long on one scale. `chamfer` and `gauss`, "
    "from output to target alone, reward deleting; `_back` is the other direction, `_both` their mean.",
    "Events": "`count_ratio` is events over the target's, `invented` the share of the output's events that were not "
    "recorded; the others are shares of input events by their cause. An event is kept only with its own timestamp, "
    "pixel and polarity: a method that draws new times, such as encode_decode, keeps next to none.",
    LEGACY: "With the quirks that `deflare_core/legacy_metrics.py` names; none where a method left no events.",
}
HIGHER = ("psnr_db", *HIGHER_IS_BETTER, "flare_removed", "background_kept", "light_kept")
UNDECIDED = ("count_ratio", "noise_kept")
"""Scores of which neither more nor less is better."""
FEW_RECORDINGS = 10
FIGURE_SCORES = ("mse", "r_f1", "chamfer_both", "count_ratio", "flare_removed", "background_kept", "light_kept")
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;font-size:13px}th,td{padding:.3em .7em;border-bottom:1px solid #ddd;"
    "text-align:right;vertical-align:top}th:first-child,td:first-child{text-align:left}img{max-width:100%}"
    "th{white-space:nowrap}table{display:block;overflow-x:auto}.anchor-link{display:none}"
)


def tabulate_scores(evaluation: Evaluation) -> str:
    """The tables of an evaluation: a row for each method, means over recordings with their 95 % intervals."""
    summary, parts = evaluation.summary(), []
    for title, names in TABLES.items():
        known = [name for name in names if any(name in scores for scores in summary.values())]
        if known:
            parts.append(f"### {title}\n\n{NOTES[title]}\n\n{_table(evaluation, known)}\n")
        if known and title == LEGACY:
            parts.append(tabulate_published())
    return "\n".join(parts + _failures(evaluation))


def write_tables(evaluation: Evaluation, folder: str | Path) -> None:
    """Write `recordings.csv`, `summary.json` and `summary.md` into the folder."""
    folder = Path(folder)
    rows = [{"method": m, "recording": r, **s} for m, by_name in evaluation.scores.items() for r, s in by_name.items()]
    with complete_or_absent(folder / "recordings.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    intervals = {method: evaluation.intervals(method) for method in evaluation.scores}
    summary = {"mean": evaluation.summary(), "interval_95": intervals, "failures": evaluation.failures}
    _write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    _write_text(folder / "summary.md", tabulate_scores(evaluation))


def write_pictures(
    evaluation: Evaluation, methods: Sequence[Method], data: EventVoxelDataset, cache: Path | None, folder: str | Path
) -> list[Path]:
    """The figures written: scores of all methods, and the cases of `draw_cases`."""
    folder = Path(folder)
    figures = {"scores": draw_summary(evaluation)} | draw_cases(evaluation, methods[-1], data, cache)
    return [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]


def draw_summary(evaluation: Evaluation) -> Figure:
    """The most telling scores of all methods, side by side."""
    summary = evaluation.summary()
    known = [name for name in FIGURE_SCORES if any(name in scores for scores in summary.values())]
    return draw_scores(summary, known, {method: evaluation.intervals(method) for method in evaluation.scores})


def draw_cases(
    evaluation: Evaluation, method: Method, data: EventVoxelDataset, cache: Path | None
) -> dict[str, Figure]:
    """Input, output and target of the recordings that a method helps most, middling and least, by place and name.

    Gains are in MSE against the input; the pictures show the recordings' middle window.
    """
    pairs = {pair.name: pair for pair in data.pairs}
    ranked = evaluation.ranked(method.name)
    figures = {}
    for place, name in (("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])):
        pair = pairs[name]
        starts_us = data.starts_us(pair)
        middle = starts_us[len(starts_us) // 2]
        shown = {
            "input": load_events(pair.noisy, data.sensor_size),
            method.name: predicted(method, data, pair, cache).events,
            "target": load_events(pair.clean, data.sensor_size),
        }
        figures[f"{place}_{name}"] = draw_events(shown, middle, middle + data.window_us)
    return figures


def write_report(
    evaluation: Evaluation,
    methods: Sequence[Method],
    data: EventVoxelDataset,
    cache: Path | None,
    folder: str | Path,
    title: str,
) -> Path:
    """The page `index.html` of a report, beside it the same in Markdown, its tables and its pictures."""
    folder = Path(folder)
    write_tables(evaluation, folder)
    pictures = write_pictures(evaluation, methods, data, cache, folder)
    shown = [f"![{path.stem}]({path.name})\n\n*{_caption(path.stem, evaluation, methods[-1])}*\n" for path in pictures]
    head = f"# {title}\n\n{_about(evaluation, data)}\n\n{_methods_list(methods)}\n"
    text = "\n".join([head, tabulate_scores(evaluation), "### Pictures\n", *shown])
    _write_text(folder / "report.md", text)
    page = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>{markdown2html(text)}\n"
    _write_text(folder / "index.html", page)
    return folder / "index.html"


def tabulate_published() -> str:
    """The published scores, marked as published on other data, a row for each method and data set."""
    names = list(next(iter(PUBLISHED_SCORES.values())))
    rows = [
        [f"{method}, {data}", *(_number(scores[name]) for name in names)]
        for (data, method), scores in PUBLISHED_SCORES.items()
    ]
    note = "Published in arXiv 2512.09016 on other data, computed by others: to be compared in kind only."
    return f"### Published, on other data\n\n{note}\n\n{markdown_table(['method, data', *map(_titled, names)], rows)}\n"


def _about(evaluation: Evaluation, data: EventVoxelDataset) -> str:
    """What was scored, and how to read the tables."""
    count, first = len(data.pairs) - len(evaluation.failures), data.pairs[0]
    height, width = data.sensor_size
    missing = f" ({len(evaluation.failures)} more could not be scored)" if evaluation.failures else ""
    few = f" Of fewer than {FEW_RECORDINGS} recordings such intervals are too narrow." if count < FEW_RECORDINGS else ""
    return (
        f"{count} recordings{missing} at {width}x{height} pixels, each {_num_windows(evaluation, data)} windows of "
        f"{data.window_us / 1e3:g} ms in {data.num_bins} bins. Input: `{first.noisy.parent}`, target: "
        f"`{first.clean.parent}`. Revision {find_revision()}.\n\nMeans over windows, then over recordings, with "
        f"bootstrap 95 % intervals over recordings.{few} Arrows say which way is better."
    )


def _num_windows(evaluation: Evaluation, data: EventVoxelDataset) -> str:
    """How many windows the scored recordings have: "5", or "1 to 7" where they differ."""
    numbers = [len(data.starts_us(pair)) for pair in data.pairs if pair.name not in evaluation.failures]
    return " to ".join(str(n) for n in sorted({min(numbers), max(numbers)}))


def _methods_list(methods: Sequence[Method]) -> str:
    """What each method is, and the digest by which its predictions are kept."""
    return "\n".join(f"- **{method.name}** (`{method.key}`): {method.about}" for method in methods)


def _caption(stem: str, evaluation: Evaluation, method: Method) -> str:
    """What a picture shows: scores, or the place and the name of a recording with its error before and after."""
    place, _, name = stem.partition("_")
    if not name:
        return "Means of every method; lines across the bars' ends are 95 % intervals."
    before = evaluation.scores.get("input", {}).get(name, {}).get("mse")
    gain = "" if before is None else f"{_number(before)} before and "
    return (
        f"{name}, the {place} for {method.name}: MSE {gain}{_number(evaluation.scores[method.name][name]['mse'])} after"
    )


def _table(evaluation: Evaluation, names: Sequence[str]) -> str:
    summary, rows = evaluation.summary(), []
    for method, scores in summary.items():
        intervals = evaluation.intervals(method)
        rows.append([method, *(_cell(scores.get(name), intervals.get(name)) for name in names)])
    return markdown_table(["method", *map(_titled, names)], rows)


def _titled(name: str) -> str:
    """A score's title, with the direction in which it is better; that of legacy scores stands above their table."""
    name = name.removeprefix("legacy_")
    if name in UNDECIDED:
        return name
    return f"{name} {'↑' if name in HIGHER else '↓'}"


def _cell(mean: float | None, interval: tuple[float, float] | None) -> str:
    """A mean and its interval, which is not broken over two lines."""
    if mean is None:
        return "-"
    return _number(mean) + (
        "" if interval is None else f" [{_number(interval[0])},\N{NO-BREAK SPACE}{_number(interval[1])}]"
    )


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _failures(evaluation: Evaluation) -> list[str]:
    if not evaluation.failures:
        return []
    return ["### Not scored\n", *(f"- {name}: {message}" for name, message in evaluation.failures.items()), ""]


def _write_text(path: Path, text: str) -> None:
    with complete_or_absent(path) as temporary:
        temporary.write_text(text)
