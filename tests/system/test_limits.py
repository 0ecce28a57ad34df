"""Limits and words: what fits passes, what does not is refused with the figure, and messages stay short and plain."""

import pytest

from deflare_core.system.documents import DocumentError, parse_yaml
from deflare_core.system.errors import DeflareError, make_plain, quote, shorten
from deflare_core.system.limits import check_memory, find_memory


def test_memory_that_is_not_there_is_refused_with_both_figures():
    left = find_memory()
    check_memory(left / 2, "a recording", "take a part")
    with pytest.raises(
        DeflareError, match=r"^a recording would take at least 4,000.0 GB of memory, and .* take a part"
    ):
        check_memory(4e12, "a recording", "take a part")
    assert 0 < left < 4e12, "A machine has less."


def test_settings_keep_their_anchors_and_merges():
    assert parse_yaml("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}


def test_a_key_may_stand_in_two_groups_but_not_twice_in_one():
    assert parse_yaml("a: {x: 1}\nb: {x: 2}") == {"a": {"x": 1}, "b": {"x": 2}}
    with pytest.raises(DocumentError, match="says 'x' twice"):
        parse_yaml("a: {x: 1, x: 2}")


def test_a_message_quotes_at_most_200_characters_in_one_plain_line():
    assert shorten("x" * 200) == "x" * 200
    assert len(shorten("x" * 201)) <= 200
    assert len(quote(["x" * 1000] * 1000)) <= 200
    assert make_plain("a\nb\x1b[31m\udcff é") == "a\\nb\\x1b[31m\\udcff é"
