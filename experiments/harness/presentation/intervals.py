"""Means, medians and shares over seeds, each with its interval and with what that interval covers.

    mean     m +- t s / sqrt(n), t the 97.5 % point of Student's law of n - 1 degrees of freedom: 95 % if normal
    median   [x_(k), x_(n+1-k)], the largest k with 1 - 2 P(Bin(n, 1/2) < k) >= 0.95: at least that, of any law
    share    k of n, Clopper and Pearson's exact interval: at least 95 %, of any share

Below 6 values a mean and a median get the minimum and the maximum, called a range: that covers the median with
1 - 2^(1-n), less than 95 %, and of a mean nothing is claimed. A paired difference is a mean of differences. The
percentile bootstrap covers a mean with 0.87 to 0.90 at 6 to 10 values. A t interval knows no bounds: one of percents
may pass 0 or 100. A run that never reached its target counts as infinitely slow, and is stored as None.
Sources: Hahn and Meeker (1991), Statistical Intervals, ch. 4 to 6; Clopper and Pearson (1934).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

INTERVALS_FROM = 6
LEVEL = 0.95


class Interval(NamedTuple):
    """kind: "t", "order statistics", "exact" or "range"; coverage: the probability promised, None for none."""

    low: float
    high: float
    kind: str
    coverage: float | None


def summarise(values: Sequence[float | None]) -> dict[str, Any]:
    """{"mean", "median", "interval" of the mean, "kind", "coverage", "n", "values"}; None values are left out, of n
    too."""
    known = [float(v) for v in values if v is not None]
    kept = [None if v is None else float(v) for v in values]
    if not known:
        return _entry(None, None, None, 0, kept)
    mean = math.fsum(known) / len(known)
    return _entry(mean, float(np.median(known)), mean_interval(known), len(known), kept)


def summarise_shares(hits: Sequence[bool], unit: float = 1.0) -> dict[str, Any]:
    """The same of runs that either succeed or do not: the share of hits, in units of 1 / unit (100: percent)."""
    values = [unit * bool(hit) for hit in hits]
    if not values:
        return _entry(None, None, None, 0, [])
    interval = _scaled(share_interval(sum(map(bool, hits)), len(hits)), unit)
    return _entry(math.fsum(values) / len(values), float(np.median(values)), interval, len(values), values)


def summarise_share_gains(pairs: Sequence[tuple[bool, bool]], unit: float = 1.0) -> dict[str, Any]:
    """The same of paired runs (before, after): the share of hits after minus that before."""
    values = [unit * (int(after) - int(before)) for before, after in pairs]
    if not values:
        return _entry(None, None, None, 0, [])
    gained, lost = (sum(pair == wanted for pair in pairs) for wanted in ((False, True), (True, False)))
    interval = _scaled(share_gain_interval(gained, lost, len(pairs)), unit)
    return _entry(math.fsum(values) / len(values), float(np.median(values)), interval, len(values), values)


def summarise_times(values: Sequence[float | None]) -> dict[str, Any]:
    """{"median", "interval" of the median, "kind", "coverage", "n", "reached", "values"}, None for "not reached"."""
    full = [math.inf if v is None else float(v) for v in values]
    interval = median_interval(full) if full else None
    return {
        "median": _finite(float(np.median(full))) if full else None,
        "interval": None if interval is None else [_finite(interval.low), _finite(interval.high)],
        "kind": "none" if interval is None else interval.kind,
        "coverage": None if interval is None else interval.coverage,
        "n": len(full),
        "reached": sum(v is not None for v in values),
        "values": [_finite(v) for v in full],
    }


def mean_interval(values: Sequence[float]) -> Interval:
    """Of the mean of at least one finite value."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) < INTERVALS_FROM:
        return Interval(float(data.min()), float(data.max()), "range", None)  # type: ignore[call-overload, unused-ignore, call-overload, unused-ignore]
    middle = math.fsum(data) / len(data)
    half = _student(len(data) - 1) * float(data.std(ddof=1)) / math.sqrt(len(data))
    return Interval(middle - half, middle + half, "t", LEVEL)


def median_interval(values: Sequence[float]) -> Interval:
    """Of the median of at least one value; infinite ones are allowed."""
    data = np.sort(np.asarray(values, dtype=np.float64))
    rank, coverage = _rank(len(data))
    kind = "range" if len(data) < INTERVALS_FROM else "order statistics"
    return Interval(float(data[rank - 1]), float(data[-rank]), kind, coverage)


def share_interval(hits: int, runs: int, level: float = LEVEL) -> Interval:
    """Of the share of hits, from `hits` of `runs` >= 1 independent runs."""
    found = stats.binomtest(hits, runs).proportion_ci(level, method="exact")
    return Interval(float(found.low), float(found.high), "exact", level)


def share_gain_interval(gained: int, lost: int, runs: int) -> Interval:
    """Of the difference of two paired shares, from the pairs that were gained and lost: both of these shares with half
    the error each (Bonferroni)."""
    up, down = (share_interval(count, runs, 1 - (1 - LEVEL) / 2) for count in (gained, lost))
    return Interval(up.low - down.high, up.high - down.low, "exact", LEVEL)


@functools.cache
def _student(freedom: int) -> float:
    return float(stats.t.ppf(1 - (1 - LEVEL) / 2, freedom))


@functools.cache
def _rank(count: int) -> tuple[int, float]:
    """(the largest k whose order statistics cover the median with LEVEL or more, else 1; what they cover)."""
    ranks = np.arange(1, max(count // 2, 1) + 1)
    covered = 1 - 2 * stats.binom.cdf(ranks - 1, count, 0.5)
    rank = max(int((covered >= LEVEL).sum()), 1)
    return rank, float(covered[rank - 1])


def _entry(
    mean: float | None, median: float | None, interval: Interval | None, count: int, values: Sequence[float | None]
) -> dict[str, Any]:
    return {
        "mean": mean,
        "median": median,
        "interval": None if interval is None else [interval.low, interval.high],
        "kind": "none" if interval is None else interval.kind,
        "coverage": None if interval is None else interval.coverage,
        "n": count,
        "values": list(values),
    }


def _scaled(interval: Interval, unit: float) -> Interval:
    return interval._replace(low=unit * interval.low, high=unit * interval.high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
