"""Rows of the couplings, one per read: what a search needs that flips another bit in each read."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from qjax.energy.couplings import Couplings, Dense, Sparse
from qjax.samplers.moves import columns

_DENSE_LIMIT = 8192


class Rows:
    """M without its diagonal, by rows: a dense matrix up to 8192 bits; beyond, lists of neighbours where the couplings
    are sparse, and products with unit vectors elsewhere."""

    def __init__(self, couplings: Couplings, dtype: Any) -> None:
        if not isinstance(couplings, Dense) and couplings.size <= _DENSE_LIMIT:
            couplings = Dense(columns.dense_matrix(couplings, dtype))
        self._couplings = couplings
        self._diagonal = None if isinstance(couplings, Dense | Sparse) else couplings.diagonal
        if isinstance(couplings, Sparse):
            self._sites, self._weights = listed(couplings)

    def image(self, x: jax.Array) -> jax.Array:
        """Mx for states (C, n)."""
        image = columns.apply(self._couplings, x.T).T
        return image if self._diagonal is None else image - self._diagonal[None, :].astype(x.dtype) * x

    def rows(self, index: jax.Array, units: jax.Array) -> jax.Array:
        """Rows (C, n) of M for the bits index (C,), which are also given as unit vectors (C, n)."""
        if isinstance(self._couplings, Dense):
            return self._couplings.matrix[index].astype(units.dtype)
        if isinstance(self._couplings, Sparse):
            here = jnp.arange(index.shape[0])[:, None]
            weights = self._weights[index].astype(units.dtype)
            return jnp.zeros_like(units).at[here, self._sites[index]].add(weights)
        rows = self._couplings.matvec(units)
        return rows if self._diagonal is None else rows - self._diagonal[None, :].astype(units.dtype) * units


def listed(couplings: Sparse) -> tuple[jax.Array, jax.Array]:
    """(neighbours, couplings), each (n, k), in the original order of the bits; padded with couplings of 0."""
    width = max(index.shape[1] for index in couplings.neighbours)
    sites, weights = (
        columns.stack([jnp.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
        for parts in (couplings.neighbours, couplings.weights)
    )
    return couplings.order[sites][couplings.position], weights[couplings.position]
