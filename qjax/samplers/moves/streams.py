"""Random numbers of the samplers: a keyed integer hash of (the read's key, step, site), so that nothing is stored and
nothing is shared.

    word(c, t, i) = mix(i G + a(c, t); b(c, t)),   a, b = mix of the two words of column c and of the step t

`mix` is the 32-bit finaliser "lowbias32" (Wellons, hash prospector, 2018; every input bit flips every output bit
with probability near 1/2), with the second word of the key folded in between its two rounds. The two words of a
column come from its JAX key (threefry by default), so columns are as independent as jax.random makes them. Along steps
and sites the hash replaces jax.random because it is ten times as fast on a CPU. It is no cryptographic generator.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_GOLDEN = 0x9E3779B9


def seeds(key: jax.Array, reads: jax.Array, num_problems: int) -> jax.Array:
    """Two words for each column c = p R + r: those of fold_in(key, reads[r]) mixed with p, uint32 (2, P R)."""
    folded: jax.Array = jax.vmap(lambda read: jax.random.key_data(jax.random.fold_in(key, read)))(reads)
    first, second = folded[None, :, 0], folded[None, :, 1]
    problem = jnp.arange(num_problems, dtype=jnp.uint32)[:, None]
    # Problem 0 keeps the words of the read; those of the others must not be shifts of one another.
    salt = jnp.where(problem == 0, jnp.uint32(0), _mix(problem * jnp.uint32(_GOLDEN)))
    shape = (num_problems, reads.shape[0])
    words = jnp.stack([_mix(jnp.broadcast_to(first, shape) ^ salt), _mix(jnp.broadcast_to(second, shape) + salt)])
    return words.reshape((2, -1))


def split(column_seeds: jax.Array, numbers: jax.Array) -> jax.Array:
    """Seeds (2, C m) of the streams `numbers` (m,) of every column: those of column c are at c m .. c m + m - 1."""
    number = numbers.astype(jnp.uint32)[None, :]
    first = _mix(column_seeds[0][:, None] ^ _mix(number * jnp.uint32(_GOLDEN) + jnp.uint32(3)))
    second = _mix(column_seeds[1][:, None] ^ _mix(number * jnp.uint32(0x85EBCA6B) + jnp.uint32(4)))
    return jnp.stack([first, second]).reshape((2, -1))


def words(column_seeds: jax.Array, step: jax.Array | int, sites: jax.Array) -> jax.Array:
    """uint32 (m, C): one word for each of the sites (m,) and columns, at a step."""
    t = jnp.asarray(step).astype(jnp.uint32)
    first = _mix(column_seeds[0] ^ _mix(t * jnp.uint32(_GOLDEN) + jnp.uint32(1)))
    second = _mix(column_seeds[1] ^ _mix(t * jnp.uint32(0x85EBCA6B) + jnp.uint32(2)))
    counters = sites.astype(jnp.uint32) * jnp.uint32(_GOLDEN)
    return _mix(counters[:, None] + first[None, :], second[None, :])


def uniforms(column_seeds: jax.Array, step: jax.Array | int, sites: jax.Array) -> jax.Array:
    """float32 (m, C) in the open interval (0, 1), odd multiples of 2^-24."""
    high = words(column_seeds, step, sites) >> 9
    return jnp.asarray((high.astype(jnp.float32) + jnp.float32(0.5)) * jnp.float32(2.0**-23))


def random_bits(column_seeds: jax.Array, step: jax.Array | int, sites: jax.Array) -> jax.Array:
    """int8 (m, C), 0 or 1 with probability 1/2."""
    return (words(column_seeds, step, sites) >> 31).astype(jnp.int8)


def _mix(x: jax.Array, inner: jax.Array | None = None) -> jax.Array:
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    if inner is not None:
        x = x ^ inner
    x = x * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
