"""Decomposition: pieces are restrictions of the Qubo, energies only fall, and host samplers can solve the pieces."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qjax.samplers as samplers
from qjax import blocks
from qjax.energy.couplings import Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers import Samples
from qjax.samplers.moves import streams
from tests.samplers import blocked, problems


@dataclasses.dataclass(frozen=True)
class Host:
    """Exact, as a host sampler that remembers the Qubos it was given."""

    seen: list[Qubo] = dataclasses.field(default_factory=list, compare=False)
    is_host: ClassVar[bool] = True

    def __call__(self, key: jax.Array, qubo: Qubo, num_reads: int = 64, initial_states: Any = None) -> Samples:
        self.seen.append(qubo)
        return samplers.Exact()(key, qubo, num_reads)


class Spied(samplers.Decompose):
    """`rounds` has, of the first read, the state before each round and the bits chosen in it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rounds", [])

    def _chosen(self, task: Any, prepared: Any, t: Any, state: Any, visited: Any, piece: Any) -> jax.Array:
        chosen = super()._chosen(task, prepared, t, state, visited, piece)
        self.rounds.append((np.asarray(state.x[:, 0]), np.asarray(chosen[0])))
        return chosen


@pytest.mark.parametrize("form", problems.FORMS)
def test_a_piece_is_the_qubo_with_the_other_bits_held(form: str) -> None:
    """Two rounds of 5 of 10 bits. Up to a constant, a state of a piece has the energy of the whole; the lowest is
    taken; the two pieces make up all bits. The first has the bits of least impact, on a graph the one of least."""
    host, qubo, start = Host(), problems.qubo(form), np.arange(10) % 2
    sampler: Any = Spied(host, size=5, num_rounds=2, sub_reads=1)
    samples, states = sampler(jax.random.key(0), qubo, 1, start), problems.all_states(5)
    assert len(host.seen) == len(sampler.rounds) == 2
    for piece, (before, chosen) in zip(host.seen, sampler.rounds, strict=True):
        whole = np.tile(before, (32, 1))
        whole[:, chosen] = states
        expected = problems.energies(qubo, whole)
        mine = problems.energies(piece, states)
        np.testing.assert_allclose(mine - mine[0], expected - expected[0], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(samples.energies, expected.min(), rtol=1e-6, atol=1e-5)
    (before, first), (_, second) = sampler.rounds
    np.testing.assert_array_equal(before, start)
    np.testing.assert_array_equal(np.sort([*first, *second]), np.arange(10))
    impact = problems.energies(qubo, np.abs(np.eye(10) - start)) - problems.energies(qubo, start)
    worst = impact[first].min() if form == "sparse" else impact[first].max()
    assert worst <= impact[second].min()


def test_no_random_number_is_drawn_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the first bits, of the keys of the pieces, and of the places where pieces grow."""
    drawn: list[tuple[int, int]] = []
    words = streams.words

    def counted(seeds: jax.Array, step: Any, sites: jax.Array) -> jax.Array:
        drawn.extend((int(step), site) for site in np.asarray(sites).tolist())
        return words(seeds, step, sites)

    monkeypatch.setattr(streams, "words", counted)
    samplers.Decompose(Host(), size=5, num_rounds=3, sub_reads=1)(jax.random.key(0), problems.qubo("sparse"), 1)
    assert len(drawn) == 10 + 3 * (2 + 10)
    assert len(set(drawn)) == len(drawn)


@pytest.mark.slow
def test_energies_only_fall_and_a_large_lattice_is_solved_nearly() -> None:
    """A ferromagnetic ring of 400 bits, whose domain walls vanish in pairs: pieces of 40 bits grown on the graph remove
    nearly all of them."""
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
    assert float(many.best_energy) <= -n + 20


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


@pytest.mark.slow
def test_pieces_are_whole_groups() -> None:
    """Half of each family and of the free bits; two rounds move every group, and no state leaves its blocks, though the
    sampler of the pieces keeps them by penalties."""
    held = blocks.one_hot([[0, 9, 4], [1, 5, 2]]) + blocks.levels([[3, 6], [7, 8]], blocked.TERNARY)
    sampler: Any = Spied(samplers.get("neal", num_sweeps=50), size=7, num_rounds=2, sub_reads=4)
    samples = sampler(jax.random.key(0), problems.qubo("dense", 14), 2, blocks=held)
    assert np.asarray(samples.info["feasible"]).all()
    (_, first), (_, second) = sampler.rounds
    assert sorted([*first, *second]) == list(range(14))
    for chosen in (first, second):
        assert tuple(chosen[:3]) in ((0, 9, 4), (1, 5, 2)) and tuple(chosen[3:5]) in ((3, 6), (7, 8))
