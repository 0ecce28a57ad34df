"""Reports: an evaluation as tables, figures and pages, written to one folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from nbconvert.filters import markdown2html

from deflare_core.dataset import EventVoxelDataset
from deflare_core.debug import save_figure
from deflare_core.evaluation import Evaluation
from deflare_core.figures import events_figure, scores_figure
from deflare_core.output import complete_or_absent
from deflare_core.predictions import Method, predicted
from deflare_core.published import PUBLISHED_SCORES
from deflare_core.recordings import load_events
from deflare_core.table import markdown_table

TABLES = {
    "Voxels": ("mse", "pmse_2", "pmse_4", "psnr_db", "r_f1", "t_f1", "tp_f1", "loss"),
    "Distances": ("chamfer", "chamfer_back", "chamfer_both", "gauss", "gauss_back", "gauss_both"),
    "Events": ("count_ratio", "invented", "flare_removed", "background_kept", "light_kept", "noise_kept"),
    "As published numbers were computed": tuple(
        f"legacy_{name}" for name in ("chamfer", "gauss", "mse", "pmse_2", "pmse_4", "r_f1", "t_f1", "tp_f1")
    ),
}
NOTES = {
    "Voxels": "Per 20 ms window in 8 bins; PSNR of the mean MSE, for a peak of 8 events in a cell.",
    "Distances": "Nearest events in (x, y, p, t), each axis 100 long; `chamfer` from estimate to target alone rewards "
    "deleting, `_back` is the other direction, `_both` their mean.",
    "Events": "`count_ratio` is events over the target's; shares are of input events by their cause.",
    "As published numbers were computed": "With the quirks of `deflare_core/legacy_metrics.py`; for comparison in kind "
    "only, since the data differ.",
}
FIGURE_SCORES = ("mse", "r_f1", "tp_f1", "chamfer_both", "count_ratio", "flare_removed", "background_kept")
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;font-size:13px}th,td{padding:.3em .7em;border-bottom:1px solid #ddd;"
    "text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}img{max-width:100%}"
    "table{display:block;overflow-x:auto}.anchor-link{display:none}"
)


def markdown_of(evaluation: Evaluation) -> str:
    """The tables of an evaluation: a row for each method, means over recordings with their 95 % intervals."""
    summary, parts = evaluation.summary(), []
    for title, names in TABLES.items():
        known = [name for name in names if any(name in scores for scores in summary.values())]
        if known:
            parts.append(f"### {title}\n\n{NOTES[title]}\n\n{_table(evaluation, known)}\n")
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
    _write_text(folder / "summary.md", markdown_of(evaluation))


def write_pictures(
    evaluation: Evaluation, methods: Sequence[Method], data: EventVoxelDataset, cache: Path | None, folder: str | Path
) -> list[Path]:
    """The figures written: scores of all methods, and the cases of `case_figures`."""
    folder = Path(folder)
    figures = {"scores": summary_figure(evaluation)} | case_figures(evaluation, methods[-1], data, cache)
    return [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]


def summary_figure(evaluation: Evaluation) -> Figure:
    """The most telling scores of all methods, side by side."""
    summary = evaluation.summary()
    known = [name for name in FIGURE_SCORES if any(name in scores for scores in summary.values())]
    return scores_figure(summary, known)


def case_figures(
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
        middle = [t0_us for t0_us, _, _ in data.events(pair)][data.num_windows // 2]
        shown = {
            "input": load_events(pair.noisy, data.sensor_size),
            method.name: predicted(method, data, pair, cache).events,
            "target": load_events(pair.clean, data.sensor_size),
        }
        figures[f"{place}_{name}"] = events_figure(shown, middle, middle + data.window_us)
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
    shown = [f"![{path.stem}]({path.name})\n\n*{path.stem.replace('_', ' ', 1)}*\n" for path in pictures]
    count = len(data.pairs) - len(evaluation.failures)
    head = f"# {title}\n\n{count} recordings; means with bootstrap 95 % intervals over recordings.\n"
    text = "\n".join([head, markdown_of(evaluation), *shown, published_table()])
    _write_text(folder / "report.md", text)
    page = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>{markdown2html(text)}\n"
    _write_text(folder / "index.html", page)
    return folder / "index.html"


def published_table() -> str:
    """The published scores, marked as published on other data."""
    names = list(next(iter(PUBLISHED_SCORES.values())))
    rows = [[method, *(f"{scores[name]:.4f}" for name in names)] for method, scores in PUBLISHED_SCORES.items()]
    note = "Published for E-Flare-2.7K (arXiv 2512.09016, 35 recordings): other data, computed by others."
    return f"### Published\n\n{note}\n\n{markdown_table(['method', *names], rows)}\n"


def _table(evaluation: Evaluation, names: Sequence[str]) -> str:
    summary, rows = evaluation.summary(), []
    for method, scores in summary.items():
        intervals = evaluation.intervals(method)
        rows.append([method, *(_cell(scores.get(name), intervals.get(name)) for name in names)])
    return markdown_table(["method", *names], rows)


def _cell(mean: float | None, interval: tuple[float, float] | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.4f}" + ("" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]")


def _failures(evaluation: Evaluation) -> list[str]:
    if not evaluation.failures:
        return []
    return ["### Not scored\n", *(f"- {name}: {message}" for name, message in evaluation.failures.items()), ""]


def _write_text(path: Path, text: str) -> None:
    with complete_or_absent(path) as temporary:
        temporary.write_text(text)
