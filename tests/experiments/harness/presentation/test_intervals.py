"""Intervals over seeds: right ends, and coverages simulated with fixed seeds or summed over all outcomes."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from experiments.harness.presentation import intervals
from experiments.harness.presentation.intervals import (
    mean_interval,
    median_interval,
    share_gain_interval,
    share_interval,
)

TRIALS = 6000


def covered(found: list[intervals.Interval], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high, *_ in found]))


@pytest.mark.parametrize("count", [6, 10])
def test_t_intervals_cover_means_and_paired_differences_of_normal_values(count: int) -> None:
    # The estimate deviates by 0.0028: that of 95 % leaves 0.93 .. 0.97 less than once in 10^11 choices of seeds.
    draw = np.random.default_rng([count, 1])
    before = draw.normal(3.0, 5.0, (TRIALS, count))
    after = 0.8 * before + draw.normal(1.0, 2.0, (TRIALS, count))
    for samples, truth in ((before, 3.0), (after - before, 0.4)):
        found = [mean_interval(sample) for sample in samples]
        assert 0.93 <= covered(found, truth) <= 0.97
        assert {(one.kind, one.coverage) for one in found} == {("t", 0.95)}


@pytest.mark.parametrize(
    ("count", "promised"), [(5, 0.9375), (6, 0.96875), (8, 0.9921875), (10, 0.978515625), (20, 0.9586)]
)
def test_order_statistics_cover_medians_of_any_law_as_they_promise(count: int, promised: float) -> None:
    # Skewed and unbounded values; four deviations of the estimate: less than once in 10^4 choices of seeds a case.
    samples = np.random.default_rng([count, 2]).exponential(size=(TRIALS, count)) ** 3
    found = [median_interval(sample) for sample in samples]
    assert len({one.coverage for one in found}) == 1 and found[0].coverage == pytest.approx(promised, abs=1e-4)
    slack = 4 * math.sqrt(promised * (1 - promised) / TRIALS)
    assert covered(found, math.log(2) ** 3) == pytest.approx(promised, abs=slack)


def test_ends_of_a_mean_and_of_a_median() -> None:
    # t of 5 degrees of freedom is 2.5706, the deviation sqrt(3.5).
    low, high, *_ = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert (low, high) == pytest.approx(
        (3.5 - 2.5706 * math.sqrt(3.5 / 6), 3.5 + 2.5706 * math.sqrt(3.5 / 6)), abs=1e-4
    )
    # Of ten values the second from either end (97.9 %), of nine too (96.1 %), of eight the ends (99.2 %).
    ends = {n: median_interval([float(k) for k in range(n, 0, -1)])[:3] for n in (8, 9, 10)}
    assert ends == {n: (low, n + 1 - low, "order statistics") for n, low in ((8, 1), (9, 2), (10, 2))}
    assert mean_interval([2.0] * 7)[:2] == median_interval([2.0] * 7)[:2] == (2.0, 2.0)


def test_below_six_values_there_are_minimum_and_maximum_and_no_promise_of_95_percent() -> None:
    values = [3.0, 1.0, 2.0]
    mean, times = intervals.summarise(values), intervals.summarise_times(values)
    assert (mean["mean"], mean["interval"], mean["kind"], mean["coverage"]) == (2.0, [1.0, 3.0], "range", None)
    assert (times["median"], times["interval"], times["kind"], times["coverage"]) == (2.0, [1.0, 3.0], "range", 0.75)
    assert [intervals.summarise_times([1.0] * n)["coverage"] for n in range(1, 6)] == [0, 0.5, 0.75, 0.875, 0.9375]
    assert intervals.summarise([])["interval"] is None and intervals.summarise_times([])["interval"] is None


def test_missing_values_are_left_out_of_means_and_infinite_in_times() -> None:
    assert intervals.summarise([1.0, None, 2.0])["n"] == 2
    few = intervals.summarise_times([2.0, None, None])
    assert (few["median"], few["interval"], few["reached"], few["n"]) == (None, [2.0, None], 1, 3)
    many = intervals.summarise_times([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, None])
    assert (many["median"], many["interval"], many["kind"]) == (4.5, [1.0, None], "order statistics")
    # Of ten, the ninth is still finite.
    assert intervals.summarise_times([*map(float, range(9)), None])["interval"] == [1.0, 8.0]
    assert intervals.summarise_times([None] * 8)["interval"] == [None, None]


def test_shares_that_are_all_or_nothing_are_not_printed_as_exact() -> None:
    # 1 - p^n = 0.975 at the one end that is open.
    all_solved = intervals.summarise_shares([True] * 5, 100.0)
    assert all_solved["mean"] == 100.0 and all_solved["kind"] == "exact"
    assert all_solved["interval"] == pytest.approx([100 * 0.025 ** (1 / 5), 100.0])
    assert intervals.summarise_shares([False] * 5)["interval"] == pytest.approx([0.0, 1 - 0.025 ** (1 / 5)])
    gain = intervals.summarise_share_gains([(False, True)] * 10, 100.0)
    assert (gain["mean"], gain["n"]) == (100.0, 10)
    assert gain["interval"] == pytest.approx([100 * (2 * 0.0125**0.1 - 1), 100.0])
    same = intervals.summarise_share_gains([(True, True)] * 10, 100.0)
    assert same["mean"] == 0 and same["interval"] == pytest.approx([-100 * (1 - 0.0125**0.1), 100 * (1 - 0.0125**0.1)])


def test_intervals_of_shares_cover_at_least_95_percent_of_all_outcomes() -> None:
    runs = 7
    found = [share_interval(hits, runs) for hits in range(runs + 1)]
    for share in np.linspace(0, 1, 101):
        law = stats.binom.pmf(range(runs + 1), runs, share)
        assert sum(p for p, (low, high, *_) in zip(law, found, strict=True) if low <= share <= high) >= 0.95
    pairs = [(a, b) for a, b in product(range(runs + 1), repeat=2) if a + b <= runs]
    gains = {pair: share_gain_interval(*pair, runs) for pair in pairs}
    for up, down in ((0.0, 0.0), (0.9, 0.0), (0.9, 0.1), (0.3, 0.3), (0.5, 0.2), (0.05, 0.6)):
        law = {
            (a, b): math.comb(runs, a) * math.comb(runs - a, b) * up**a * down**b * (1 - up - down) ** (runs - a - b)
            for a, b in pairs
        }
        assert sum(law[pair] for pair in pairs if gains[pair].low <= up - down <= gains[pair].high) >= 0.95
