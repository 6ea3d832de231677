"""The moves that a tabu search chooses from: one flip of each bit, or with blocks the moves of whole groups.

States are (C, n), 0/1, reads as the major axis: each read changes other bits. What a neighbourhood keeps of a state is
its own; numbers of moves and marks (see qjax.samplers.moves.exchanges) too.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from qjax.energy.blocks import Blocks, States
from qjax.energy.couplings import Dense
from qjax.energy.qubo import Qubo
from qjax.samplers.moves import allowed, columns, exchanges, streams
from qjax.samplers.moves.rows import Rows
from qjax.samplers.moves.sweeps import PerColumn

_DENSE_LIMIT = 8192
_MOST = 16


class Neighbourhood(Protocol):
    """count: moves of a state; marks: what can be tabu."""

    @property
    def count(self) -> int: ...

    @property
    def marks(self) -> int: ...

    def load(self, bits: jax.Array) -> jax.Array:
        """int8 (C, n) in its own order, of bits (n, C)."""

    def unload(self, x: jax.Array) -> jax.Array:
        """The reverse."""

    def look(self, x: jax.Array) -> tuple[Any, jax.Array]:
        """(what it keeps of x, energies (C,) in E/|scale|)."""

    def bits(self, state: Any) -> jax.Array:
        """x, int8."""

    def found(self, state: Any, until: jax.Array, step: jax.Array) -> exchanges.Found: ...

    def make(
        self, state: Any, found: exchanges.Found, index: jax.Array, until: jax.Array, step: jax.Array, tenure: jax.Array
    ) -> tuple[Any, jax.Array]:
        """(state, until) after the moves index (C,), whose marks are tabu for `tenure` steps (C,) at most."""

    def mixed(
        self, a: jax.Array, b: jax.Array, words: jax.Array, redrawn: jax.Array, seeds: jax.Array, step: Any
    ) -> Any:
        """A new start from two elites: each bit or group of either, or where `redrawn` at random."""


def of(qubo: Qubo, per_column: PerColumn, blocks: Blocks | None) -> Neighbourhood:
    """Of the moves of all groups, or of single flips where there are none.

    Groups that may take all of more than 16 states are left to single flips: there are many more states than bits.
    Errors: those of `Groups`.
    """
    kept = () if blocks is None else blocks.families
    kept = tuple(f for f in kept if not (isinstance(f, States) and len(f.states) == 2 ** f.indices.shape[-1] > _MOST))
    return Groups(qubo, per_column, Blocks(kept)) if kept else SingleFlips(qubo, per_column)


class _Flipped(NamedTuple):
    d: jax.Array  # (C, n), 1 - 2x
    gaps: jax.Array  # (C, n)


class SingleFlips:
    """Move i flips bit i; the changes of all flips are kept, and corrected by a row for each flip."""

    def __init__(self, qubo: Qubo, per_column: PerColumn) -> None:
        linear, _ = columns.zero_diagonal_terms(qubo)
        self._rows = Rows(qubo.couplings, qubo.linear.dtype)
        self._linear = per_column(linear).T  # (C, n)
        self._sign = jnp.sign(per_column(qubo.scale))[:, None]
        self.count = self.marks = qubo.num_bits

    def load(self, bits: jax.Array) -> jax.Array:
        return bits.T.astype(jnp.int8)

    def unload(self, x: jax.Array) -> jax.Array:
        return x.T

    def look(self, x: jax.Array) -> tuple[_Flipped, jax.Array]:
        x = x.astype(self._linear.dtype)
        image = self._rows.image(x)
        gaps = (1 - 2 * x) * (image + self._linear) * self._sign
        return _Flipped(1 - 2 * x, gaps), jnp.sum(x * (0.5 * image + self._linear), axis=1) * self._sign[:, 0]

    def bits(self, state: _Flipped) -> jax.Array:
        return (state.d < 0).astype(jnp.int8)

    def found(self, state: _Flipped, until: jax.Array, step: jax.Array) -> exchanges.Found:
        return exchanges.Found(state.gaps, until)

    def make(
        self,
        state: _Flipped,
        found: exchanges.Found,
        index: jax.Array,
        until: jax.Array,
        step: jax.Array,
        tenure: jax.Array,
    ) -> tuple[_Flipped, jax.Array]:
        here = jnp.arange(self.count)[None, :] == index[:, None]
        old = jnp.take_along_axis(state.d, index[:, None], axis=1)
        rows = self._rows.rows(index, here.astype(old.dtype))
        gaps = jnp.where(here, -state.gaps, state.gaps + state.d * rows * (old * self._sign))
        until = jnp.where(here, (step + 1 + jnp.minimum(tenure, self.count // 4))[:, None], until)
        return _Flipped(jnp.where(here, -state.d, state.d), gaps), until

    def mixed(
        self, a: jax.Array, b: jax.Array, words: jax.Array, redrawn: jax.Array, seeds: jax.Array, step: Any
    ) -> jax.Array:
        return jnp.where(redrawn, (words & 1).astype(jnp.int8), jnp.where(words >> 31 == 1, a, b))


class _Grouped(NamedTuple):
    x: jax.Array  # (C, n) floating
    fields: jax.Array  # (C, n), times the sign of the scale


class _Place(NamedTuple):
    """A part; where its bits, its moves and its marks begin; the couplings inside its groups (G, b, b), and what its
    moves need of these."""

    part: exchanges.Part
    bit: int
    move: int
    mark: int
    own: jax.Array
    inner: jax.Array

    def bits(self, values: jax.Array) -> jax.Array:
        return values[:, self.bit : self.bit + self.part.groups * self.part.bits]

    def marks(self, values: jax.Array) -> jax.Array:
        return values[:, self.mark : self.mark + self.part.marks]


class Groups:
    """The moves of all groups, and flips of the free bits, in an order family by family; the fields are kept, and
    corrected by a row for each bit that changes.

    Errors: ValueError for couplings of more than 8192 bits that are not dense.
    """

    def __init__(self, qubo: Qubo, per_column: PerColumn, blocks: Blocks) -> None:
        if not isinstance(qubo.couplings, Dense) and qubo.num_bits > _DENSE_LIMIT:
            raise ValueError(
                f"blocks take couplings of {_DENSE_LIMIT} bits at most unless they are dense, qubo has "
                f"{qubo.num_bits}: solve it by pieces, samplers.Decompose(sampler)"
            )
        linear, _ = columns.zero_diagonal_terms(qubo)
        n, self._blocks = qubo.num_bits, blocks
        self._order, parts = _layout(blocks, n)
        self._position = jnp.zeros(n, jnp.int32).at[self._order].set(jnp.arange(n, dtype=jnp.int32))
        self._linear = per_column(linear[self._order]).T
        self._sign = jnp.sign(per_column(qubo.scale))
        matrix = columns.dense_matrix(qubo.couplings, linear.dtype)[self._order][:, self._order]
        self._matrix, self._places = matrix, list[_Place]()
        bit = self.count = self.marks = 0
        for part in parts:
            inside = bit + jnp.arange(part.groups * part.bits).reshape((part.groups, part.bits))
            square = inside[:, :, None], inside[:, None, :]
            own = matrix[square]
            self._places.append(_Place(part, bit, self.count, self.marks, own, part.inner(own)))
            self._matrix = self._matrix.at[square].set(jnp.where(jnp.asarray(part.apart())[None], 0, own))
            bit, self.count, self.marks = bit + inside.size, self.count + part.moves, self.marks + part.marks
        self._most = max(part.rows for part in parts)

    def load(self, bits: jax.Array) -> jax.Array:
        return bits[self._order].T.astype(jnp.int8)

    def unload(self, x: jax.Array) -> jax.Array:
        return x.T[self._position]

    def look(self, x: jax.Array) -> tuple[_Grouped, jax.Array]:
        x = x.astype(self._linear.dtype)
        image = jnp.matmul(x, self._matrix, precision="highest")
        energy = jnp.sum(x * (0.5 * image + self._linear), axis=1)
        for place in self._places:
            mine = place.part.wide(place.bits(x))
            inner = jnp.where(jnp.asarray(place.part.apart())[None], place.own, 0)
            energy = energy + 0.5 * jnp.einsum("cgb,gbd,cgd->c", mine, inner, mine, precision="highest")
        return _Grouped(x, (image + self._linear) * self._sign[:, None]), energy * self._sign

    def bits(self, state: _Grouped) -> jax.Array:
        return state.x.astype(jnp.int8)

    def found(self, state: _Grouped, until: jax.Array, step: jax.Array) -> exchanges.Found:
        parts = [
            p.part.found(p.inner, self._sign, p.bits(state.x), p.bits(state.fields), p.marks(until), step)
            for p in self._places
        ]
        changes, free = (jnp.concatenate([part[k] for part in parts], axis=1) for k in range(2))
        return exchanges.Found(changes, free, [part.extra for part in parts])

    def make(
        self,
        state: _Grouped,
        found: exchanges.Found,
        index: jax.Array,
        until: jax.Array,
        step: jax.Array,
        tenure: jax.Array,
    ) -> tuple[_Grouped, jax.Array]:
        x, fields = state
        sites = jnp.zeros((index.shape[0], self._most), jnp.int32)
        deltas = jnp.zeros(sites.shape, x.dtype)
        numbers = jnp.arange(until.shape[1])[None, :]
        # A read in which no move is left, all being tabu, waits.
        moves = jnp.isfinite(jnp.take_along_axis(found.changes, index[:, None], axis=1))
        for place, extra in zip(self._places, found.extra, strict=True):
            part, own = place.part, index - place.move
            here = moves & ((own >= 0) & (own < part.moves))[:, None]
            made = part.made(jnp.clip(own, 0, part.moves - 1), place.bits(x), extra)
            width = made.sites.shape[1]
            sites = sites.at[:, :width].set(jnp.where(here, place.bit + made.sites, sites[:, :width]))
            deltas = deltas.at[:, :width].set(jnp.where(here, made.deltas, deltas[:, :width]))
            for k, longest in enumerate(made.longest):
                mark = here & (numbers == place.mark + made.marks[:, k : k + 1])
                until = jnp.where(mark, (step + 1 + jnp.minimum(tenure, longest))[:, None], until)
        bits = jnp.arange(x.shape[1])[None, :]
        for k in range(self._most):
            site, delta = sites[:, k], deltas[:, k : k + 1]
            fields = fields + self._matrix[site] * (delta * self._sign[:, None])
            x = x + jnp.where(bits == site[:, None], delta, 0)
        return _Grouped(x, fields), until

    def mixed(
        self, a: jax.Array, b: jax.Array, words: jax.Array, redrawn: jax.Array, seeds: jax.Array, step: Any
    ) -> jax.Array:
        own = streams.split(seeds, jnp.ones(1, jnp.int32))
        fresh = self.load(allowed.states(self._blocks, None, own, step, a.shape[1]))
        values = (a, b, fresh, words, redrawn)
        return jnp.concatenate([p.part.mixed(*(p.bits(v) for v in values)) for p in self._places], axis=1)


def _layout(blocks: Blocks, n: int) -> tuple[jax.Array, list[exchanges.Part]]:
    """(order (n,): the bit at each place; the families' parts, that of the free bits last)."""
    bits = [jnp.asarray(family.groups, jnp.int32).reshape(-1) for family in blocks.families]
    parts = [exchanges.part_of(family) for family in blocks.families]
    free = n - blocks.num_bits
    if free:
        held = jnp.zeros(n, bool).at[jnp.concatenate(bits)].set(True)
        bits.append(jnp.nonzero(~held, size=free)[0].astype(jnp.int32))
        parts.append(exchanges.Flips(free, 1))
    return jnp.concatenate(bits), parts
