"""The page of an executed notebook, for readers: what was asked and what came out first, then the rest in its order.

What the notebook tags `summary` stands first. Code is folded, imports and progress bars are left out.
"""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import nbformat

from deflare_core.show.page import make_page, render_markdown
from deflare_core.system.markdown import as_text, markdown_table

PROGRESS = re.compile(r".*\d+%\|.*|.*\d+(it|frame|step|window|pair)s? \[\d\d:\d\d.*")
"""A line that a progress bar left."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def make_notebook_page(notebook: nbformat.NotebookNode, record: Mapping[str, Any]) -> str:
    """The HTML of an executed notebook, headed by what `run.json` records of the run."""
    first, *cells = notebook.cells
    answers = "".join(_render_outputs(cell) for cell in cells if "summary" in _tags(cell))
    asked = render_markdown(tabulate_run(record))
    summary = f'<section class="summary"><h2>Summary</h2>{asked}{answers}</section>'
    rest = (cell for cell in cells if not {"parameters", "injected-parameters"} & _tags(cell))
    body = [_render_cell(first), summary, *map(_render_cell, rest)]
    return make_page(str(record["notebook"]), "\n".join(filter(None, body)))


def tabulate_run(record: Mapping[str, Any]) -> str:
    """What was asked and how the run went, in Markdown; parameters that were left as they are do not count."""
    asked = [[as_text(name), as_text(_shorten(value))] for name, value in record["asked"].items()]
    table = markdown_table(["asked", ""], asked) if asked else "Run with the notebook's own parameters."
    took = f" after {record['elapsed_s']:,} s on {as_text(record['device'])}" if "elapsed_s" in record else ""
    return f"{table}\n\nOutcome: {as_text(record['status'])}{took}.\n"


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:199] + "…"


def _tags(cell: nbformat.NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def _render_cell(cell: nbformat.NotebookNode) -> str:
    """What a cell gave, above its code, or where that is to be seen; a text is rendered."""
    if cell.cell_type == "markdown":
        return render_markdown(cell.source)
    outputs = _render_outputs(cell)
    if outputs and "summary" in _tags(cell):
        outputs = "<p>It stands in the summary above.</p>"
    return outputs + _fold_code(cell)


def _fold_code(cell: nbformat.NotebookNode) -> str:
    source = drop_imports(cell.source)
    return f"<details><summary>code</summary><pre>{html.escape(source)}</pre></details>" if source else ""


def drop_imports(source: str) -> str:
    """The code without its import statements; code that is no Python stays as it is."""
    try:
        imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    except SyntaxError:
        return source
    dropped = {number for node in imports for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return "\n".join(line for number, line in enumerate(source.splitlines(), 1) if number not in dropped).strip()


def _render_outputs(cell: nbformat.NotebookNode) -> str:
    return "".join(map(_render_output, cell.get("outputs", [])))


def _render_output(output: nbformat.NotebookNode) -> str:
    """The HTML of one output, in the richest form that a page without scripts can show."""
    if output.output_type == "stream":
        return _preformat(drop_progress(output.text))
    if output.output_type == "error":
        traceback = "\n".join(output.traceback)
        return f'<div class="failed">{_preformat(traceback)}</div>'
    kind = next((kind for kind in SHOWN if kind in output.data), None)
    return SHOWN[kind](output.data[kind]) if kind else ""


def drop_progress(text: str) -> str:
    """A stream's text without what progress bars left in it."""
    lines = (line.rsplit("\r", 1)[-1] for line in text.split("\n"))
    return "\n".join(line for line in lines if not PROGRESS.fullmatch(line)).strip()


def _preformat(text: str) -> str:
    text = COLOURS.sub("", text)
    return f"<pre>{html.escape(text)}</pre>" if text.strip() else ""


def _picture(data: str) -> str:
    return f'<p><img src="data:image/png;base64,{data.strip()}"></p>'


SHOWN: dict[str, Callable[[str], str]] = {
    "image/png": _picture,
    "text/markdown": render_markdown,
    "text/html": str,
    "text/plain": _preformat,
}
"""How each kind of output is shown, the richest first; a page has no kernel for widgets, which bring pictures."""
