"""Prefetching by another thread."""

import threading
from contextlib import closing
from itertools import count

import pytest

from deflare_core.system.prefetch import prefetch


def test_items_come_in_their_order():
    assert list(prefetch(range(100))) == list(range(100))
    assert list(prefetch([])) == []
    assert list(prefetch([None, 0])) == [None, 0], "Nothing is an item like any other."


def test_an_error_comes_out_where_it_was_made():
    def broken():
        yield 1
        raise ValueError("the second item")

    found = prefetch(broken())
    assert next(found) == 1
    with pytest.raises(ValueError, match="the second item"):
        next(found)


def test_no_thread_is_left_when_the_rest_is_not_wanted():
    before = threading.active_count()
    made = []
    with closing(prefetch(made.append(k) or k for k in count())) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
    assert threading.active_count() == before
    assert len(made) < 10, "It works only a little ahead."
