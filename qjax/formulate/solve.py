"""Linear systems with a symmetric matrix that may be singular: H x = y, the x of least norm.

A feature that is always 0, two features that are equal, or a constant one beside a bias make the Gram matrix of a
least-squares problem singular. Cholesky factorisation (F^3 / 3 operations) is tried first. Its pivots say whether H is
numerically positive definite: L_ii^2 / H_ii is the part of feature i that the features before it do not explain. Where
a pivot is no larger than rounding makes it, the system is solved again through the eigenvectors of H (some 10 F^3).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# In units of the machine epsilon. Pivots of features that others explain, and eigenvalues of null directions relative
# to the largest, came out below 2 for 8 to 1500 features; those of correlated features that count, above 40.
_SMALLEST_PIVOT = 100
_SMALLEST_EIGENVALUE = 10


class Solved(NamedTuple):
    """The x of least norm among those that minimise |H x - y|, for H (F, F) and y (F,) or (F, C).

    solution  x, in the shape of y
    rank      () int32: the number of directions that H determines, F where it is not singular
    negative  () int32: how many of them have a negative eigenvalue
    """

    solution: jax.Array
    rank: jax.Array
    negative: jax.Array


@partial(jax.jit, static_argnames="regular")
def solve(matrix: jax.Array, right: jax.Array, regular: bool = False) -> Solved:
    """x with matrix x = right, for a symmetric matrix (F, F) and right (F,) or (F, C).

    regular: the matrix is known to be positive definite, so only the factorisation is compiled, in a third of the time.
    """
    columns = right.reshape(right.shape[0], -1)
    if regular:
        whole = jax.scipy.linalg.cho_solve((cholesky(matrix), True), columns)
        return Solved(whole.reshape(right.shape), jnp.int32(matrix.shape[0]), jnp.int32(0))
    filled, dead = _without_dead_rows(matrix)
    columns = jnp.where(dead[:, None], 0, columns)
    lower = cholesky(filled)

    def direct() -> Solved:
        count = jnp.sum(~dead, dtype=jnp.int32)
        return Solved(jax.scipy.linalg.cho_solve((lower, True), columns), count, jnp.zeros_like(count))

    solved = lax.cond(_is_definite(filled, lower), direct, lambda: _by_eigenvectors(filled, columns, dead))
    return solved._replace(solution=solved.solution.reshape(right.shape))


@jax.jit
def factor(matrix: jax.Array) -> jax.Array:
    """The lower triangular L (F, F) with LL' = matrix, or, where that is singular, LL' near to it. Never NaN.

    Near to it: matrix + sqrt(epsilon) diag(matrix), and its diagonal alone where also that is not positive definite.
    """
    filled, _ = _without_dead_rows(matrix)
    diagonal = jnp.diagonal(filled)

    def damped() -> jax.Array:
        lower = cholesky(filled + jnp.diag(_epsilon(matrix.dtype) ** 0.5 * diagonal))
        return jnp.where(jnp.isfinite(lower).all(), lower, jnp.diag(jnp.sqrt(jnp.abs(diagonal))))

    lower = cholesky(filled)
    return lax.cond(_is_definite(filled, lower), lambda: lower, damped)


def _without_dead_rows(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """matrix (F, F) with 1 on the diagonal of rows that are all 0, and which these are, (F,) bool."""
    dead = ~(matrix != 0).any(1)
    return matrix + jnp.diag(dead.astype(matrix.dtype)), dead


def _is_definite(matrix: jax.Array, lower: jax.Array) -> jax.Array:
    """() bool, for a matrix (F, F) and its Cholesky factor, which is NaN where there is none."""
    pivots = jnp.diagonal(lower) ** 2
    return (pivots > _SMALLEST_PIVOT * _epsilon(matrix.dtype) * jnp.diagonal(matrix)).all()


def _by_eigenvectors(matrix: jax.Array, columns: jax.Array, dead: jax.Array) -> Solved:
    """`solve` for columns (F, C), 0 in the rows dead (F,) bool, where the diagonal of the matrix was filled up.

    H = S A S with S = sqrt |diag H|, so that weak features are not taken for null directions. With A = V diag(a) V' the
    columns of S^-1 V with a = 0 span the null space of H, and x = P S^-1 A^+ S^-1 P y, P the projection off that space.
    """
    diagonal = jnp.abs(jnp.diagonal(matrix))
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    values, vectors = jnp.linalg.eigh(matrix / (scale[:, None] * scale[None, :]))
    vectors = vectors / scale[:, None]
    null = jnp.abs(values) <= _SMALLEST_EIGENVALUE * _epsilon(matrix.dtype) * jnp.abs(values).max()
    negative = jnp.sum((values < 0) & ~null, dtype=jnp.int32)
    inverse = jnp.where(null, 0, 1 / jnp.where(null, 1, values))
    # An orthonormal basis of the null space: eigenvalues ascend, so its columns come first behind the negative ones.
    first = jnp.arange(null.shape[0]) < jnp.sum(null)
    basis = jnp.where(first[None, :], jnp.linalg.qr(jnp.roll(vectors, -negative, axis=1))[0], 0)
    inside = columns - _matmul(basis, _matmul(basis.T, columns))
    x = _matmul(vectors, inverse[:, None] * _matmul(vectors.T, inside))
    x = x - _matmul(basis, _matmul(basis.T, x))
    rank = jnp.sum(~null, dtype=jnp.int32) - jnp.sum(dead, dtype=jnp.int32)
    return Solved(x, rank, negative)


def cholesky(matrix: jax.Array) -> jax.Array:
    """The lower triangular L with LL' = matrix (F, F), which is symmetric as it is; NaN where there is none."""
    lower: jax.Array = lax.linalg.cholesky(matrix, symmetrize_input=False)
    return lower


def _epsilon(dtype: jnp.dtype) -> float:
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
