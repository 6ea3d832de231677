"""The time left, by a clock of the test's own."""

import io

import pytest
from rich.console import Console

from experiments.harness.presentation.cells import Cell
from experiments.harness.presentation.progress import Watch


def test_the_time_left_follows_the_measured_pace() -> None:
    now = [0.0]
    cells = [Cell("digits", "adam", seed, {}, lambda progress: {}, cost=1.0) for seed in range(4)]
    watch = Watch(cells, Console(file=io.StringIO()), lambda: now[0])
    watch(cells[0], 0.0, "")
    now[0] = 3.0  # expected to take 1 s, took 3: the other three will too
    watch(cells[0], 1.0, "")
    assert watch.left(cells[1], 0.0) == pytest.approx(9.0)
