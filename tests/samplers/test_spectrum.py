"""The ends of the spectrum against a full diagonalisation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax.samplers.spectrum import extreme_eigenvalues


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
    """No couplings; a star and a complete graph, whose few eigenvalues exhaust the space after two products."""
    np.testing.assert_array_equal(ends(np.zeros((n, n))), [0, 0])
    if n > 1:
        star = np.zeros((n, n))
        star[0, 1:] = star[1:, 0] = 1
        np.testing.assert_allclose(ends(star), [-np.sqrt(n - 1), np.sqrt(n - 1)], rtol=1e-4)
        np.testing.assert_allclose(ends(without_diagonal(np.ones((n, n)))), [-1, n - 1], rtol=2e-3)
