"""How a bit is updated, from its field = beta scale f and one uniform number u in (0, 1):

    metropolis   flip with probability min(1, exp(-(1 - 2x) field))
    heat_bath    x = 1 with probability 1 / (1 + exp(field))
    descend      flip where that lowers the energy: the limit of zero temperature

Each rule has two equal forms. By a noise and a decision, in two steps, so that the logarithms of many bits are taken in
one pass:

    new = decide(field, x, noise(u))

By a level, which does not need the field yet, so that everything expensive comes before the sums over neighbours:

    new = 1 where field < level(u, x), else 0

Metropolis makes every flip that costs nothing: a bit of zero field flips at each visit, and at beta = 0 a sweep inverts
the state, whatever the random numbers are. That leaves the law invariant but does not mix. `heat_bath` draws such bits
at random: take it where they must be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# A level of `descend`: on the right side of zero, and negligible beside any field.
_TINY = 1e-20


class Rule(NamedTuple):
    """One rule, in both forms. strict: a bit of field 0 keeps its value, so that where x = 0 a rounded level must be
    compared strictly (in the other rules equality has no chance)."""

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


metropolis = Rule(_exponential, _flip_below, _metropolis_level)
heat_bath = Rule(_logistic, _one_below, _heat_bath_level)
descend = Rule(lambda u: u, _flip_down, _descend_level, strict=True)
