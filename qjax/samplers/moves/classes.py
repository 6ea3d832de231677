"""Sweeps of sparse couplings by colour classes: the bits of a class are not coupled, so updating them at once is exact.

The field of bit i is f_i = linear_i + S_i, with S_i = sum_j M_ij x_j over its neighbours. A rule
(qjax.samplers.moves.acceptance) sets x_i = 1 where w f_i + b_i < level_i, w = beta scale; nothing but S_i needs the
other bits, so

    limits     (level_i - b_i)/w - linear_i for all bits before the sweep, in one pass over random numbers, logarithms
               and linear terms; rounded down to the integer type of the sums where the couplings are integers
    sums       S of a bucket: one gather of rows per neighbour, added up in one kernel. Where the couplings take few
               values, the state holds value * x for each of them, and the sums need no products
    update     x = S <= limit, written into the state in place
    change     sum_i (new x_i - x_i) (S_i + linear_i), in one pass after the sweep

A bucket's sums are written by a `dynamic_update_slice` into an array of all sums: XLA then makes one kernel of its
gathers. As separate values, each gather becomes a kernel, or is fused into slow code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from qjax.energy.couplings import Sparse
from qjax.samplers.moves import columns, streams
from qjax.samplers.moves.acceptance import Rule

PerColumn = Callable[[jax.Array], jax.Array]

# Lists of neighbours up to the first length are one kernel, longer ones a loop over kernels of the second length.
_LONGEST_KERNEL = 48
_LOOPED_KERNEL = 24
# Buckets of fewer sites take one gather and a sum: unrolled, the long lists of a few hubs would take long to compile.
_FEW_SITES = 64
# Where more than this part of the sites has sums too large for int8, all sums are kept in the larger type.
_FEW_WIDE = 0.25


class Classes:
    """A sweeper (qjax.samplers.moves.sweeps) of colour classes; the state is x (n, C) in the couplings' sorted order.

    Integer couplings have integer sums (in a dtype that holds each of them), so bits are exact.
    """

    def __init__(self, couplings: Sparse, linear: jax.Array, per_column: PerColumn) -> None:
        self._couplings, self._per_column = couplings, per_column
        self._linear = jnp.take(linear, couplings.order, axis=0)
        whole = linear.dtype if couplings.integer_dtype is None else jnp.dtype(couplings.integer_dtype)
        levels = None if couplings.integer_dtype is None else couplings.levels
        largest = 0 if levels is None else max((abs(level) for level in levels), default=0)
        self._dtype = jnp.dtype(jnp.int8) if levels is not None and largest <= 127 else whole
        # Without edges there are no levels: any will do.
        self._levels = levels if levels is None else levels or (1,)
        self._most_in_int8 = 127 // max(largest, 1)
        sizes, start = [index.shape for index in couplings.neighbours], 0
        self._starts = []
        for m, _ in sizes:
            self._starts.append(start)
            start += m
        # Buckets whose sums need the larger type while those of most sites fit that of the state.
        wide = [] if self._dtype == whole else [b for b, (_, k) in enumerate(sizes) if k > self._most_in_int8]
        if sum(sizes[b][0] for b in wide) > _FEW_WIDE * couplings.size:
            self._dtype_of_sums, self._wide = whole, []
        else:
            self._dtype_of_sums, self._wide = self._dtype, wide
        self._whole = whole
        self._stops = np.cumsum([index.size for index in couplings.neighbours])
        self._rows = self._all_rows()

    def _all_rows(self) -> jax.Array | None:
        """Rows of the gathered array (total,) for all neighbours of all buckets, one after another; None without
        levels."""
        neighbours, weights = self._couplings.neighbours, self._couplings.weights
        if self._levels is None or not neighbours:
            return None
        # All lists at once: one bucket at a time, each would be a kernel.
        index, weight = (jnp.concatenate([part.reshape(-1) for part in parts]) for parts in (neighbours, weights))
        n = self._couplings.size
        rows = jnp.full(index.shape, len(self._levels) * n, index.dtype)
        for k, level in enumerate(self._levels):
            rows = jnp.where(weight == level, index + k * n, rows)
        return rows

    def _lists(self, bucket: int) -> tuple[jax.Array, jax.Array | None]:
        """(rows of the gathered array (m, k), weights (m, k)), the weights None where the rows are those of levels."""
        index, weight = self._couplings.neighbours[bucket], self._couplings.weights[bucket]
        if self._rows is None:
            return index, weight.astype(self._whole)
        stop = self._stops[bucket]
        return self._rows[stop - index.size : stop].reshape(index.shape), None

    def load(self, bits: jax.Array) -> Any:
        return jnp.take(bits, self._couplings.order, axis=0).astype(self._dtype)

    def snapshot(self, state: Any) -> Any:
        return state

    def unload(self, snapshot: Any) -> jax.Array:
        return jnp.take(jnp.asarray(snapshot), self._couplings.position, axis=0).astype(jnp.int8)

    def sweep(
        self, state: Any, rule: Rule, weights: jax.Array, seeds: jax.Array, step: jax.Array, bias: Any = None
    ) -> tuple[Any, jax.Array]:
        x, dtype, n = state, self._linear.dtype, self._couplings.size
        weights = weights.astype(dtype)

        def limits(sites: jax.Array, rows: Callable[[jax.Array], jax.Array], sums: jnp.dtype) -> jax.Array:
            uniform = streams.uniforms(seeds, step, sites).astype(dtype)
            linear, own = self._per_column(rows(self._linear)), None if bias is None else rows(bias)
            return _limits(rule, uniform, rows(x), weights, linear, own, sums)

        def limited(sites: jax.Array, rows: Callable[[jax.Array], jax.Array], sums: jnp.dtype) -> jax.Array:
            # Always true, which XLA cannot know: else the logarithms are computed again wherever the limits are read.
            shape = (sites.shape[0], x.shape[1])
            limit: jax.Array = lax.cond(step >= 0, lambda: limits(sites, rows, sums), lambda: jnp.zeros(shape, sums))
            return limit

        limit = limited(jnp.arange(n), lambda a: a, self._dtype_of_sums)
        # All rows of the sums are overwritten. Zeros here XLA would take for padding, and not write in place.
        sums, values = x.astype(limit.dtype), self._values(x)
        if self._wide:
            wide_limit = limited(self._wide_rows(jnp.arange(n)), self._wide_rows, self._whole)
            wide_sums = self._wide_rows(x).astype(self._whole)
        bucket, place = 0, 0
        for members in self._couplings.classes:
            run, begin = 0, self._starts[bucket]
            for m in members:
                if bucket in self._wide:
                    values = self._update(values, begin, sums, limit, begin, run, weights)
                    wide_sums = self._add(wide_sums, values, bucket, place)
                    values = self._update(values, begin + run, wide_sums, wide_limit, place, m, weights)
                    begin, run, place = begin + run + m, 0, place + m
                else:
                    sums = self._add(sums, values, bucket, self._starts[bucket])
                    run += m
                bucket += 1
            values = self._update(values, begin, sums, limit, begin, run, weights)
        new = self._bits(values)
        flips = (new - x).astype(dtype)
        change = jnp.sum(flips * (sums.astype(dtype) + self._per_column(self._linear)), axis=0)
        if self._wide:
            # In `sums` the rows of wide buckets still hold x.
            missing = wide_sums.astype(dtype) - self._wide_rows(x).astype(dtype)
            change = change + jnp.sum(self._wide_rows(flips) * missing, axis=0)
        return new, change

    def _wide_rows(self, array: jax.Array) -> jax.Array:
        sizes = [self._couplings.neighbours[b].shape[0] for b in self._wide]
        return jnp.concatenate(
            [array[self._starts[b] : self._starts[b] + m] for b, m in zip(self._wide, sizes, strict=True)]
        )

    def _values(self, x: jax.Array) -> jax.Array:
        """What is gathered from: x, or level * x for every level and a row of zeros."""
        if self._levels is None:
            return x
        levels = [x if level == 1 else x * jnp.asarray(level, x.dtype) for level in self._levels]
        return jnp.concatenate([*levels, jnp.zeros((1, x.shape[1]), x.dtype)])

    def _bits(self, values: jax.Array) -> jax.Array:
        if self._levels is None:
            return values
        first = values[: self._couplings.size]
        return first if self._levels[0] == 1 else (first != 0).astype(values.dtype)

    def _update(
        self, values: jax.Array, start: int, sums: jax.Array, limit: jax.Array, place: int, m: int, weights: jax.Array
    ) -> jax.Array:
        """m bits from `start` decided by the sums and limits from `place`."""
        if not m:
            return values
        below = sums[place : place + m] <= limit[place : place + m]
        # A negative weight reverses the inequality.
        new = (below ^ (weights < 0)[None, :]).astype(values.dtype)
        for k, level in enumerate(self._levels or (1,)):
            row = k * self._couplings.size + start
            part = new if level == 1 else new * jnp.asarray(level, new.dtype)
            values = lax.dynamic_update_slice_in_dim(values, part, row, 0)
        return values

    def _add(self, sums: jax.Array, values: jax.Array, bucket: int, place: int) -> jax.Array:
        """sums with those of a bucket written from row `place`."""
        index, weight = self._lists(bucket)
        m, width = index.shape
        if width == 0:
            return lax.dynamic_update_slice_in_dim(sums, jnp.zeros((m, sums.shape[1]), sums.dtype), place, 0)
        if m < _FEW_SITES:
            terms = columns.rows(values, index.reshape(-1)).reshape((m, width, values.shape[1]))
            terms = terms if weight is None else terms * weight[:, :, None]
            return lax.dynamic_update_slice_in_dim(sums, jnp.sum(terms, axis=1, dtype=sums.dtype), place, 0)
        count = _LOOPED_KERNEL if width > _LONGEST_KERNEL else width
        if sums.dtype != values.dtype:
            count = min(count, self._most_in_int8)
        if count >= width:
            part = _gathered(values, index, weight).astype(sums.dtype)
            return lax.dynamic_update_slice_in_dim(sums, part, place, 0)
        pad = ((0, 0), (0, -width % count))
        last = 0 if self._levels is None else len(self._levels) * self._couplings.size
        index = jnp.pad(index, pad, constant_values=last)
        weight = None if weight is None else jnp.pad(weight, pad)

        def more(k: jax.Array, sums: jax.Array) -> jax.Array:
            few = lax.dynamic_slice_in_dim(index, k * count, count, 1)
            by = None if weight is None else lax.dynamic_slice_in_dim(weight, k * count, count, 1)
            part = jnp.where(k > 0, sums[place : place + m], 0) + _gathered(values, few, by).astype(sums.dtype)
            return lax.dynamic_update_slice_in_dim(sums, part, place, 0)

        looped: jax.Array = lax.fori_loop(0, index.shape[1] // count, more, sums)
        return looped

    def _field(self, state: Any) -> jax.Array:
        x = state.astype(self._linear.dtype)
        return self._couplings.sums(x) + self._per_column(self._linear)

    def gaps(self, state: Any) -> jax.Array:
        gaps: jax.Array = (1 - 2 * state).astype(self._linear.dtype) * self._field(state)
        return gaps

    def energies(self, state: Any, often: bool = False) -> jax.Array:
        x, linear = state.astype(self._linear.dtype), self._per_column(self._linear)
        if not often:
            return jnp.sum(x * (0.5 * self._couplings.sums(x) + linear), axis=0)
        sums, values = state.astype(self._whole), self._values(state)
        for bucket, start in enumerate(self._starts):
            sums = self._add(sums, values, bucket, start)
        return jnp.sum(x * (0.5 * sums.astype(x.dtype) + linear), axis=0)


def kernel_gathers(couplings: Sparse) -> int:
    """How many gathers a sweep unrolls to: what decides its compile time."""
    widths = [1 if index.shape[0] < _FEW_SITES else index.shape[1] for index in couplings.neighbours]
    return sum(_LOOPED_KERNEL if width > _LONGEST_KERNEL else width for width in widths)


def _gathered(values: jax.Array, index: jax.Array, weight: jax.Array | None) -> jax.Array:
    """sum_k weight[:, k] values[index[:, k]] for values (rows, C), index and weight (m, k) -> (m, C)."""
    total = None
    for k in range(index.shape[1]):
        term = columns.rows(values, index[:, k])
        if weight is not None:
            term = term * weight[:, k][:, None]
        total = term if total is None else total + term
    assert total is not None
    return total


def _limits(
    rule: Rule,
    uniform: jax.Array,
    x: jax.Array,
    weights: jax.Array,
    linear: jax.Array,
    bias: jax.Array | None,
    dtype: jnp.dtype,
) -> jax.Array:
    """The largest sums (n, C) for which bits become 1 (0, for negative weights), in the dtype of the sums."""
    level = rule.level(uniform, x)
    level = level if bias is None else level - bias
    huge = float(np.finfo(level.dtype).max) / 4
    inverse = jnp.where(weights == 0, huge, jnp.clip(1 / jnp.where(weights == 0, 1, weights), -huge, huge))
    largest = level * inverse[None, :] - linear
    below = ((x == 0) ^ (weights < 0)[None, :]) if rule.strict else None
    if not jnp.issubdtype(dtype, jnp.integer):
        if below is not None:
            largest = jnp.where(below, jnp.nextafter(largest, -jnp.inf), largest)
        return largest.astype(dtype)
    whole = jnp.floor(largest)
    if below is not None:
        whole = jnp.where(below, jnp.ceil(largest) - 1, whole)
    # The float next to the largest int32 is beyond it.
    info = np.iinfo(dtype)
    top = float(info.max) if info.bits < 32 else 2.0**31 - 128
    return jnp.clip(whole, float(info.min), top).astype(dtype)
