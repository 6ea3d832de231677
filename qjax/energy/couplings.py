"""Couplings: the symmetric matrix M (n, n) in the term 1/2 x'Mx of a QUBO, held in one of four forms, all pytrees.

    Dense      the matrix itself, with zero diagonal
    Sparse     neighbour lists of the coupling graph, sorted by colour class and degree; zero diagonal
    Gram       M = A'A with its diagonal set to zero, for a factor A (N, n); the (n, n) matrix is never formed
    Implicit   a function x -> Mx; M keeps its diagonal, which may be unknown (None)

Every form has `size` (n), `matvec(x)` (Mx for x (..., n)), `diagonal` (diag M, (n,)), `row(i)` (row i of M, (n,)) and
`to_dense(dtype)` (M, (n, n); None: in the dtype that it has, or JAX's default). The scale of a Qubo is not part of M.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial, register_dataclass

from qjax.energy import products
from qjax.energy.coloring import layout_of
from qjax.rewriting import channels_last

# Integer couplings of at most this many distinct values are summed without products (`Sparse.levels`). Each value costs
# a copy of the state, so with more of them products are cheaper.
_MOST_LEVELS = 2


@partial(register_dataclass, data_fields=["matrix"], meta_fields=[])
@dataclass(frozen=True)
class Dense:
    """M as a symmetric matrix (n, n) with zero diagonal."""

    matrix: jax.Array

    @property
    def size(self) -> int:
        return int(self.matrix.shape[-1])

    @property
    def diagonal(self) -> jax.Array:
        return jnp.zeros(self.size, self.matrix.dtype)

    def matvec(self, x: jax.Array) -> jax.Array:
        """Mx for x (..., n)."""
        return jnp.matmul(x, self.matrix.astype(x.dtype), precision="highest")

    def row(self, index: jax.Array | int) -> jax.Array:
        return self.matrix[index]

    def to_dense(self, dtype: Any = None) -> jax.Array:
        return self.matrix if dtype is None else self.matrix.astype(dtype)


@partial(
    register_dataclass,
    data_fields=["order", "position", "neighbours", "weights"],
    meta_fields=["classes", "integer_dtype", "levels"],
)
@dataclass(frozen=True)
class Sparse:
    """M as padded neighbour lists of its graph, the sites (bits) sorted by colour class and, inside a class, by degree.

    No two sites of a colour class are coupled, so a whole class can be updated at once. A class is cut into buckets:
    m sites with at most k neighbours each. Made on the host by `from_edges`.

    order       (n,) int32: original site of each sorted position
    position    (n,) int32: sorted position of each original site
    neighbours  one (m, k) int32 array per bucket: SORTED positions of its sites' neighbours, padded with the site's own
                position
    weights     one (m, k) array per bucket: the couplings, 0 in the padding. Integers where all couplings are integers,
                of the smallest type that also holds the sum of the absolute couplings of any site
    classes     static: for each colour class, the sizes m of its buckets; buckets follow one another in sorted order
    integer_dtype  static: "int8", "int16", "int32", or None for real couplings
    levels      static: the distinct values of integer couplings where there are at most two (Max-Cut has one, +-J two),
                else None: sums over neighbours then need no products
    """

    order: jax.Array
    position: jax.Array
    neighbours: tuple[jax.Array, ...]
    weights: tuple[jax.Array, ...]
    classes: tuple[tuple[int, ...], ...]
    integer_dtype: str | None
    levels: tuple[int, ...] | None = None

    @staticmethod
    def from_edges(n: int, rows: Any, cols: Any, weights: Any) -> Sparse:
        """M[i, j] = M[j, i] = w for every edge (i, j, w), i != j; the weights of repeated edges are added up.

        rows, cols (E,): the sites i and j of each edge; weights (E,): its w. All on the host.
        Errors: ValueError for edges out of range, a site coupled to itself, lengths that differ, weights not finite.
        """
        rows, cols, weights = np.asarray(rows), np.asarray(cols), np.asarray(weights, np.float64)
        if not (rows.shape == cols.shape == weights.shape and rows.ndim == 1):
            raise ValueError(
                f"rows, cols, weights must be vectors of one length, got {rows.shape}, {cols.shape}, {weights.shape}"
            )
        rows, cols = rows.astype(np.int64), cols.astype(np.int64)
        if rows.size:
            low, high = min(rows.min(), cols.min()), max(rows.max(), cols.max())
            if low < 0 or high >= n:
                raise ValueError(f"edges must join sites 0 .. {n - 1}, got a site {low if low < 0 else high}")
        if not np.all(np.isfinite(weights)):
            raise ValueError("weights must be finite, got NaN or infinity")
        if np.any(rows == cols):
            raise ValueError(
                f"rows and cols couple site {rows[rows == cols][0]} to itself; put it into the linear term"
            )
        key, inverse = np.unique(np.minimum(rows, cols) * max(n, 1) + np.maximum(rows, cols), return_inverse=True)
        merged = np.bincount(inverse, weights=weights, minlength=key.size)
        key, merged = key[merged != 0], merged[merged != 0]
        heads, tails = key // max(n, 1), key % max(n, 1)
        # Each edge in both directions, for it is in the neighbour lists of both of its sites.
        sites, others = np.concatenate([heads, tails]), np.concatenate([tails, heads])
        values = np.concatenate([merged, merged])

        integer_dtype = _integer_dtype(n, sites, values)
        dtype = np.dtype(integer_dtype or jnp.zeros(0).dtype)
        layout = layout_of(n, sites, others)
        position = np.empty(n, np.int32)
        position[layout.order] = np.arange(n, dtype=np.int32)
        by_site = np.argsort(position[sites], kind="stable")
        site, other, value = position[sites][by_site], position[others][by_site], values[by_site]
        first = np.searchsorted(site, np.arange(n))
        slot = np.arange(site.size) - first[site] if site.size else site
        neighbours, padded, start = [], [], 0
        for sizes, widths in zip(layout.classes, layout.widths, strict=True):
            for size, width in zip(sizes, widths, strict=True):
                index = np.repeat(np.arange(start, start + size, dtype=np.int32)[:, None], width, axis=1)
                weight = np.zeros((size, width), dtype)
                chosen = slice(np.searchsorted(site, start), np.searchsorted(site, start + size))
                index[site[chosen] - start, slot[chosen]] = other[chosen]
                weight[site[chosen] - start, slot[chosen]] = value[chosen]
                neighbours.append(jnp.asarray(index))
                padded.append(jnp.asarray(weight))
                start += size
        return Sparse(
            jnp.asarray(layout.order.astype(np.int32)),
            jnp.asarray(position),
            tuple(neighbours),
            tuple(padded),
            layout.classes,
            integer_dtype,
            _levels(merged) if integer_dtype else None,
        )

    @property
    def size(self) -> int:
        return int(self.order.shape[-1])

    @property
    def diagonal(self) -> jax.Array:
        return jnp.zeros(self.size)

    def matvec(self, x: jax.Array) -> jax.Array:
        """Mx for x (..., n)."""
        if x.size == 0:
            return x
        columns = jnp.take(x.reshape((-1, self.size)).T, self.order, axis=0)
        image = jnp.take(self.sums(columns), self.position, axis=0)
        return image.T.reshape(x.shape)

    def sums(self, columns: jax.Array) -> jax.Array:
        """Mx for C vectors x at once: columns (n, C), its rows in sorted order, -> (n, C) in the same order and dtype.

        One gather for all buckets of about the same degree: this form compiles fast. Sweeps that have to run fast use
        qjax.samplers.moves.classes.
        """
        if not self.neighbours:
            return jnp.zeros_like(columns)
        # All lists joined into one vector each: padding them bucket by bucket would be one kernel per bucket.
        flat, weights = (
            jnp.concatenate([part.reshape(-1) for part in parts]) for parts in (self.neighbours, self.weights)
        )
        sizes, widths = np.asarray([index.shape for index in self.neighbours]).T
        width = np.repeat(widths, sizes)
        first = np.cumsum(width) - width
        # Sites share a gather where their widths round up to the same power of two.
        group = np.frexp(np.maximum(width - 1, 0))[1]
        images, sites = [], []
        for each in np.unique(group):
            chosen = np.flatnonzero(group == each)
            slot = jnp.arange(width[chosen].max())[None, :]
            inside = jnp.asarray(width[chosen])[:, None] > slot
            place = jnp.where(inside, jnp.asarray(first[chosen])[:, None] + slot, 0)
            index, weight = flat[place], jnp.where(inside, weights[place], 0)
            terms = jnp.take(columns, index.reshape(-1), axis=0, mode="clip").reshape((*index.shape, columns.shape[1]))
            images.append(jnp.sum(terms * weight.astype(columns.dtype)[:, :, None], axis=1, dtype=columns.dtype))
            sites.append(chosen)
        return jnp.concatenate(images)[np.argsort(np.concatenate(sites))]

    def row(self, index: jax.Array | int) -> jax.Array:
        return self.matvec(jnp.zeros(self.size).at[index].set(1.0))

    def edges(self) -> tuple[Any, Any, Any]:
        """(rows, cols, weights), each (E,), on the host: every edge once, rows < cols."""
        order = np.asarray(self.order)
        rows, cols, weights, start = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)], 0
        for index, weight in zip(self.neighbours, self.weights, strict=True):
            size, width = index.shape
            rows.append(np.repeat(order[start : start + size], width).astype(np.int64))
            cols.append(order[np.asarray(index)].reshape(-1).astype(np.int64))
            weights.append(np.asarray(weight, np.float64).reshape(-1))
            start += size
        edges = np.concatenate(rows), np.concatenate(cols), np.concatenate(weights)
        once = (edges[0] < edges[1]) & (edges[2] != 0)
        return edges[0][once], edges[1][once], edges[2][once]

    def to_dense(self, dtype: Any = None) -> jax.Array:
        return self.matvec(jnp.eye(self.size, dtype=dtype))


@partial(register_dataclass, data_fields=["factor"], meta_fields=[])
@dataclass(frozen=True)
class Gram:
    """M = A'A with its diagonal set to zero, held as the factor A (N, n): N n numbers instead of n^2."""

    factor: jax.Array

    @property
    def size(self) -> int:
        return int(self.factor.shape[-1])

    @property
    def diagonal(self) -> jax.Array:
        return jnp.zeros(self.size, self.factor.dtype)

    @property
    def squares(self) -> jax.Array:
        """diag(A'A), (n,), which `matvec` subtracts."""
        return jnp.sum(self.factor * self.factor, axis=0)

    def matvec(self, x: jax.Array) -> jax.Array:
        """A'(Ax) - diag(A'A) x for x (..., n)."""
        factor = self.factor.astype(x.dtype)
        image = jnp.matmul(x, factor.T, precision="highest")
        squares = jnp.broadcast_to(self.squares.astype(x.dtype), x.shape)
        return jnp.matmul(image, factor, precision="highest") - squares * x

    def row(self, index: jax.Array | int) -> jax.Array:
        return jnp.matmul(self.factor[:, index], self.factor, precision="highest").at[index].set(0.0)

    def to_dense(self, dtype: Any = None) -> jax.Array:
        matrix = zero_diagonal(jnp.matmul(self.factor.T, self.factor, precision="highest"))
        return matrix if dtype is None else matrix.astype(dtype)


@partial(register_dataclass, data_fields=["apply", "diagonal"], meta_fields=["size"])
@dataclass(frozen=True)
class Implicit:
    """M as a function: apply(x) = Mx for one vector x (n,), as a `jax.tree_util.Partial`, whose arguments are leaves.

    M keeps its diagonal. `diagonal` is diag M, (n,), which the energy of a flip needs; None where it is unknown. Inside
    jit the convolutions of `apply` run channels last (qjax.rewriting), since a sampler makes its products in a loop.
    Products in `apply` should have precision="highest": GPUs and TPUs otherwise round their factors.
    """

    apply: Partial
    size: int
    diagonal: jax.Array | None = None

    def matvec(self, x: jax.Array) -> jax.Array:
        """Mx for x (..., n), one call of `apply` per vector."""
        if x.size == 0:
            return x
        flat = x.reshape((-1, self.size))
        images = channels_last(self._images) if _traced((self.apply, flat)) else self._images
        return images(flat).astype(x.dtype).reshape(x.shape)

    def _images(self, flat: jax.Array) -> jax.Array:
        # One vector goes without vmap: some operators (host callbacks, sharded programs) are cheaper that way, and some
        # cannot be vmapped.
        images: jax.Array = self.apply(flat[0])[None] if flat.shape[0] == 1 else jax.vmap(self.apply)(flat)
        return images

    def row(self, index: jax.Array | int) -> jax.Array:
        return self.matvec(jnp.zeros(self.size).at[index].set(1.0))

    def to_dense(self, dtype: Any = None) -> jax.Array:
        """M with its diagonal, (n, n), by n calls of `apply`, so many at once as `qjax.energy.products` says."""
        if self.size <= 1:
            return self.matvec(jnp.eye(self.size, dtype=dtype))
        return products.columns(self.apply, self.size, dtype)


Couplings: TypeAlias = Dense | Sparse | Gram | Implicit


def zero_diagonal(matrix: jax.Array) -> jax.Array:
    """matrix (n, n) with its diagonal set to zero."""
    return jnp.where(jnp.eye(matrix.shape[-1], dtype=bool), jnp.zeros((), matrix.dtype), matrix)


def empty(n: int) -> Sparse:
    """No couplings among n bits."""
    return Sparse.from_edges(n, np.zeros(0, int), np.zeros(0, int), np.zeros(0, int))


def is_empty(couplings: Couplings) -> bool:
    """Whether M = 0 is known without looking at values: no bits, or a sparse form without edges."""
    return couplings.size == 0 or (isinstance(couplings, Sparse) and all(w.shape[-1] == 0 for w in couplings.weights))


def scaled(couplings: Couplings, factor: jax.Array) -> Couplings:
    """factor * M for a scalar factor (): in the same form for Dense and Sparse, else Implicit."""
    if not isinstance(factor, jax.core.Tracer) and np.ndim(factor) == 0 and float(factor) == 1.0:
        return couplings
    match couplings:
        case Dense(matrix):
            return Dense(factor.astype(matrix.dtype) * matrix)
        case Sparse():
            weights = tuple(factor * w.astype(factor.dtype) for w in couplings.weights)
            return Sparse(couplings.order, couplings.position, couplings.neighbours, weights, couplings.classes, None)
        case _:
            diagonal = None if couplings.diagonal is None else factor * couplings.diagonal
            return Implicit(Partial(_scaled_matvec, factor, couplings), couplings.size, diagonal)


def add(a: Couplings, b: Couplings) -> Couplings:
    """M_a + M_b for couplings of the same size, in the cheapest form that holds both."""
    if is_empty(a):
        return b
    if is_empty(b):
        return a
    if isinstance(a, Sparse) and isinstance(b, Sparse) and not _traced((a, b)):
        rows, cols, weights = (np.concatenate(pair) for pair in zip(a.edges(), b.edges(), strict=True))
        return Sparse.from_edges(a.size, rows, cols, weights)
    if isinstance(a, Gram) and isinstance(b, Gram):
        return Gram(jnp.concatenate([a.factor, b.factor.astype(a.factor.dtype)]))
    if isinstance(a, Dense) or isinstance(b, Dense):
        other = b if isinstance(a, Dense) else a
        if not isinstance(other, Implicit):
            left, right = a.to_dense(), b.to_dense()
            dtype = jnp.promote_types(left.dtype, right.dtype)
            return Dense(left.astype(dtype) + right.astype(dtype))
    diagonal = None if a.diagonal is None or b.diagonal is None else a.diagonal + b.diagonal
    return Implicit(Partial(_summed_matvec, a, b), a.size, diagonal)


def restrict(couplings: Couplings, keep: np.ndarray) -> Couplings:
    """M[keep][:, keep] in the same form, for sorted indices keep (k,) on the host."""
    match couplings:
        case Dense(matrix):
            return Dense(matrix[keep][:, keep])
        case Gram(factor):
            return Gram(factor[:, keep])
        case Sparse():
            rows, cols, weights = couplings.edges()
            place = np.full(couplings.size, -1, np.int64)
            place[keep] = np.arange(keep.size)
            inside = (place[rows] >= 0) & (place[cols] >= 0)
            return Sparse.from_edges(keep.size, place[rows[inside]], place[cols[inside]], weights[inside])
        case _:
            diagonal = None if couplings.diagonal is None else couplings.diagonal[keep]
            return Implicit(Partial(_restricted_matvec, jnp.asarray(keep), couplings), keep.size, diagonal)


# The functions that `Implicit` couplings made here call, each for one vector x (n,), or x (k,) for k kept bits.
def _scaled_matvec(factor: jax.Array, couplings: Couplings, x: jax.Array) -> jax.Array:
    return factor.astype(x.dtype) * couplings.matvec(x)


def _summed_matvec(a: Couplings, b: Couplings, x: jax.Array) -> jax.Array:
    return a.matvec(x) + b.matvec(x)


def _restricted_matvec(keep: jax.Array, couplings: Couplings, x: jax.Array) -> jax.Array:
    return couplings.matvec(jnp.zeros(couplings.size, x.dtype).at[keep].set(x))[keep]


def _traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _levels(weights: np.ndarray) -> tuple[int, ...] | None:
    """The distinct values of integer weights (E,), None where there are more than `_MOST_LEVELS`."""
    values = np.unique(weights)
    return tuple(int(v) for v in values) if values.size <= _MOST_LEVELS else None


def _integer_dtype(n: int, rows: np.ndarray, weights: np.ndarray) -> str | None:
    """The smallest integer dtype that holds the sum of |weights| of every site; None where weights are not integers.

    rows, weights (2E,): one site and the weight of every edge, each edge listed in both directions.
    """
    if not np.all(weights == np.rint(weights)):
        return None
    largest = np.bincount(rows, weights=np.abs(weights), minlength=max(n, 1)).max()  # type: ignore[call-overload, unused-ignore]
    return next((name for name in ("int8", "int16", "int32") if largest <= np.iinfo(name).max), None)
