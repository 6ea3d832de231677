"""Small problems for the sampler tests: one energy in every form of couplings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from qjax.couplings import Dense, Gram, Implicit, Sparse
from qjax.qubo import Qubo

FORMS = ("dense", "sparse", "gram", "implicit")


def couplings(form: str, n: int = 10, seed: int = 0) -> Any:
    """The same integer couplings M = offdiag(A'A) in the named form."""
    factor = np.random.default_rng(seed).integers(-2, 3, (4, n)).astype(np.float32)
    whole = factor.T @ factor
    matrix = whole - np.diag(np.diag(whole))
    rows, cols = np.triu_indices(n, 1)
    match form:
        case "dense":
            return Dense(jnp.asarray(matrix))
        case "sparse":
            return Sparse.from_edges(n, rows, cols, matrix[rows, cols])
        case "gram":
            return Gram(jnp.asarray(factor))
        case _:
            return Implicit(Partial(_product, jnp.asarray(matrix)), n, jnp.zeros(n))


def _product(matrix: jax.Array, x: jax.Array) -> jax.Array:
    return matrix.astype(x.dtype) @ x


def qubo(form: str, n: int = 10, batch: tuple[int, ...] = (), seed: int = 0) -> Qubo:
    """Integer linear terms and couplings, a scale of its own for each problem of the batch."""
    rng = np.random.default_rng(seed + 1)
    linear = rng.integers(-6, 7, (*batch, n)).astype(np.float32)
    scale = rng.choice([0.5, 1.0, 2.0], batch).astype(np.float32)
    return Qubo.from_terms(linear, couplings(form, n, seed), rng.integers(-3, 4, batch).astype(np.float32), scale)


def all_states(n: int) -> np.ndarray:
    return ((np.arange(2**n)[:, None] >> np.arange(n)[None, :]) & 1).astype(np.int8)


def lowest(problem: Qubo) -> np.ndarray:
    """The exact minimum by plain enumeration, (*batch,)."""
    states = all_states(problem.num_bits)
    wide = np.broadcast_to(states, (*problem.batch_shape, *states.shape))
    return np.asarray(problem.energies(wide)).min(-1)
