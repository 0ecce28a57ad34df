"""The order of columns that have no names: `t x y p`, unless their values show that it is another one.

Unnamed columns are taken as `t x y p`, as most tools write them. Prophesee's write `x y p t`, MVSEC and others
`x y t p`. Values show which it is: few columns hold nothing but 0 and 1, and only times never go back over many events.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deflare_core.events import PolarityRule, SensorSize, find_polarities
from deflare_core.io.polarities import check_polarities
from deflare_core.system.errors import DeflareError, quote
from deflare_core.system.limits import MOST_ROWS

ORDERS = ("txyp", "xypt", "xytp")
"""The orders that are met, the usual one first."""
ENOUGH_EVENTS = 16
"""So many events are never in the order of their pixels by chance."""
ADVICE = "Name them: text in a line before its events, such as x,y,p,t; arrays by np.savez(FILE, t=..., x=...)."
LARGEST_SIZE = (MOST_ROWS, MOST_ROWS)


def find_order(
    columns: Sequence[np.ndarray], size: SensorSize | None, polarity: PolarityRule, usual: str = ORDERS[0]
) -> str:
    """The order of the first four of some columns `(N,)` of numbers: the usual, or the one that their values show.

    It is an error if their values fit several orders, or none of them.
    """
    columns = columns[:4]
    if not len(columns[0]):
        return usual
    signed = [order for order in ORDERS if _is_polarity(columns[order.index("p")], polarity)]
    if not signed:
        _explain_polarities(columns, polarity)
        raise DeflareError(
            "its columns have no names, and their values fit neither t x y p nor another order: no column holds only "
            f"polarities (0/1 or -1/+1), the last one holds {_list_values(columns[3])}. {ADVICE}"
        )
    placed = [order for order in signed if _are_pixels(columns, order, size)]
    timed = _distinct([order for order in placed if _is_time(columns[order.index("t")])], columns)
    chosen = timed or _distinct(placed, columns) or signed[:1]
    if len(columns[0]) < ENOUGH_EVENTS and usual in signed and len(timed) < 2:
        other = next((columns[order.index("t")] for order in timed if order != usual), None)
        if other is None or other[0] == other[-1]:
            return usual
        # Few events may be out of order, or be in another one: sorting would hide which.
        chosen = [usual, *timed] if usual in placed else timed
    if len(chosen) > 1:
        raise DeflareError(
            f"its columns have no names, and fit the orders {' and '.join(map(' '.join, chosen))}. {ADVICE}"
        )
    return chosen[0]


def _explain_polarities(columns: Sequence[np.ndarray], rule: PolarityRule) -> None:
    """Raise a DeflareError that says what is wrong with the polarities, if one column can hold nothing else."""
    found = [find_polarities(columns[order.index("p")]) for order in ORDERS[:2]]
    few = [values for values in found if len(values) <= 3]
    if len(few) == 1 and len(columns[0]) >= ENOUGH_EVENTS:
        check_polarities(few[0], rule)


def _is_polarity(values: np.ndarray, rule: PolarityRule) -> bool:
    found = find_polarities(values)
    return found <= {0, 1} or found <= {-1, 1} or (rule == "lenient" and 1 in found and len(found) <= 3)


def _are_pixels(columns: Sequence[np.ndarray], order: str, size: SensorSize | None) -> bool:
    """Whether the columns x and y of an order hold pixels of the sensor, or of any where its size is not known."""
    limits = dict(zip("yx", size or LARGEST_SIZE, strict=True))
    return all(
        bool(((values >= 0) & (values < limit) & (values == np.trunc(values))).all())
        for values, limit in ((columns[order.index(name)], limits[name]) for name in "xy")
    )


def _is_time(values: np.ndarray) -> bool:
    return bool((np.diff(values) >= 0).all())


def _distinct(orders: list[str], columns: Sequence[np.ndarray]) -> list[str]:
    """The orders without those that give the same events as one before them."""
    kept: list[str] = []
    for order in orders:
        columns_of = [[columns[one.index(name)] for name in "txyp"] for one in (order, *kept)]
        if not any(all(map(np.array_equal, columns_of[0], other)) for other in columns_of[1:]):
            kept.append(order)
    return kept


def _list_values(values: np.ndarray) -> str:
    found = np.unique(values)
    listed = [f"{value:g}" if values.dtype.kind in "iuf" else quote(value) for value in found[:4].tolist()]
    return ", ".join(listed) + (", ..." if len(found) > 4 else "")
