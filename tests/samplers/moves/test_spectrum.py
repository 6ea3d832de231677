"""The ends of the spectrum, and the diagonal, of couplings known by products only, against the matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from qjax.energy.couplings import Implicit
from qjax.samplers.moves import columns
from qjax.samplers.moves.spectrum import extreme_eigenvalues


def ends(matrix: np.ndarray) -> np.ndarray:
    matrix = jnp.asarray(matrix, jnp.float32)
    found = jax.jit(lambda m: extreme_eigenvalues(lambda v: m @ v, len(m), jnp.dtype(jnp.float32)))(matrix)
    return np.array(found)


def without_diagonal(matrix: np.ndarray) -> np.ndarray:
    return matrix - np.diag(np.diag(matrix))


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e12])
def test_ends_of_random_couplings_within_three_percent_from_inside(size: float) -> None:
    upper = np.triu(np.random.default_rng(0).choice([-1.0, 1.0], (300, 300)), 1)
    exact = np.linalg.eigvalsh(upper + upper.T)[[0, -1]]
    found = ends(size * (upper + upper.T)) / size
    assert (0.97 * np.abs(exact) <= np.abs(found)).all() and (np.abs(found) <= 1.001 * np.abs(exact)).all()


def test_the_lower_end_of_a_gram_matrix_far_from_the_upper() -> None:
    factor = np.random.default_rng(1).standard_normal((10, 200))
    matrix = without_diagonal(factor.T @ factor)
    exact = np.linalg.eigvalsh(matrix)[[0, -1]]
    np.testing.assert_allclose(ends(matrix), exact, rtol=0.1)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_spaces_exhausted_at_once(n: int) -> None:
    """No couplings; a star and a complete graph, which have so few eigenvalues that two products exhaust the space."""
    np.testing.assert_array_equal(ends(np.zeros((n, n))), [0, 0])
    if n > 1:
        star = np.zeros((n, n))
        star[0, 1:] = star[1:, 0] = 1
        np.testing.assert_allclose(ends(star), [-np.sqrt(n - 1), np.sqrt(n - 1)], rtol=1e-4)
        np.testing.assert_allclose(ends(without_diagonal(np.ones((n, n)))), [-1, n - 1], rtol=2e-3)


@pytest.mark.parametrize(("rank", "bound"), [(16, 0.5), (1600, 0.16)])
def test_a_diagonal_estimated_by_products_is_not_drowned_by_the_rest_of_its_rows(rank: int, bound: float) -> None:
    """Errors relative to the mean of the diagonal: eight random signs alone are off by sqrt(n / (8 rank)), 1.77 and
    0.18, the mean alone by 0.4 and 0.23. For a diagonal matrix the estimate is exact."""
    factor = (np.random.default_rng(2).standard_normal((rank, 400)) / np.sqrt(rank)).astype(np.float32)
    factor *= np.linspace(0.8, 1.2, 400, dtype=np.float32)
    matrix = factor.T @ factor
    found = estimated(matrix)
    error = np.sqrt(np.mean((found - np.diag(matrix)) ** 2)) / np.mean(np.diag(matrix))
    assert error < bound
    np.testing.assert_allclose(estimated(np.diag(np.diag(matrix))), np.diag(matrix), rtol=1e-5)
    np.testing.assert_array_equal(estimated(np.zeros_like(matrix)), 0)


def estimated(matrix: np.ndarray) -> np.ndarray:
    couplings = Implicit(Partial(jnp.matmul, jnp.asarray(matrix)), len(matrix))
    found = columns.kept_diagonal(couplings, jnp.dtype(jnp.float32))
    assert found is not None
    return np.asarray(found)
