"""What the fields of a sweep do to its objective: each value alone, and two values of a field against each other.

The points of a grid are chosen, the seeds are drawn: what varies by chance is the seed. So every number is first
averaged over the other fields within a seed, and its interval is one over seeds.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.harness.presentation.intervals import Interval, mean_interval
from experiments.report.differences import Difference, paired
from experiments.sweeps.results import by_seed

Rows = Sequence[Mapping[str, Any]]
MOST_VALUES = 4


@dataclass(frozen=True)
class Level:
    """The objective at one value of a field, over everything else."""

    field: str
    value: str
    mean: float
    interval: Interval
    seeds: int
    runs: int


@dataclass(frozen=True)
class Pair:
    """A field's value `after` against `before`, everything else and the seed the same."""

    field: str
    before: str
    after: str
    difference: Difference
    pairs: int


def main_effects(rows: Rows, fields: Sequence[str], objective: str) -> list[Level]:
    """Each value of each field, in the order in which the rows have them."""
    found = []
    for field in fields:
        for value in _values(rows, field):
            mine = [row for row in rows if row[field] == value]
            means = by_seed(mine, objective)
            mean = statistics.fmean(means.values())
            found.append(Level(field, value, mean, mean_interval(list(means.values())), len(means), len(mine)))
    return found


def paired_differences(rows: Rows, field: str, others: Sequence[str], objective: str, sign: int = 1) -> list[Pair]:
    """Every value of the field against every earlier one; of more than MOST_VALUES only against the best, whose mean is
    the highest (sign 1) or the lowest (-1). Values that share no point and seed are left out."""
    values = _values(rows, field)
    at = {value: _matched([row for row in rows if row[field] == value], others, objective) for value in values}
    chosen = list(itertools.combinations(values, 2))
    if len(values) > MOST_VALUES:
        best = max(values, key=lambda value: sign * statistics.fmean(at[value].values()))
        chosen = [(value, best) for value in values if value != best]
    return [pair for pair in (_pair(field, a, b, at[a], at[b]) for a, b in chosen) if pair is not None]


def at_each_value(
    rows: Rows, field: str, of: str, others: Sequence[str], objective: str, sign: int = 1
) -> list[tuple[str, Pair]]:
    """The paired differences of `field` at each value of another field, `of`; others: all fields but `field`."""
    rest = [name for name in others if name != of]
    return [
        (value, pair)
        for value in _values(rows, of)
        for pair in paired_differences([row for row in rows if row[of] == value], field, rest, objective, sign)
    ]


def by_point(rows: Rows, fields: Sequence[str]) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """The rows of each combination of values."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[field] for field in fields), []).append(row)
    return found


def is_touched(rows: Rows, fields: Sequence[str], objective: str) -> bool:
    """Whether the objective of these rows depends on the fields at all: a control that has none of them does not."""
    return len({tuple(by_seed(group, objective).items()) for group in by_point(rows, fields).values()}) > 1


def unnamed(rows: Rows, fields: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """Those of `kinds` that the fields do not decide: a sampler that is swept names the methods of `solvers`, say, and
    then a method has no points to compare. A kind with one value is among them."""
    found = []
    for kind in kinds:
        others = [name for name in kinds if name != kind]
        most = max(len({row[kind] for row in group}) for group in by_point(rows, [*fields, *others]).values())
        if most > 1 or len({row[kind] for row in rows}) == 1:
            found.append(kind)
    return found


Matched = Mapping[tuple[tuple[str, ...], int], float]


def _matched(rows: Rows, others: Sequence[str], objective: str) -> Matched:
    return {(tuple(row[name] for name in others), int(row["seed"])): float(row[objective]) for row in rows}


def _pair(field: str, before: str, after: str, old: Matched, new: Matched) -> Pair | None:
    both = old.keys() & new.keys()
    if not both:
        return None
    seeds = sorted({seed for _, seed in both})
    sides = [
        {seed: statistics.fmean(side[key] for key in both if key[1] == seed) for seed in seeds} for side in (old, new)
    ]
    # One pair a seed, of runs that succeed or do not: then the interval can be exact.
    shares = len(both) == len(seeds) and all(side[key] in (0.0, 100.0) for side in (old, new) for key in both)
    return Pair(field, before, after, paired(sides[0], sides[1], shares), len(both))


def _values(rows: Rows, field: str) -> list[str]:
    return list(dict.fromkeys(row[field] for row in rows))
