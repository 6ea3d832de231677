"""Descent by single flips, or by moves of groups, to a local minimum: a sampler, a control, and a last step for the
states of any other sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.blocks import KINDS
from qjax.energy.couplings import Sparse
from qjax.energy.qubo import Qubo
from qjax.samplers.contract import Outcome, Sampler, Task, positive
from qjax.samplers.moves import acceptance, block_sweeps, columns, swaps
from qjax.samplers.moves.rows import Rows


class _Prepared(NamedTuple):
    rows: Rows
    linear: jax.Array  # (n, P)


class _Steepest(NamedTuple):
    x: jax.Array  # (C, n) 0/1
    fields: jax.Array  # (C, n), times the sign of the scale
    largest: jax.Array  # (C, n), the largest |field| that each bit has had
    improvable: jax.Array  # (C,): the energy fell in the last step


class _Exchanged(NamedTuple):
    x: jax.Array  # (C, n) 0/1
    fields: jax.Array  # (C, n), times the sign of the scale
    largest: jax.Array  # (C, n), the largest |field| that each bit has had
    failures: jax.Array  # (C,) bits tried since the last exchange

    @property
    def improvable(self) -> jax.Array:
        return self.failures < self.x.shape[1]


class _Swept(NamedTuple):
    inner: Any
    rounding: jax.Array  # (C,): changes of E/scale by a sweep that may be none
    improvable: jax.Array


@dataclass(frozen=True)
class Greedy(Sampler):
    """Local minima under single flips, or under exchanges of two unlike bits, from random states or `initial_states`.

        flip of i            dE/scale = (1 - 2x_i) f_i,                                   f = linear + Mx
        exchange x_i != x_j  dE/scale = (1 - 2x_i) f_i + (1 - 2x_j) f_j - M_ij

    Steepest descent: each step makes, in each read, the flip of the largest decrease. On sparse couplings a step is a
    sweep in which each bit that lowers the energy flips: one flip per step would take of the order of n^2 operations.
    max_steps: the limit in multiples of n flips (in sweeps on sparse couplings).
    fixed_cardinality: k keeps k ones in each state by exchanges. Step t takes bit t mod n, and exchanges it with the
        unlike bit of the largest decrease, if there is one; a read is done when n bits in a row found none.
        `initial_states` with other numbers of ones get or lose some at random.
    Blocks are moved as wholes, in sweeps in which each group in turn takes its best state; of `choose` each one in turn
    goes to its best place, of an assignment each pair of rows is tried. max_steps counts sweeps.
    info: converged (*batch, reads), False where max_steps ended the descent.
    Errors: ValueError for implicit couplings without a diagonal, for fixed_cardinality above n, and for it and blocks.
    """

    max_steps: int = 100
    fixed_cardinality: int | None = None

    blocks: ClassVar[tuple[str, ...]] = KINDS

    def __post_init__(self) -> None:
        positive("max_steps", self.max_steps)
        swaps.check_cardinality(self.fixed_cardinality)

    def length(self, task: Task) -> int:
        return self.max_steps * (1 if self._sweeps(task) else task.num_bits)

    def _sweeps(self, task: Task) -> bool:
        return task.blocks is not None or (isinstance(task.qubo.couplings, Sparse) and self.fixed_cardinality is None)

    def prepare(self, task: Task) -> Any:
        swaps.check_cardinality(self.fixed_cardinality, task.num_bits)
        if self._sweeps(task):
            if self.fixed_cardinality is not None:
                raise ValueError("fixed_cardinality and blocks were both given: say it by qjax.blocks.choose")
            return block_sweeps.sweeper(task.qubo, task.per_column, task.blocks)
        linear, _ = columns.zero_diagonal_terms(task.qubo)
        return _Prepared(Rows(task.qubo.couplings, linear.dtype), linear)

    def init(self, task: Task, prepared: Any) -> _Steepest | _Exchanged | _Swept:
        bits = task.first_states()
        if self.fixed_cardinality is not None:
            bits = swaps.with_ones(bits, self.fixed_cardinality, task.seeds, 1)
        if not isinstance(prepared, _Prepared):
            inner, rounding = prepared.load(bits), jnp.zeros(task.num_columns, task.qubo.linear.dtype)
            if task.blocks is not None:
                # Fields are summed anew for each window, so that the change of a move and that of the way back may
                # both look like decreases.
                rounding = _rounding(jnp.max(jnp.abs(prepared.gaps(inner)), axis=0))
            return _Swept(inner, rounding, jnp.ones(task.num_columns, bool))
        x = bits.T.astype(prepared.linear.dtype)
        fields = (prepared.rows.image(x) + task.per_column(prepared.linear).T) * _sign(task)[:, None]
        if self.fixed_cardinality is not None:
            return _Exchanged(x, fields, jnp.abs(fields), jnp.zeros(task.num_columns, jnp.int32))
        return _Steepest(x, fields, jnp.abs(fields), jnp.ones(task.num_columns, bool))

    def step(self, task: Task, prepared: Any, t: jax.Array, state: Any) -> _Steepest | _Exchanged | _Swept:
        if isinstance(state, _Swept):
            inner, change = prepared.sweep(state.inner, acceptance.descend, _sign(task), task.seeds, t)
            return _Swept(inner, state.rounding, jnp.abs(change) > state.rounding)
        if isinstance(state, _Exchanged):
            return self._exchange(task, prepared, t, state)
        gaps = (1 - 2 * state.x) * state.fields
        gaps = jnp.where(gaps < -_rounding(state.largest), gaps, 0)
        index = jnp.argmin(gaps, axis=1)
        lower = jnp.take_along_axis(gaps, index[:, None], axis=1)[:, 0] < 0
        old = jnp.take_along_axis(state.x, index[:, None], axis=1)[:, 0]
        delta = jnp.where(lower, 1 - 2 * old, 0)
        here = jnp.arange(task.num_bits)[None, :] == index[:, None]
        rows = prepared.rows.rows(index, here.astype(delta.dtype))
        fields = state.fields + (delta * _sign(task))[:, None] * rows
        largest = jnp.maximum(state.largest, jnp.abs(fields))
        return _Steepest(state.x + jnp.where(here, delta[:, None], 0), fields, largest, lower)

    def _exchange(self, task: Task, prepared: Any, t: jax.Array, state: _Exchanged) -> _Exchanged:
        sites, i = jnp.arange(task.num_bits), t % task.num_bits
        here = jnp.broadcast_to(sites[None, :] == i, state.x.shape)
        own, sign = state.x[:, i][:, None], _sign(task)[:, None]
        row = prepared.rows.rows(jnp.full(task.num_columns, i), here.astype(own.dtype)) * sign
        gaps = (1 - 2 * state.x) * state.fields
        changes = gaps[:, i][:, None] + gaps - row
        rounding = _rounding(state.largest[:, i][:, None] + state.largest)
        changes = jnp.where((state.x != own) & (changes < -rounding), changes, 0)
        index = jnp.argmin(changes, axis=1)
        lower = jnp.take_along_axis(changes, index[:, None], axis=1)[:, 0] < 0
        there = sites[None, :] == index[:, None]
        other = prepared.rows.rows(index, there.astype(own.dtype)) * sign
        delta = jnp.where(lower[:, None], 1 - 2 * own, 0)
        x = state.x + delta * (here.astype(own.dtype) - there.astype(own.dtype))
        fields = state.fields + delta * (row - other)
        largest = jnp.maximum(state.largest, jnp.abs(fields))
        return _Exchanged(x, fields, largest, jnp.where(lower, 0, state.failures + 1))

    def done(self, state: Any) -> jax.Array:
        return ~jnp.any(state.improvable)

    def finish(self, task: Task, prepared: Any, state: Any) -> Outcome:
        bits = prepared.unload(prepared.snapshot(state.inner)) if isinstance(state, _Swept) else state.x.T
        return Outcome((bits,), {"converged": ~state.improvable}, {})


def polish(qubo: Qubo, bits: Any, max_steps: int = 100, fixed_cardinality: int | None = None) -> jax.Array:
    """Local minima reached from bits (*batch, ..., n) by `Greedy`: int8 of the same shape; no energy rises.

    max_steps, fixed_cardinality: those of `Greedy`; under a fixed cardinality bits with other numbers of ones get or
    lose some at random first, which may cost energy.
    Errors: ValueError for another shape, for bits other than 0 and 1, and for implicit couplings without a diagonal.
    """
    states = jnp.asarray(bits)
    batch, n = qubo.batch_shape, qubo.num_bits
    if states.shape[-1:] != (n,) or states.shape[:-1][: len(batch)] != batch:
        raise ValueError(f"bits must have shape {(*batch, '...', n)}, got {states.shape}")
    if states.size == 0:
        return states.astype(jnp.int8)
    reads = states.reshape((*batch, -1, n))
    samples = Greedy(max_steps, fixed_cardinality)(jax.random.key(0), qubo, reads.shape[-2], reads)
    return samples.bits.reshape(states.shape)


def _rounding(largest: jax.Array) -> jax.Array:
    """The rounding error that updates may have left in a field: a smaller decrease may be none, and would be undone and
    made again without end. Bit by bit, since the fields of other bits say nothing about it."""
    return 4 * float(np.finfo(largest.dtype).eps) * largest


def _sign(task: Task) -> jax.Array:
    return jnp.sign(task.per_column(task.qubo.scale))
