"""Calls in other processes: the same results in the same order, errors where they are asked for."""

import os

import pytest

from deflare_core.system.workers import delay_items, is_worker, worker_processes


@pytest.mark.parametrize("count", [0, 1, 2])
def test_results_come_from_where_they_should(count):
    with worker_processes(count) as submit:
        found = [submit(divmod, n, 3) for n in range(5)]
        assert [each.result() for each in found] == [divmod(n, 3) for n in range(5)]
        assert (submit(os.getpid).result() == os.getpid()) == (count < 2)


def test_an_error_in_another_process_is_raised_where_the_result_is_asked_for():
    with worker_processes(2) as submit:
        found = submit(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            found.result()


def test_late_items_keep_their_order_and_let_others_be_made_meanwhile():
    made = []
    items = delay_items((made.append(n) or n for n in range(4)), 2)
    assert next(items) == 0
    assert made == [0, 1, 2], "Two more were made before the first was given."
    assert list(items) == [1, 2, 3]


def test_a_killed_process_is_told_with_a_remedy():
    with pytest.raises(ValueError, match="lower workers"), worker_processes(2) as submit:
        submit(os._exit, 1).result()


def test_only_a_process_that_works_for_another_is_a_worker():
    assert not is_worker()
    with worker_processes(2) as submit:
        assert submit(is_worker).result()
