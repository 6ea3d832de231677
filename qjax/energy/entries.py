"""Square matrices given by their entries, read on the host: SciPy's sparse ones, and dictionaries {(i, j): q}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from qjax.energy.couplings import Couplings, Dense, Sparse
from qjax.energy.labels import Labels

_DENSE_LIMIT = 8192


class Entries(NamedTuple):
    """rows, cols, values (m,), on the host; an entry may come several times, and then counts with its sum."""

    n: int
    rows: np.ndarray
    cols: np.ndarray
    values: np.ndarray
    labels: Labels | None


def entries(matrix: Any, labels: Labels | None) -> Entries | None:
    """The entries of a matrix that is a mapping or has `tocoo`; None for any other, such as an array.

    Errors: ValueError for a matrix that is not square, a key that is no pair, a negative index, a name that `labels`
    lacks.
    """
    # SciPy's dictionaries of keys are mappings, too.
    if not callable(getattr(matrix, "tocoo", None)):
        return _of_mapping(matrix, labels) if isinstance(matrix, Mapping) else None
    listed = matrix.tocoo()
    if len(listed.shape) != 2 or listed.shape[0] != listed.shape[1]:
        raise ValueError(f"matrix must be square, got shape {listed.shape}")
    rows, cols = (np.asarray(index, np.int64) for index in (listed.row, listed.col))
    return Entries(int(listed.shape[0]), rows, cols, np.asarray(listed.data, np.float64), labels)


def terms(held: Entries) -> tuple[np.ndarray, Couplings]:
    """(linear (n,), couplings Q + Q' without diagonal): sparse where that pays, else dense.

    Sparse: beyond 8192 bits, and where at most a sixth of all entries off the diagonal are coupled: there a sweep by
    neighbour lists costs less than one by the matrix (qjax.samplers.moves.sweeps.by_classes judges likewise).
    Errors: ValueError for NaN or infinity.
    """
    if not np.isfinite(held.values).all():
        raise ValueError("matrix must be finite, got NaN or infinity")
    n, own = held.n, held.rows == held.cols
    linear = np.bincount(held.rows[own], weights=held.values[own], minlength=n)
    first, second = held.rows[~own], held.cols[~own]
    key, member = np.unique(np.minimum(first, second) * max(n, 1) + np.maximum(first, second), return_inverse=True)
    values = np.bincount(member.reshape(-1), weights=held.values[~own], minlength=key.size)
    rows, cols, values = (part[values != 0] for part in (key // max(n, 1), key % max(n, 1), values))
    if n > _DENSE_LIMIT or 12 * values.size <= n * n:
        return linear, Sparse.from_edges(n, rows, cols, values)
    matrix = np.zeros((n, n), jnp.zeros(0).dtype)
    matrix[rows, cols] = matrix[cols, rows] = values
    return linear, Dense(jnp.asarray(matrix))


def _of_mapping(matrix: Mapping[Any, Any], labels: Labels | None) -> Entries:
    keys = list(matrix)
    if bad := [key for key in keys if not (isinstance(key, tuple) and len(key) == 2)]:
        raise ValueError(f"matrix must have pairs (i, j) as keys, got {bad[0]!r}")
    values = np.asarray([matrix[key] for key in keys], np.float64).reshape(-1)
    if values.size != len(keys):
        raise ValueError("matrix must have numbers as values")
    ends = [end for key in keys for end in key]
    if all(isinstance(end, int | np.integer) and not isinstance(end, bool) for end in ends):
        place = np.asarray(ends, np.int64).reshape(-1, 2)
        n = int(place.max(initial=-1)) + 1 if labels is None else len(labels)
        if place.size and (place.min() < 0 or place.max() >= n):
            raise ValueError(f"matrix must have bits 0 .. {n - 1} as keys, got {place.min()} .. {place.max()}")
        return Entries(n, place[:, 0], place[:, 1], values, labels)
    known = {} if labels is None else {labels[i]: i for i in range(len(labels))}
    for end in ends:
        if end not in known:
            if labels is not None:
                raise ValueError(f"matrix names a bit {end!r} that labels lack")
            known[end] = len(known)
    place = np.asarray([known[end] for end in ends], np.int64).reshape(-1, 2)
    return Entries(len(known), place[:, 0], place[:, 1], values, Labels.of_names(known) if labels is None else labels)
