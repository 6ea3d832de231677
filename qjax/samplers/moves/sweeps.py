"""Single-flip sweeps over all reads at once: the kernel of annealing, tempering and descent.

With the field f_i = linear_i + sum_j M_ij x_j of bit i, a flip changes E/scale by (1 - 2 x_i) f_i. A sweep visits
each bit once:

    blocks    (dense, gram, implicit) one bit at a time. The fields of a block of bits come from one matmul; inside
              the block they are updated by rows of the (B, B) couplings among its bits, so the result equals plain
              sequential flips. On NVIDIA GPUs one kernel does that in float32 (qjax.samplers.moves.block_kernel)
    classes   (sparse) one colour class at a time: its bits are not coupled, so updating all of them at once is exact

Both leave the Boltzmann law exp(-beta E) invariant under `metropolis` and `heat_bath` (updating a whole block at once
would not). Blocks are in this file, classes in qjax.samplers.moves.classes, rules in qjax.samplers.moves.acceptance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.couplings import Couplings, Dense, Gram, Implicit, Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers.moves import block_kernel, columns, streams
from qjax.samplers.moves.acceptance import Rule
from qjax.samplers.moves.classes import Classes, kernel_gathers

# Bits of a block: 16 was the fastest on a CPU (docs/samplers.md).
_BLOCK = 16
_DENSE_LIMIT = 8192
# Sparse couplings whose sweep unrolls to more gathers than this take too long to compile.
_MOST_GATHERS = 2000

PerColumn = Callable[[jax.Array], jax.Array]


class Sweeper(Protocol):
    """One problem's couplings in the layout of a sweep. `state` is what a sweep carries; made by `load`."""

    def load(self, bits: jax.Array) -> Any:
        """State of the bits (n, C)."""

    def snapshot(self, state: Any) -> Any:
        """The arrays (rows, C) that hold the bits alone: what a sampler keeps of its best state."""

    def unload(self, snapshot: Any) -> jax.Array:
        """Bits (n, C) of a snapshot."""

    def sweep(
        self, state: Any, rule: Rule, weights: jax.Array, seeds: jax.Array, step: jax.Array, bias: Any = None
    ) -> tuple[Any, jax.Array]:
        """Each bit once by `rule` with weights (C,) = beta * scale -> (state, change of E/scale (C,)).

        seeds (2, C), step: of the random numbers. bias, shaped like a snapshot: added to weights * f of each bit and
        column; the change of E does not count it.
        """

    def gaps(self, state: Any) -> jax.Array:
        """(1 - 2x) f for each bit and column, (n, C): the change of E/scale by each single flip; rows in any order."""

    def energies(self, state: Any, often: bool = False) -> jax.Array:
        """E/scale - offset of each column, (C,), of a state or a snapshot; often=False, for once in many sweeps: quick
        to compile, and slower."""


def sweeper(qubo: Qubo, per_column: PerColumn) -> Sweeper:
    """The layout that suits the couplings of a Qubo with batch (P,); per_column takes (..., P) to (..., C).

    Errors: ValueError for implicit couplings without a diagonal.
    """
    linear, diagonal = columns.zero_diagonal_terms(qubo)
    couplings, n = qubo.couplings, qubo.num_bits
    if isinstance(couplings, Sparse):
        if by_classes(couplings):
            return Classes(couplings, linear, per_column)
    elif isinstance(couplings, Gram):
        if by_factor(couplings):
            return _Blocks(GramRows(_padded(couplings.factor, n, 1)), linear, per_column)
    elif isinstance(couplings, Implicit) and n > _DENSE_LIMIT:
        assert diagonal is not None
        return _Blocks(_ImplicitRows(couplings, diagonal), linear, per_column)
    matrix = columns.dense_matrix(couplings, linear.dtype)
    return _Blocks(DenseRows(_padded(_padded(matrix, n, 0), n, 1)), linear, per_column)


def by_classes(couplings: Sparse) -> bool:
    """Whether sparse couplings are swept by colour classes: their states are then in sorted order."""
    n = couplings.size
    crowded = 6 * columns.stored_couplings(couplings) > n * n or kernel_gathers(couplings) > _MOST_GATHERS
    return n > _DENSE_LIMIT or not crowded


def by_factor(couplings: Gram) -> bool:
    """Whether Gram couplings are swept through their factor, else through the matrix: a sweep of a read costs n^2
    through the matrix, and 3 N n through the factor, a third of it in one product."""
    return couplings.size > _DENSE_LIMIT or 2 * couplings.factor.shape[0] < couplings.size


def for_products(couplings: Couplings, dtype: Any) -> Couplings:
    """The couplings for one product after another: sparse ones in few buckets, or as their matrix where a sweep would
    not go by classes; others as they are."""
    if isinstance(couplings, Sparse):
        return columns.merged(couplings) if by_classes(couplings) else Dense(columns.dense_matrix(couplings, dtype))
    return couplings


def _padded(array: jax.Array, n: int, axis: int) -> jax.Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -n % _BLOCK)
    return jnp.pad(array, widths)


@dataclass(frozen=True)
class DenseRows:
    matrix: jax.Array

    def start(self, x: jax.Array) -> Any:
        return ()

    def fields(self, x: jax.Array, carry: Any, first: jax.Array, size: int = _BLOCK) -> tuple[jax.Array, jax.Array]:
        """((Mx) of the bits first .. first + size - 1 (size, C), couplings among them (size, size))."""
        rows = lax.dynamic_slice_in_dim(self.matrix, first, size, 0)
        return jnp.matmul(rows, x, precision="highest"), lax.dynamic_slice_in_dim(rows, first, size, 1)

    def absorb(self, carry: Any, first: jax.Array, change: jax.Array) -> Any:
        return carry


@dataclass(frozen=True)
class GramRows:
    """M = offdiag(A'A): the image Ax (N, C) is carried through a sweep."""

    factor: jax.Array

    def start(self, x: jax.Array) -> Any:
        return jnp.matmul(self.factor.astype(x.dtype), x, precision="highest")

    def fields(self, x: jax.Array, carry: Any, first: jax.Array, size: int = _BLOCK) -> tuple[jax.Array, jax.Array]:
        part = lax.dynamic_slice_in_dim(self.factor.astype(x.dtype), first, size, 1)
        among = jnp.matmul(part.T, part, precision="highest")
        own = jnp.diagonal(among)[:, None] * lax.dynamic_slice_in_dim(x, first, size, 0)
        among = jnp.where(jnp.eye(size, dtype=bool), jnp.zeros((), x.dtype), among)
        return jnp.matmul(part.T, carry, precision="highest") - own, among

    def absorb(self, carry: Any, first: jax.Array, change: jax.Array) -> Any:
        part = lax.dynamic_slice_in_dim(self.factor.astype(change.dtype), first, change.shape[0], 1)
        return carry + jnp.matmul(part, change, precision="highest")


@dataclass(frozen=True)
class _ImplicitRows:
    """M by products only: a sweep costs n products for the couplings inside blocks, and n/B C for the fields."""

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


def flips(
    rule: Rule,
    fields: jax.Array,
    old: jax.Array,
    noise: jax.Array,
    among: jax.Array,
    weights: jax.Array,
    bias: jax.Array | None,
    change: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Every bit of a block once, in order: what qjax.samplers.moves.block_kernel does in one kernel."""

    def site(k: jax.Array, carry: Any) -> Any:
        fields, x, noise, among, change = carry
        field, old = fields[k], x[k]
        scaled = field * weights if bias is None else field * weights + bias[k]
        new = rule.decide(scaled, old, noise[k])
        delta = new - old
        fields = fields + among[k][:, None] * delta[None, :]
        return fields, x.at[k].set(new), noise, among, change + delta * field

    _, new, _, _, change = lax.fori_loop(0, fields.shape[0], site, (fields, old, noise, among, change))
    return new, change


class _Blocks:
    """Sequential flips in blocks of bits; the state is x (n padded, C), floating."""

    def __init__(self, rows: DenseRows | GramRows | _ImplicitRows, linear: jax.Array, per_column: PerColumn) -> None:
        self._rows, self._per_column, self._n = rows, per_column, int(linear.shape[0])
        self._linear = _padded(linear, self._n, 0)

    def load(self, bits: jax.Array) -> Any:
        return _padded(bits.astype(self._linear.dtype), self._n, 0)

    def snapshot(self, state: Any) -> Any:
        return state

    def unload(self, snapshot: Any) -> jax.Array:
        return jnp.asarray(snapshot[: self._n]).astype(jnp.int8)

    def sweep(
        self, state: Any, rule: Rule, weights: jax.Array, seeds: jax.Array, step: jax.Array, bias: Any = None
    ) -> tuple[Any, jax.Array]:
        dtype, linear_of = self._linear.dtype, self._per_column
        weights = weights.astype(dtype)

        def block(b: jax.Array, carry: Any) -> Any:
            x, extra, change = carry
            first = b * _BLOCK
            own = None if bias is None else lax.dynamic_slice_in_dim(bias, first, _BLOCK, 0)

            image, among = self._rows.fields(x, extra, first)
            fields = image + linear_of(lax.dynamic_slice_in_dim(self._linear, first, _BLOCK, 0))
            noise = rule.noise(streams.uniforms(seeds, step, first + jnp.arange(_BLOCK)))
            old = lax.dynamic_slice_in_dim(x, first, _BLOCK, 0)
            sequential = block_kernel.instead_of(flips, dtype)
            new, change = sequential(rule, fields, old, noise, among, weights, own, change)
            x = lax.dynamic_update_slice_in_dim(x, new, first, 0)
            return x, self._rows.absorb(extra, first, new - old), change

        # What the rows carry is computed again for each sweep: updated only, it would collect rounding errors without
        # end. What that costs: docs/samplers.md.
        begin = (state, self._rows.start(state), jnp.zeros(state.shape[1], dtype))
        x, _, change = lax.fori_loop(0, state.shape[0] // _BLOCK, block, begin)
        return x, change

    def _image(self, state: Any) -> jax.Array:
        extra = self._rows.start(state)

        def block(b: jax.Array) -> jax.Array:
            image, _ = self._rows.fields(state, extra, b * _BLOCK)
            return image

        return lax.map(block, jnp.arange(state.shape[0] // _BLOCK)).reshape(state.shape)

    def gaps(self, state: Any) -> jax.Array:
        gaps: jax.Array = (1 - 2 * state) * (self._image(state) + self._per_column(self._linear))
        return gaps[: self._n]

    def energies(self, state: Any, often: bool = False) -> jax.Array:
        return jnp.sum(state * (0.5 * self._image(state) + self._per_column(self._linear)), axis=0)
