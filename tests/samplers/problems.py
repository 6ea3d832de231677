"""Small problems for the sampler tests: every form of couplings, and energies by plain numpy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from qjax.energy.couplings import Couplings, Dense, Gram, Implicit, Sparse
from qjax.energy.qubo import Qubo

FORMS = ("dense", "sparse", "gram", "implicit")


def couplings(form: str, n: int = 10, seed: int = 0) -> Any:
    """Integer couplings offdiag(A'A) in the named form; implicit ones have a diagonal in addition.

    Sparse ones join neighbours in a row: two colour classes, by which they are swept from 12 bits on.
    """
    factor = np.random.default_rng(seed).integers(-2, 3, (4, n)).astype(np.float32)
    matrix = factor.T @ factor
    np.fill_diagonal(matrix, 0)
    match form:
        case "dense":
            return Dense(jnp.asarray(matrix))
        case "sparse":
            rows = np.arange(max(n - 1, 0))
            return Sparse.from_edges(n, rows, rows + 1, matrix[rows, rows + 1])
        case "gram":
            return Gram(jnp.asarray(factor))
        case _:
            diagonal = (np.arange(n) % 3).astype(np.float32)
            return Implicit(Partial(product, jnp.asarray(matrix + np.diag(diagonal))), n, jnp.asarray(diagonal))


def product(matrix: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.matmul(matrix.astype(x.dtype), x, precision="highest")


def qubo(form: str, n: int = 10, batch: tuple[int, ...] = (), seed: int = 0) -> Qubo:
    """Integer linear terms and couplings; each problem of the batch has its own scale."""
    rng = np.random.default_rng(seed + 1)
    linear = rng.integers(-6, 7, (*batch, n)).astype(np.float32)
    scale = rng.choice([0.5, 1.0, 2.0], batch).astype(np.float32)
    return Qubo.from_terms(linear, couplings(form, n, seed), rng.integers(-3, 4, batch).astype(np.float32), scale)


def all_states(n: int) -> np.ndarray:
    return ((np.arange(2**n)[:, None] >> np.arange(n)[None, :]) & 1).astype(np.int8)


def energies(problem: Qubo, states: Any) -> np.ndarray:
    """E of states (*batch, ..., n) by its definition, in double precision: (*batch, ...)."""
    linear, offset, scale = (np.asarray(a, np.float64) for a in (problem.linear, problem.offset, problem.scale))
    states, matrix = np.asarray(states, np.float64), matrix_of(problem.couplings)
    middle = (1,) * (states.ndim - linear.ndim)
    offset, scale = (a.reshape((*problem.batch_shape, *middle)) for a in (offset, scale))
    linear = linear.reshape((*problem.batch_shape, *middle, problem.num_bits))
    return scale * (offset + ((linear + 0.5 * states @ matrix) * states).sum(-1))


def matrix_of(held: Couplings) -> np.ndarray:
    """M with its diagonal, (n, n)."""
    if not isinstance(held, Sparse):
        return np.asarray(held.to_dense(), np.float64)
    (rows, cols, weights), matrix = held.edges(), np.zeros((held.size, held.size))
    matrix[rows, cols] = matrix[cols, rows] = weights
    return matrix


def lowest(problem: Qubo) -> np.ndarray:
    """The exact minimum by plain enumeration, (*batch,)."""
    states = all_states(problem.num_bits)
    return energies(problem, np.broadcast_to(states, (*problem.batch_shape, *states.shape))).min(-1)
