"""The ends of the spectrum of the couplings, by power iterations with products only."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

_ITERATIONS = 24
_VECTORS = 4


def extreme_eigenvalues(
    product: Callable[[jax.Array], jax.Array], n: int, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
    """(smallest, largest) eigenvalue of a symmetric matrix given by its product on (n, c), to some 5 %.

    First the radius by power iterations, then both ends by iterations with the spectrum shifted to one side.
    Rayleigh quotients approach the ends from inside. Huge and tiny coefficients are safe: vectors are scaled by
    their largest entry first.
    """
    start = jax.random.normal(jax.random.key(0), (n, _VECTORS)).astype(dtype)

    def iterate(apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        def body(_: jax.Array, v: jax.Array) -> jax.Array:
            return _unit(apply(v))

        v = lax.fori_loop(0, _ITERATIONS, body, _unit(start))
        return jnp.max(jnp.abs(jnp.sum(v * apply(v), axis=0)))

    radius = 1.05 * iterate(product)
    largest = iterate(lambda v: product(v) + radius * v) - radius
    smallest = radius - iterate(lambda v: radius * v - product(v))
    return smallest, largest


def _unit(v: jax.Array) -> jax.Array:
    largest = jnp.max(jnp.abs(v), axis=0, keepdims=True)
    v = v / jnp.where(largest > 0, largest, 1)
    norm = jnp.sqrt(jnp.sum(v * v, axis=0, keepdims=True))
    return v / jnp.where(norm > 0, norm, 1)
