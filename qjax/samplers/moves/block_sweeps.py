"""Sweeps that move whole blocks (qjax.energy.blocks): a constraint is kept by the moves and needs no penalty.

The bits are laid out group by group, family after family, and the free bits behind them. A sweep visits each group
once by the move of its kind (qjax.samplers.moves.block_moves), small groups several to a window, then each free bit by
single flips. The fields of a window come from one product with its rows of M, through the matrix or the factor of Gram
couplings. So the law exp(-beta E) on the allowed states is left invariant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.blocks import Blocks, Family
from qjax.energy.couplings import Couplings, Dense, Gram
from qjax.energy.qubo import Qubo
from qjax.samplers.moves import block_moves, columns, streams, sweeps
from qjax.samplers.moves.acceptance import Rule
from qjax.samplers.moves.sweeps import PerColumn

_DENSE_LIMIT = 8192
_FREE = 16  # free bits of a window


def sweeper(qubo: Qubo, per_column: PerColumn, blocks: Blocks | None) -> sweeps.Sweeper:
    """Sweeps that keep every group of the blocks in its states; without blocks those of single flips.

    Errors: those of qjax.samplers.moves.sweeps.sweeper; ValueError for blocks on more than 8192 bits, unless the
    couplings are dense, or Gram with a factor to sweep through.
    """
    if blocks is None or not blocks.families:
        return sweeps.sweeper(qubo, per_column)
    return BlockSweeps(qubo, per_column, blocks)


@dataclass(frozen=True)
class _Part:
    """The windows of one family: `count` of them, from bit `first` of the layout and random site `sites` on."""

    move: block_moves.Move
    count: int
    first: int
    sites: int


class BlockSweeps:
    """A sweeper (qjax.samplers.moves.sweeps); the state is x (rows, C), floating, in the order of the layout."""

    def __init__(
        self,
        qubo: Qubo,
        per_column: PerColumn,
        blocks: Blocks,
        move_of: Callable[[Family], block_moves.Move] = block_moves.move_of,
    ) -> None:
        linear, diagonal = columns.zero_diagonal_terms(qubo)
        self._couplings, self._diagonal = qubo.couplings, diagonal
        self._original, self._per_column, self._n = linear, per_column, qubo.num_bits
        order, self._parts, self._first_free = _layout(blocks, self._n, move_of)
        self._order, rows = order, int(order.shape[0])
        self._position = jnp.zeros(self._n + 1, jnp.int32).at[order].set(jnp.arange(rows, dtype=jnp.int32))[: self._n]
        self._linear = jnp.pad(linear, ((0, 1), (0, 0)))[order]
        self._rows = _rows(qubo.couplings, order, linear.dtype)

    def load(self, bits: jax.Array) -> Any:
        return jnp.pad(bits.astype(self._linear.dtype), ((0, 1), (0, 0)))[self._order]

    def snapshot(self, state: Any) -> Any:
        return state

    def unload(self, snapshot: Any) -> jax.Array:
        return jnp.asarray(snapshot)[self._position].astype(jnp.int8)

    def sweep(
        self, state: Any, rule: Rule, weights: jax.Array, seeds: jax.Array, step: jax.Array, bias: Any = None
    ) -> tuple[Any, jax.Array]:
        assert bias is None
        dtype = self._linear.dtype
        weights = weights.astype(dtype)
        carry = (state, self._rows.start(state), jnp.zeros(state.shape[1], dtype))

        def drawn(sites: int, number: jax.Array, move: block_moves.Move) -> block_moves.Draw:
            def draw(first: Any, count: int) -> jax.Array:
                begin = jnp.uint32(sites) + number.astype(jnp.uint32) * jnp.uint32(move.numbers)
                begin = begin + jnp.asarray(first).astype(jnp.uint32)
                return streams.uniforms(seeds, step, begin + jnp.arange(count, dtype=jnp.uint32))

            return draw

        for part in self._parts:

            def window(number: jax.Array, carry: Any, part: _Part = part) -> Any:
                x, extra, change = carry
                first, size = part.first + number * part.move.size, part.move.size
                fields, old, among = self._window(x, extra, first, size)
                draw = drawn(part.sites, number, part.move)
                new, gain = part.move.move(rule, fields, old, among, weights, draw)
                x = lax.dynamic_update_slice_in_dim(x, new, first, 0)
                return x, self._rows.absorb(extra, first, new - old), change + gain

            carry = lax.fori_loop(0, part.count, window, carry)

        def flips(number: jax.Array, carry: Any) -> Any:
            x, extra, change = carry
            first = self._first_free + number * _FREE
            fields, old, among = self._window(x, extra, first, _FREE)
            noise = rule.noise(streams.uniforms(seeds, step, first + jnp.arange(_FREE)))
            new, change = sweeps.flips(rule, fields, old, noise, among, weights, None, change)
            x = lax.dynamic_update_slice_in_dim(x, new, first, 0)
            return x, self._rows.absorb(extra, first, new - old), change

        if self._free_windows:
            carry = lax.fori_loop(0, self._free_windows, flips, carry)
        return carry[0], carry[2]

    @property
    def _free_windows(self) -> int:
        return (int(self._order.shape[0]) - self._first_free) // _FREE

    def _window(self, x: jax.Array, extra: Any, first: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(fields (size, C), bits (size, C), couplings among them (size, size))."""
        image, among = self._rows.fields(x, extra, first, size)
        fields = image + self._per_column(lax.dynamic_slice_in_dim(self._linear, first, size, 0))
        return fields, lax.dynamic_slice_in_dim(x, first, size, 0), among

    def gaps(self, state: Any) -> jax.Array:
        """Changes of E/scale by moves of the groups and flips of the free bits, (R, C), 0 where nothing would change:
        all of small groups and assignments, of `choose` those of a sample of exchanges."""
        return self._moved(state, lambda move: move.gaps)

    @property
    def listed(self) -> bool:
        """Whether some groups have a table of states."""
        return any(isinstance(part.move, block_moves.Listed) for part in self._parts)

    def costs(self, state: Any, sign: jax.Array) -> jax.Array:
        """The gaps times sign (C,); of each group with a table of states only the smallest above 0."""

        def of(move: block_moves.Move) -> Callable[..., jax.Array]:
            if isinstance(move, block_moves.Listed):
                return partial(move.cheapest, sign=sign)
            return lambda *window: sign[None, :] * move.gaps(*window)

        return self._moved(state, of, sign[None, :])

    def _moved(
        self, state: Any, of: Callable[[block_moves.Move], Callable[..., jax.Array]], sign: Any = 1.0
    ) -> jax.Array:
        """of(move) of the fields, bits and couplings of all windows of that move; sign times the gaps of free bits."""
        extra, found = self._rows.start(state), []

        def over(count: int, begin: int, size: int, gaps: Callable[..., jax.Array]) -> None:
            if count:
                starts = begin + size * jnp.arange(count)
                windows = lax.map(lambda first: gaps(*self._window(state, extra, first, size)), starts)
                found.append(windows.reshape((-1, state.shape[1])))

        for part in self._parts:
            over(part.count, part.first, part.move.size, of(part.move))
        over(self._free_windows, self._first_free, _FREE, lambda fields, old, among: sign * ((1 - 2 * old) * fields))
        return jnp.concatenate(found)

    def energies(self, state: Any, often: bool = False) -> jax.Array:
        x = jnp.asarray(state)[self._position]
        image = columns.apply(self._couplings, x, often)
        if self._diagonal is not None:
            image = image - self._diagonal[:, None] * x
        return jnp.sum(x * (0.5 * image + self._per_column(self._original)), axis=0)


def _layout(
    blocks: Blocks, n: int, move_of: Callable[[Family], block_moves.Move]
) -> tuple[jax.Array, list[_Part], int]:
    """(order (rows,): the bit of each row, n for padding; the families' parts; the first free row)."""
    bits, parts, first = [], [], 0
    for family in blocks.families:
        move, groups = move_of(family), jnp.asarray(family.groups, jnp.int32)
        count = -(-groups.shape[0] // move.per)
        padded = jnp.pad(groups, ((0, count * move.per - groups.shape[0]), (0, 0)), constant_values=n)
        bits.append(padded.reshape(-1))
        parts.append(_Part(move, count, first, 0))
        first += count * move.size
    free = n - blocks.num_bits
    held = jnp.zeros(n + 1, bool).at[jnp.concatenate(bits)].set(True)
    bits.append(jnp.nonzero(~held[:n], size=free, fill_value=n)[0].astype(jnp.int32))
    order = jnp.concatenate(bits)
    order = jnp.pad(order, (0, -free % _FREE), constant_values=n)
    # Flips of free bits use their rows as sites: all other sites come behind.
    sites, placed = int(order.shape[0]), []
    for part in parts:
        placed.append(_Part(part.move, part.count, part.first, sites))
        sites += part.count * part.move.numbers
    return order, placed, first


def _rows(couplings: Couplings, order: jax.Array, dtype: Any) -> sweeps.DenseRows | sweeps.GramRows:
    if isinstance(couplings, Gram) and sweeps.by_factor(couplings):
        return sweeps.GramRows(jnp.pad(couplings.factor, ((0, 0), (0, 1)))[:, order])
    if not isinstance(couplings, Dense) and couplings.size > _DENSE_LIMIT:
        kind = type(couplings).__name__.lower()
        raise ValueError(
            f"blocks take {kind} couplings of {_DENSE_LIMIT} bits at most, qubo has {couplings.size}: solve it by "
            "pieces, samplers.Decompose(sampler)"
        )
    matrix = jnp.pad(columns.dense_matrix(couplings, dtype), ((0, 1), (0, 1)))
    return sweeps.DenseRows(matrix[order][:, order])
