"""Descent by single flips to a local minimum: a sampler, a control, and the last touch to any other sampler's
states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qjax.couplings import Couplings, Dense, Sparse
from qjax.qubo import Qubo
from qjax.samplers import columns, streams, sweeps
from qjax.samplers.contract import Outcome, Sampler, Task, positive

_DENSE_LIMIT = 8192


class _Steepest(NamedTuple):
    x: jax.Array  # (C, n) 0/1
    fields: jax.Array  # (C, n), times the sign of the scale
    improvable: jax.Array  # (C,): the column went down in the last step


class _Swept(NamedTuple):
    inner: Any
    improvable: jax.Array


@dataclass(frozen=True)
class Greedy(Sampler):
    """Local minima under single flips, from random states or `initial_states`.

    Steepest descent: each step flips the bit with the largest decrease (1-2x_i) f_i. On sparse couplings a step is a
    pass over the colour classes in which every bit that lowers the energy flips, since one flip a step would take
    n^2 work.
    max_steps: the limit in multiples of n flips (of single passes where sparse); reaching it is reported by
    `info["converged"]`.
    """

    max_steps: int = 100

    def __post_init__(self) -> None:
        positive("max_steps", self.max_steps)

    def length(self, task: Task) -> int:
        return self.max_steps * (1 if isinstance(task.qubo.couplings, Sparse) else task.num_bits)

    def prepare(self, task: Task) -> Any:
        if isinstance(task.qubo.couplings, Sparse):
            return sweeps.sweeper(task.qubo, task.spread)
        linear, _ = columns.zero_diagonal_terms(task.qubo)
        return _SteepestProblem(_row_form(task.qubo.couplings), linear)

    def init(self, task: Task, problem: Any) -> _Steepest | _Swept:
        bits = task.initial
        if bits is None:
            bits = streams.random_bits(task.seeds, 0, jnp.arange(task.num_bits))
        if not isinstance(problem, _SteepestProblem):
            return _Swept(problem.load(bits), jnp.ones(task.num_columns, bool))
        x = bits.T.astype(problem.linear.dtype)
        fields = columns.apply(problem.couplings, x.T).T + task.spread(problem.linear).T
        if problem.diagonal is not None:
            fields = fields - problem.diagonal[None, :] * x
        return _Steepest(x, fields * _sign(task)[:, None], jnp.ones(task.num_columns, bool))

    def step(self, task: Task, problem: Any, t: jax.Array, state: Any) -> _Steepest | _Swept:
        if isinstance(state, _Swept):
            inner, change = problem.sweep(state.inner, sweeps.descend, _sign(task), task.seeds, t)
            return _Swept(inner, change != 0)
        gaps = (1 - 2 * state.x) * state.fields
        index = jnp.argmin(gaps, axis=1)
        gap = jnp.take_along_axis(gaps, index[:, None], axis=1)[:, 0]
        # Fields are kept by updates: below their rounding a decrease is not one, and could be undone for ever.
        size = jnp.max(jnp.abs(state.fields), axis=1)
        lower = gap < -4 * float(np.finfo(gap.dtype).eps) * size
        old = jnp.take_along_axis(state.x, index[:, None], axis=1)[:, 0]
        delta = jnp.where(lower, 1 - 2 * old, 0)
        here = jnp.arange(task.num_bits)[None, :] == index[:, None]
        rows = problem.rows(index, here.astype(delta.dtype))
        fields = state.fields + (delta * _sign(task))[:, None] * rows
        return _Steepest(state.x + jnp.where(here, delta[:, None], 0), fields, lower)

    def done(self, state: Any) -> jax.Array:
        return ~jnp.any(state.improvable)

    def finish(self, task: Task, problem: Any, state: Any) -> Outcome:
        bits = problem.unload(problem.snapshot(state.inner)) if isinstance(state, _Swept) else state.x.T
        return Outcome((bits,), {"converged": ~state.improvable}, {})


class _SteepestProblem:
    def __init__(self, couplings: Couplings, linear: jax.Array) -> None:
        self.couplings, self.linear = couplings, linear
        self.diagonal = None if isinstance(couplings, Dense) else couplings.diagonal

    def rows(self, index: jax.Array, units: jax.Array) -> jax.Array:
        """Rows of M without its diagonal for index (C,), also given as unit vectors (C, n)."""
        if isinstance(self.couplings, Dense):
            return self.couplings.matrix[index].astype(units.dtype)
        rows = self.couplings.matvec(units)
        return rows if self.diagonal is None else rows - self.diagonal[None, :] * units


def polish(qubo: Qubo, bits: Any, max_steps: int = 100) -> jax.Array:
    """Local minima under single flips reached from bits (*batch, ..., n): int8 of the same shape; no energy rises.

    Errors: ValueError for another shape, and for implicit couplings without a diagonal.
    """
    states = jnp.asarray(bits)
    batch, n = qubo.batch_shape, qubo.num_bits
    if states.shape[-1:] != (n,) or states.shape[:-1][: len(batch)] != batch:
        raise ValueError(f"bits must have shape {(*batch, '...', n)}, got {states.shape}")
    if states.size == 0:
        return states.astype(jnp.int8)
    reads = states.reshape((*batch, -1, n))
    samples = Greedy(max_steps)(jax.random.key(0), qubo, reads.shape[-2], reads)
    return samples.bits.reshape(states.shape)


def _row_form(couplings: Couplings) -> Couplings:
    if isinstance(couplings, Dense) or couplings.size > _DENSE_LIMIT:
        return couplings
    return Dense(columns.dense_matrix(couplings))


def _sign(task: Task) -> jax.Array:
    return jnp.sign(task.spread(task.qubo.scale))
