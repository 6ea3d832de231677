"""Couplings applied to states kept as columns: x (n, C), reads as the minor axis, so that a step is one matmul or
row gathers.

Samplers work with the couplings M without diagonal: implicit couplings keep theirs, and on bits x^2 = x makes it a
linear term, 1/2 M_ii x_i^2 = 1/2 M_ii x_i  (`zero_diagonal_terms`).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from qjax.couplings import Couplings, Dense, Gram, Implicit, Sparse
from qjax.couplings import zero_diagonal as without_diagonal
from qjax.qubo import Qubo

# Gathers of up to this many neighbours are unrolled: XLA fuses them on CPU; a longer list is a loop over neighbours.
_UNROLLED = 64


def zero_diagonal_terms(qubo: Qubo) -> tuple[jax.Array, jax.Array | None]:
    """(linear (n, P), diagonal (n,) or None): the linear terms with the couplings' diagonal moved in, and that
    diagonal.

    Errors: ValueError for implicit couplings that do not know their diagonal.
    """
    linear = qubo.linear.T
    if not isinstance(qubo.couplings, Implicit):
        return linear, None
    if qubo.couplings.diagonal is None:
        raise ValueError("qubo.couplings has no diagonal: single-bit flips need it, pass diagonal= to Implicit")
    diagonal = qubo.couplings.diagonal.astype(linear.dtype)
    return linear + 0.5 * diagonal[:, None], diagonal


def apply(couplings: Couplings, x: jax.Array) -> jax.Array:
    """Mx for x (n, C) of a floating dtype, the couplings' own diagonal included."""
    match couplings:
        case Dense(matrix):
            return jnp.matmul(matrix.astype(x.dtype), x, precision="highest")
        case Gram(factor):
            factor = factor.astype(x.dtype)
            image = jnp.matmul(factor, x, precision="highest")
            return jnp.matmul(factor.T, image, precision="highest") - couplings.squares.astype(x.dtype)[:, None] * x
        case Sparse():
            ordered = jnp.take(x, couplings.order, axis=0, mode="clip")
            sums = [
                neighbour_sums(ordered, index, weight.astype(x.dtype))
                for index, weight in zip(couplings.neighbours, couplings.weights, strict=True)
            ]
            return jnp.take(stack(sums), couplings.position, axis=0, mode="clip")
        case _:
            return couplings.matvec(x.T).T


def neighbour_sums(state: jax.Array, index: jax.Array, weight: jax.Array) -> jax.Array:
    """sum_k weight[:, k] state[index[:, k]] for state (n, C), index and weight (m, k) -> (m, C), in the state's
    dtype."""

    def term(k: jax.Array | int) -> jax.Array:
        rows = jnp.take(state, index[:, k], axis=0, mode="clip")
        return rows * weight[:, k].astype(state.dtype)[:, None]

    total = jnp.zeros((index.shape[0], state.shape[1]), state.dtype)
    if index.shape[1] > _UNROLLED:
        looped: jax.Array = lax.fori_loop(0, index.shape[1], lambda k, s: s + term(k), total)
        return looped
    for k in range(index.shape[1]):
        total = total + term(k)
    return total


def stack(blocks: Sequence[jax.Array]) -> jax.Array:
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=0)


def dense_matrix(couplings: Couplings) -> jax.Array:
    """M (n, n) with a zero diagonal."""
    return without_diagonal(couplings.to_dense())


def unrolled_gathers(couplings: Sparse) -> int:
    """How many gathers one pass over the couplings unrolls to: what decides its compile time."""
    return sum(min(index.shape[1], _UNROLLED) for index in couplings.neighbours)
