"""Two runs side by side: what changed, by how much, paired or not, and what else differs."""

from pathlib import Path

import pytest

from experiments.report import against, against_part
from experiments.report.collect import Run, Swept, collected
from tests.experiments.report import stored


def read(folder: Path) -> Run | Swept:
    (found,) = collected([folder], lambda line: None)
    return found


def test_rows_are_paired_by_seed_where_both_have_the_same(tmp_path: Path) -> None:
    before, after = (
        read(stored.run(tmp_path / name, stored.records(10, gain))) for name, gain in (("a", 4.0), ("b", 7.0))
    )
    assert isinstance(before, Run) and isinstance(after, Run)
    sides = against.sides_of_runs(before, after)
    changes = {(change.row, change.quantity): change for change in sides.changes}
    hybrid = changes[("digits", "hybrid"), "final"]
    assert (hybrid.before, hybrid.after, hybrid.difference.mean) == (73.0, 76.0, 3.0)
    assert hybrid.difference.paired and hybrid.difference.verdict == "the same change in every seed"
    assert changes[("digits", "adam"), "final"].difference.verdict == "the same"
    assert not changes[("digits", "hybrid"), "seconds"].difference.paired
    assert not sides.gone and not sides.new and not sides.facts


def test_other_seeds_rows_and_facts(tmp_path: Path) -> None:
    before = read(stored.run(tmp_path / "a", stored.records(3)))
    kept = [one for one in stored.records(4) if one["method"] != "greedy"]
    new = [{**one, "method": "tabu", "config": {"steps": 2}} for one in kept if one["method"] == "hybrid"]
    changed = [{**one, "config": {"rate": 0.5}} if one["method"] == "adam" else one for one in kept]
    after = read(stored.run(tmp_path / "b", [*changed, *new], options={"smoke": False}))
    assert isinstance(before, Run) and isinstance(after, Run)
    sides = against.sides_of_runs(before, after)
    finals = {change.row: change.difference for change in sides.changes if change.quantity == "final"}
    # Seeds 0, 1, 2 are 64, 66, 68; a fourth is 70: 64 - 68 to 70 - 64.
    assert not finals["digits", "hybrid"].paired
    assert (finals["digits", "hybrid"].low, finals["digits", "hybrid"].high) == (-4.0, 6.0)
    assert finals["glass", "hybrid"].kind == "exact"
    assert sides.gone == (("digits", "greedy"),)
    assert sides.new == (("digits", "tabu"), ("glass", "tabu"))
    assert {(fact.where, fact.name, fact.before, fact.after) for fact in sides.facts} == {
        ("options", "smoke", "True", "False"),
        ("digits adam", "rate", "-", "0.5"),
    }


def test_sweeps_are_compared_point_by_point(tmp_path: Path) -> None:
    def value(point: dict, method: str, seed: int) -> float:
        return seed + (point["toy.sampler"] == "tabu") + point["toy.sampler.length"] / 100

    before = read(stored.sweep(tmp_path / "a", value))
    after = read(stored.sweep(tmp_path / "b", lambda *named: value(*named) + named[2]))
    assert isinstance(before, Swept) and isinstance(after, Swept)
    sides = against.sides_of_sweeps(before, after)
    assert sides.header == ("toy.sampler", "toy.sampler.length", "problem", "method")
    finals = [change for change in sides.changes if change.quantity == "final"]
    assert len(finals) == 12
    for change in finals:
        found = change.difference
        assert (found.low, found.mean, found.high) == pytest.approx((0.0, 1.0, 2.0))


def test_the_part_says_it_in_words(tmp_path: Path) -> None:
    before, after = (read(stored.run(tmp_path / n, stored.records(10, gain))) for n, gain in (("a", 4.0), ("b", -4.0)))
    part = against_part.part(before, after)
    assert part is not None
    assert "Of 6 rows that both have, 5 are the same" in part.outcome
    assert any("met, now missed" in answer.text for answer in part.answers)
    assert any(answer.text == "digits hybrid: final 73 → 65" for answer in part.answers)
    assert against_part.part(before, read(stored.sweep(tmp_path / "c", lambda *named: float(named[2])))) is None


def test_one_run_against_itself_is_the_same(tmp_path: Path) -> None:
    run = read(stored.run(tmp_path / "a", stored.records(3)))
    part = against_part.part(run, run)
    assert part is not None and not part.answers and "6 are the same" in part.outcome
