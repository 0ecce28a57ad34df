"""Errors that the user can mend. The command line shows these in one line, and everything else with its traceback."""

from __future__ import annotations

import reprlib

QUOTED = 200
"""The longest piece of input that a message shows, in characters."""
MOST_SAID = 5_000
"""The longest message, in characters: the path of a file may have 4,096 of them."""
SHOWN = reprlib.Repr()
SHOWN.maxlevel, SHOWN.maxstring, SHOWN.maxlong, SHOWN.maxother = 4, QUOTED, 40, QUOTED
SHOWN.maxlist = SHOWN.maxtuple = SHOWN.maxset = SHOWN.maxdict = 20


class DeflareError(ValueError):
    """Input, a setting or a file that cannot be used: the message says what was wrong, what was received and where.

    It also says what to do. A wrong call of a function is no such error: it is a `ValueError` or `TypeError`.
    """


def quote(value: object) -> str:
    """A value as Python would write it, at most 200 characters of it, however large or deep it is."""
    return shorten(SHOWN.repr(value))


def shorten(text: object, most: int = QUOTED) -> str:
    """A text of at most so many characters; from a longer one the middle is left out."""
    text = str(text)
    return text if len(text) <= most else f"{text[: most - most // 3 - 5]} ... {text[-(most // 3) :]}"


def make_plain(text: str) -> str:
    """The text in one line, characters that steer a terminal or that no text can hold written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
