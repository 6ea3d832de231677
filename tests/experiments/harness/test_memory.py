"""Freed memory stays in the process: a large array costs page faults once."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from experiments.harness.memory import keep_freed


def faults() -> int:
    """The page faults of an array of 50 MB."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(50_000_000, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def told_and_faults(keep: bool) -> tuple[bool, int]:
    """Whether it could be told, and the faults of the second such array."""
    told = keep and keep_freed()
    faults()
    return told, faults()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_what_is_freed_is_used_again() -> None:
    found = {}
    for keep in (False, True):  # in a process of its own: it cannot be taken back
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            told, found[keep] = pool.submit(told_and_faults, keep).result()
        assert told == keep
    assert found[True] < 20 < found[False]
