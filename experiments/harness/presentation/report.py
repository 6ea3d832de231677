"""From finished cells to the summary: rows, paired comparisons, the annealer's own gain, targets met or missed.

    time ratio      seconds until the method's curve reaches the baseline's last value / the baseline's last second
    gain            the method's curve at the baseline's last second - the baseline's last value      (points)
    annealer gain   the method's final - the final of its best control, paired by seed                (points)
    shares          gain = (one method - another) + ... over a chain of methods from the baseline to the method

Curves are interpolated linearly between evaluations; before its first evaluation a curve has no value. Where runs are
judged by a solution ("solved" in their results), finals are shares of runs, with the intervals of shares.
`results` holds what repeats bit for bit, `timed` everything that a clock entered.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness.presentation.cells import Comparison
from experiments.harness.presentation.intervals import (
    summarise,
    summarise_share_gains,
    summarise_shares,
    summarise_times,
)

Record = Mapping[str, Any]
Groups = Mapping[tuple[str, str], Mapping[int, Record]]
SEEDS_TO_EXCLUDE_ZERO = 10


def summary(
    records: Sequence[Record], comparisons: Iterable[Comparison], environment: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of summary.json: {"environment", "results_digest", "rows", "comparisons"}."""
    comparisons, found = list(comparisons), grouped(records)
    baselines: dict[str, list[str]] = {}
    for comparison in comparisons:
        baselines.setdefault(comparison.problem, []).append(comparison.baseline)
    rows = [_row(group, found, baselines.get(problem, ())) for (problem, _), group in found.items()]
    compared = [compare(found, c) for c in comparisons]
    results = [[r["problem"], r["method"], r["seeds"], r["results"]] for r in rows]
    digest = hashlib.sha256(json.dumps(results, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return {
        "environment": dict(environment),
        "results_digest": digest,
        "rows": rows,
        "comparisons": [c for c in compared if c is not None],
    }


def grouped(records: Iterable[Record]) -> Groups:
    """The records of each row by seed; rows by (problem, method), in the order of their first records."""
    groups: dict[tuple[str, str], dict[int, Record]] = {}
    for record in records:
        groups.setdefault((record["problem"], record["method"]), {})[record["seed"]] = record
    return groups


def compare(groups: Groups, comparison: Comparison) -> dict[str, Any] | None:
    """One comparison over the seeds that both have; None where there is no such seed yet."""
    baselines = groups.get((comparison.problem, comparison.baseline), {})
    methods = groups.get((comparison.problem, comparison.method), {})
    seeds = sorted(baselines.keys() & methods.keys())
    if not seeds:
        return None
    pairs = [(baselines[s], methods[s]) for s in seeds]
    raced = [(b, m) for b, m in pairs if _has_target(b) and _has_target(m)]
    ratios = summarise_times([time_ratio(b, m) for b, m in raced])
    ratios["without_data_and_compile"] = summarise_times([time_ratio(b, m, charged=False) for b, m in raced])
    ratios["to_first_crossing"] = summarise_times([time_ratio(b, m, first_crossing=True) for b, m in raced])
    curves = any(_timed(record)["curve"] for pair in pairs for record in pair)
    final_gain = _final_gains(pairs)
    found = {
        "problem": comparison.problem,
        "data": pairs[0][1].get("data", ""),
        "baseline": comparison.baseline,
        "method": comparison.method,
        "seeds": seeds,
        "time_ratio": ratios,
        "gain": summarise([gain_at_last_second(b, m) for b, m in pairs]) if curves else final_gain,
        "final_gain": final_gain,
        "final": _finals([m for _, m in pairs]),
        "baseline_final": _finals([b for b, _ in pairs]),
        "annealer_gain": annealer_gain(groups, comparison),
    }
    if split := shares(groups, comparison):
        found["shares"] = split
    found["targets"] = [_judge(found, *target) for target in comparison.targets]
    return found


def annealer_gain(groups: Groups, comparison: Comparison) -> dict[str, Any]:
    """The method's final minus that of the control with the highest mean, over the seeds that all of them have."""
    methods = groups.get((comparison.problem, comparison.method), {})
    controls = {name: groups.get((comparison.problem, name), {}) for name in comparison.controls}
    controls = {name: found for name, found in controls.items() if found}
    seeds = sorted(set(methods).intersection(*controls.values())) if controls else []
    if not seeds:
        return {"best_control": None, **summarise([]), "seeds": [], "by_control": {}}
    gains = {name: _final_gains([(found[s], methods[s]) for s in seeds]) for name, found in controls.items()}
    best = min(gains, key=lambda name: float(gains[name]["mean"]))
    return {"best_control": best, **gains[best], "seeds": seeds, "by_control": gains}


def shares(groups: Groups, comparison: Comparison) -> dict[str, Any] | None:
    """The gain over the baseline in parts that add up to it, over the seeds that all of the methods have.

    {"seeds", "parts": [{"label", "method", "minus", "gain", "final_gain"}], "gain", "final_gain"}; gain: at the
    baseline's last second, over the seeds on which every curve has begun by then. None without shares or such a seed.
    """
    names = {name for _, *pair in comparison.shares for name in pair}
    found = {name: groups.get((comparison.problem, name), {}) for name in names}
    seeds = sorted(set.intersection(*(set(of) for of in found.values()))) if found else []
    if not seeds:
        return None
    over = [
        {name: gain_at_last_second(found[comparison.baseline][s], of[s]) for name, of in found.items()} for s in seeds
    ]
    begun = [{name: gain for name, gain in of.items() if gain is not None} for of in over if None not in of.values()]

    def split(method: str, minus: str) -> dict[str, Any]:
        final_gain = _final_gains([(found[minus][s], found[method][s]) for s in seeds])
        return {"gain": summarise([of[method] - of[minus] for of in begun]), "final_gain": final_gain}

    parts = [{"label": label, "method": m, "minus": minus, **split(m, minus)} for label, m, minus in comparison.shares]
    return {"seeds": seeds, "parts": parts, **split(comparison.method, comparison.baseline)}


def time_ratio(baseline: Record, method: Record, charged: bool = True, first_crossing: bool = False) -> float | None:
    """Seconds of the method over those of the baseline; None where the method never gets there.

    Without curves: the ratio of their `seconds_to_target`. charged=False leaves data and compile seconds out of both;
    first_crossing=True counts the baseline only until its curve first reaches its own last value.
    """
    ours, theirs = _timed(method), _timed(baseline)
    level = theirs["curve"][-1][1] if theirs["curve"] else None
    if level is None or not ours["curve"]:
        spent, budget = ours.get("seconds_to_target"), theirs.get("seconds_to_target")
    else:
        spent = reaches(ours["curve"], level)
        budget = reaches(theirs["curve"], level) if first_crossing else theirs["curve"][-1][0]
    if spent is None or budget is None:
        return None
    if not charged:
        spent, budget = spent - _charges(ours), budget - _charges(theirs)
    return max(float(spent), 0.0) / float(budget) if budget > 0 else None


def gain_at_last_second(baseline: Record, method: Record) -> float | None:
    """Points of the method over the baseline at the baseline's last second; without curves, of their finals."""
    ours, theirs = _timed(method)["curve"], _timed(baseline)["curve"]
    if not ours or not theirs:
        return _final(method) - _final(baseline)
    last_second, last_value = theirs[-1]
    value = value_at(ours, last_second)
    return None if value is None else value - last_value


def reaches(curve: Sequence[Sequence[float]], level: float) -> float | None:
    """The first second at which the interpolated curve is at `level` or above, None where it never is."""
    before: Sequence[float] | None = None
    for second, value in curve:
        if value >= level:
            if before is None or value == before[1]:
                return float(second)
            share = (level - before[1]) / (value - before[1])
            return float(before[0] + share * (second - before[0]))
        before = (second, value)
    return None


def value_at(curve: Sequence[Sequence[float]], second: float) -> float | None:
    """The interpolated curve at a second: its last value past its end, None before its first evaluation."""
    seconds, values = zip(*curve, strict=True)
    return None if second < seconds[0] else float(np.interp(second, seconds, values))


def _row(by_seed: Mapping[int, Record], groups: Groups, baselines: Sequence[str]) -> dict[str, Any]:
    group = list(by_seed.values())
    first = group[0]
    timed = [_timed(r) for r in group]
    seconds = summarise_times([t["seconds"] for t in timed])
    phases = list(dict.fromkeys(phase for t in timed for phase in t["phases"]))
    return {
        "problem": first["problem"],
        "data": first["data"],
        "method": first["method"],
        "sampler": first["sampler"],
        "tags": first["tags"],
        "seeds": [r["seed"] for r in group],
        "results": _scalars(group),
        "timed": {
            "seconds": seconds["median"],
            "seconds_interval": seconds["interval"],
            "seconds_coverage": seconds["coverage"],
            "seconds_to_target": summarise_times(_to_targets(group, groups, baselines)),
            "phases": {p: float(np.median([t["phases"].get(p, 0.0) for t in timed])) for p in phases},
        },
    }


def _to_targets(group: Sequence[Record], groups: Groups, baselines: Sequence[str]) -> list[float | None]:
    # The target is the cell's own where it states one, else the last value of the baseline with the same seed; seeds
    # without any target are left out, which differs from a target that was never reached (None).
    found: list[float | None] = []
    for record in group:
        timed = _timed(record)
        if "seconds_to_target" in timed:
            found.append(timed["seconds_to_target"])
            continue
        for name in baselines if timed["curve"] else ():
            baseline = groups.get((record["problem"], name), {}).get(record["seed"])
            if baseline is not None and _timed(baseline)["curve"]:
                found.append(reaches(timed["curve"], _timed(baseline)["curve"][-1][1]))
                break
    return found


def _scalars(group: Sequence[Record]) -> dict[str, Any]:
    results = [r["outcome"]["results"] for r in group]
    keys = dict.fromkeys(k for r in results for k, v in r.items() if isinstance(v, bool | int | float))
    columns = {k: [r.get(k) for r in results] for k in keys}
    found = {k: summarise_shares(v) if _all_bools(v) else summarise(v) for k, v in columns.items()}
    return found | {"final": _finals(group)}


def _finals(records: Sequence[Record]) -> dict[str, Any]:
    solved = [_solved(r) for r in records]
    return summarise_shares(solved, 100.0) if _all_bools(solved) else summarise([_final(r) for r in records])


def _final_gains(pairs: Sequence[tuple[Record, Record]]) -> dict[str, Any]:
    """The final of the second of each pair minus that of the first."""
    solved = [(_solved(before), _solved(after)) for before, after in pairs]
    if _all_bools([one for pair in solved for one in pair]):
        return summarise_share_gains(solved, 100.0)
    return summarise([_final(after) - _final(before) for before, after in pairs])


def _all_bools(values: Sequence[Any]) -> bool:
    return all(isinstance(value, bool) for value in values)


def _judge(found: Mapping[str, Any], quantity: str, sense: str, bound: float) -> dict[str, Any]:
    """A target and its verdict; "met" is None where the seeds do not suffice for a verdict.

    A gain against 0 is a claim that an interval excludes 0: the interval's end is judged, with enough paired seeds.
    """
    entry = found[quantity]
    value = entry["median"] if quantity == "time_ratio" else entry["mean"]
    judged, note, end = value, "", None
    if quantity == "annealer_gain" or (quantity in ("gain", "final_gain") and bound == 0):
        end = "high" if sense == "<=" else "low"
        judged = None if entry["interval"] is None else entry["interval"][("low", "high").index(end)]
        if entry["n"] < SEEDS_TO_EXCLUDE_ZERO:
            note = f"{entry['n']} of the {SEEDS_TO_EXCLUDE_ZERO} paired seeds that a verdict needs"
    senses = {"<=": lambda v: v <= bound, ">=": lambda v: v >= bound, ">": lambda v: v > bound}
    met = None if note else judged is not None and bool(senses[sense](judged))
    return {
        "quantity": quantity,
        "sense": sense,
        "bound": bound,
        "value": value,
        "judged": judged,
        "end": end,
        "met": met,
        "note": note,
    }


def _has_target(record: Record) -> bool:
    return bool(_timed(record)["curve"]) or "seconds_to_target" in _timed(record)


def _charges(timed: Mapping[str, Any]) -> float:
    return math.fsum(timed["phases"].get(phase, 0.0) for phase in ("data", "compile"))


def _solved(record: Record) -> Any:
    return record["outcome"]["results"].get("solved")


def _final(record: Record) -> float:
    return float(record["outcome"]["results"]["final"])


def _timed(record: Record) -> Mapping[str, Any]:
    timed: Mapping[str, Any] = record["outcome"]["timed"]
    return timed
