"""Couplings applied to states kept as columns: x (n, C), reads as the minor axis, so that a step is one matmul or
row gathers.

Samplers work with the couplings M without diagonal. Implicit couplings keep theirs; on bits x^2 = x makes it a linear
term, 1/2 M_ii x_i^2 = 1/2 M_ii x_i  (`zero_diagonal_terms`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from qjax.energy.couplings import Couplings, Dense, Gram, Implicit, Sparse
from qjax.energy.couplings import zero_diagonal as without_diagonal
from qjax.energy.qubo import Qubo

_LONGEST_UNROLLED = 128
_FEW_SITES = 24
_DIAGONAL_PROBES = 8
# The longest list of a merged bucket over its shortest.
_PADDED = 1.25


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


def apply(couplings: Couplings, x: jax.Array, often: bool = True) -> jax.Array:
    """Mx for x (n, C) of a floating dtype, the couplings' own diagonal included; often=False: for a product made once,
    which on sparse couplings is quicker to compile and slower to run."""
    match couplings:
        case Dense(matrix):
            return jnp.matmul(matrix.astype(x.dtype), x, precision="highest")
        case Gram(factor):
            factor = factor.astype(x.dtype)
            image = jnp.matmul(factor, x, precision="highest")
            return jnp.matmul(factor.T, image, precision="highest") - couplings.squares.astype(x.dtype)[:, None] * x
        case Sparse():
            ordered = jnp.take(x, couplings.order, axis=0, mode="clip")
            if not often:
                return jnp.take(couplings.sums(ordered), couplings.position, axis=0, mode="clip")
            # Written in place, so that the gathers of a bucket become one kernel (qjax.samplers.moves.classes).
            sums, start = ordered, 0
            for index, weight in zip(couplings.neighbours, couplings.weights, strict=True):
                part = neighbour_sums(ordered, index, weight.astype(x.dtype))
                sums = lax.dynamic_update_slice_in_dim(sums, part, start, 0)
                start += index.shape[0]
            return jnp.take(sums, couplings.position, axis=0, mode="clip")
        case _:
            return couplings.matvec(x.T).T


def kept_diagonal(couplings: Couplings, dtype: jnp.dtype) -> jax.Array | None:
    """The diagonal (n,) that implicit couplings keep, estimated where it is unknown; None for all others, which have
    none."""
    if not isinstance(couplings, Implicit):
        return None
    if couplings.diagonal is not None:
        return couplings.diagonal.astype(dtype)
    # Hutchinson: the mean of z * Mz over random signs z is diag M. Its noise has the size of the rest of a row, far
    # above the diagonal where n is large and the rank is small, while the mean over all bits is nearly free of noise.
    # So each entry is shrunk towards that mean by the noise's share of the variance: eight vectors of signs are then
    # enough (docs/samplers.md).
    z = signs(jax.random.normal(jax.random.key(1), (couplings.size, _DIAGONAL_PROBES), dtype))
    drawn = z * apply(couplings, z)
    largest = jnp.max(jnp.abs(drawn))
    drawn = drawn / jnp.where(largest > 0, largest, 1)
    own = jnp.mean(drawn, axis=1)
    noise = jnp.mean(jnp.var(drawn, axis=1, ddof=1)) / _DIAGONAL_PROBES
    spread = jnp.var(own)
    kept = jnp.clip(1 - noise / jnp.where(spread > 0, spread, 1), 0, 1)
    center = jnp.mean(own)
    return largest * (center + kept * (own - center))


def spin_product(couplings: Couplings, diagonal: jax.Array | None, x: jax.Array, often: bool = True) -> jax.Array:
    """Kx (n, C) with K = 1/4 offdiag(M), the couplings of the spins."""
    image = apply(couplings, x, often)
    return 0.25 * (image if diagonal is None else image - diagonal[:, None] * x)


def spin_energies(couplings: Couplings, diagonal: jax.Array | None, fields: jax.Array, spins: jax.Array) -> jax.Array:
    """(h + 1/2 Kz).z (C,) for fields (n, C) and spins z of +-1 (n, C)."""
    if isinstance(couplings, Sparse) and couplings.integer_dtype is not None:
        # Made once in many steps, so quick to compile matters; in integers it is as fast as the product of a step.
        ordered = jnp.take(spins.astype(couplings.integer_dtype), couplings.order, axis=0, mode="clip")
        image = jnp.take(couplings.sums(ordered), couplings.position, axis=0, mode="clip")
        force = 0.125 * image.astype(spins.dtype)
    else:
        force = 0.5 * spin_product(couplings, diagonal, spins)
    return jnp.sum((force + fields) * spins, axis=0)


def signs(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, jnp.ones_like(x), -jnp.ones_like(x))


def rows(values: jax.Array, index: jax.Array) -> jax.Array:
    """values[index] (m, C) for values (rows, C), without the test of each index that `jnp.take` makes."""
    numbers = lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,))
    mode = lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return lax.gather(values, index[:, None], numbers, (1, values.shape[1]), mode=mode)


def neighbour_sums(state: jax.Array, index: jax.Array, weight: jax.Array) -> jax.Array:
    """sum_k weight[:, k] state[index[:, k]] for state (n, C), index and weight (m, k) -> (m, C), in the state's dtype.

    One gather per neighbour is the fast form on CPU; a few long lists take one gather in all and compile faster.
    """
    m, degree = index.shape
    weight = weight.astype(state.dtype)
    if not _gathers_at_once(m, degree):
        total = jnp.zeros((m, state.shape[1]), state.dtype)
        for k in range(degree):
            total = total + rows(state, index[:, k]) * weight[:, k][:, None]
        return total
    terms = rows(state, index.reshape(-1)).reshape((m, degree, state.shape[1]))
    return jnp.sum(terms * weight[:, :, None], axis=1, dtype=state.dtype)


def neighbour_any(state: jax.Array, index: jax.Array) -> jax.Array:
    """Bitwise or of the neighbours' states, index (m, k) -> (m, C). Lists are padded with the site itself."""
    total = jnp.zeros((index.shape[0], state.shape[1]), state.dtype)
    for k in range(index.shape[1]):
        total = total | rows(state, index[:, k])
    return total


def _gathers_at_once(m: int, degree: int) -> bool:
    return degree > _LONGEST_UNROLLED or (m < _FEW_SITES and degree > 2)


def stack(blocks: Sequence[jax.Array]) -> jax.Array:
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=0)


def dense_matrix(couplings: Couplings, dtype: Any) -> jax.Array:
    """M (n, n) with a zero diagonal."""
    return without_diagonal(couplings.to_dense(dtype))


def merged(couplings: Sparse) -> Sparse:
    """The same couplings for products alone: buckets of about the same degree become one whatever their colour, which
    makes fewer and larger kernels; `classes` is empty, since coupled sites now share a bucket."""
    widths = [index.shape[1] for index in couplings.neighbours]
    groups: list[list[int]] = []
    for bucket in sorted(range(len(widths)), key=widths.__getitem__):
        if groups and widths[bucket] <= max(_PADDED * widths[groups[-1][0]], widths[groups[-1][0]] + 1):
            groups[-1].append(bucket)
        else:
            groups.append([bucket])
    starts = np.cumsum([0, *(index.shape[0] for index in couplings.neighbours)])
    sites = np.concatenate([np.arange(starts[b], starts[b + 1]) for group in groups for b in group])
    place = np.argsort(sites).astype(np.int32)
    # All lists in one vector, ended by a coupling of zero for the padding: padding each bucket would be a kernel each.
    flat, weight = (
        jnp.concatenate([*(part.reshape(-1) for part in parts), jnp.zeros(1, parts[0].dtype)])
        for parts in (couplings.neighbours, couplings.weights)
    )
    flat = jnp.take(place, flat, axis=0)
    degree = np.repeat(widths, np.diff(starts)).astype(np.int32)
    first = np.cumsum(degree, dtype=np.int32) - degree
    neighbours, weights = [], []
    for group in groups:
        chosen = np.concatenate([np.arange(starts[b], starts[b + 1]) for b in group])
        slot = jnp.arange(widths[group[-1]], dtype=jnp.int32)[None, :]
        inside = slot < jnp.asarray(degree[chosen])[:, None]
        entry = jnp.where(inside, jnp.asarray(first[chosen])[:, None] + slot, flat.shape[0] - 1)
        neighbours.append(jnp.take(flat, entry, axis=0, mode="clip"))
        weights.append(jnp.take(weight, entry, axis=0, mode="clip"))
    order, position = jnp.take(couplings.order, sites, axis=0), jnp.take(place, couplings.position, axis=0)
    return Sparse(order, position, tuple(neighbours), tuple(weights), (), couplings.integer_dtype, couplings.levels)


def stored_couplings(couplings: Sparse) -> int:
    """The number of neighbours in all lists, padding included."""
    return sum(index.shape[0] * index.shape[1] for index in couplings.neighbours)
