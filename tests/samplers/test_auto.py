"""What `auto` chooses, by its table and by a pilot, that `info` says so, and that its bits are those of the choice."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

import jax
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax import blocks
from qjax.energy.couplings import Gram, Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers.auto import CHOICES
from qjax.samplers.portfolio import Entrant, race
from qjax.samplers.within import within
from tests.samplers import problems


def ring(n: int) -> Qubo:
    sites = np.arange(n)
    return Qubo.from_terms(np.ones(n, np.float32), Sparse.from_edges(n, sites, (sites + 1) % n, np.ones(n)))


def crowded(n: int) -> Qubo:
    """A complete graph given as sparse."""
    rows, cols = np.triu_indices(n, 1)
    return Qubo.from_terms(np.ones(n, np.float32), Sparse.from_edges(n, rows, cols, np.ones(rows.size)))


CASES = {
    "few bits": (problems.qubo("dense", n=9), samplers.Exact),
    "sparse": (ring(60), samplers.Anneal),
    "a complete graph given as sparse": (crowded(60), samplers.Anneal),
    "implicit": (problems.qubo("implicit", n=60), samplers.Bifurcation),
    "small and dense": (problems.qubo("dense", n=60), samplers.Anneal),
    "dense": (problems.qubo("dense", n=1020), samplers.Bifurcation),
    "dense, of a size at which fields decide": (problems.qubo("dense", n=420), samplers.Anneal),
    "gram": (Qubo.from_terms(np.ones(120, np.float32), Gram(np.ones((2, 120), np.float32))), samplers.Bifurcation),
    "small and gram": (Qubo.from_terms(np.ones(90, np.float32), Gram(np.ones((2, 90), np.float32))), samplers.Anneal),
}


@pytest.mark.parametrize("case", CASES)
def test_the_choice(case: str) -> None:
    qubo, kind = CASES[case]
    chosen = samplers.Auto(num_sweeps=7).algorithm_for(qubo, 4)
    assert type(chosen) is kind
    assert getattr(chosen, "num_sweeps", getattr(chosen, "num_steps", 7)) == 7
    if kind is samplers.Bifurcation:
        assert chosen.variant == "generalized"


def test_bits_are_those_of_the_choice_and_info_names_it() -> None:
    auto = samplers.get("auto", num_sweeps=5)
    for qubo in (problems.qubo("dense", n=20, batch=(2,)), dataclasses.replace(ring(20))):
        samples, chosen = auto(jax.random.key(1), qubo, 4), auto.algorithm_for(qubo, 4)
        np.testing.assert_array_equal(samples.bits, chosen(jax.random.key(1), qubo, 4).bits)
        assert samples.info["choice"].shape == qubo.batch_shape
        row = CHOICES[int(np.ravel(samples.info["choice"])[0])]
        assert dataclasses.replace(row.sampler, num_sweeps=5) == chosen and "beta_range" in samples.info


@pytest.fixture
def small_pilots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense problems of 20 bits are raced for, too, by pilots of 3 sweeps and 12 steps in calls of 180 sweeps."""
    monkeypatch.setattr(import_module("qjax.samplers.auto"), "_MOST_ALIKE", 20)


@pytest.mark.usefixtures("small_pilots")
def test_a_call_outside_a_trace_looks_before_it_chooses() -> None:
    """The pilot is that of its definition, the call that of the better one; traced, and for a batch, the table has it.
    Sharded and repeated calls are the same."""
    auto, key, chosen = samplers.Auto(num_sweeps=180), jax.random.key(0), set()
    for seed in range(4):
        qubo = problems.qubo("dense", n=20, seed=seed)
        qubo = dataclasses.replace(qubo, linear=qubo.linear * (seed % 2))
        samples, apart = auto(key, qubo, 8), jax.random.fold_in(key, 2**32 - 1)
        slow = samplers.Anneal(num_sweeps=3)(apart, qubo, 2).energies
        quick = samplers.Bifurcation(num_steps=12)(apart, qubo, 2).energies
        assert samples.info["tried"] == {"anneal": slow.min(), "bifurcation": quick.min()}
        name = "anneal" if slow.min() <= quick.mean() else "bifurcation"
        assert samples.info["given"] == {"anneal": 0, "bifurcation": 0} | {name: 180}
        length = "num_sweeps" if name == "anneal" else "num_steps"
        np.testing.assert_array_equal(samples.bits, samplers.get(name, **{length: 180})(key, qubo, 8).bits)
        chosen.add(name)
    spread = samplers.Sharded(auto, jax.make_mesh((1,), ("reads",), devices=jax.devices()[:1]))(key, qubo, 8)
    np.testing.assert_array_equal(spread.bits, samples.bits)
    assert spread.info["tried"] == samples.info["tried"] and samples.info["choice"] == 3
    traced = jax.jit(lambda key: auto(key, qubo, 8))(key)
    np.testing.assert_array_equal(traced.bits, auto.algorithm_for(qubo, 8)(key, qubo, 8).bits)
    assert "tried" not in traced.info and "tried" not in auto(key, problems.qubo("dense", 20, (2,)), 8).info
    assert chosen == {"anneal", "bifurcation"}


@pytest.mark.usefixtures("small_pilots")
@pytest.mark.parametrize("way", ["alone", pytest.param("sharded", marks=pytest.mark.slow), "within"])
@pytest.mark.slow
def test_blocks_that_exclude_states_need_no_pilot(way: str) -> None:
    """Anneal moves them; those that exclude nothing leave the choice to a pilot."""
    auto, qubo = samplers.Auto(num_sweeps=20), problems.qubo("dense", n=20)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("reads",))
    call: Any = {"alone": auto, "sharded": samplers.Sharded(auto, mesh), "within": within(auto, 0.001)}[way]
    for held, looks in ((blocks.one_hot([range(4), range(4, 10)]), False), (blocks.digits([range(4)]), True)):
        samples = call(jax.random.key(0), qubo, 8, blocks=held)
        assert np.asarray(samples.info["feasible"]).all() and ("tried" in samples.info) == looks
        assert CHOICES[int(samples.info["choice"])].takes.startswith("dense" if looks else "blocks")


@dataclasses.dataclass(frozen=True)
class Given(samplers.Random):
    """Reads of given energies; says what it was asked for."""

    found: tuple[float, ...] = ()
    num_sweeps: int = 100

    def __call__(self, key: Any, qubo: Qubo, num_reads: int = 64, initial_states: Any = None) -> samplers.Samples:
        ASKED.append((self.num_sweeps, num_reads, None if initial_states is None else initial_states.shape))
        return samplers.Samples(np.zeros((len(self.found), 9)), np.array(self.found))  # type: ignore[arg-type]


ASKED: list[Any] = []


def test_quick_entrants_are_judged_by_their_mean_others_by_their_lowest() -> None:
    qubo, states = problems.qubo("dense", n=9), np.zeros((100, 9), np.int8)

    def names(*entrants: Entrant) -> list[str]:
        return [e.name for e in race(entrants, jax.random.key(0), qubo, 100, jax.numpy.asarray(states), 0.5).entrants]

    quick = Entrant("quick", Given(found=(-9.0, -1.0)), 40, quick=True)
    for lowest, expected in ((-6.0, "slow"), (-5.0, "quick"), (-4.0, "quick")):
        assert names(quick, Entrant("slow", Given(found=(lowest, 90.0)), 10))[0] == expected
    assert ASKED[:2] == [(20, 16, (16, 9)), (5, 16, (16, 9))]
    ASKED.clear()
    assert names(quick) == ["quick"] and not ASKED
