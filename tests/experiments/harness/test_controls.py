"""The controls: what they return, and that they keep a spectrum and lose its meaning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.controls import Given, Shuffled
from qjax import Qubo, blocks, samplers


def _qubo(n=10, batch=()):
    key = jax.random.key(3)
    matrix = jax.random.normal(key, (n, n))
    qubo = Qubo.from_matrix(matrix)
    if batch:
        linear = jax.random.normal(jax.random.fold_in(key, 1), (*batch, n))
        return Qubo.from_terms(linear, qubo.couplings)
    return qubo


def test_given_returns_the_states_with_their_energies():
    qubo = _qubo(batch=(2,))
    states = jax.random.bernoulli(jax.random.key(0), 0.5, (2, 4, 10)).astype(jnp.int8)
    samples = Given()(jax.random.key(1), qubo, num_reads=4, initial_states=states)
    np.testing.assert_array_equal(samples.bits, states)
    np.testing.assert_allclose(samples.energies, qubo.energies(states))
    with pytest.raises(ValueError, match="initial_states"):
        Given()(jax.random.key(1), qubo)


def test_shuffled_reports_the_samplers_states_with_permuted_variables():
    qubo, key = _qubo(), jax.random.key(5)
    plain = samplers.get("exact")(key, qubo, num_reads=4)
    moved = Shuffled(samplers.get("exact"))(key, qubo, num_reads=4)
    np.testing.assert_array_equal(moved.bits.sum(-1), plain.bits.sum(-1))
    assert not np.array_equal(moved.bits, plain.bits)
    np.testing.assert_allclose(moved.energies, qubo.energies(moved.bits), rtol=1e-6)
    # The optimum of the permuted problem is, read as bits of this one, above its minimum.
    assert float(moved.energies.min()) > float(plain.energies.min()) + 1e-3


def test_shuffled_moves_digits_as_its_sampler_does():
    qubo, key, anneal = _qubo(), jax.random.key(5), samplers.get("anneal", num_sweeps=5)
    digits = blocks.digits([[0, 3], [5, 1, 7]])
    assert digits.moved_by(Shuffled(anneal).blocks) and not Shuffled(samplers.get("random")).blocks
    plain = anneal(key, qubo, num_reads=4, blocks=digits)
    moved = Shuffled(anneal)(key, qubo, num_reads=4, blocks=digits)
    np.testing.assert_array_equal(moved.bits.sum(-1), plain.bits.sum(-1))


def test_shuffled_leaves_an_exchangeable_problem_alone():
    # E depends on the number of ones only: permuting the variables changes no energy.
    n = 8
    qubo = Qubo.from_matrix(jnp.ones((n, n)) - 7.0 * jnp.eye(n))
    key = jax.random.key(0)
    lowest = Shuffled(samplers.get("exact"))(key, qubo, num_reads=1).best_energy
    np.testing.assert_allclose(lowest, samplers.get("exact")(key, qubo, num_reads=1).best_energy)


def test_shuffled_starts_where_it_is_told():
    # A sampler that returns its first states shows the map: they come back as they went in.
    qubo = _qubo(batch=(2,))
    states = jax.random.bernoulli(jax.random.key(0), 0.5, (2, 4, 10)).astype(jnp.int8)
    back = Shuffled(Given())(jax.random.key(1), qubo, num_reads=4, initial_states=states)
    np.testing.assert_array_equal(back.bits, states)


def test_shuffled_compiles_once_for_equal_controls():
    qubo, traced = _qubo(), []

    @jax.jit
    def call(key):
        traced.append(1)
        return Shuffled(samplers.get("random"))(key, qubo, num_reads=2).bits

    call(jax.random.key(0))
    call(jax.random.key(1))
    assert len(traced) == 1 and Shuffled(samplers.get("random")) == Shuffled(samplers.get("random"))
    assert not Shuffled(samplers.get("random")).is_host
