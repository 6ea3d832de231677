"""Groups found in plain Qubos: moves beside single flips, with the law of the plain Qubo, and what they gain."""

from __future__ import annotations

from typing import Any

import dimod
import jax
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax import Blocks, Qubo, blocks, penalties
from qjax.energy.finder import Found, find_blocks
from qjax.interop import as_dimod
from qjax.samplers.auto import CHOICES
from qjax.samplers.within import within
from tests.samplers import problems
from tests.samplers.test_laws import assert_counts

HELD = {
    "one_hot": blocks.one_hot([[0, 4, 2], [5, 8, 1]]),
    "choose": blocks.choose([[0, 4, 2, 7, 3]], 2) + blocks.one_hot([[1, 5, 8]]),
    "assignment": blocks.assignment([[0, 5, 2], [7, 1, 4], [8, 3, 6]]),
}
N = 9


def penalised(held: Blocks, weight: float, own: float = 1.0, scale: float = 1.0) -> Qubo:
    """Couplings of N bits with the penalty of the blocks, |scale| * weight."""
    rng = np.random.default_rng(6)
    plain = scale * Qubo.from_matrix(own * np.triu(rng.normal(size=(N, N))))
    return plain + penalties.blocks(plain, held, weight)


@pytest.mark.parametrize(
    ("name", "rule", "scale"),
    [("one_hot", "metropolis", 1.0), ("choose", "heat_bath", -0.5), ("assignment", "metropolis", 2.0)],
)
@pytest.mark.slow
def test_the_law_is_that_of_the_plain_qubo(name: str, rule: str, scale: float) -> None:
    """4096 reads of 120 sweeps at a fixed beta, at which a seventh or more of all states break a group: counts of all
    512 states against exp(-beta E). Under another seed a correct sampler fails each with probability 1e-4."""
    qubo = penalised(HELD[name], 3.0, 0.4, scale)
    found, beta = find_blocks(qubo), 0.7 / abs(scale)
    assert isinstance(found, Found)
    anneal = samplers.Anneal(120, beta_range=(beta, beta), acceptance=rule, return_states="last")
    bits = np.asarray(anneal(jax.random.key(3), qubo, 4096, blocks=found).bits)
    weights = np.exp(-beta * problems.energies(qubo, problems.all_states(N)))
    outside = weights[~np.asarray(found.feasible(problems.all_states(N)))].sum() / weights.sum()
    assert 1 / 7 < outside < 6 / 7
    assert_counts(bits @ (1 << np.arange(N)), weights)


def test_a_rung_of_tempering_has_the_law_of_the_plain_qubo() -> None:
    """As above, of the hotter of two rungs, on 2048 reads."""
    qubo = penalised(HELD["one_hot"], 2.0, 0.4)
    temper = samplers.Temper(60, betas=(0.7, 1.2), return_states="last", return_rung=0)
    bits = np.asarray(temper(jax.random.key(5), qubo, 2048, blocks=find_blocks(qubo)).bits)
    assert_counts(bits @ (1 << np.arange(N)), np.exp(-0.7 * problems.energies(qubo, problems.all_states(N))))


def groups_of_four(n: int, weight: float) -> tuple[Any, Any]:
    """(matrix, one-hot blocks) of n bits: couplings in -50 .. 50, and the penalty of every four bits."""
    matrix = np.triu(np.random.default_rng(1).integers(-50, 50, (n, n))).astype(float)
    group = weight * (np.triu(np.full((4, 4), 2.0), 1) - np.eye(4))
    held = blocks.one_hot(np.arange(n).reshape((-1, 4)))
    return matrix + np.kron(np.eye(n // 4), group), held


@pytest.mark.parametrize("weight", [pytest.param(700.0, marks=pytest.mark.slow), 1e6])
@pytest.mark.slow
def test_auto_finds_what_blocks_have_from_the_plain_qubo(weight: float) -> None:
    """Also sharded, within a time, and as a dimod sampler, whose energies are those of the model in float64."""
    n = 60
    matrix, held = groups_of_four(n, weight)
    qubo = Qubo.from_matrix(matrix, weight * n / 4)
    plain = Qubo.from_matrix(groups_of_four(n, 0.0)[0])
    auto = samplers.Auto(200)
    best = auto(jax.random.key(0), plain, 16, blocks=held)
    lowest = float(best.best_energy)
    found = auto(jax.random.key(1), qubo, 16)
    assert float(found.best_energy) == lowest
    assert CHOICES[int(found.info["choice"])].takes.startswith("blocks") and "feasible" not in found.info
    assert float(samplers.Auto(200, find_blocks=False)(jax.random.key(1), qubo, 16).best_energy) > lowest
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("reads",))
    spread = samplers.Sharded(auto, mesh)(jax.random.key(1), qubo, 16)
    np.testing.assert_array_equal(spread.bits, found.bits)
    assert float(within(auto, 0.01)(jax.random.key(2), qubo, 16).best_energy) == lowest
    bqm = dimod.BinaryQuadraticModel(matrix, "BINARY")
    bqm.offset = weight * n / 4
    adapter = as_dimod(auto)
    answer = adapter.sample(bqm, num_reads=16, seed=3)
    assert answer.first.energy == lowest and answer.info["found"] == {"one_hot": n // 4}
    dimod.testing.assert_sampleset_energies(answer, bqm)
    off = adapter.sample(bqm, num_reads=16, seed=3, find_blocks=False)
    assert off.first.energy > lowest and "found" not in off.info


@pytest.mark.slow
def test_states_outside_the_groups_are_started_from_and_left() -> None:
    qubo = penalised(HELD["one_hot"], 20.0)
    found, states = find_blocks(qubo), problems.all_states(N)
    assert found is not None
    lowest = problems.energies(qubo, states).min()
    start = np.ones((8, N), np.int8)
    for name in ("anneal", "temper"):
        samples = samplers.get(name, num_sweeps=30)(jax.random.key(0), qubo, 8, start, blocks=found)
        np.testing.assert_allclose(samples.best_energy, lowest, rtol=1e-6)
        np.testing.assert_allclose(samples.energies, problems.energies(qubo, samples.bits), rtol=1e-5, atol=1e-4)
    # Others run as if nothing had been found; what keeps its own number of ones does, too.
    tabu = samplers.get("tabu")
    given, alone = (tabu(jax.random.key(0), qubo, 4, blocks=held) for held in (found, None))
    np.testing.assert_array_equal(given.bits, alone.bits)
    counted = samplers.Anneal(10, fixed_cardinality=4)(jax.random.key(0), qubo, 4, blocks=found)
    assert (np.asarray(counted.bits).sum(-1) == 4).all()


def test_small_and_traced_problems_keep_the_table() -> None:
    qubo = penalised(HELD["one_hot"], 20.0)
    samples = samplers.Auto(20)(jax.random.key(0), qubo, 4)
    assert int(samples.info["choice"]) == 0
    matrix, _ = groups_of_four(20, 700.0)
    traced = jax.jit(lambda q: samplers.Auto(20)(jax.random.key(0), Qubo.from_matrix(q), 4).info["choice"])(matrix)
    assert not CHOICES[int(traced)].takes.startswith("blocks")
