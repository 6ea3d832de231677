"""Means and medians over seeds, each with its interval.

From 6 values on, the interval is a 95 % percentile bootstrap of the statistic; below that it is the minimum and the
maximum, and is called a range. A run that never reached its target counts as infinitely slow, and is stored as None.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

BOOTSTRAP_FROM = 6
RESAMPLES = 9999
SEED = 20240607  # fixed: the same values give the same interval, bit for bit


def summarise(values: Sequence[float | None]) -> dict[str, Any]:
    """{"mean", "median", "interval" of the mean, "kind", "n", "values"}; None values are left out, of n too."""
    known = [float(v) for v in values if v is not None]
    if not known:
        return {"mean": None, "median": None, "interval": None, "kind": "none", "n": 0, "values": list(values)}
    interval, kind = interval_of(known, np.mean)
    return {
        "mean": math.fsum(known) / len(known),
        "median": float(np.median(known)),
        "interval": interval,
        "kind": kind,
        "n": len(known),
        "values": [None if v is None else float(v) for v in values],
    }


def summarise_times(values: Sequence[float | None]) -> dict[str, Any]:
    """{"median", "interval" of the median, "kind", "n", "reached", "values"}, with None for "not reached"."""
    if not values:
        return {"median": None, "interval": None, "kind": "none", "n": 0, "reached": 0, "values": []}
    full = [math.inf if v is None else float(v) for v in values]
    interval, kind = interval_of(full, np.median)
    return {
        "median": _finite(float(np.median(full))),
        "interval": None if interval is None else [_finite(end) for end in interval],
        "kind": kind,
        "n": len(full),
        "reached": sum(v is not None for v in values),
        "values": [_finite(v) for v in full],
    }


def interval_of(values: Sequence[float], statistic: Callable[..., Any]) -> tuple[list[float], str]:
    """([low, high], "bootstrap" or "range"); infinite values are allowed. Source: Efron, Tibshirani (1993), ch. 13."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) < BOOTSTRAP_FROM:
        return [float(data.min()), float(data.max())], "range"
    if np.all(data == data[0]):
        return [float(data[0]), float(data[0])], "bootstrap"
    # Infinity stands for "not reached": ranks are all that a median needs, so a number past every finite one will do.
    finite = [abs(float(v)) for v in data if math.isfinite(v)]  # seconds and ratios, never negative
    ceiling = 2.0 * max(finite, default=1.0) + 1.0
    bounded = np.where(np.isfinite(data), data, ceiling)
    found = stats.bootstrap(
        (bounded,), statistic, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(SEED)
    ).confidence_interval
    past = max(finite, default=-math.inf)
    ends = [float(found.low), float(found.high)]
    return [math.inf if end > past and not np.all(np.isfinite(data)) else end for end in ends], "bootstrap"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
