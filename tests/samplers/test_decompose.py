"""Decomposition: pieces are restrictions of the Qubo, energies only fall, and host samplers solve pieces too."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax.couplings import Sparse
from qjax.qubo import Qubo
from qjax.samplers import Samples
from tests.samplers import problems

SEEN: list[Qubo] = []


@dataclasses.dataclass(frozen=True)
class Host:
    """Exact, as a host sampler that remembers what it was asked."""

    is_host: ClassVar[bool] = True

    def __call__(self, key: jax.Array, qubo: Qubo, num_reads: int = 64, initial_states: Any = None) -> Samples:
        SEEN.append(qubo)
        return samplers.Exact()(key, qubo, num_reads)


@pytest.mark.parametrize("form", problems.FORMS)
def test_a_piece_is_the_qubo_with_the_other_bits_held(form: str) -> None:
    """Two rounds of 5 of 10 bits: every state of a piece costs what the whole says, and both pieces are all bits."""
    SEEN.clear()
    qubo, start = problems.qubo(form), np.arange(10) % 2
    sampler = samplers.Decompose(Host(), size=5, num_rounds=2, sub_reads=1)
    samples = sampler(jax.random.key(0), qubo, 1, start)
    assert len(SEEN) == 2 and all(piece.num_bits == 5 for piece in SEEN)
    states = problems.all_states(5)
    flips = np.asarray(qubo.flips(start))
    # The first piece: on the dense forms the 5 bits of least impact.
    chosen = np.sort(np.argsort(flips, kind="stable")[:5])
    if form != "sparse" and len(set(flips)) == 10:
        held = np.setdiff1d(np.arange(10), chosen)
        values = np.sort(qubo.fix(held, start[held]).energies(states))
        mine = np.sort(SEEN[0].energies(states))
        np.testing.assert_allclose(mine - mine[0], values - values[0], rtol=1e-5, atol=1e-4)
    assert float(samples.lowest) <= float(qubo.energies(start))
    np.testing.assert_allclose(samples.energies, qubo.energies(samples.bits), rtol=1e-6, atol=1e-5)


def test_energies_only_fall_and_a_large_lattice_is_solved_nearly() -> None:
    """A ferromagnetic ring of 400 bits, whose walls must meet: pieces of 40 grown on the graph remove nearly all."""
    n = 400
    sites = np.arange(n)
    qubo = Qubo.from_ising(np.zeros(n, np.float32), Sparse.from_edges(n, sites, (sites + 1) % n, -np.ones(n)))
    few, many = (
        samplers.Decompose(samplers.Anneal(num_sweeps=20), size=40, num_rounds=rounds, sub_reads=2)(
            jax.random.key(1), qubo, 4
        )
        for rounds in (5, 60)
    )
    random = samplers.Random()(jax.random.key(1), qubo, 4)
    assert (few.energies < random.energies).all() and (many.energies <= few.energies).all()
    assert float(many.lowest) <= -n + 20


def test_inside_jit_and_errors() -> None:
    qubo = problems.qubo("dense", n=20, batch=(2,))
    sampler = samplers.Decompose(samplers.Anneal(num_sweeps=5), size=8, num_rounds=4, sub_reads=2)
    eager = sampler(jax.random.key(2), qubo, 3)
    jitted = jax.jit(lambda key: sampler(key, qubo, 3).bits)(jax.random.key(2))
    np.testing.assert_array_equal(eager.bits, jitted)
    for bad in ({"size": 0}, {"num_rounds": 0}, {"sub_reads": 0}, {"sampler": "anneal"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            samplers.Decompose(**bad)
    assert samplers.Decompose(Host()).is_host and not samplers.Decompose().is_host
    assert samplers.Decompose() == samplers.Decompose() and hash(samplers.Decompose()) == hash(samplers.Decompose())
    empty = Qubo.from_terms(jnp.zeros(0), problems.couplings("dense", 0))
    assert samplers.Decompose()(jax.random.key(0), empty, 3).bits.shape == (3, 0)
