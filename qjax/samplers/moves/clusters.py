"""Isoenergetic cluster moves on sparse couplings (Houdayer 2001, Eur. Phys. J. B 22, 479; Zhu, Ochoa, Katzgraber 2015,
Phys. Rev. Lett. 115, 077201).

Of two replicas a, b at one temperature let q be the sites where they differ. Exchanging the states of one connected
component of q between them keeps E(a) + E(b), since outside it, along its whole border, the two are equal. So the
move is always accepted, and with a site of q drawn uniformly it leaves exp(-beta (E(a) + E(b))) invariant.

It helps where q has many components: on graphs of few neighbours, at low temperature.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.couplings import Sparse
from qjax.samplers.moves import columns, streams

# Passes over the graph within which a component must be complete. A larger one does not move, in either direction of
# the move, so the law stays invariant.
_MOST_PASSES = 64


def exchange(
    couplings: Sparse, a: jax.Array, b: jax.Array, seeds: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One move between the columns of a and b, 0/1 (n, C) in the couplings' sorted order -> new a, b; seeds (2, C)."""
    differ = (a != b).astype(jnp.int8)
    sites = jnp.arange(couplings.size)
    first = jnp.argmax(jnp.where(differ == 1, streams.uniforms(seeds, step, sites), 0), axis=0)
    cluster = differ & (sites[:, None] == first[None, :]).astype(jnp.int8)

    def unfinished(carry: Any) -> jax.Array:
        return jnp.any(carry[1]) & (carry[2] < _MOST_PASSES)

    def grow(carry: Any) -> Any:
        old, _, passes = carry
        grown = _pass(couplings, old, differ)
        return grown, jnp.any(old != grown, axis=0), passes + 1

    state = (cluster, jnp.ones(first.shape, bool), jnp.int32(0))
    cluster, growing, _ = lax.while_loop(unfinished, grow, state)
    moved = (cluster == 1) & ~growing[None, :]
    return jnp.where(moved, b, a), jnp.where(moved, a, b)


def _pass(couplings: Sparse, cluster: jax.Array, inside: jax.Array) -> jax.Array:
    """The cluster with those of its neighbours added that are inside, one colour class after another."""
    near, start, bucket = jnp.zeros_like(cluster), 0, 0
    for sizes in couplings.classes:
        begin = start
        for m in sizes:
            # Written in place, so that the gathers become one kernel (qjax.samplers.moves.classes).
            near = lax.dynamic_update_slice_in_dim(
                near, columns.neighbour_any(cluster, couplings.neighbours[bucket]), start, 0
            )
            start, bucket = start + m, bucket + 1
        part = cluster[begin:start] | (near[begin:start] & inside[begin:start])
        cluster = lax.dynamic_update_slice_in_dim(cluster, part, begin, 0)
    return cluster
