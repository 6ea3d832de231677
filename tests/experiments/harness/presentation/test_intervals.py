"""Intervals of means and medians over seeds."""

import math

import numpy as np
import pytest

from experiments.harness.presentation import intervals


def test_targets_not_reached_count_as_infinitely_slow() -> None:
    found = intervals.summarise_times([2.0, None, None])
    assert (found["median"], found["interval"], found["reached"], found["n"]) == (None, [2.0, None], 1, 3)
    many = intervals.summarise_times([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, None])
    assert many["median"] == 4.5 and many["kind"] == "bootstrap"
    assert 1.0 <= many["interval"][0] < 4.5
    assert intervals.summarise_times([None] * 8)["interval"] == [None, None]


def test_intervals_are_ranges_below_six_values_and_repeat_above() -> None:
    assert intervals.summarise([3.0, 1.0, 2.0])["interval"] == [1.0, 3.0]
    assert intervals.summarise([3.0, 1.0, 2.0])["kind"] == "range"
    values = list(np.random.default_rng(0).normal(size=12))
    first, second = intervals.summarise(values), intervals.summarise(values)
    assert first == second and first["kind"] == "bootstrap"
    # The bootstrap's half width is near 1.96 s / sqrt(n).
    width = (first["interval"][1] - first["interval"][0]) / 2
    assert width == pytest.approx(1.96 * np.std(values) / math.sqrt(12), rel=0.15)
    assert intervals.summarise([2.0] * 7)["interval"] == [2.0, 2.0]
