"""Names of columns: which ones mean time, x, y and polarity, in text and arrays of every kind, and units in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from deflare_core.io.reading import MICRO_SIGNS, MICROSECONDS, UNIT_WORDS, TimeUnit
from deflare_core.system.errors import DeflareError, quote

NAMES: Mapping[str, tuple[str, ...]] = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
"""What each column is called: by event_utils, evlib, dv-processing, faery, BS-ERGB and others. Case is ignored."""
MEANING: Mapping[str, str] = {name: column for column, names in NAMES.items() for name in names}


def find_columns(names: Iterable[str]) -> dict[str, str]:
    """The names of the columns t, x, y and p among the names of a table, by column; of those that it has.

    Two names of one meaning are an error.
    """
    found: dict[str, str] = {}
    for name in names:
        column = meaning_of(name)
        if column in found:
            raise DeflareError(
                f"has two columns that mean {column}, {found[column]!r} and {name!r}; leave one of them out."
            )
        if column:
            found[column] = name
    return found


def require_columns(names: Iterable[str]) -> dict[str, str]:
    """The names of t, x, y and p among the names of a table; one that is missing is an error."""
    names = list(names)
    found = find_columns(names)
    if missing := [column for column in NAMES if column not in found]:
        raise DeflareError(f"lacks {missing}; it holds {quote(sorted(names))}.")
    return {column: found[column] for column in NAMES}


def meaning_of(name: str) -> str | None:
    """The column that a name means, without the unit that it may carry, or None."""
    return MEANING.get(_split_unit(name)[0])


def unit_of(name: str) -> TimeUnit | None:
    """The unit that the name of a time says, as in `t_us`, `timestamp(us)` and `time [s]`, or None."""
    return _split_unit(name)[1]


def _split_unit(name: str) -> tuple[str, TimeUnit | None]:
    # faery names its pixels x@1280 and y@720, by the size of the sensor; others write x [px].
    plain = name.strip().strip("\"'").strip().lower().translate(MICRO_SIGNS)
    plain = re.sub(r"@\d+$|\s*[(\[]\s*(px|pixels?)\s*[)\]]$", "", plain)
    # Not t_sec: beside it stands a t_nsec of the same times, under one of many names.
    match = re.fullmatch(rf"(\w+?)(?:_({'|'.join(MICROSECONDS)})|\s*[(\[]\s*(\w+)\s*[)\]])", plain)
    if match and MEANING.get(match[1]) == "t" and (unit := UNIT_WORDS.get(match[2] or match[3])):
        return match[1], unit
    return plain, None
