"""The terms of one energy as vectors on the host, before they become a Qubo: what models of other libraries are."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from qjax.energy.couplings import Couplings, Dense, Sparse
from qjax.energy.labels import Labels
from qjax.energy.qubo import Qubo

# Where more than this share of all pairs is coupled, a matrix is both smaller and faster than a list of edges.
_DENSE_SHARE = 0.1
_BLOCK = 256


class Terms(NamedTuple):
    """E(x) = offset + linear.x + sum_edges w x_i x_j, in float64: linear (n,), edges rows, cols, weights (E,), each
    pair of bits once, i != j."""

    linear: np.ndarray
    rows: np.ndarray
    cols: np.ndarray
    weights: np.ndarray
    offset: float

    def qubo(self, form: str | None = None, labels: Labels | None = None) -> Qubo:
        """The Qubo of scale 1.

        form: "dense", "sparse", or None: dense where more than a tenth of all pairs are coupled.
        Errors: ValueError for another form, and for terms that are not finite.
        """
        if form not in (None, "dense", "sparse"):
            raise ValueError(f"form must be 'dense', 'sparse' or None, got {form!r}")
        n = self.linear.size
        couplings: Couplings
        if form == "dense" or (form is None and self.weights.size > _DENSE_SHARE * n * (n - 1) / 2):
            couplings = Dense(self._symmetric())
        else:
            couplings = Sparse.from_edges(n, self.rows, self.cols, self.weights)
        return Qubo.from_terms(self.linear, couplings, self.offset, labels=labels)

    def _symmetric(self) -> jnp.ndarray:
        n = self.linear.size
        matrix = np.zeros((n, n), jnp.zeros(0).dtype)
        matrix[self.rows, self.cols] = self.weights
        # In blocks that fit the processor's cache: at n = 4000, M + M' of the whole matrix takes twice as long.
        for i in range(0, n, _BLOCK):
            for j in range(0, i + 1, _BLOCK):
                here, there = np.s_[i : i + _BLOCK, j : j + _BLOCK], np.s_[j : j + _BLOCK, i : i + _BLOCK]
                both = matrix[here] + matrix[there].T
                matrix[here], matrix[there] = both, both.T
        return jnp.asarray(matrix)
