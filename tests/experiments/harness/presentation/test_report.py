"""The summary: quantities with known answers, honest verdicts, strict JSON, figures that are drawn."""

import copy
import json
import math

import numpy as np
import pytest

from experiments.harness.presentation import figures, intervals, report, tables
from experiments.harness.presentation.cells import Comparison

ENVIRONMENT = {
    "device": "1 x cpu",
    "cores": 2,
    "system": "Linux",
    "python": "3.12",
    "versions": {"jax": "0.11.0", "cma": None},
    "commit": None,
    "command": "python -m experiments table1",
    "xla_flags": "--xla_cpu_x",
    "data": [],
}


def record(problem, method, seed, final, curve=(), phases=None, tags=None, energies=None, **timed):
    phases = phases or {"data": 1.0, "compile": 1.0, "refine": 8.0}
    results = {"final": final, **({"sampled_energies": energies} if energies else {})}
    timing = {"seconds": sum(phases.values()), "curve": [list(p) for p in curve], "phases": phases, **timed}
    return {
        "problem": problem,
        "method": method,
        "seed": seed,
        "sampler": "anneal" if method == "hybrid" else "-",
        "data": "digits",
        "tags": tags or {},
        "config": {},
        "outcome": {"results": results, "timed": timing},
    }


def pair(seed, adam=60.0, hybrid=64.0):
    return [
        record("digits", "adam", seed, adam, [(2, 20.0), (6, 50.0), (10, adam)]),
        record("digits", "hybrid", seed, hybrid, [(4, 40.0), (8, adam + 2.0), (12, hybrid)]),
        record("digits", "random-bits", seed, hybrid - 1.0),
        record("digits", "greedy", seed, hybrid + 0.5 - seed),
    ]


COMPARISON = Comparison(
    "digits",
    "adam",
    "hybrid",
    ("random-bits", "greedy"),
    (("time_ratio", "<=", 0.6), ("gain", ">=", 2.5), ("annealer_gain", ">", 0.0), ("final", ">=", 60.0)),
)


def test_time_ratio_and_gain_of_curves_with_known_crossings() -> None:
    adam, hybrid = pair(0)[:2]
    # hybrid passes 60 between (4, 40) and (8, 62), at 4 + 4 * 20 / 22; at 10 s it is half way from 62 to 64.
    crossing = 4 + 80 / 22
    assert report.time_ratio(adam, hybrid) == pytest.approx(crossing / 10)
    assert report.time_ratio(adam, hybrid, charged=False) == pytest.approx((crossing - 2) / 8)
    assert report.gain_at_last_second(adam, hybrid) == pytest.approx(3.0)


def test_the_baseline_may_cross_its_own_last_value_early() -> None:
    adam = record("digits", "adam", 0, 60.0, [(2, 20.0), (4, 60.0), (10, 60.0)])
    hybrid = record("digits", "hybrid", 0, 61.0, [(2, 60.0), (10, 61.0)])
    assert report.time_ratio(adam, hybrid) == pytest.approx(0.2)
    assert report.time_ratio(adam, hybrid, first_crossing=True) == pytest.approx(0.5)


def test_curves_have_no_value_before_their_start_and_keep_their_last() -> None:
    curve = [(4.0, 40.0), (8.0, 60.0)]
    assert report.value_at(curve, 3.9) is None
    assert report.value_at(curve, 100.0) == 60.0
    assert report.reaches(curve, 60.1) is None
    assert report.reaches(curve, 10.0) == 4.0


def test_the_annealers_gain_is_over_the_best_control() -> None:
    records = [r for seed in range(3) for r in pair(seed)]
    gain = report.annealer_gain(records, COMPARISON)
    # random-bits: always +1; greedy: -0.5, 0.5, 1.5, mean 0.5, so it is the better control.
    assert gain["best_control"] == "greedy"
    assert gain["values"] == [-0.5, 0.5, 1.5]
    assert gain["mean"] == pytest.approx(0.5)
    assert gain["interval"] == [-0.5, 1.5]
    assert gain["by_control"]["random-bits"]["mean"] == pytest.approx(1.0)


def test_verdicts_are_met_missed_or_withheld() -> None:
    found = report.compare([r for seed in range(3) for r in pair(seed)], COMPARISON)
    assert found is not None
    verdicts = {t["quantity"]: t["met"] for t in found["targets"]}
    assert verdicts == {"time_ratio": False, "gain": True, "annealer_gain": None, "final": True}


@pytest.mark.parametrize(("shift", "met"), [(0.0, True), (-2.0, False)])
def test_ten_seeds_allow_a_verdict_on_the_annealer(shift: float, met: bool) -> None:
    records = []
    for seed in range(10):
        records.append(record("digits", "adam", seed, 60.0))
        records.append(record("digits", "hybrid", seed, 61.5 + 0.1 * seed + shift))
        records.append(record("digits", "greedy", seed, 61.0))
    found = report.compare(records, COMPARISON)
    assert found is not None
    assert [t["met"] for t in found["targets"] if t["quantity"] == "annealer_gain"] == [met]
    assert found["annealer_gain"]["mean"] == pytest.approx(0.95 + shift)
    low, high = found["annealer_gain"]["interval"]
    assert low < found["annealer_gain"]["mean"] < high


def test_only_paired_seeds_are_compared() -> None:
    records = [*pair(0), *pair(1)[:1], *pair(2)[1:]]
    found = report.compare(records, COMPARISON)
    assert found is not None and found["seeds"] == [0]
    assert report.compare(pair(0)[:1], COMPARISON) is None


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


def test_the_summary_is_strict_json_with_the_agreed_fields() -> None:
    records = [r for seed in range(3) for r in pair(seed)]
    summary = report.summary(records, [COMPARISON], ENVIRONMENT)
    again = json.loads(json.dumps(summary, allow_nan=False))
    row = next(r for r in again["rows"] if r["method"] == "hybrid")
    assert row["seeds"] == [0, 1, 2]
    assert set(row["results"]["final"]) >= {"mean", "interval"}
    assert row["timed"]["seconds"] == pytest.approx(10.0)
    assert row["timed"]["phases"] == {"data": 1.0, "compile": 1.0, "refine": 8.0}
    assert set(row["timed"]["seconds_to_target"]) >= {"median", "interval"}
    (comparison,) = again["comparisons"]
    assert {"problem", "baseline", "method", "time_ratio", "gain", "annealer_gain"} <= comparison.keys()
    assert {"best_control", "mean", "interval"} <= comparison["annealer_gain"].keys()


def test_wall_clock_enters_only_timed() -> None:
    records = [r for seed in range(3) for r in pair(seed)]
    slower = copy.deepcopy(records)
    for r in slower:
        timed = r["outcome"]["timed"]
        timed["phases"] = {k: 1.7 * v for k, v in timed["phases"].items()}
        timed["seconds"] *= 1.7
        timed["curve"] = [[1.7 * s, v] for s, v in timed["curve"]]
    first, second = (report.summary(r, [COMPARISON], ENVIRONMENT) for r in (records, slower))
    assert first["results_digest"] == second["results_digest"]
    assert [r["results"] for r in first["rows"]] == [r["results"] for r in second["rows"]]
    assert first["rows"][0]["timed"] != second["rows"][0]["timed"]
    slower[0]["outcome"]["results"]["final"] += 1e-9
    assert report.summary(slower, [], ENVIRONMENT)["results_digest"] != first["results_digest"]


def test_losses_and_missed_targets_are_printed_as_such() -> None:
    records = [r for seed in range(3) for r in pair(seed, hybrid=58.0)]
    text = tables.markdown(report.summary(records, [COMPARISON], ENVIRONMENT), "Table I")
    assert "| digits | final >= 60 | 58.00 | MISSED |" in text
    assert "-2.00 [-2.00, -2.00]" in text  # gain at the end
    assert "hybrid - greedy | +0.50 [-0.50, +1.50] | best control" in text
    assert "no verdict: 3 of the 10 paired seeds" in text
    assert "commit: unknown" in text and "XLA flags: `--xla_cpu_x`" in text


def test_figures_are_drawn_for_what_there_is(tmp_path) -> None:
    records = [r for seed in range(2) for r in pair(seed)]
    for method in ("hybrid", "spectral"):
        for depth in (0.3, 1.0):
            tags = {"family": "glass", "n": 64, "alpha": 0.95, "a": depth}
            solved = 100.0 if method == "hybrid" else 0.0
            records.append(record(f"glass-{depth}", method, 0, solved, tags=tags, energies=[-3.0, -2.5, -1.0]))
    written = figures.draw(records, tmp_path, ["glass-1.0"])
    assert [p.name for p in written] == ["curves.png", "phases.png", "energies.png", "success.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in written)
    assert figures.draw([], tmp_path) == []


def test_the_success_table_counts_instances() -> None:
    group = [record("g", "hybrid", s, f, tags={"a": 1.0, "alpha": 0.95}) for s, f in enumerate([100.0, 0.0, 100.0])]
    table, counts = figures.success_table(group, [0.3, 1.0], [0.95])
    assert table[1, 0] == pytest.approx(200 / 3) and counts[1, 0] == 3
    assert np.isnan(table[0, 0]) and counts[0, 0] == 0


def test_the_band_spans_the_common_seconds() -> None:
    seconds, low, middle, high = figures.band([[(0, 0.0), (10, 10.0)], [(2, 4.0), (8, 10.0)]])
    assert (seconds[0], seconds[-1]) == (2.0, 8.0)
    np.testing.assert_allclose(low, seconds)
    np.testing.assert_allclose(high, seconds + 2.0)
    np.testing.assert_allclose(middle, seconds + 1.0)
