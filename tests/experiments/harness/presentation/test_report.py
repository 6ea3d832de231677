"""The summary: quantities with known answers, honest verdicts, strict JSON."""

import copy
import json
from dataclasses import replace

import pytest

from experiments.harness.presentation import report
from experiments.harness.presentation.cells import Comparison
from tests.experiments.harness.presentation.records import COMPARISON, ENVIRONMENT, pair, record


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
    gain = report.annealer_gain(report.grouped(records), COMPARISON)
    # random-bits: always +1; greedy: -0.5, 0.5, 1.5, mean 0.5, so it is the better control.
    assert gain["best_control"] == "greedy"
    assert gain["values"] == [-0.5, 0.5, 1.5]
    assert gain["mean"] == pytest.approx(0.5)
    assert gain["interval"] == [-0.5, 1.5]
    assert gain["by_control"]["random-bits"]["mean"] == pytest.approx(1.0)


def test_verdicts_are_met_missed_or_withheld() -> None:
    found = report.compare(report.grouped(r for seed in range(3) for r in pair(seed)), COMPARISON)
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
    found = report.compare(report.grouped(records), COMPARISON)
    assert found is not None
    assert [t["met"] for t in found["targets"] if t["quantity"] == "annealer_gain"] == [met]
    assert found["annealer_gain"]["mean"] == pytest.approx(0.95 + shift)
    low, high = found["annealer_gain"]["interval"]
    assert low < found["annealer_gain"]["mean"] < high


@pytest.mark.parametrize(("seeds", "gain", "met"), [(9, 0.5, None), (10, 0.5, True), (10, 0.05, False)])
def test_a_gain_against_0_is_judged_by_its_interval_and_ten_paired_seeds(seeds: int, gain: float, met: bool) -> None:
    records = []
    for seed in range(seeds):
        records += [record("p", "adam", seed, 60.0), record("p", "hybrid", seed, 60.0 + gain + 0.1 * (-1) ** seed)]
    targets = (("final_gain", ">", 0.0), ("gain", ">", 0.0), ("final_gain", ">=", -1.0))
    found = report.compare(report.grouped(records), Comparison("p", "adam", "hybrid", (), targets))
    assert found is not None and found["final_gain"]["mean"] > 0
    assert [t["met"] for t in found["targets"]] == [met, met, True]
    assert [t["end"] for t in found["targets"]] == ["low", "low", None]


def test_runs_judged_by_a_solution_have_the_intervals_of_shares() -> None:
    records = []
    for seed in range(10):
        for method, solved in (("multi-adam", False), ("hybrid", True), ("spectral", seed < 5)):
            one = record("glass", method, seed, 100.0 * solved)
            one["outcome"]["results"]["solved"] = solved
            records.append(one)
    summary = report.summary(records, [Comparison("glass", "multi-adam", "hybrid", ("spectral",))], ENVIRONMENT)
    finals = {row["method"]: row["results"]["final"] for row in summary["rows"]}
    assert finals["hybrid"]["interval"] == pytest.approx([69.15, 100.0], abs=0.01)
    assert finals["multi-adam"]["interval"] == pytest.approx([0.0, 30.85], abs=0.01)
    assert summary["rows"][2]["results"]["solved"]["mean"] == 0.5
    (found,) = summary["comparisons"]
    assert found["gain"] == found["final_gain"] and found["final_gain"]["kind"] == "exact"
    assert found["annealer_gain"]["mean"] == 50.0
    low, high = found["annealer_gain"]["interval"]
    assert low < 0 < 50 < high <= 100  # five pairs of ten are too few to tell


def test_only_paired_seeds_are_compared() -> None:
    records = [*pair(0), *pair(1)[:1], *pair(2)[1:]]
    found = report.compare(report.grouped(records), COMPARISON)
    assert found is not None and found["seeds"] == [0]
    assert report.compare(report.grouped(pair(0)[:1]), COMPARISON) is None


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


class Passes(list):
    """A list that counts how often it is gone through."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def test_the_summary_goes_through_its_records_once_however_many_problems_there_are() -> None:
    records, comparisons = Passes(), []
    for problem in map(str, range(20)):
        for seed in range(2):
            records += [{**one, "problem": problem} for one in pair(seed)]
        comparisons.append(replace(COMPARISON, problem=problem))
    summary = report.summary(records, comparisons, ENVIRONMENT)
    assert len(summary["rows"]) == 80 and len(summary["comparisons"]) == 20
    assert all(row["timed"]["seconds_to_target"]["n"] == 2 for row in summary["rows"] if row["method"] == "hybrid")
    assert records.passes == 1


CHAIN = (("optimizer", "muon", "adam"), ("start", "muon-start", "muon"), ("choice", "hybrid", "muon-start"))


def chained(seeds: int, begins: float = 2.0) -> list[dict]:
    """Four methods whose finals differ by 3, 1 and -0.5 points, and curves of different lengths."""
    finals = {"adam": 60.0, "muon": 63.0, "muon-start": 64.0, "hybrid": 63.5}
    return [
        record("digits", method, seed, final + 0.1 * seed * k, [(begins * k, 40.0), (10 + k, final + 0.1 * seed * k)])
        for seed in range(seeds)
        for k, (method, final) in enumerate(finals.items())
    ]


def test_shares_add_up_to_the_gain() -> None:
    comparison = Comparison("digits", "adam", "hybrid", shares=CHAIN)
    (found,) = report.summary(chained(3), [comparison], ENVIRONMENT)["comparisons"]
    split = found["shares"]
    assert [part["label"] for part in split["parts"]] == ["optimizer", "start", "choice"]
    for kind in ("gain", "final_gain"):
        assert split[kind]["values"] == pytest.approx(found[kind]["values"])
        by_seed = zip(*(part[kind]["values"] for part in split["parts"]), strict=True)
        assert [sum(values) for values in by_seed] == pytest.approx(split[kind]["values"])
    assert [part["final_gain"]["mean"] for part in split["parts"]] == pytest.approx([3.1, 1.1, -0.4])
    # Muon's curve is past (2, 40) and on its way to (11, 63) at Adam's last second, 10.
    assert split["parts"][0]["gain"]["values"][0] == pytest.approx(40 + 23 * 8 / 9 - 60)


def test_shares_are_of_the_seeds_that_all_have() -> None:
    comparison = Comparison("digits", "adam", "hybrid", shares=CHAIN)
    records = [r for r in chained(3) if (r["method"], r["seed"]) not in {("muon", 1), ("muon-start", 2)}]
    (found,) = report.summary(records, [comparison], ENVIRONMENT)["comparisons"]
    assert found["seeds"] == [0, 1, 2] and found["shares"]["seeds"] == [0]
    late = report.summary(chained(2, begins=4.0), [comparison], ENVIRONMENT)["comparisons"][0]["shares"]
    assert late["gain"]["n"] == 0 and late["final_gain"]["n"] == 2
    assert "shares" not in report.summary(chained(1)[:1] + chained(1)[3:], [comparison], {})["comparisons"][0]


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        Comparison("digits", "adam", "hybrid", shares=CHAIN[:2])
