"""Documents: YAML and JSON from anywhere, read in bounded time and memory.

A few hundred bytes of YAML can stand for a billion values, and a bracket a thousand times for more than Python can
follow. So documents are measured before anything is made of them.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from deflare_core.system.errors import DeflareError, make_plain, quote, shorten
from deflare_core.system.input_files import check_input

MOST_YAML_CHARACTERS = 1 << 17
MOST_JSON_BYTES = 1 << 28
"""A manifest takes half a kilobyte for each pair of recordings."""
MOST_VALUES = 100_000
"""Values of a YAML document, those that it repeats counted each time."""
DEEPEST = 50
"""Groups within groups of a document."""


class DocumentError(DeflareError):
    """A document that cannot be read; the message says why, not where."""


class _Loader(yaml.SafeLoader):
    """YAML without pickles, of which no mapping has one key twice."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > DEEPEST:
            raise DocumentError(f"groups lie more than {DEEPEST} deep in each other; write fewer")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse_yaml(text: str) -> Any:
    """What a text in YAML stands for; a DocumentError says in one line why it cannot be used."""
    if len(text) > MOST_YAML_CHARACTERS:
        raise DocumentError(f"has {len(text):,} characters; settings have at most {MOST_YAML_CHARACTERS:,}")
    try:
        return yaml.load(text, _Loader)  # A SafeLoader.
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DocumentError(f"is not YAML ({shorten(error.problem or error.context)}{where})") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"is not YAML ({shorten(make_plain(str(error).splitlines()[0]))})") from error


def read_json(path: Path, kind: type[DeflareError]) -> Any:
    """What a file in JSON holds; a missing, damaged or huge one is an error of this kind that names it."""
    check_input(path, kind)
    if (num_bytes := path.stat().st_size) > MOST_JSON_BYTES:
        raise kind(f"{path}: has {num_bytes:,} bytes; read are at most {MOST_JSON_BYTES:,}.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise kind(f"{path}: is damaged ({shorten(make_plain(str(error)))}); make it again.") from error


def _measure(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for; too many, or one key twice, is a DocumentError."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MOST_VALUES  # Until it is known: a node that holds itself has no end.
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        keys = Counter((key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [name for (_, name), count in keys.items() if count > 1]:
            raise DocumentError(f"says {quote(twice[0])} twice in one group; leave one of them out")
        below = [each for pair in node.value for each in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    count = 1 + sum(_measure(each, known) for each in below)
    if count > MOST_VALUES:
        raise DocumentError(f"stands for more than {MOST_VALUES:,} values, or holds itself; write fewer")
    known[id(node)] = count
    return count
