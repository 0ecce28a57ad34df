"""The one place where tests wait: for a condition, asked a bounded number of times."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def poll(condition: Callable[[], Answer], what: str, tries: int = 12_000, pause_s: float = 0.01) -> Answer:
    """Return the first true answer of a condition; the bound is far above what any machine needs.

    Raises
    ------
    AssertionError
        When no answer is true.
    """
    for _ in range(tries):
        if answer := condition():
            return answer
        time.sleep(pause_s)
    raise AssertionError(f"{what}: not after {tries} tries.")
