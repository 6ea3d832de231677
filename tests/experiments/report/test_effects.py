"""Main effects, paired differences and the decomposition of a grid's variance, by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from experiments.report import anova, effects, importance

FIELDS = ("a", "b")


def grid(value: Callable[[int, int, int], float], seeds: int = 2) -> list[dict[str, Any]]:
    return [
        {"a": str(a), "b": str(b), "seed": seed, "y": value(a, b, seed)}
        for a in range(2)
        for b in range(2)
        for seed in range(seeds)
    ]


def test_main_effects_are_means_over_the_rest_with_intervals_over_seeds() -> None:
    rows = grid(lambda a, b, seed: 10 * a + b + 4 * seed)
    low, high, *_ = effects.main_effects(rows, FIELDS, "y")
    assert (low.field, low.value, low.mean, low.seeds, low.runs) == ("a", "0", 2.5, 2, 4)
    assert tuple(low.interval[:2]) == (0.5, 4.5)  # the two seeds' means over b, and nothing else
    assert high.mean == 12.5


def test_paired_differences_hold_everything_else_and_the_seed() -> None:
    # What a does differs by seed: 1 at seed 0, 3 at seed 1; b and the seed's own effect cancel.
    rows = grid(lambda a, b, seed: a * (1 + 2 * seed) + 50 * b + 1000 * seed)
    (pair,) = effects.paired_differences(rows, "a", ["b"], "y")
    assert (pair.before, pair.after, pair.pairs) == ("0", "1", 4)
    assert (pair.difference.mean, pair.difference.low, pair.difference.high) == (2.0, 1.0, 3.0)
    missing = [row for row in rows if not (row["a"] == "1" and row["b"] == "1")]
    (pair,) = effects.paired_differences(missing, "a", ["b"], "y")
    assert pair.pairs == 2 and pair.difference.mean == 2.0
    assert effects.paired_differences([row for row in rows if row["a"] != row["b"]], "a", ["b"], "y") == []


def test_many_values_are_compared_with_the_best_alone() -> None:
    rows = [{"a": str(a), "seed": 0, "y": float(-((a - 3) ** 2))} for a in range(6)]
    pairs = effects.paired_differences(rows, "a", [], "y")
    assert [pair.before for pair in pairs] == ["0", "1", "2", "4", "5"]
    assert {pair.after for pair in pairs} == {"3"}
    assert {pair.after for pair in effects.paired_differences(rows, "a", [], "y", -1)} == {"0"}


def test_runs_that_succeed_or_not_get_exact_intervals() -> None:
    rows = [{"a": str(a), "seed": seed, "y": 100.0 * a} for a in range(2) for seed in range(10)]
    (pair,) = effects.paired_differences(rows, "a", [], "y")
    assert pair.difference.kind == "exact" and pair.difference.low == pytest.approx(29.039, abs=1e-3)


def test_a_method_without_the_fields_is_not_touched_by_them() -> None:
    assert not effects.is_touched(grid(lambda a, b, seed: float(seed)), FIELDS, "y")
    assert effects.is_touched(grid(lambda a, b, seed: float(a * seed)), FIELDS, "y")


def test_methods_that_a_field_names_are_not_told_apart() -> None:
    rows = grid(lambda a, b, seed: float(a))
    alone = [{**row, "problem": "p", "method": f"sampler {row['a']}"} for row in rows]
    assert effects.unnamed(alone, FIELDS, ("problem", "method")) == ["problem"]
    both = [{**row, "method": method} for row in alone for method in ("hybrid", "greedy")]
    assert effects.unnamed(both, FIELDS, ("problem", "method")) == ["problem", "method"]
    two = [{**row, "problem": problem} for row in alone for problem in "pq"]
    assert effects.unnamed(two, FIELDS, ("problem", "method")) == ["problem"]
    sizes = [{**row, "problem": f"size {row['b']}", "method": "hybrid"} for row in alone]
    assert effects.unnamed(sizes, FIELDS, ("problem", "method")) == ["method"]


def shares(found: anova.Decomposition) -> dict[tuple[str, ...], tuple[float, float]]:
    return {part.fields: (part.share, part.by_noise) for part in found.components}


def test_additive_fields_have_no_interaction() -> None:
    # Variances: a 1, b 1/4, seeds 1/4 of y = 2 a + b + seed.
    found = anova.decomposition(grid(lambda a, b, seed: 2.0 * a + b + seed), FIELDS, "y")
    assert found is not None
    assert shares(found)[("a",)] == pytest.approx((2 / 3, 0))
    assert shares(found)[("b",)] == pytest.approx((1 / 6, 0))
    assert shares(found)[("a", "b")] == pytest.approx((0, 0))
    assert (found.seeds, found.noise) == pytest.approx((1 / 6, 0))


def test_noise_is_what_seeds_do_to_points_apart() -> None:
    # y = a b has 1/16 in each component. Noise of +-1 at one point: 1/16 for the seeds, 3/16 beside; its mean square is
    # (3/16 * 8) / (3 * 1) = 1/2, which leaves 1/2 / 8 = 1/16 in a component of one degree of freedom. In all 7/16.
    noise = {(0, 0, 0): 1.0, (0, 0, 1): -1.0}
    found = anova.decomposition(grid(lambda a, b, seed: a * b + noise.get((a, b, seed), 0.0)), FIELDS, "y")
    assert found is not None
    assert list(shares(found).values()) == [pytest.approx((1 / 7, 1 / 7))] * 3
    assert (found.seeds, found.noise) == pytest.approx((1 / 7, 3 / 7))


def test_fields_that_act_together_are_shown_at_each_value_of_the_other() -> None:
    # a is worth 3 where b is 0 and -1 where b is 1; b alone is worth less than a.
    tiny = [0.0, 0.01, -0.01]
    rows = grid(lambda a, b, seed: 3.0 * a - 4.0 * a * b + 1.5 * b + tiny[seed] * a * b + seed, seeds=3)
    found = anova.decomposition(rows, FIELDS, "y")
    assert found is not None
    ((first, second, share),) = found.together()
    assert {first, second} == {"a", "b"} and share == next(p.share for p in found.components if len(p.fields) == 2)
    pairs = effects.at_each_value(rows, "a", "b", ["b"], "y")
    assert [(value, pair.pairs) for value, pair in pairs] == [("0", 3), ("1", 3)]
    assert [pair.difference.mean for _, pair in pairs] == pytest.approx([3.0, -1.0])
    apart = anova.decomposition(grid(lambda a, b, seed: 2.0 * a + b + tiny[seed] * (a + 2 * b), seeds=3), FIELDS, "y")
    assert apart is not None and apart.together() == []
    one = anova.decomposition(grid(lambda a, b, seed: float(a * b), seeds=1), FIELDS, "y")
    assert one is not None and one.together() == []


def test_what_is_no_complete_grid_has_no_decomposition() -> None:
    rows = grid(lambda a, b, seed: float(a))
    assert anova.decomposition(rows[:-1], FIELDS, "y") is None
    assert anova.decomposition([*rows[:-1], rows[0]], FIELDS, "y") is None
    assert anova.decomposition(grid(lambda a, b, seed: 3.0), FIELDS, "y") is None
    one = anova.decomposition(grid(lambda a, b, seed: float(a), seeds=1), FIELDS, "y")
    assert one is not None and one.components[0].share == 1.0 and one.components[0].by_noise == 0.0


def test_importances_of_a_search_see_the_field_that_matters() -> None:
    plan = {
        "experiment": "toy",
        "axes": [["rate", [0.1, 1.0], True], ["steps", [1, 9], True], ["kind", ["x", "y"], False]],
        "seeds": [0],
        "search": "random",
        "trials": 24,
        "objective": "y",
        "direction": "maximize",
        "options": {},
    }
    rows = [
        {"rate": f"{0.1 + 0.03 * n}", "steps": str(1 + n * 7 % 9), "kind": "xy"[n % 2], "seed": 0, "y": 10.0 * (n % 2)}
        for n in range(24)
    ]
    found = importance.importances(rows, plan)
    assert max(found, key=lambda name: found[name]) == "kind" and found["kind"] > 0.9
    assert importance.importances(rows[:4], plan) == {}
