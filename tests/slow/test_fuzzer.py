"""Whatever comes in, a command ends in time and memory, with exit code 0 or 1 and one line at most."""

import os

import pytest
from support.fuzzing import find_fault, fuzz

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
CORPUS = (("columns", 82), ("columns", 145426275286), ("attributes", 145426275453))
"""Kind and seed of what once failed."""


@pytest.mark.parametrize(("kind", "seed"), CORPUS)
def test_what_once_failed_does_so_no_more(kind, seed, tmp_path):
    assert find_fault(kind, seed, tmp_path) == ""


def test_input_made_by_chance_gets_an_answer():
    # The same tree gets the same answer; FUZZ_SEED=$RANDOM FUZZ_SECONDS=600 looks further.
    seed = int(os.environ.get("FUZZ_SEED", "20261129"))
    tried, faults = fuzz(SECONDS, seed)
    assert not faults, f"FUZZ_SEED={seed}, {tried} inputs: " + "\n".join(faults)
    assert tried > len(faults), f"FUZZ_SEED={seed}: nothing was tried."
