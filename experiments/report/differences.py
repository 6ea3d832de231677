"""After minus before, by seeds: the mean difference, its interval, and in words what it says.

    paired      the seeds are the same: the mean over seeds of (after - before), a t interval from 6 seeds on
    unpaired    Welch's interval of two means: d +- t s, s^2 = s1^2/n1 + s2^2/n2, t of Welch and Satterthwaite's
                degrees of freedom (Welch 1947)
    shares      of runs that either succeed or do not: exact intervals, with half the error for each of two shares

Below 6 seeds the interval is the range of what was seen. That an interval leaves out 0 is claimed from 10 seeds on.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import stats

from experiments.harness.presentation.intervals import (
    INTERVALS_FROM,
    LEVEL,
    mean_interval,
    share_gain_interval,
    share_interval,
)
from experiments.harness.presentation.report import SEEDS_TO_EXCLUDE_ZERO

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Difference:
    """kind: as in `intervals`; seeds: of the smaller side; paired: by seed; is_same: no seed changed at all."""

    mean: float
    low: float
    high: float
    kind: str
    seeds: int
    paired: bool
    is_same: bool = False

    @property
    def is_known(self) -> bool:
        """Whether its interval leaves out 0, of seeds enough to claim it."""
        return self.seeds >= SEEDS_TO_EXCLUDE_ZERO and not self.has_zero and not self.is_flat

    @property
    def has_zero(self) -> bool:
        return self.low <= 0 <= self.high

    @property
    def is_flat(self) -> bool:
        """Every seed says the same, which leaves an interval of means without width, and without meaning."""
        return self.kind != "exact" and self.low == self.high

    @property
    def verdict(self) -> str:
        if self.is_same:
            return "the same"
        if self.seeds < 2:
            return "one seed: its noise is not known"
        if self.is_flat:
            return "the same change in every seed"
        if self.has_zero:
            return "seeds disagree" if self.kind == "range" else "within noise"
        if self.is_known:
            return "beyond noise"
        most = "all seeds agree" if self.kind == "range" else "interval leaves out 0"
        return f"{most}; {self.seeds} of the {SEEDS_TO_EXCLUDE_ZERO} seeds for a claim"


def difference(before: BySeed, after: BySeed, shares: bool = False, by_seed: bool = True) -> Difference:
    """Paired where both have the same seeds, else unpaired. shares: the values are 0 or 100; by_seed: whether a seed
    decides what a run finds, as it does not decide its seconds."""
    if by_seed and before.keys() == after.keys():
        return paired(before, after, shares)
    return _unpaired_shares(before, after) if shares else _unpaired(before, after)


def paired(before: BySeed, after: BySeed, shares: bool = False) -> Difference:
    """Over the seeds that both have, of which there must be one."""
    seeds = sorted(before.keys() & after.keys())
    values = [after[seed] - before[seed] for seed in seeds]
    mean, same = statistics.fmean(values), not any(values)
    if shares:
        found = share_gain_interval(sum(v > 0 for v in values), sum(v < 0 for v in values), len(seeds))
        return Difference(mean, 100 * found.low, 100 * found.high, found.kind, len(seeds), True, same)
    found = mean_interval(values)
    return Difference(mean, found.low, found.high, found.kind, len(seeds), True, same)


def _unpaired(before: BySeed, after: BySeed) -> Difference:
    old, new = list(before.values()), list(after.values())
    mean, seeds = statistics.fmean(new) - statistics.fmean(old), min(len(old), len(new))
    if seeds < INTERVALS_FROM:
        return Difference(mean, min(new) - max(old), max(new) - min(old), "range", seeds, False)
    squares = [statistics.variance(values) / len(values) for values in (old, new)]
    total = sum(squares)
    if total == 0:
        return Difference(mean, mean, mean, "t", seeds, False)
    freedom = total**2 / sum(s**2 / (len(v) - 1) for s, v in zip(squares, (old, new), strict=True))
    half = float(stats.t.ppf(1 - (1 - LEVEL) / 2, freedom)) * math.sqrt(total)
    return Difference(mean, mean - half, mean + half, "t", seeds, False)


def _unpaired_shares(before: BySeed, after: BySeed) -> Difference:
    old, new = (
        share_interval(sum(value > 0 for value in side.values()), len(side), 1 - (1 - LEVEL) / 2)
        for side in (before, after)
    )
    mean = statistics.fmean(after.values()) - statistics.fmean(before.values())
    seeds = min(len(before), len(after))
    return Difference(mean, 100 * (new.low - old.high), 100 * (new.high - old.low), "exact", seeds, False)
