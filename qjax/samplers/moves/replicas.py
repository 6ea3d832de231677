"""Reads made of several replicas: columns c K + k of a sweep belong to read c, and the best of them is kept."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def select(snapshot: Any, place: jax.Array) -> Any:
    """Replica number `place` (C,) of each read: arrays (rows, C K) -> (rows, C)."""
    reads = place.shape[0]

    def of(x: jax.Array) -> jax.Array:
        return jnp.take(x, jnp.arange(reads, dtype=place.dtype) * (x.shape[1] // reads) + place, axis=1)

    return jax.tree.map(of, snapshot)


def keep_best(snapshot: Any, energies: jax.Array, best: Any, best_energy: jax.Array) -> tuple[Any, jax.Array]:
    """(states (rows, C), energies (C,)) of each read: its lowest replica, by energies (C, K), where that is below the
    best seen, else the best seen."""
    lowest, place = jnp.min(energies, axis=1), jnp.argmin(energies, axis=1)
    lower = lowest < best_energy

    def replaced() -> Any:
        return jax.tree.map(lambda a, b: jnp.where(lower[None, :], a, b), select(snapshot, place), best)

    return lax.cond(jnp.any(lower), replaced, lambda: best), jnp.minimum(lowest, best_energy)
