"""Blocks in the calls of all samplers: kept by moves or by penalties, energies the Qubo's own, reads by themselves."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax import Blocks, blocks
from qjax.energy.qubo import Qubo
from qjax.samplers.within import within
from tests.samplers import blocked, problems
from tests.samplers.test_contract import NAMES, make

MOVES = tuple(row.name for row in samplers.table() if row.blocks)
OTHERS = tuple(name for name in NAMES if name not in MOVES)
KEY = 7
# The automatic range is a second program to compile, of which one test is enough.
RANGED = ("anneal", "temper", "population")


def ranged(name: str) -> Any:
    """Short settings, as in the contract tests."""
    if name == "decompose":
        return samplers.Decompose(ranged("anneal"), size=9, num_rounds=6, sub_reads=2)
    return dataclasses.replace(make(name), beta_range=(0.05, 2.0)) if name in RANGED else make(name)


def lowest(qubo: Qubo, held: Blocks) -> np.ndarray:
    """The exact minimum inside the blocks, (*batch,)."""
    states = blocked.allowed(held, qubo.num_bits)
    return problems.energies(qubo, np.broadcast_to(states, (*qubo.batch_shape, *states.shape))).min(-1)


# `make test` has one sampler that moves groups, one that keeps them by penalties, and one of the host.
QUICK = ("anneal", "bifurcation", "neal")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(name, form, marks=() if name in QUICK else pytest.mark.slow)
        for name, form in zip(NAMES, itertools.cycle(["dense", "gram"]), strict=False)
    ],
)
def test_bits_energies_and_minimum(name: str, form: str) -> None:
    """Three problems, blocks of all kinds: feasible as info says, energies without penalties. One that moves blocks
    keeps all of them, finds the lowest state inside, and its reads depend neither on their number nor on jit."""
    qubo, held, sampler = problems.qubo(form, 14, (3,)), blocked.ALL, ranged(name)
    samples = sampler(jax.random.key(KEY), qubo, 8, blocks=held)
    np.testing.assert_allclose(samples.energies, problems.energies(qubo, samples.bits), rtol=1e-6, atol=1e-5)
    kept = np.asarray(held.feasible(samples.bits))
    np.testing.assert_array_equal(samples.info["feasible"], kept)
    assert "feasible" in samples.by_read
    if name in MOVES:
        assert kept.all()
        np.testing.assert_allclose(samples.best_energy, lowest(qubo, held), rtol=1e-6, atol=1e-5)
        if name in RANGED:
            inside = jax.jit(lambda held: sampler(jax.random.key(KEY), qubo, 12, blocks=held).bits)(held)
            np.testing.assert_array_equal(inside[..., :8, :], samples.bits)
    elif name == "exact":
        np.testing.assert_allclose(samples.best_energy, lowest(qubo, held), rtol=1e-6, atol=1e-5)


def test_the_best_of_all_reads_is_one_that_kept_its_blocks() -> None:
    """Random bits: some reads of eight keep a one-hot pair, and a lower one that does not is passed over."""
    qubo = Qubo.from_terms(np.array([-1.0, -1.0], np.float32), np.zeros((2, 2), np.float32))
    samples = samplers.get("random")(jax.random.key(0), qubo, 32, blocks=blocks.one_hot([[0, 1]]))
    assert float(samples.energies.min()) == -2 and float(samples.best_energy) == -1
    assert int(samples.best_bits.sum()) == 1
    assert 0 < np.asarray(samples.info["feasible"]).mean() < 1


def test_blocks_of_unknown_kinds_are_kept_by_penalties_and_others_by_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """An anneal that knows one-hot groups alone; the candidate inside the blocks is taken."""
    monkeypatch.setattr(samplers.Anneal, "blocks", ("one_hot",))
    qubo, held = problems.qubo("dense", 10), blocked.CASES["mixed"]
    samples = samplers.Anneal(60, beta_range=(0.02, 2.0))(jax.random.key(KEY), qubo, 16, blocks=held)
    assert np.asarray(held.of_kinds(["one_hot"]).feasible(samples.bits)).all()
    np.testing.assert_allclose(samples.best_energy, lowest(qubo, held), rtol=1e-6, atol=1e-5)


@pytest.mark.slow
def test_sharded_and_within_hand_them_on() -> None:
    qubo, held, sampler = problems.qubo("dense", 10), blocked.CASES["mixed"], ranged("anneal")
    alone = sampler(jax.random.key(KEY), qubo, 8, blocks=held)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("reads",))
    spread = samplers.Sharded(sampler, mesh)(jax.random.key(KEY), qubo, 8, blocks=held)
    np.testing.assert_array_equal(spread.bits, alone.bits)
    for name in ("anneal", "tabu"):
        longer = within(ranged(name), 0.05)(jax.random.key(KEY), qubo, 8, blocks=held)
        np.testing.assert_allclose(longer.best_energy, lowest(qubo, held), rtol=1e-6, atol=1e-5)
        assert np.asarray(longer.info["chunk_lowest"])[-1] == longer.best_energy


def test_initial_states_are_started_from() -> None:
    qubo, held = problems.qubo("dense", 10), blocked.CASES["mixed"]
    states = blocked.allowed(held, 10)
    start = states[problems.energies(qubo, states).argmin()]
    cold = samplers.Anneal(5, beta_range=(20.0, 30.0))(jax.random.key(0), qubo, 4, start, held)
    np.testing.assert_array_equal(cold.bits, np.tile(start, (4, 1)))


@pytest.mark.parametrize("name", ["anneal", "tabu", "neal"])
def test_bad_blocks_are_named(name: str) -> None:
    qubo, sampler, key = problems.qubo("dense", 10), make(name), jax.random.key(0)
    bad: Any
    for bad, message in (
        ([[0, 1]], "blocks must be qjax.Blocks"),
        (blocks.one_hot([[0, 10]]), "group 0 of one_hot .* has bit 10"),
        (blocks.one_hot([[0, 1], [1, 2]]), "bit 1"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler(key, qubo, 4, blocks=bad)
    for start in (np.ones(10), jnp.ones(10)):
        with pytest.raises(ValueError, match="initial_states must be inside the blocks, group 0 of one_hot"):
            sampler(key, qubo, 4, start, blocks.one_hot([[0, 1]]))


def test_fixed_cardinality_and_blocks_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="fixed_cardinality and blocks"):
        samplers.Anneal(5, fixed_cardinality=2)(
            jax.random.key(0), problems.qubo("dense", 10), 4, blocks=blocked.CASES["one_hot"]
        )
