"""How a bit is updated: by its field times beta scale and one uniform number.

Two equal forms. By the noise and a decision, in two steps, so that the logarithms of many bits are taken in one pass:

    new = decide(field, x, noise(u))

By a level, which does not need the field yet, so that everything costly comes before the sums over neighbours:

    new = 1 where field < level(u, x), else 0

Metropolis makes every flip that costs nothing: a bit of zero field changes at each visit, and at beta = 0 a sweep
inverts the state, without a random number having a say. That leaves the law invariant but does not mix it; take
`heat_bath`, which draws such bits anew, where they must be random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# A level of `descend`: on the right side of zero, and nothing beside any field.
_TINY = 1e-20


class Rule(NamedTuple):
    """field = beta scale f. strict: the level holds x = 0 where field = 0 (without it, equality has no chance)."""

    noise: Callable[[jax.Array], jax.Array]
    decide: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    level: Callable[[jax.Array, jax.Array], jax.Array]
    strict: bool = False


def _flip_below(field: jax.Array, x: jax.Array, noise: jax.Array) -> jax.Array:
    change = (1 - 2 * x).astype(field.dtype) * field
    return jnp.where(change <= noise.astype(field.dtype), 1 - x, x)


def _one_below(field: jax.Array, x: jax.Array, noise: jax.Array) -> jax.Array:
    return (field < noise.astype(field.dtype)).astype(x.dtype)


def _flip_down(field: jax.Array, x: jax.Array, noise: jax.Array) -> jax.Array:
    del noise
    return jnp.where((1 - 2 * x).astype(field.dtype) * field < 0, 1 - x, x)


def _exponential(u: jax.Array) -> jax.Array:
    return -jnp.log(u)


def _logistic(u: jax.Array) -> jax.Array:
    return jnp.log1p(-u) - jnp.log(u)


def _metropolis_level(u: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, jnp.log(u), -jnp.log(u))


def _heat_bath_level(u: jax.Array, x: jax.Array) -> jax.Array:
    del x
    return jnp.log((1 - u) / u)


def _descend_level(u: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, jnp.asarray(_TINY, u.dtype), jnp.asarray(-_TINY, u.dtype))


# Flip with probability min(1, exp(-(1-2x) field)).
metropolis = Rule(_exponential, _flip_below, _metropolis_level)
# x = 1 with probability 1 / (1 + exp(field)).
heat_bath = Rule(_logistic, _one_below, _heat_bath_level)
# Flip where that lowers the energy: the limit of zero temperature.
descend = Rule(lambda u: u, _flip_down, _descend_level, strict=True)
