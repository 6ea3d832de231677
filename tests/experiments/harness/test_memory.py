"""Freed memory stays in the process: a large array costs page faults once."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from experiments.harness.memory import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(50_000_000, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

told = keep_freed() if {keep} else False
faults()
print(told, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_what_is_freed_is_used_again() -> None:
    found = {}
    for keep in (False, True):
        out = subprocess.run(
            [sys.executable, "-c", FAULTS.format(keep=keep)], check=True, capture_output=True, text=True
        )
        told, faults = out.stdout.split()
        assert told == str(keep)
        found[keep] = int(faults)
    assert found[True] < 20 < found[False]
