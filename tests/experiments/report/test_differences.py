"""Differences by seeds: intervals by hand, and what is said of them."""

import pytest

from experiments.report.differences import difference, paired


def by_seed(*values: float, first: int = 0) -> dict[int, float]:
    return {first + number: value for number, value in enumerate(values)}


def test_paired_seeds_get_a_t_interval_of_their_differences() -> None:
    # 1 .. 10: mean 5.5, s = 3.0277, t of 9 degrees of freedom 2.2622, half 2.2622 * 3.0277 / sqrt(10) = 2.1659.
    before, after = by_seed(*[100.0 * n for n in range(10)]), by_seed(*[100.0 * n + n + 1 for n in range(10)])
    found = difference(before, after)
    assert found.paired and found.kind == "t" and found.seeds == 10
    assert (found.mean, found.low, found.high) == pytest.approx((5.5, 3.33415, 7.66585), abs=1e-4)
    assert found.verdict == "beyond noise" and found.is_known


def test_other_seeds_get_welchs_interval() -> None:
    # Variances 9.1667 each, squared error 1.8333, 18 degrees of freedom, t 2.1009, half 2.8447.
    found = difference(by_seed(*map(float, range(10))), by_seed(*map(float, range(10, 20)), first=50))
    assert not found.paired
    assert (found.mean, found.low, found.high) == pytest.approx((10.0, 7.15534, 12.84466), abs=1e-4)
    # With variances 1/3 and 0: the freedom is that of the first, 6 - 1; half = 2.5706 * sqrt(0.3 / 6) by hand.
    old = by_seed(0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
    found = difference(old, by_seed(*[1.0] * 6, first=9))
    assert (found.low, found.high) == pytest.approx((0.5 - 0.57480, 0.5 + 0.57480), abs=1e-4)


def test_seconds_are_not_paired_though_their_seeds_agree() -> None:
    assert not difference(by_seed(1.0, 2.0), by_seed(2.0, 3.0), by_seed=False).paired


def test_shares_have_exact_intervals() -> None:
    # All ten gained: Clopper and Pearson at half the error, 0.0125^(1/10) = 0.6452 - 0.3548 for what may be lost.
    never, always = by_seed(*[0.0] * 10), by_seed(*[100.0] * 10)
    found = paired(never, always, shares=True)
    assert (found.mean, found.low, found.high) == pytest.approx((100.0, 29.03900, 100.0), abs=1e-4)
    assert found.verdict == "beyond noise"
    apart = difference(never, {seed + 50: value for seed, value in always.items()}, shares=True)
    assert not apart.paired and (apart.low, apart.high) == pytest.approx((29.03900, 100.0), abs=1e-4)
    assert paired(always, always, shares=True).verdict == "the same"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0], "one seed: its noise is not known"),
        ([0.0, 0.0], "the same"),
        ([2.0, 2.0], "the same change in every seed"),
        ([1.0, 2.0, 3.0], "all seeds agree; 3 of the 10 seeds for a claim"),
        ([-1.0, 2.0, 3.0], "seeds disagree"),
        ([1.0, 2.0, 3.0, 2.0, 1.0, 2.0], "interval leaves out 0; 6 of the 10 seeds for a claim"),
        ([-3.0, 2.0, 3.0, -2.0, 1.0, 2.0], "within noise"),
        ([-1.0, -2.0] * 5, "beyond noise"),
    ],
)
def test_verdicts(values: list[float], verdict: str) -> None:
    found = paired(by_seed(*[5.0] * len(values)), by_seed(*[5.0 + value for value in values]))
    assert found.verdict == verdict
    assert found.is_known == (verdict == "beyond noise")
