"""Discrete and constrained models: their Qubos and blocks against enumeration, and `as_dimod` on them."""

from __future__ import annotations

import itertools
from typing import Any

import dimod
import numpy as np
import pytest

from qjax import samplers
from qjax.interop import as_dimod
from qjax.interop.constrained import from_cqm
from qjax.interop.discrete import from_dqm


def discrete() -> Any:
    """Variables of 3, 1, 2 and 4 cases."""
    rng, dqm = np.random.default_rng(4), dimod.DiscreteQuadraticModel()
    cases = {"a": 3, 7: 1, ("b", 0): 2, "c": 4}
    for name, count in cases.items():
        dqm.add_variable(count, name)
        dqm.set_linear(name, rng.normal(size=count))
    for u, v in itertools.combinations(cases, 2):
        for i, j in itertools.product(range(cases[u]), range(cases[v])):
            dqm.set_quadratic_case(u, i, v, j, rng.normal())
    dqm.offset = 1.5
    return dqm


def constrained(case: str) -> Any:
    rng, cqm = np.random.default_rng(8), dimod.ConstrainedQuadraticModel()
    names = [("x", i) for i in range(9)]
    objective = dimod.QuadraticModel()
    for name in names:
        objective.add_variable("SPIN" if case == "spins" and name[1] in (0, 8) else "BINARY", name)
        objective.add_linear(name, rng.normal())
    for u, v in itertools.combinations(names, 2):
        objective.add_quadratic(u, v, rng.normal())
    objective.offset = -2.0
    cqm.set_objective(objective)
    x = dict(
        zip(
            names,
            (dimod.Binary(n) if objective.vartype(n).name == "BINARY" else dimod.Spin(n) for n in names),
            strict=True,
        )
    )
    square = np.arange(9).reshape((3, 3))
    match case:
        case "discrete":
            cqm.add_discrete([names[i] for i in (0, 4, 8)], label="one")
            cqm.add_discrete([names[i] for i in (1, 2, 3, 7)], label="two")
        case "counts":
            cqm.add_constraint(sum(2.0 * x[names[i]] for i in range(5)) - 1.0 == 5.0, label="three of five")
            cqm.add_constraint(sum(x[names[i]] for i in (4, 5, 6)) == 1, label="overlaps")
            cqm.add_constraint(2 * x[names[7]] - 3 * x[names[8]] + 4 * x[names[6]] == 1, label="unlike")
        case "assignment":
            for number, line in enumerate((*square, *square.T)):
                cqm.add_constraint(sum(x[names[i]] for i in line) == 1, label=number)
        case "spins":
            cqm.add_constraint(0.5 * x[names[0]] + x[names[1]] + x[names[2]] == 0.5, label="two")
            cqm.add_constraint(x[names[8]] - 2 * x[names[3]] - 2.0 * x[names[4]] == -3, label="one")
    return cqm


CASES = {
    "discrete": ([("one_hot", 3), ("one_hot", 4)], ()),
    "counts": ([("choose", 5)], ("overlaps", "unlike")),
    "assignment": ([("assignment", 9)], ()),
    "spins": ([("one_hot", 3)], ("one",)),
}


@pytest.mark.parametrize("case", CASES)
def test_states_of_constrained_models(case: str) -> None:
    """The lowest states of the Qubo inside the blocks are those of the model, with its own energies."""
    cqm = constrained(case)
    model = from_cqm(cqm)
    kinds, penalised = CASES[case]
    assert [(f.kind, f.groups.shape[1]) for f in model.blocks.families for _ in f.groups] == kinds
    assert model.penalised == penalised
    bits = np.array(list(itertools.product((0, 1), repeat=9)), np.int8)
    truth = dimod.SampleSet.from_samples_cqm((model.decode(bits), list(cqm.variables)), cqm, sort_labels=False)
    allowed = np.asarray(truth.record.is_feasible)
    inside, energies = np.asarray(model.blocks.feasible(bits)), np.asarray(model.qubo.energies(bits))
    assert allowed.any() and inside[allowed].all()
    assert (inside == allowed).all() == (not penalised)
    np.testing.assert_allclose(energies[allowed], truth.record.energy[allowed], atol=1e-4)
    assert np.where(inside, energies, np.inf).argmin() == np.where(allowed, truth.record.energy, np.inf).argmin()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["anneal", "exact"])
@pytest.mark.slow
def test_constrained_models_are_sampled(case: str, name: str) -> None:
    cqm = constrained(case)
    answer = as_dimod(samplers.get(name)).sample_cqm(cqm, num_reads=8, seed=3)
    truth = dimod.ExactCQMSolver().sample_cqm(cqm).filter(lambda d: d.is_feasible).first
    best = answer.filter(lambda d: d.is_feasible).first
    assert best.energy == pytest.approx(truth.energy) and best.sample == pytest.approx(truth.sample)
    assert answer.info["penalised"] == list(CASES[case][1])


def test_discrete_models() -> None:
    dqm = discrete()
    model = from_dqm(dqm)
    assert [f.groups.shape for f in model.blocks.families] == [(1, 3), (1, 1), (1, 2), (1, 4)]
    cases = np.array(list(itertools.product(range(3), range(1), range(2), range(4))))
    bits = np.concatenate([np.eye(count, dtype=np.int8)[cases[:, v]] for v, count in enumerate((3, 1, 2, 4))], axis=1)
    np.testing.assert_array_equal(model.decode(bits), cases)
    np.testing.assert_allclose(model.qubo.energies(bits), dqm.energies((cases, list(dqm.variables))), rtol=1e-5)
    assert model.qubo.labels[5] == (("b", 0), (1,))
    every = dimod.ExactDQMSolver().sample_dqm(dqm)
    for name in ("anneal", "exact"):
        answer = as_dimod(samplers.get(name)).sample_dqm(dqm, num_reads=8, seed=3)
        assert answer.vartype is every.vartype and answer.first.sample == every.first.sample
        assert answer.first.energy == pytest.approx(every.first.energy)
        assert answer.info["seed"] == 3 and answer.record.feasible.any()


def test_models_without_variables() -> None:
    adapter = as_dimod(samplers.get("exact"))
    assert len(adapter.sample_dqm(dimod.DiscreteQuadraticModel(), num_reads=2)) == 2
    free = dimod.ConstrainedQuadraticModel()
    free.set_objective(dimod.Binary("x") * 2)
    assert adapter.sample_cqm(free, num_reads=2, seed=0).first.energy == 0


def test_what_is_not_taken_is_named() -> None:
    x, y, i = dimod.Binary("x"), dimod.Binary("y"), dimod.Integer("i")
    cqm = dimod.ConstrainedQuadraticModel()
    cqm.add_variable("BINARY", "x")
    cqm.add_variable("BINARY", "y")
    for label, comparison, soft, message in (
        ("less", x + y <= 1, {}, "'less' is an inequality"),
        ("product", x * y == 0, {}, "'product' is quadratic"),
        ("gentle", x + y == 1, {"weight": 2.0}, "'gentle' is soft"),
        ("never", x + y == 3, {}, "'never' cannot hold"),
    ):
        cqm.add_constraint(comparison, label=label, **soft)
        with pytest.raises(ValueError, match=message):
            as_dimod(samplers.get("anneal")).sample_cqm(cqm)
        cqm.remove_constraint(label)
    cqm.add_constraint(i + x == 1, label="whole")
    with pytest.raises(ValueError, match="variable 'i' is integer"):
        from_cqm(cqm)
    with pytest.raises(ValueError, match="initial_states"):
        as_dimod(samplers.get("anneal")).sample_dqm(discrete(), initial_states={"a": 0})
    with pytest.raises(ValueError, match="unknown parameters sweeps"):
        as_dimod(samplers.get("anneal")).sample_dqm(discrete(), sweeps=2)
