"""Isoenergetic cluster moves on sparse couplings (Houdayer 2001, Eur. Phys. J. B 22, 479; Zhu, Ochoa, Katzgraber 2015,
Phys. Rev. Lett. 115, 077201).

Of two replicas a, b at one temperature let q be the sites where they differ. Exchanging the states of one connected
component of q between them keeps E(a) + E(b), since outside it, along its whole border, the two are equal. So the
move is always accepted, and with a site of q drawn uniformly it leaves exp(-beta (E(a) + E(b))) invariant.

It helps where q falls into many components: on graphs of few neighbours, at low temperature.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from qjax.couplings import Sparse
from qjax.samplers import columns, streams

# Passes over the graph in which a component must be complete. A larger one is left alone in both directions of the
# move, so the law stays intact.
_MOST_PASSES = 64


def exchange(
    couplings: Sparse, a: tuple[jax.Array, ...], b: tuple[jax.Array, ...], seeds: jax.Array, step: jax.Array
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """One move between the columns of a and b: tuples of blocks (m, C) in the couplings' sorted order; seeds (2, C)."""
    differ = tuple((x != y).astype(jnp.int8) for x, y in zip(a, b, strict=True))
    chance = streams.uniforms(seeds, step, jnp.arange(couplings.size))
    first = jnp.argmax(jnp.where(columns.stack(differ) == 1, chance, 0), axis=0)
    here = (jnp.arange(couplings.size)[:, None] == first[None, :]).astype(jnp.int8)
    cluster, start = [], 0
    for part in differ:
        cluster.append(part & here[start : start + part.shape[0]])
        start += part.shape[0]

    def unfinished(carry: Any) -> jax.Array:
        return jnp.any(carry[1]) & (carry[2] < _MOST_PASSES)

    def grow(carry: Any) -> Any:
        blocks, _, passes = carry
        grown = _pass(couplings, blocks, differ, passes)
        changed = [jnp.any(old != new, axis=0) for old, new in zip(blocks, grown, strict=True)]
        return grown, jnp.any(jnp.stack(changed), axis=0), passes + 1

    state = (tuple(cluster), jnp.ones(first.shape, bool), jnp.int32(0))
    blocks, growing, _ = lax.while_loop(unfinished, grow, state)
    moved = [(part == 1) & ~growing[None, :] for part in blocks]
    new_a = tuple(jnp.where(part, y, x) for part, x, y in zip(moved, a, b, strict=True))
    new_b = tuple(jnp.where(part, x, y) for part, x, y in zip(moved, a, b, strict=True))
    return new_a, new_b


def _pass(
    couplings: Sparse, cluster: tuple[jax.Array, ...], inside: tuple[jax.Array, ...], step: jax.Array
) -> tuple[jax.Array, ...]:
    """The cluster with the neighbours added that are inside, class after class."""
    blocks, bucket = list(cluster), 0
    for sizes in couplings.classes:
        whole = columns.stack(blocks)
        for _ in sizes:
            near = _fenced_any(whole, couplings.neighbours[bucket], step)
            blocks[bucket] = blocks[bucket] | (near & inside[bucket])
            bucket += 1
    return tuple(blocks)


def _fenced_any(whole: jax.Array, index: jax.Array, step: jax.Array) -> jax.Array:
    """With the fence around the gathers of qjax.samplers.sweeps: a condition that is always true."""

    def none() -> jax.Array:
        return jnp.zeros((index.shape[0], whole.shape[1]), whole.dtype)

    near: jax.Array = lax.cond(step >= 0, lambda: columns.neighbour_any(whole, index), none)
    return near
