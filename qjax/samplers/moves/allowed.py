"""First states inside blocks (qjax.energy.blocks): every group in one of its states, free bits at random."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.blocks import Assignment, Blocks, Choose, Family, States
from qjax.samplers.moves import streams


def states(blocks: Blocks | None, bits: Any, seeds: jax.Array, step: int, num_bits: int) -> jax.Array:
    """Bits (n, C) int8 of the columns with seeds (2, C): those given, where None random ones.

    Groups that are not in one of their states get one of these at random, each with the same chance. Without blocks
    nothing is changed.
    """
    given = bits is not None
    x = bits if given else streams.random_bits(seeds, step, jnp.arange(num_bits))
    for family in () if blocks is None else blocks.families:
        groups = jnp.asarray(family.groups)
        count, size = groups.shape
        # The words of the group's own bits, whose random values they replace.
        words = streams.words(seeds, step, groups.reshape(-1)).reshape((count, size, -1))
        new = _random(family, words)
        if given:
            old = x[groups]
            inside = family.hold(jnp.moveaxis(old, 1, -1).swapaxes(0, 1)).T  # (G, C)
            new = jnp.where(inside[:, None], old, new)
        x = x.at[groups.reshape(-1)].set(new.reshape((count * size, -1)))
    return x


def _random(family: Family, words: jax.Array) -> jax.Array:
    """States (G, b, C) int8, uniformly drawn by words (G, b, C)."""
    count, size, columns = words.shape
    match family:
        case States(states=rows):
            chosen = (words[:, 0] % np.uint32(len(rows))).astype(jnp.int32)
            return jnp.moveaxis(jnp.asarray(rows, jnp.int8)[chosen], -1, 1)
        case Choose(k=k):
            rank = jnp.argsort(jnp.argsort(words, axis=1), axis=1)
            return (rank < k).astype(jnp.int8)
        case Assignment(indices=squares):
            n = squares.shape[-1]
            order = jnp.argsort(words[:, :n], axis=1)  # (G, N, C): the column of each row
            square = order[:, :, None] == jnp.arange(n)[None, None, :, None]
            return square.reshape((count, size, columns)).astype(jnp.int8)
        case _:
            chosen = (words[:, 0] % np.uint32(size)).astype(jnp.int32)
            return (jnp.arange(size)[None, :, None] == chosen[:, None]).astype(jnp.int8)
