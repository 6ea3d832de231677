"""Penalties: Qubos to add to a Qubo, `qubo + constraints(qubo, encoding.constraints)`.

    one-hot, cardinality    P(x) = |scale| * weight * sum over groups (sum_{i in group} x_i - required)^2
    blocks                  both of these; and for listed states (1 - |x_i - a|) (1 - |x_j - b|), for each pair of bits
                            that has the values (a, b) in none of them
    sparsity                P(x) = |scale| * weight * sum_i counts_i x_i

`scale` is that of the Qubo, which multiplies everything (see `Qubo`): the sum keeps it, and a batch keeps sharing its
couplings. So weight is in units of energy / |scale|. Two choices of it:

    flip_range    the default: the largest change of E / |scale| by one flip over random states that satisfy the groups.
                  They can miss the largest flip of all states, so it is enough on usual problems, but no guarantee
    flip_bound    an upper bound of that change over all states. With it as the weight, and groups that share no bits,
                  a minimum of E + P satisfies the groups. On dense problems it is far larger, hence harder to anneal

Source of the bound: Verma and Lewis 2020, Penalty and partitioning techniques to improve performance of QUBO solvers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.blocks import Blocks, States
from qjax.energy.couplings import Couplings, Dense, Gram, Sparse, empty, scaled, zero_diagonal
from qjax.energy.qubo import Qubo

# The random states that `flip_range` looks at.
_PROBES = 32


def constraints(qubo: Qubo, groups: Iterable[tuple[Any, int]], weight: Any | None = None) -> Qubo:
    """P(x) = |scale| * weight * sum over groups (sum_{i in group} x_i - required)^2, a Qubo with the scale of `qubo`.

    groups: pairs (indices (G, K), required), such as `encoding.constraints`; each row of indices is a group of K bits.
    No pairs: the zero Qubo. weight: a positive scalar, or None for `flip_range`.
    Errors: ValueError for indices that are out of range or repeated inside a group, a required number outside 0 .. K, a
    weight that is not positive and finite, or a batch whose scales differ in sign (traced: NaN).
    """
    pairs = [_checked(qubo, indices, required) for indices, required in groups]
    if weight is not None and not isinstance(weight, jax.core.Tracer) and not 0 < weight < math.inf:
        raise ValueError(f"weight must be positive and finite, got {weight}")
    if not pairs:
        return _term(qubo, 0.0, jnp.zeros(qubo.num_bits, qubo.linear.dtype), empty(qubo.num_bits))
    strength = flip_range(qubo, pairs) if weight is None else jnp.asarray(weight, qubo.linear.dtype)
    linear, constant = np.zeros(qubo.num_bits), 0.0
    for indices, required in pairs:
        np.add.at(linear, indices, 1.0 - 2.0 * required)
        constant += len(indices) * required**2
    rows = [(indices, np.ones(indices.shape[1])) for indices, _ in pairs]
    couplings = _pair_couplings(qubo, rows, strength)
    signed = _sign(qubo) * strength
    return _term(qubo, signed * constant, signed * jnp.asarray(linear, qubo.linear.dtype), couplings)


def blocks(qubo: Qubo, held: Blocks, weight: Any | None = None) -> Qubo:
    """The penalty of every group that is in none of its states (qjax.energy.blocks), a Qubo with the scale of `qubo`.

    Weight: as `constraints`. Errors: as `constraints`; ValueError for traced indices, and for listed states that no
    pairs of bits tell from all others.
    """
    if held.traced:
        raise ValueError("blocks are traced: their penalties need indices on the host, as constants of the program")
    held.check(qubo.num_bits)
    groups = [pair for family in held.families for pair in family.sums()]
    strength = flip_range(qubo, groups) if weight is None else weight
    penalty = constraints(qubo, groups, strength)
    for family in held.families:
        if isinstance(family, States):
            penalty = penalty + _forbidden(qubo, family, strength)
    return penalty


def _forbidden(qubo: Qubo, family: States, weight: Any) -> Qubo:
    """|scale| * weight * the number of pairs of bits with values that they have in none of the family's states."""
    indices, allowed = np.asarray(family.indices), np.asarray(family.states)
    every = np.arange(2 ** indices.shape[1])[:, None] >> np.arange(indices.shape[1]) & 1
    caught = np.zeros(len(every), bool)
    # 1 - |x - a| = (1 - a) + (2a - 1) x
    constant, linear, rows = 0.0, np.zeros(qubo.num_bits), []
    for i, j in itertools.combinations(range(indices.shape[1]), 2):
        for a, b in itertools.product((0, 1), repeat=2):
            if ((allowed[:, i] == a) & (allowed[:, j] == b)).any():
                continue
            caught |= (every[:, i] == a) & (every[:, j] == b)
            (one, by_one), (other, by_other) = (1 - a, 2 * a - 1), (1 - b, 2 * b - 1)
            constant += len(indices) * one * other
            np.add.at(linear, indices[:, i], by_one * other)
            np.add.at(linear, indices[:, j], one * by_other)
            # 2 c_i c_j is the coupling of a row with coefficients c.
            rows.append((indices[:, [i, j]], np.array([by_one, by_other]) * math.sqrt(0.5)))
    if len(allowed) + caught.sum() < len(every):
        missed = every[~caught & ~(every[:, None] == allowed).all(-1).any(-1)][0]
        raise ValueError(f"blocks: no pairs of bits of {indices[0].tolist()} forbid the state {missed.tolist()}")
    signed = _sign(qubo) * jnp.asarray(weight, qubo.linear.dtype)
    couplings = _pair_couplings(qubo, rows, jnp.asarray(weight, qubo.linear.dtype)) if rows else empty(qubo.num_bits)
    return _term(qubo, signed * constant, signed * jnp.asarray(linear, qubo.linear.dtype), couplings)


def one_hot(qubo: Qubo, groups: Any, weight: Any | None = None) -> Qubo:
    """The penalty of exactly one set bit in each group, a row of groups (G, K). Weight and errors: as `constraints`."""
    return constraints(qubo, [(groups, 1)], weight)


def cardinality(qubo: Qubo, count: int, indices: Any | None = None, weight: Any | None = None) -> Qubo:
    """The penalty of exactly `count` set bits among indices (K,), by default all. Weight, errors: as `constraints`."""
    chosen = np.arange(qubo.num_bits) if indices is None else np.asarray(indices)
    return constraints(qubo, [(chosen[None, :], count)], weight)


def sparsity(qubo: Qubo, counts: Any, weight: float) -> Qubo:
    """P(x) = |scale| * weight * sum_i counts_i x_i, a Qubo with the scale of `qubo`.

    counts (n,): how many parameters bit i makes nonzero, such as `encoding.nonzeros`; weight: per nonzero parameter.
    Errors: ValueError for a weight that is negative or not finite, counts of another shape, or a batch whose scales
    differ in sign.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight must be finite and not negative, got {weight}")
    counts = jnp.asarray(counts, qubo.linear.dtype)
    if counts.shape != (qubo.num_bits,):
        raise ValueError(f"counts must have shape ({qubo.num_bits},), got {counts.shape}")
    return _term(qubo, 0.0, jnp.asarray(weight, counts.dtype) * _sign(qubo) * counts, empty(qubo.num_bits))


def flip_range(qubo: Qubo, groups: Iterable[tuple[Any, int]] = ()) -> jax.Array:
    """max |E(x with a bit flipped) - E(x)| / |scale| over 32 random states that satisfy the groups, ().

    groups: as in `constraints`. The states are the same in every call.
    """
    pairs = list(groups)
    key, *group_keys = jax.random.split(jax.random.key(0), 1 + len(pairs))
    x = jax.random.bernoulli(key, 0.5, (_PROBES, qubo.num_bits)).astype(qubo.linear.dtype)
    for group_key, (indices, required) in zip(group_keys, pairs, strict=True):
        draws = jax.random.uniform(group_key, (_PROBES, *np.shape(indices)))
        place = jnp.argsort(jnp.argsort(draws, axis=-1), axis=-1)
        x = x.at[:, np.asarray(indices)].set((place < required).astype(x.dtype))
    reads = jnp.broadcast_to(x, (*qubo.batch_shape, *x.shape))
    # |fields| is the size of a flip up to half the diagonal of M, which implicit couplings may not know.
    per_scale = jnp.abs(qubo.fields(reads)) / jnp.abs(qubo.scale).reshape((*qubo.batch_shape, 1, 1))
    return jnp.maximum(per_scale.max(initial=0.0), float(np.finfo(x.dtype).tiny))


def flip_bound(qubo: Qubo) -> jax.Array:
    """An upper bound of |E(x with a bit flipped) - E(x)| / |scale| over all states x and bits, ().

    max_i max(linear_i + sum_j max(M_ij, 0), -linear_i - sum_j min(M_ij, 0)), over the batch, too.
    Errors: ValueError for couplings that do not hold the entries of M (Gram, Implicit).
    """
    dtype = qubo.linear.dtype
    match qubo.couplings:
        case Dense(matrix):
            above, below = jnp.maximum(matrix, 0).sum(-1), jnp.minimum(matrix, 0).sum(-1)
        case Sparse() as held:
            weights = [w.astype(dtype) for w in held.weights]
            positive, negative = (tuple(cut(w, 0.0) for w in weights) for cut in (jnp.maximum, jnp.minimum))
            above, below = (
                replace(held, weights=part, integer_dtype=None, levels=None).matvec(jnp.ones(qubo.num_bits, dtype))
                for part in (positive, negative)
            )
        case _:
            raise ValueError("flip_bound needs dense or sparse couplings: others do not hold their entries")
    above, below = (jnp.broadcast_to(side, qubo.linear.shape).astype(dtype) for side in (above, below))
    most = jnp.maximum(qubo.linear + above, -qubo.linear - below)
    return jnp.maximum(most.max(initial=0.0), float(np.finfo(dtype).tiny))


def _sign(qubo: Qubo) -> Any:
    """The sign of the scale, () of -1 or 1, which times the scale is |scale|; of the host unless the scale is traced.

    Scales of both signs: ValueError, and NaN where they are traced.
    """
    if isinstance(qubo.scale, jax.core.Tracer):
        negative = qubo.scale < 0
        sign = jnp.where(negative.any(), jnp.where(negative.all(), -1.0, jnp.nan), 1.0)
        return sign.astype(qubo.linear.dtype)
    below = np.asarray(qubo.scale) < 0
    if below.any() and not below.all():
        raise ValueError("scale must have one sign in the whole batch: its problems share the penalty's couplings")
    return np.asarray(-1.0 if below.any() else 1.0, qubo.linear.dtype)


def _term(qubo: Qubo, constant: Any, linear: jax.Array, couplings: Couplings) -> Qubo:
    """scale * (constant + linear.x + 1/2 x'Mx) with scale, batch and labels of `qubo`: constant (), linear (n,)."""
    offset = jnp.broadcast_to(jnp.asarray(constant, qubo.linear.dtype), qubo.batch_shape)
    return Qubo(offset, jnp.broadcast_to(linear, qubo.linear.shape), couplings, qubo.scale, qubo.labels)


def _pair_couplings(qubo: Qubo, groups: list[tuple[np.ndarray, np.ndarray]], strength: jax.Array) -> Couplings:
    """M with sign(scale) * 2 * strength * c_a c_b for the pairs of bits in a group, in a form that adds well to that of
    `qubo`.

    groups: indices (G, K), one group per row, with coefficients c (K,); strength (). Sparse and Dense have their like,
    Gram and Implicit a Gram (an Implicit around it for a scale that is negative, or traced: A'A has no other sign).
    """
    n, dtype, sign = qubo.num_bits, qubo.linear.dtype, _sign(qubo)
    if isinstance(qubo.couplings, Sparse):
        rows, cols, values = [], [], []
        for indices, coefficients in groups:
            a, b = np.triu_indices(indices.shape[1], 1)
            rows.append(indices[:, a].reshape(-1))
            cols.append(indices[:, b].reshape(-1))
            values.append(np.tile(coefficients[a] * coefficients[b], len(indices)))
        pair, edges = 2.0 * sign * strength, (np.concatenate(rows), np.concatenate(cols))
        if isinstance(pair, jax.core.Tracer):
            return scaled(Sparse.from_edges(n, *edges, np.concatenate(values)), pair)
        return Sparse.from_edges(n, *edges, float(pair) * np.concatenate(values))
    member = np.zeros((sum(len(indices) for indices, _ in groups), n), np.float32)  # (groups, n): c of the group's bits
    row = 0
    for indices, coefficients in groups:
        own = np.broadcast_to(coefficients.astype(np.float32), indices.shape)
        np.put_along_axis(member[row : row + len(indices)], indices, own, axis=1)
        row += len(indices)
    factor = jnp.sqrt(2.0 * strength) * jnp.asarray(member, dtype)
    if isinstance(qubo.couplings, Dense):
        return Dense(sign * zero_diagonal(jnp.matmul(factor.T, factor, precision="highest")))
    if not isinstance(sign, jax.core.Tracer) and float(sign) > 0:
        return Gram(factor)
    return scaled(Gram(factor), jnp.asarray(sign))


def _checked(qubo: Qubo, indices: Any, required: int) -> tuple[np.ndarray, int]:
    """(indices (G, K), required), on the host. ValueError where they are no groups of bits of `qubo`."""
    chosen = np.asarray(indices)
    if chosen.ndim != 2 or (chosen.size and (chosen.min() < 0 or chosen.max() >= qubo.num_bits)):
        raise ValueError(f"groups must be an array (G, K) of bits 0 .. {qubo.num_bits - 1}, got shape {chosen.shape}")
    if (np.diff(np.sort(chosen, axis=1), axis=1) == 0).any():
        raise ValueError("groups must name each bit at most once per row")
    if not 0 <= required <= chosen.shape[1]:
        raise ValueError(f"groups of {chosen.shape[1]} bits cannot have {required} set")
    return chosen, required
