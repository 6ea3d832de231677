"""Penalties: Qubo terms to add to a Qubo, `qubo + constraints(qubo, encoding.constraints)`.

    one-hot, cardinality    scale * weight * sum over groups (sum_{i in group} x_i - k)^2
    sparsity                scale * weight * sum_i counts_i x_i

The scale is the Qubo's own, so that a batch keeps sharing its couplings; weight is in units of energy / scale. By
default it
is the range of one flip: the largest |E(x with a bit flipped) - E(x)| / scale over random states that satisfy the
groups.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qjax.couplings import Couplings, Dense, Gram, Sparse, empty, zero_diagonal
from qjax.qubo import Qubo

_PROBES = 32


def constraints(qubo: Qubo, groups: Iterable[tuple[Any, int]], weight: float | None = None) -> Qubo:
    """The penalty of (indices (G, K), required) pairs, such as `encoding.constraints`. No pairs: the zero Qubo.

    Errors: ValueError for indices out of range, a required number outside 0 .. K, or a weight that is not positive.
    """
    pairs = [_checked(qubo, indices, required) for indices, required in groups]
    if weight is not None and not weight > 0:
        raise ValueError(f"weight must be positive, got {weight}")
    if not pairs:
        return _term(qubo, 0.0, jnp.zeros(qubo.num_bits, qubo.linear.dtype), empty(qubo.num_bits))
    strength = flip_range(qubo, pairs) if weight is None else jnp.asarray(weight, qubo.linear.dtype)
    linear, constant = np.zeros(qubo.num_bits), 0.0
    for indices, required in pairs:
        np.add.at(linear, indices, 1.0 - 2.0 * required)
        constant += len(indices) * required**2
    couplings = _pair_couplings(qubo, [indices for indices, _ in pairs], strength)
    return _term(qubo, strength * constant, strength * jnp.asarray(linear, qubo.linear.dtype), couplings)


def one_hot(qubo: Qubo, groups: Any, weight: float | None = None) -> Qubo:
    """Exactly one set bit in each row of groups (G, K). Errors: as `constraints`."""
    return constraints(qubo, [(groups, 1)], weight)


def cardinality(qubo: Qubo, count: int, indices: Any | None = None, weight: float | None = None) -> Qubo:
    """Exactly `count` set bits among indices (K,), by default all bits. Errors: as `constraints`."""
    chosen = np.arange(qubo.num_bits) if indices is None else np.asarray(indices)
    return constraints(qubo, [(chosen[None, :], count)], weight)


def sparsity(qubo: Qubo, counts: Any, weight: float) -> Qubo:
    """weight a nonzero parameter; counts (n,), such as `encoding.nonzeros`. Errors: ValueError for a negative
    weight.
    """
    if weight < 0:
        raise ValueError(f"weight must not be negative, got {weight}")
    counts = jnp.asarray(counts, qubo.linear.dtype)
    if counts.shape != (qubo.num_bits,):
        raise ValueError(f"counts must have shape ({qubo.num_bits},), got {counts.shape}")
    return _term(qubo, 0.0, weight * counts, empty(qubo.num_bits))


def flip_range(qubo: Qubo, groups: Iterable[tuple[Any, int]] = ()) -> jax.Array:
    """max |E(x with a bit flipped) - E(x)| / scale over random states that satisfy the groups, a scalar."""
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.bernoulli(keys[0], 0.5, (_PROBES, qubo.num_bits)).astype(qubo.linear.dtype)
    for indices, required in groups:
        draws = jax.random.uniform(keys[1], (_PROBES, *np.shape(indices)))
        place = jnp.argsort(jnp.argsort(draws, axis=-1), axis=-1)
        x = x.at[:, np.asarray(indices)].set((place < required).astype(x.dtype))
    reads = jnp.broadcast_to(x, (*qubo.batch_shape, *x.shape))
    # The fields bound a flip up to half the diagonal, which implicit couplings may not know.
    per_scale = jnp.abs(qubo.fields(reads)) / jnp.abs(qubo.scale).reshape((*qubo.batch_shape, 1, 1))
    return jnp.maximum(per_scale.max(initial=0.0), float(np.finfo(x.dtype).tiny))


def _term(qubo: Qubo, constant: Any, linear: jax.Array, couplings: Couplings) -> Qubo:
    offset = jnp.broadcast_to(jnp.asarray(constant, qubo.linear.dtype), qubo.batch_shape)
    return Qubo(offset, jnp.broadcast_to(linear, qubo.linear.shape), couplings, qubo.scale, qubo.labels)


def _pair_couplings(qubo: Qubo, groups: list[np.ndarray], strength: jax.Array) -> Couplings:
    """2 strength for every pair in a group, in the form of the Qubo's own couplings."""
    n, dtype = qubo.num_bits, qubo.linear.dtype
    if isinstance(qubo.couplings, Sparse):
        pairs = [np.triu_indices(indices.shape[1], 1) for indices in groups]
        rows = np.concatenate([indices[:, a].reshape(-1) for indices, (a, _) in zip(groups, pairs, strict=True)])
        cols = np.concatenate([indices[:, b].reshape(-1) for indices, (_, b) in zip(groups, pairs, strict=True)])
        return Sparse.from_edges(n, rows, cols, np.full(rows.size, 2.0 * float(strength)))
    member = np.zeros((sum(len(indices) for indices in groups), n), np.float32)
    row = 0
    for indices in groups:
        np.put_along_axis(member[row : row + len(indices)], indices, 1.0, axis=1)
        row += len(indices)
    factor = jnp.sqrt(2.0 * strength) * jnp.asarray(member, dtype)
    if isinstance(qubo.couplings, Dense):
        return Dense(zero_diagonal(jnp.matmul(factor.T, factor, precision="highest")))
    return Gram(factor)


def _checked(qubo: Qubo, indices: Any, required: int) -> tuple[np.ndarray, int]:
    chosen = np.asarray(indices)
    if chosen.ndim != 2 or (chosen.size and (chosen.min() < 0 or chosen.max() >= qubo.num_bits)):
        raise ValueError(f"groups must be an array (G, K) of bits 0 .. {qubo.num_bits - 1}, got shape {chosen.shape}")
    if not 0 <= required <= chosen.shape[1]:
        raise ValueError(f"groups of {chosen.shape[1]} bits cannot have {required} set")
    return chosen, required
