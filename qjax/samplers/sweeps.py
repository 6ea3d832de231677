"""Single-flip sweeps over all reads at once: the kernel of annealing, tempering and descent.

With the field f_i = linear_i + sum_j M_ij x_j of bit i, a flip changes E/scale by (1 - 2 x_i) f_i. A sweep visits
every bit once:

    blocks    (dense, gram, implicit) one bit at a time. The fields of a block of bits come from one matmul; inside
              the block they are updated by rows of the (B, B) couplings among its bits, so the result equals plain
              sequential flips
    classes   (sparse) one colour class at a time: its bits are not coupled, so updating all of them at once is exact

Both leave the Boltzmann law exp(-beta E) invariant under `metropolis` and `heat_bath` (a block updated at once would
not).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from qjax.couplings import Gram, Implicit, Sparse
from qjax.qubo import Qubo
from qjax.samplers import columns, streams

# Bits of a block: measured on 2 CPU cores at n = 2000, 64 reads: 16: 10.9, 32: 12.4, 64: 14.0, 128: 22.8 ms a sweep.
_BLOCK = 16
_DENSE_LIMIT = 8192
# Sparse couplings whose pass unrolls to more gathers than this compile for too long.
_MOST_GATHERS = 2000

Spread = Callable[[jax.Array], jax.Array]


class Rule(NamedTuple):
    """How bits are updated: `noise` of uniform numbers, then the new bits `decide(field, x, noise)`, field = beta
    scale f.

    Two steps, so that the logarithms of a whole sweep are taken in one pass.
    """

    noise: Callable[[jax.Array], jax.Array]
    decide: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _flip_below(field: jax.Array, x: jax.Array, noise: jax.Array) -> jax.Array:
    change = (1 - 2 * x).astype(field.dtype) * field
    return jnp.where(change <= noise.astype(field.dtype), 1 - x, x)


def _one_below(field: jax.Array, x: jax.Array, noise: jax.Array) -> jax.Array:
    return (field < noise.astype(field.dtype)).astype(x.dtype)


def _flip_down(field: jax.Array, x: jax.Array, noise: jax.Array) -> jax.Array:
    del noise
    return jnp.where((1 - 2 * x).astype(field.dtype) * field < 0, 1 - x, x)


# Flip with probability min(1, exp(-(1-2x) field)).
metropolis = Rule(lambda u: -jnp.log(u), _flip_below)
# x = 1 with probability 1 / (1 + exp(field)).
heat_bath = Rule(lambda u: jnp.log1p(-u) - jnp.log(u), _one_below)
# Flip where that lowers the energy: the limit of zero temperature.
descend = Rule(lambda u: u, _flip_down)


class Sweeper(Protocol):
    """One problem's couplings in the layout of a sweep. `state` is what a sweep carries; made by `load`."""

    def load(self, bits: jax.Array) -> Any:
        """State of the bits (n, C)."""

    def snapshot(self, state: Any) -> Any:
        """The arrays (rows, C) that hold the bits themselves: what a sampler keeps of its best state."""

    def unload(self, snapshot: Any) -> jax.Array:
        """Bits (n, C) of a snapshot."""

    def sweep(
        self, state: Any, rule: Rule, weights: jax.Array, seeds: jax.Array, step: jax.Array, bias: Any = None
    ) -> tuple[Any, jax.Array]:
        """Every bit once by `rule` with weights (C,) = beta * scale -> (state, change of E/scale (C,)).

        bias, shaped like a snapshot: added to weights * f of every bit and column; the change leaves it out.
        """

    def gaps(self, state: Any) -> jax.Array:
        """(1 - 2x) f for every bit and column, (n, C): the change of E/scale by each single flip; rows in any order."""

    def energies(self, state: Any, often: bool = False) -> jax.Array:
        """E/scale - offset of every column, (C,); often: compiled for speed, where once in a run is for short
        compilation."""


def sweeper(qubo: Qubo, spread: Spread, unroll: bool = True) -> Sweeper:
    """The layout that suits the couplings of a Qubo with batch (P,); spread takes (..., P) to (..., C).

    unroll=False compiles faster and runs slower: for a few sweeps.

    Errors: ValueError for implicit couplings without a diagonal.
    """
    linear, diagonal = columns.zero_diagonal_terms(qubo)
    couplings, n = qubo.couplings, qubo.num_bits
    if isinstance(couplings, Sparse):
        if by_classes(couplings):
            return _Classes(couplings, linear, spread, unroll)
    elif isinstance(couplings, Gram):
        # A sweep costs n^2 a read through the matrix and 2 N n through the factor.
        if n > _DENSE_LIMIT or 2 * couplings.factor.shape[0] < n:
            return _Blocks(_GramRows(_padded(couplings.factor, n, 1), couplings.squares), linear, spread)
    elif isinstance(couplings, Implicit) and n > _DENSE_LIMIT:
        assert diagonal is not None
        return _Blocks(_ImplicitRows(couplings, diagonal), linear, spread)
    matrix = columns.dense_matrix(couplings).astype(linear.dtype)
    return _Blocks(_DenseRows(_padded(_padded(matrix, n, 0), n, 1)), linear, spread)


def by_classes(couplings: Sparse) -> bool:
    """Whether sparse couplings are swept by colour classes: their states are then tuples of blocks in sorted order."""
    n = couplings.size
    crowded = 6 * columns.stored_couplings(couplings) > n * n or columns.unrolled_gathers(couplings) > _MOST_GATHERS
    return n > _DENSE_LIMIT or not crowded


def _padded(array: jax.Array, n: int, axis: int) -> jax.Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -n % _BLOCK)
    return jnp.pad(array, widths)


@dataclass(frozen=True)
class _DenseRows:
    matrix: jax.Array

    def start(self, x: jax.Array) -> Any:
        return ()

    def fields(self, x: jax.Array, carry: Any, first: jax.Array) -> tuple[jax.Array, jax.Array]:
        """((Mx) of the block (B, C), couplings among its bits (B, B))."""
        rows = lax.dynamic_slice_in_dim(self.matrix, first, _BLOCK, 0)
        return jnp.matmul(rows, x, precision="highest"), lax.dynamic_slice_in_dim(rows, first, _BLOCK, 1)

    def absorb(self, carry: Any, first: jax.Array, change: jax.Array) -> Any:
        return carry


@dataclass(frozen=True)
class _GramRows:
    """M = offdiag(A'A): carries the image Ax (N, C)."""

    factor: jax.Array
    squares: jax.Array

    def start(self, x: jax.Array) -> Any:
        return jnp.matmul(self.factor.astype(x.dtype), x, precision="highest")

    def fields(self, x: jax.Array, carry: Any, first: jax.Array) -> tuple[jax.Array, jax.Array]:
        part = lax.dynamic_slice_in_dim(self.factor.astype(x.dtype), first, _BLOCK, 1)
        among = jnp.matmul(part.T, part, precision="highest")
        own = jnp.diagonal(among)[:, None] * lax.dynamic_slice_in_dim(x, first, _BLOCK, 0)
        among = jnp.where(jnp.eye(_BLOCK, dtype=bool), jnp.zeros((), x.dtype), among)
        return jnp.matmul(part.T, carry, precision="highest") - own, among

    def absorb(self, carry: Any, first: jax.Array, change: jax.Array) -> Any:
        part = lax.dynamic_slice_in_dim(self.factor.astype(change.dtype), first, _BLOCK, 1)
        return carry + jnp.matmul(part, change, precision="highest")


@dataclass(frozen=True)
class _ImplicitRows:
    """M by products only: a sweep costs n products for the couplings inside blocks and n/B C for the fields."""

    couplings: Implicit
    diagonal: jax.Array

    def start(self, x: jax.Array) -> Any:
        return ()

    def fields(self, x: jax.Array, carry: Any, first: jax.Array) -> tuple[jax.Array, jax.Array]:
        n = self.couplings.size
        units = (jnp.arange(n)[:, None] == first + jnp.arange(_BLOCK)[None, :]).astype(x.dtype)
        image = columns.apply(self.couplings, jnp.concatenate([units, x[:n]], axis=1))
        rows = lax.dynamic_slice_in_dim(_padded(image, n, 0), first, _BLOCK, 0)
        own = lax.dynamic_slice_in_dim(_padded(self.diagonal, n, 0), first, _BLOCK, 0)
        part = lax.dynamic_slice_in_dim(x, first, _BLOCK, 0)
        among = jnp.where(jnp.eye(_BLOCK, dtype=bool), jnp.zeros((), x.dtype), rows[:, :_BLOCK])
        return rows[:, _BLOCK:] - own[:, None] * part, among

    def absorb(self, carry: Any, first: jax.Array, change: jax.Array) -> Any:
        return carry


class _Blocks:
    """Sequential flips in blocks of bits; the state is (x (n padded, C) floating, what the rows carry)."""

    def __init__(self, rows: _DenseRows | _GramRows | _ImplicitRows, linear: jax.Array, spread: Spread) -> None:
        self._rows, self._spread, self._n = rows, spread, int(linear.shape[0])
        self._linear = _padded(linear, self._n, 0)

    def load(self, bits: jax.Array) -> Any:
        x = _padded(bits.astype(self._linear.dtype), self._n, 0)
        return x, self._rows.start(x)

    def snapshot(self, state: Any) -> Any:
        return state[0]

    def unload(self, snapshot: Any) -> jax.Array:
        return jnp.asarray(snapshot[: self._n]).astype(jnp.int8)

    def sweep(
        self, state: Any, rule: Rule, weights: jax.Array, seeds: jax.Array, step: jax.Array, bias: Any = None
    ) -> tuple[Any, jax.Array]:
        dtype, linear_of = self._linear.dtype, self._spread
        weights = weights.astype(dtype)

        def block(b: jax.Array, carry: Any) -> Any:
            x, extra, change = carry
            first = b * _BLOCK
            own = None if bias is None else lax.dynamic_slice_in_dim(bias, first, _BLOCK, 0)

            def site(k: jax.Array, carry: Any) -> Any:
                fields, x, noise, among, change = carry
                field, old = fields[k], x[k]
                scaled = field * weights if own is None else field * weights + own[k]
                new = rule.decide(scaled, old, noise[k])
                delta = new - old
                fields = fields + among[k][:, None] * delta[None, :]
                return fields, x.at[k].set(new), noise, among, change + delta * field

            image, among = self._rows.fields(x, extra, first)
            fields = image + linear_of(lax.dynamic_slice_in_dim(self._linear, first, _BLOCK, 0))
            noise = rule.noise(streams.uniforms(seeds, step, first + jnp.arange(_BLOCK)))
            old = lax.dynamic_slice_in_dim(x, first, _BLOCK, 0)
            _, new, _, _, change = lax.fori_loop(0, _BLOCK, site, (fields, old, noise, among, change))
            x = lax.dynamic_update_slice_in_dim(x, new, first, 0)
            return x, self._rows.absorb(extra, first, new - old), change

        x, extra = state
        count = x.shape[0] // _BLOCK
        x, extra, change = lax.fori_loop(0, count, block, (x, extra, jnp.zeros(x.shape[1], dtype)))
        return (x, extra), change

    def _image(self, state: Any) -> jax.Array:
        def block(b: jax.Array) -> jax.Array:
            image, _ = self._rows.fields(state[0], state[1], b * _BLOCK)
            return image

        count = state[0].shape[0] // _BLOCK
        return lax.map(block, jnp.arange(count)).reshape(state[0].shape)

    def gaps(self, state: Any) -> jax.Array:
        gaps: jax.Array = (1 - 2 * state[0]) * (self._image(state) + self._spread(self._linear))
        return gaps[: self._n]

    def energies(self, state: Any, often: bool = False) -> jax.Array:
        return jnp.sum(state[0] * (0.5 * self._image(state) + self._spread(self._linear)), axis=0)


class _Classes:
    """Colour classes updated at once; the state is a tuple of blocks, one a degree bucket, in the couplings' sorted
    order.

    Integer couplings keep integer sums (their dtype holds every sum), so energies and bits are exact.
    """

    def __init__(self, couplings: Sparse, linear: jax.Array, spread: Spread, unroll: bool) -> None:
        self._couplings, self._spread, self._unroll = couplings, spread, unroll
        self._linear = jnp.take(linear, couplings.order, axis=0)
        self._dtype = linear.dtype if couplings.integer_dtype is None else jnp.dtype(couplings.integer_dtype)
        self._starts, start = [], 0
        for index in couplings.neighbours:
            self._starts.append(start)
            start += index.shape[0]

    def load(self, bits: jax.Array) -> Any:
        x = jnp.take(bits, self._couplings.order, axis=0).astype(self._dtype)
        return tuple(x[s : s + i.shape[0]] for s, i in zip(self._starts, self._couplings.neighbours, strict=True))

    def snapshot(self, state: Any) -> Any:
        return state

    def unload(self, snapshot: Any) -> jax.Array:
        return jnp.take(columns.stack(snapshot), self._couplings.position, axis=0).astype(jnp.int8)

    def _field(self, whole: jax.Array, bucket: int, step: jax.Array) -> jax.Array:
        index, weight = self._couplings.neighbours[bucket], self._couplings.weights[bucket]
        start = self._starts[bucket]

        def sums() -> jax.Array:
            return columns.neighbour_sums(whole, index, weight, self._unroll)

        # Always true, which XLA cannot know: a fence around the gathers. Fused into what reads them, or split into one
        # kernel each, they run and compile many times slower (an optimization_barrier is gone before CPU fusion).
        image = lax.cond(step >= 0, sums, lambda: jnp.zeros((index.shape[0], whole.shape[1]), whole.dtype))
        linear = self._spread(self._linear[start : start + index.shape[0]])
        return jnp.asarray(image).astype(self._linear.dtype) + linear

    def sweep(
        self, state: Any, rule: Rule, weights: jax.Array, seeds: jax.Array, step: jax.Array, bias: Any = None
    ) -> tuple[Any, jax.Array]:
        blocks, bucket = list(state), 0
        weights = weights.astype(self._linear.dtype)
        n = self._couplings.size
        noise = rule.noise(streams.uniforms(seeds, step, jnp.arange(n)))
        changes = []
        for sizes in self._couplings.classes:
            whole = columns.stack(blocks)
            for size in sizes:
                start, old = self._starts[bucket], blocks[bucket]
                field = self._field(whole, bucket, step)
                scaled = field * weights[None, :]
                if bias is not None:
                    scaled = scaled + bias[bucket]
                new = rule.decide(scaled, old, noise[start : start + size])
                changes.append((new - old).astype(field.dtype) * field)
                blocks[bucket] = new
                bucket += 1
        return tuple(blocks), jnp.sum(columns.stack(changes), axis=0)

    def gaps(self, state: Any) -> jax.Array:
        whole = columns.stack(state)
        fields = columns.stack([self._field(whole, b, jnp.int32(0)) for b in range(len(state))])
        return (1 - 2 * whole).astype(fields.dtype) * fields

    def energies(self, state: Any, often: bool = False) -> jax.Array:
        couplings, dtype = self._couplings, self._linear.dtype
        whole, total, start = columns.stack(state), jnp.zeros(state[0].shape[1], dtype), 0
        for x, index, weight in zip(state, couplings.neighbours, couplings.weights, strict=True):
            image = columns.neighbour_sums(whole, index, weight, unroll=often).astype(dtype)
            linear = self._spread(self._linear[start : start + x.shape[0]])
            total = total + jnp.sum(x.astype(dtype) * (0.5 * image + linear), axis=0)
            start += x.shape[0]
        return total
