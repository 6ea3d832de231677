"""Moves of groups that were found in a plain Qubo (qjax.energy.finder), beside its single flips.

    E = E_rest + sum over groups P (sum x - k)^2

A group whose bits are in one of its states moves among these, as in qjax.samplers.moves.block_sweeps: there its penalty
is 0, so the move sees E_rest alone, whatever P is, and no precision is lost to large P. A group in any other state
stays as it is. Every few sweeps all bits are flipped one at a time, with the energy of the whole Qubo, which takes
groups out of their states and back. Both leave exp(-beta E) on all 2^n states invariant: moves are added, no state is
kept out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.blocks import Blocks, Family
from qjax.energy.finder import Found
from qjax.energy.qubo import Qubo
from qjax.samplers.moves import block_moves, block_sweeps, streams, sweeps
from qjax.samplers.moves.acceptance import Rule
from qjax.samplers.moves.sweeps import PerColumn

# Single flips seldom change a group: once in so many sweeps is enough.
_FLIPS_EVERY = 4
_STREAM = 2**30


def sweeper(qubo: Qubo, per_column: PerColumn, blocks: Blocks | None) -> sweeps.Sweeper:
    """Sweeps that keep every group of the blocks in its states, or, of those that were found, move it there.

    Errors: those of qjax.samplers.moves.block_sweeps.sweeper.
    """
    if isinstance(blocks, Found):
        return FoundSweeps(qubo, per_column, blocks)
    return block_sweeps.sweeper(qubo, per_column, blocks)


def rest_of(found: Found) -> Qubo:
    """The energy without the penalties, as a batch of one problem."""
    rest = found.rest
    return replace(rest, offset=rest.offset[None], linear=rest.linear[None], scale=rest.scale[None])


@dataclass(frozen=True)
class _Guarded:
    """The move of single groups, made only where the group is in one of its states."""

    move_inside: block_moves.Move
    holds: Callable[[Any], Any]

    @property
    def size(self) -> int:
        return self.move_inside.size

    @property
    def per(self) -> int:
        return 1

    @property
    def numbers(self) -> int:
        return self.move_inside.numbers

    def move(
        self,
        rule: Rule,
        fields: jax.Array,
        old: jax.Array,
        among: jax.Array,
        weights: jax.Array,
        draw: block_moves.Draw,
    ) -> tuple[jax.Array, jax.Array]:
        new, change = self.move_inside.move(rule, fields, old, among, weights, draw)
        inside = self.holds(old.T)
        return jnp.where(inside[None, :], new, old), jnp.where(inside, change, 0)

    def gaps(self, fields: jax.Array, old: jax.Array, among: jax.Array) -> jax.Array:
        return jnp.where(self.holds(old.T)[None, :], self.move_inside.gaps(fields, old, among), 0)


def _guarded(family: Family) -> block_moves.Move:
    move: Any = block_moves.move_of(family)
    return _Guarded(replace(move, per=1), family.hold)


class FoundSweeps:
    """A sweeper (qjax.samplers.moves.sweeps) of one problem; the state is that of block sweeps of E_rest."""

    def __init__(self, qubo: Qubo, per_column: PerColumn, found: Found) -> None:
        self._found = found
        self._groups = block_sweeps.BlockSweeps(rest_of(found), per_column, found, _guarded)
        self._flips = sweeps.sweeper(qubo, per_column)
        self._scale = qubo.scale[0]

    def load(self, bits: jax.Array) -> Any:
        return self._groups.load(bits)

    def snapshot(self, state: Any) -> Any:
        return state

    def unload(self, snapshot: Any) -> jax.Array:
        return self._groups.unload(snapshot)

    def sweep(
        self, state: Any, rule: Rule, weights: jax.Array, seeds: jax.Array, step: jax.Array, bias: Any = None
    ) -> tuple[Any, jax.Array]:
        assert bias is None
        own = streams.split(seeds, jnp.array([_STREAM], jnp.uint32))

        def flip(state: Any) -> tuple[Any, jax.Array]:
            inner, change = self._flips.sweep(self._flips.load(self.unload(state)), rule, weights, own, step)
            return self.load(self._flips.unload(self._flips.snapshot(inner))), change

        state, change = self._groups.sweep(state, rule, weights, seeds, step)
        turn = jnp.asarray(step) % jnp.asarray(_FLIPS_EVERY, jnp.asarray(step).dtype) == 0
        state, more = lax.cond(turn, flip, lambda state: (state, jnp.zeros_like(change)), state)
        return state, change + more

    def gaps(self, state: Any) -> jax.Array:
        """Of the moves of groups and of free bits."""
        return self._groups.gaps(state)

    def energies(self, state: Any, often: bool = False) -> jax.Array:
        """E/scale of each column (C,), up to a constant of the problem."""
        penalties = self._found.penalties(self.unload(state).T)
        return self._groups.energies(state, often) + penalties / self._scale
