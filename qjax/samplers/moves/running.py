"""Energies added up from the changes of sweeps, computed again from the bits at fixed intervals.

A sum of changes collects rounding errors without end. Before every 512th sweep the energies of all states, and of the
best one seen, are computed from their bits, so the errors are those of 512 sweeps at most. The cost, two energies, is
below 1 % of the sweeps (docs/samplers.md).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from qjax.samplers.moves.sweeps import Sweeper

EVERY = 512

Kept: TypeAlias = tuple[jax.Array, jax.Array]


def refreshed(
    view: Sweeper, number: jax.Array, states: tuple[Any, ...], best: Any, kept: Kept, signs: tuple[Any, Any]
) -> Kept:
    """kept = (energies, lowest), computed again where `number` (of the sweep to come, from 1) is a multiple of EVERY.

    states: of the sweeper, D columns each; energies: one for each of their columns, in any shape; best: a snapshot of C
    columns, D a multiple of C; lowest (C,). Both are E/scale times signs[0] and signs[1] (broadcast).
    """
    energies, lowest = kept
    copies = energies.size // (len(states) * lowest.size)

    def again() -> Kept:
        # One program computes the energies of all states, and of the best ones, each as often as it has replicas.
        wide = jax.tree.map(lambda x: jnp.repeat(x, copies, axis=1), best)
        stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *states, wide)
        found = lax.map(view.energies, stacked)
        return found[:-1].reshape(energies.shape) * signs[0], found[-1, ::copies] * signs[1]

    fresh: Kept = lax.cond(number % EVERY == 0, again, lambda: kept)
    return fresh
