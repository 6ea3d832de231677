"""Rows of the couplings, one a read: what a search needs that flips another bit in every read."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qjax.couplings import Couplings, Dense, Sparse
from qjax.samplers import columns

_DENSE_LIMIT = 8192


class Rows:
    """M without its diagonal, by rows: a dense matrix to 8192 bits; beyond, neighbour lists where the couplings are
    sparse, products with unit vectors elsewhere."""

    def __init__(self, couplings: Couplings) -> None:
        if not isinstance(couplings, Dense) and couplings.size <= _DENSE_LIMIT:
            couplings = Dense(columns.dense_matrix(couplings))
        self._couplings = couplings
        self._diagonal = None if isinstance(couplings, Dense | Sparse) else couplings.diagonal
        if isinstance(couplings, Sparse):
            width = max(index.shape[1] for index in couplings.neighbours)
            self._neighbours, self._weights = (
                columns.stack([jnp.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
                for parts in (couplings.neighbours, couplings.weights)
            )

    def image(self, x: jax.Array) -> jax.Array:
        """Mx for states (C, n)."""
        image = columns.apply(self._couplings, x.T).T
        return image if self._diagonal is None else image - self._diagonal[None, :].astype(x.dtype) * x

    def rows(self, index: jax.Array, units: jax.Array) -> jax.Array:
        """Rows (C, n) for index (C,), also given as unit vectors (C, n)."""
        if isinstance(self._couplings, Dense):
            return self._couplings.matrix[index].astype(units.dtype)
        if isinstance(self._couplings, Sparse):
            place = self._couplings.position[index]
            sites = self._couplings.order[self._neighbours[place]]
            here = jnp.arange(index.shape[0])[:, None]
            return jnp.zeros_like(units).at[here, sites].add(self._weights[place].astype(units.dtype))
        rows = self._couplings.matvec(units)
        return rows if self._diagonal is None else rows - self._diagonal[None, :].astype(units.dtype) * units
