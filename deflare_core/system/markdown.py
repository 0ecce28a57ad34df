"""Tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as Markdown; the first column is flush left, the others flush right, a bar in a cell is escaped."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def printable(name: object) -> str:
    """The name with a space for each character that cannot be shown: a line's end, a control, half a character."""
    return "".join(letter if letter.isprintable() else " " for letter in str(name)).strip()


def as_text(name: object) -> str:
    """The Markdown that shows a name as it is, whatever it holds: a link, a picture, HTML, or a second line.

    Bars are for `markdown_table` to escape. Characters that no page can show become a space.
    """
    # An underscore within a word means nothing.
    inside = re.sub(r"(?<![^\W_])_|_(?![^\W_])|[\\`*\[\]<>&~$]", r"\\\g<0>", printable(name))
    # What would begin a list, a heading or a rule.
    return re.sub(r"^(\d*)(?=[.)](?:\s|$)|(?<!\d)[-+=#])", r"\1\\", inside)


def align_tables(text: str) -> str:
    """The same Markdown for a terminal, with the columns of its tables made even; a file needs no such room."""
    groups = groupby(text.split("\n"), lambda line: line.startswith("| "))
    return "\n".join(line for is_table, lines in groups for line in (_align(list(lines)) if is_table else lines))


def _align(table: list[str]) -> list[str]:
    """The lines of a table, the first column flush left and the others flush right."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["| " + " | ".join(map(_pad, row, widths, range(len(row)))) + " |" for row in rows]


def _pad(cell: str, width: int, column: int) -> str:
    if cell in ("---", "---:"):
        return cell.rjust(width, "-")
    return cell.rjust(width) if column else cell.ljust(width)
