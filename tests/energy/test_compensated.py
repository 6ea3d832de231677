"""Energies whose large terms cancel, against the same coefficients in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from qjax import Dense, Gram, Implicit, Qubo, Sparse
from qjax.energy import compensated

RNG = np.random.default_rng(0)
N, READS = 40, 50


def _held(form):
    """(couplings, the matrix that they stand for in float64, absolute terms of its products)."""
    if form == "gram":
        factor = (RNG.normal(size=(7, N)) * 2.0 ** RNG.uniform(0, 12, N)[None, :]).astype(np.float32)
        matrix = factor.astype(np.float64).T @ factor.astype(np.float64)
        np.fill_diagonal(matrix, 0)
        return Gram(jnp.asarray(factor)), matrix, np.abs(factor.astype(np.float64)).T @ np.abs(factor)
    size = 2.0 ** RNG.uniform(0, 12, N)
    matrix = np.triu(RNG.normal(size=(N, N)) * size[:, None] * size[None, :], 1).astype(np.float32).astype(np.float64)
    if form == "integers":
        matrix = np.triu(RNG.integers(-(2**25), 2**25, (N, N)), 1).astype(np.float64)
    rows, cols = np.nonzero(matrix)
    sparse = Sparse.from_edges(N, rows, cols, matrix[rows, cols])
    matrix = matrix + matrix.T
    if form == "integers":
        assert sparse.integer_dtype == "int32"
    couplings = sparse if form in ("sparse", "integers") else Dense(jnp.asarray(matrix, jnp.float32))
    return couplings, matrix, np.abs(matrix)


def _cancelling(form, batch=()):
    """(Qubo, states (*batch, READS, N), their energies in float64, the largest sum of absolute terms): fields and
    offset take away nearly all of the energy of the first state, and the others differ from it by a bit."""
    couplings, matrix, terms = _held(form)
    centre = RNG.integers(0, 2, N)
    linear = (-0.5 * matrix @ centre)[None].repeat(int(np.prod(batch)), 0).reshape((*batch, N)).astype(np.float32)
    states = np.broadcast_to(centre, (*batch, READS, N)).copy()
    states[..., np.arange(1, READS), RNG.integers(0, N, READS - 1)] ^= 1
    scale = np.asarray(RNG.choice([0.5, -2.0], batch), np.float32)
    offset = -np.asarray(_inner(linear, matrix, states)[..., 0], np.float32)
    qubo = Qubo.from_terms(linear, couplings, offset, scale)
    inner = _inner(linear, matrix, states)
    energies = scale[..., None] * (offset.astype(np.float64)[..., None] + inner)
    return qubo, states, energies, _inner(np.abs(linear), terms, states).max()


def _inner(linear, matrix, states):
    x = states.astype(np.float64)
    return (x * (linear.astype(np.float64)[..., None, :] + 0.5 * x @ matrix)).sum(-1)


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("form", ["dense", "sparse", "integers", "gram"])
def test_small_differences_of_large_terms(form, batch):
    """Rounded once, at the end: of the first state hardly anything is left, where plain sums leave their errors."""
    qubo, states, expected, large = _cancelling(form, batch)
    found = np.asarray(qubo.energies(states), np.float64)
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-10 * large)
    np.testing.assert_array_equal(jax.jit(lambda q, x: q.energies(x))(qubo, states), qubo.energies(states))
    np.testing.assert_array_equal(qubo.energies(states.astype(np.float32)), qubo.energies(states))
    plain = 0.5 * np.asarray(qubo.couplings.matvec(jnp.asarray(states, jnp.float32)))
    plain = ((np.asarray(qubo.linear)[..., None, :] + plain) * states.astype(np.float32)).sum(-1)
    plain = np.asarray(qubo.scale)[..., None] * (np.asarray(qubo.offset)[..., None] + plain)
    assert np.abs(plain - expected)[..., 0].max() > 3e-10 * large


def test_long_sums_of_implicit_couplings():
    """10^5 terms that cancel in pairs: only the reduction is ours."""
    n = 100_000
    linear = np.repeat(RNG.normal(size=n // 2).astype(np.float32) * 1e4, 2)
    linear[1::2] *= -1
    linear[0] += 1.0
    qubo = Qubo.from_terms(linear, Implicit(Partial(jnp.multiply, jnp.float32(0)), n, jnp.zeros(n)))
    exact = linear.astype(np.float64).sum()
    assert float(qubo.energies(np.ones(n))) == np.float32(exact)


def test_a_large_matrix_is_taken_by_rows(monkeypatch):
    """37 rows, 16 at a time: the last block begins early."""
    monkeypatch.setattr(compensated, "_ROWS", 16)
    matrix = np.triu(RNG.normal(size=(37, 37)), 1).astype(np.float32)
    qubo = Qubo.from_terms(RNG.normal(size=(3, 37)), matrix + matrix.T)
    states = RNG.integers(0, 2, (3, 5, 37))
    expected = _inner(np.asarray(qubo.linear), (matrix + matrix.T).astype(np.float64), states)
    np.testing.assert_allclose(qubo.energies(states), expected, rtol=1e-6)


@pytest.mark.parametrize("form", ["dense", "sparse", "gram"])
def test_slopes_are_those_of_the_plain_formula(form):
    couplings, matrix, _ = _held(form)
    qubo = Qubo.from_terms(RNG.normal(size=N), couplings, 0.5, 2.0)
    x = jnp.asarray(RNG.uniform(size=N), jnp.float32)

    def energy(linear, offset, x):
        return Qubo(offset, linear, couplings, qubo.scale, qubo.labels).energies(x)

    slopes = jax.grad(energy, (0, 1, 2))(qubo.linear, qubo.offset, x)
    np.testing.assert_allclose(slopes[0], 2 * x, rtol=1e-6)
    assert float(slopes[1]) == 2.0
    expected = 2 * (np.asarray(qubo.linear) + matrix @ np.asarray(x, np.float64))
    np.testing.assert_allclose(slopes[2], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(slopes[2], jax.jacfwd(energy, 2)(qubo.linear, qubo.offset, x), rtol=1e-5)
    if form == "dense":
        held = jnp.asarray(matrix, jnp.float32)
        of_matrix = jax.grad(lambda m: Qubo(qubo.offset, qubo.linear, Dense(m), qubo.scale, qubo.labels).energies(x))
        np.testing.assert_allclose(of_matrix(held), np.outer(x, x), rtol=1e-5, atol=1e-6)


def test_halves_of_a_number_add_up_exactly():
    rows = (RNG.normal(size=(9, 30)) * 2.0 ** RNG.uniform(-100, 100, (9, 1))).astype(np.float32)
    rows[4] = 0
    high, low = compensated.split(jnp.asarray(rows), 12)
    np.testing.assert_array_equal(np.float64(high) + np.float64(low), np.float64(rows))
    sums = np.float64(high).cumsum(1)
    np.testing.assert_array_equal(np.float32(sums), sums)
    a, b = RNG.normal(size=(2, 1000)).astype(np.float32) * np.float32([[1e6], [1]])
    s, e = compensated.two_sum(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_array_equal(np.float64(s) + np.float64(e), np.float64(a) + np.float64(b))
