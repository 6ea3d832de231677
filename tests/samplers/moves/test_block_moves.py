"""Moves of whole blocks: their law against enumeration, the changes of energy that they report, and what they refuse.

Chi-square tests of counts with fixed seeds; under another seed a correct sampler would fail each with probability 1e-4.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

import qjax.samplers as samplers
from qjax import Blocks, blocks
from qjax.energy.couplings import Couplings, Dense, Gram, Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers.moves import acceptance, allowed, block_sweeps, streams, sweeps, temperature
from tests.samplers import blocked, problems

pytestmark = [pytest.mark.optimised, pytest.mark.slow]

_FALSE_FAILURE = 1e-4
_BETA, _SCALE = 0.3, 0.5
_LINEAR = np.array([1.0, -2.0, 0.5, 3.0, -1.0, 0.0, 2.0, -1.5, 1.0, -0.5], np.float32)


def parts(form: str) -> list[Qubo]:
    """A Qubo of ten bits for each case, with costs of a few units."""
    found = []
    for k in range(len(blocked.CASES)):
        if form == "gram":
            factor = np.random.default_rng(k).integers(-2, 3, (2, 10)).astype(np.float32)
            couplings: Couplings = Gram(jnp.asarray(factor))
        else:
            couplings = problems.couplings(form, 10, seed=k)
        found.append(Qubo.from_terms(np.roll(_LINEAR, k), couplings, scale=_SCALE))
    return found


def side_by_side(form: str) -> Qubo:
    """The parts, not coupled with one another; those of a Gram matrix are swept through the factor."""
    linear = np.concatenate([np.asarray(part.linear) for part in parts(form)])
    if form == "gram":
        factors = [part.couplings.factor for part in parts(form)]  # type: ignore[union-attr]
        couplings: Couplings = Gram(jnp.asarray(linalg.block_diag(*factors), jnp.float32))
        assert sweeps.by_factor(couplings)  # type: ignore[arg-type]
    else:
        matrix = linalg.block_diag(*(problems.matrix_of(part.couplings) for part in parts(form)))
        rows, cols = np.nonzero(np.triu(matrix))
        sparse = Sparse.from_edges(len(matrix), rows, cols, matrix[rows, cols])
        couplings = sparse if form == "sparse" else Dense(jnp.asarray(matrix, jnp.float32))
    return Qubo.from_terms(linear, couplings, scale=_SCALE)


def assert_law(qubo: Qubo, held: Blocks, beta: float, bits: Any) -> None:
    """Bits (reads, n) are all inside the blocks, and their counts fit exp(-beta E) there."""
    states = blocked.allowed(held, qubo.num_bits)
    place = {state.tobytes(): k for k, state in enumerate(states)}
    counts = np.bincount([place[row.tobytes()] for row in np.asarray(bits)], minlength=len(states))
    weights = np.exp(-beta * problems.energies(qubo, states))
    expected = weights / weights.sum() * len(bits)
    # States too rare for the chi-square approximation share one bin.
    rare = expected < 8
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    assert stats.chisquare(counts, expected).pvalue > _FALSE_FAILURE


@pytest.mark.parametrize("form", ["dense", pytest.param("gram", marks=pytest.mark.slow), "sparse"])
def test_last_states_follow_the_boltzmann_law_on_the_allowed_states(form: str) -> None:
    """Each kind of family, and several together: 4096 independent reads, 40 sweeps at beta = 0.3, scale 0.5."""
    rule = "heat_bath" if form == "dense" else "metropolis"
    sampler = samplers.Anneal(40, beta_range=(_BETA, _BETA), acceptance=rule, return_states="last")
    bits = np.asarray(sampler(jax.random.key(11), side_by_side(form), 4096, blocks=blocked.side_by_side()).bits)
    for k, (qubo, held) in enumerate(zip(parts(form), blocked.CASES.values(), strict=True)):
        assert_law(qubo, held, _BETA, bits[:, 10 * k : 10 * k + 10])


def test_rungs_and_populations_follow_their_laws() -> None:
    """The coldest of three rungs, 2048 reads; a member of the last population, and its estimate of ln Z within 4.5 of
    its standard errors."""
    qubo, held = parts("dense")[-1], blocked.CASES["mixed"]
    temper = samplers.Temper(40, betas=(0.1, 0.2, _BETA), acceptance="heat_bath", return_states="last")
    assert_law(qubo, held, _BETA, temper(jax.random.key(12), qubo, 2048, blocks=held).bits)
    population = samplers.Population(
        beta_schedule=(0.1, 0.2, _BETA), sweeps_per_beta=5, acceptance="heat_bath", return_states="last"
    )
    samples = population(jax.random.key(13), qubo, 1024, blocks=held)
    assert_law(qubo, held, _BETA, samples.bits)
    exact = np.log(np.exp(-_BETA * problems.energies(qubo, blocked.allowed(held, 10))).sum())
    ratios = np.exp(np.asarray(samples.info["log_partition"], np.float64) - exact)
    assert abs(ratios.mean() - 1) < 4.5 * ratios.std() / np.sqrt(ratios.size)


def spread(columns: int) -> Any:
    return lambda values: jnp.repeat(values, columns // values.shape[-1], axis=-1)


def test_changes_and_gaps_are_those_of_the_energies() -> None:
    """Two problems of 60 bits in 32 columns, integer couplings: the change of a sweep is exactly the difference of
    energies, `descend` never rises and ends where no gap is negative, and first states are allowed and random."""
    held, columns = blocked.side_by_side(), 32
    qubo = problems.qubo("dense", 60, (2,), seed=2)
    seeds = streams.seeds(jax.random.key(0), jnp.arange(columns, dtype=jnp.uint32), 1)

    def energies(bits: jax.Array) -> np.ndarray:
        whole = problems.energies(qubo, np.asarray(bits).T.reshape((2, -1, 60)))
        offset, scale = (np.asarray(part)[:, None] for part in (qubo.offset, qubo.scale))
        return np.asarray(whole / scale - offset).reshape(-1)

    @jax.jit
    def run(held: Blocks) -> Any:
        view: Any = block_sweeps.sweeper(qubo, spread(columns), held)
        first = allowed.states(held, None, seeds, 0, 60)
        weights = jnp.full(columns, 0.02, jnp.float32)
        hot, change = view.sweep(view.load(first), acceptance.heat_bath, weights, seeds, jnp.int32(1))

        def quench(t: jax.Array, state: Any) -> Any:
            new, gain = view.sweep(state[0], acceptance.descend, jnp.ones(columns, jnp.float32), seeds, t)
            return new, jnp.maximum(state[1], gain.max())

        cold, rise = jax.lax.fori_loop(0, 100, quench, (hot, jnp.float32(-1e9)))
        bits = [view.unload(view.snapshot(state)) for state in (hot, cold)]
        return first, *bits, change, rise, view.energies(hot), view.gaps(cold)

    first, hot, cold, change, rise, own, gaps = run(held)
    for bits in (first, hot, cold):
        assert bool(held.feasible(bits.T).all())
    np.testing.assert_array_equal(own, energies(hot))
    np.testing.assert_array_equal(change, energies(hot) - energies(first))
    assert float(rise) <= 0
    assert gaps.shape[1] == columns and float(gaps.min()) >= 0 and float(gaps.max()) > 0
    for k in range(len(blocked.CASES)):
        assert np.unique(np.asarray(first[10 * k : 10 * k + 10]), axis=1).shape[1] > 5


def test_groups_outside_their_blocks_start_at_random_and_others_stay() -> None:
    held = blocked.CASES["mixed"]
    seeds = streams.seeds(jax.random.key(0), jnp.arange(64, dtype=jnp.uint32), 1)
    given = np.zeros((10, 64), np.int8)
    given[[1, 8]] = 1  # the one-hot group is kept, as are the levels and the free bit; choose lacks a one
    new = np.asarray(jax.jit(lambda bits: allowed.states(held, bits, seeds, 0, 10))(given))
    assert np.asarray(held.feasible(new.T)).all()
    np.testing.assert_array_equal(new[[0, 1, 2, 3, 4, 8]], given[[0, 1, 2, 3, 4, 8]])
    assert len({row.tobytes() for row in new[[5, 6, 7, 9]].T}) == 4


def test_the_range_comes_from_moves_of_blocks() -> None:
    """Costs of the moves are some units, so is their inverse; tenfold costs give a tenth of it; blocks that leave
    nothing to move, finite ends."""
    qubo = problems.qubo("dense", 10, (1,), seed=2)

    @jax.jit
    def ends(scale: jax.Array, held: Blocks) -> jax.Array:
        return jnp.concatenate(temperature.automatic_range(replace(qubo, scale=scale), blocks=held))

    hot, cold = np.asarray(ends(jnp.ones(1), blocked.CASES["mixed"]))
    assert 0.01 < hot < cold < 50
    np.testing.assert_allclose(10 * ends(jnp.full(1, 10.0), blocked.CASES["mixed"]), [hot, cold], rtol=1e-4)
    fixed = blocks.assignment([[0]]) + blocks.one_hot([[k] for k in range(1, 8)]) + blocks.choose([[8, 9]], 2)
    assert np.isfinite(ends(jnp.ones(1), fixed)).all()


def test_large_implicit_couplings_go_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_sweeps, "_DENSE_LIMIT", 9)
    for form in ("implicit", "sparse"):
        with pytest.raises(ValueError, match=rf"{form} couplings of 9 bits at most.*Decompose"):
            block_sweeps.sweeper(problems.qubo(form, 10, (1,)), spread(4), blocked.CASES["one_hot"])
