"""Exact minimisation by enumeration: the oracle of the tests, and the right choice up to some 26 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.samplers.contract import Outcome, Sampler, Task, positive
from qjax.samplers.moves.integer_sums import Sums, bits_of, margin, triangle

_LOW_BITS = 12
_HIGH_BITS = 6
# Rows of a block, of 2^12 states each, that are looked at together: eight take hardly longer than one.
_ROWS_AT_ONCE = 8


class _Problem(NamedTuple):
    """Of each problem, (P, ...), and of one without the first axis."""

    linear: jax.Array  # (P, n)
    sign: jax.Array  # (P,), of the scale
    low_energies: jax.Array  # (P, 2^l)
    margin: jax.Array  # (P,), twice what rounding may do to an energy of a table


class _Prepared(NamedTuple):
    matrix: jax.Array  # (n, n), zero diagonal
    low: jax.Array  # (2^l, l), all states of the low bits
    problems: _Problem


class _Block(NamedTuple):
    """Some states of the high bits, each with all states of the low ones."""

    first: jax.Array  # number of the first row
    high: jax.Array  # (rows, n - l)
    table: jax.Array  # (rows, 2^l) energies, times the sign
    lowest: jax.Array  # (rows,), of each row


class _State(NamedTuple):
    energies: jax.Array  # (P, k), lowest first
    numbers: jax.Array  # (P, k), states as integers, bit i of the number is x_i


@dataclass(frozen=True)
class Exact(Sampler):
    """The num_reads lowest of all 2^n states, lowest first; equal energies by their number sum_i x_i 2^i.

        x = (a, b), a the low 12 bits:     E/scale - offset = E(a) + E(b) + b'Ma

    A table holds E(a), and one matmul gives the cross terms of 2^18 states. Where these may hold one of the lowest, as
    far as rounding errors allow, their energies are computed as differences from the lowest state so far, by sums of
    integers that are not rounded: in float32 to 2^-45 of the sum of all |coefficients|, so ranks are those of float64.
    Read r is the state of rank r; where 2^n < num_reads the highest state fills the rest. The key and `initial_states`
    are not used; no info.
    max_bits: the most bits that are taken, at most 30. 26 bits take seconds, each further bit doubles that.
    Errors: ValueError for a Qubo of more than max_bits bits. All forms of couplings, as their matrix.
    """

    max_bits: int = 28

    with_more_time: ClassVar[str] = "once"

    def __post_init__(self) -> None:
        positive("max_bits", self.max_bits)
        if self.max_bits > 30:
            raise ValueError(f"max_bits must be at most 30, got {self.max_bits}")

    def length(self, task: Task) -> int:
        return int(2 ** max(task.num_bits - _LOW_BITS - _HIGH_BITS, 0))

    def prepare(self, task: Task) -> _Prepared:
        n = task.num_bits
        if n > self.max_bits:
            raise ValueError(f"qubo has {n} bits, enumeration is limited to max_bits={self.max_bits}")
        linear = task.qubo.linear
        whole = task.qubo.couplings.to_dense(linear.dtype)
        linear = linear + 0.5 * jnp.diagonal(whole)[None, :]
        matrix = jnp.where(jnp.eye(n, dtype=bool), jnp.zeros((), linear.dtype), whole)
        l = min(n, _LOW_BITS)
        low = bits_of(jnp.arange(2**l), l).astype(linear.dtype)
        low_energies = _energies(linear[:, :l], matrix[:l, :l], low)
        margins = jax.vmap(lambda one: margin(triangle(one, matrix)))(linear)
        return _Prepared(matrix, low, _Problem(linear, jnp.sign(task.qubo.scale), low_energies, margins))

    def init(self, task: Task, prepared: _Prepared) -> _State:
        k = min(task.num_reads, 2**task.num_bits)
        shape = (task.num_problems, k)
        return _State(jnp.full(shape, jnp.inf, prepared.matrix.dtype), jnp.zeros(shape, jnp.int32))

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        n, linear = task.num_bits, prepared.problems.linear
        l = prepared.low.shape[1]
        rows = 2 ** min(n - l, _HIGH_BITS)
        first = t * rows
        high = bits_of(first + jnp.arange(rows), n - l).astype(linear.dtype)  # (rows, n - l)
        cross = _matmul(_matmul(high, prepared.matrix[l:, :l]), prepared.low.T)  # (rows, 2^l)
        high_energies = _energies(linear[:, l:], prepared.matrix[l:, l:], high)

        def merge(one: tuple[_State, jax.Array, _Problem]) -> _State:
            kept, high_energies, problem = one
            table = problem.sign * (cross + problem.low_energies[None, :] + high_energies[:, None])
            block = _Block(first, high, table, jnp.min(table, axis=1))

            def improve() -> _State:
                return _improved(prepared, problem, block, kept)

            if self.length(task) == 1:
                return improve()
            # Most blocks hold none of the lowest states.
            worth = jnp.min(block.lowest) - problem.margin < kept.energies[-1]
            found: _State = lax.cond(worth, improve, lambda: kept)
            return found

        merged: _State = lax.map(merge, (state, high_energies, prepared.problems))
        return merged

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        rank = jnp.minimum(task.reads.astype(jnp.int32), state.numbers.shape[1] - 1)
        chosen = state.numbers[:, rank].reshape(-1)
        return Outcome((bits_of(chosen, task.num_bits).T,), {}, {})


def _improved(prepared: _Prepared, problem: _Problem, block: _Block, kept: _State) -> _State:
    """The lowest states of one problem among those kept and a block's, by sums of integers: energies are differences
    from that of a state that is lowest but for rounding."""
    n, l = problem.linear.shape[0], prepared.low.shape[1]
    exactly = Sums.of(problem.sign * triangle(problem.linear, prepared.matrix))
    row = jnp.argmin(block.lowest)
    place = lax.top_k(-block.table[row], 1)[1][0].astype(jnp.int32)
    here = (block.first + row.astype(jnp.int32)) * 2**l + place
    near = jnp.where(block.lowest[row] < kept.energies[0], here, kept.numbers[0])
    origin = exactly.states(bits_of(near[None], n))  # (3, 1)
    base = exactly.size * exactly.total(origin)[0]
    gaps = exactly.total(exactly.states(bits_of(kept.numbers, n)) - origin)
    gaps = jnp.where(jnp.isinf(kept.energies), jnp.inf, gaps)
    (slopes, among), alone = exactly.across(block.high, l), exactly.table(l) - origin

    k, group = gaps.shape[0], min(block.lowest.shape[0], _ROWS_AT_ONCE)
    least = jnp.min(block.lowest.reshape((-1, group)), axis=1) - problem.margin
    # Each row has a state as low as its minimum: states above the k-th of the minima are not among the k lowest.
    most = jnp.sort(block.lowest)[k - 1] if k <= block.lowest.shape[0] else jnp.inf

    def merge(g: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        gaps, numbers = carry

        def merged() -> tuple[jax.Array, jax.Array]:
            slope, own = (lax.dynamic_slice_in_dim(part, g * group, group, 1) for part in (slopes, among))
            sums = jnp.einsum("jrl,ml->jrm", slope, prepared.low, precision="highest")
            new = exactly.total(sums + alone[:, None, :] + own[:, :, None]).reshape(-1)
            best, place = lax.top_k(-new, min(k, new.size))
            best, order = lax.top_k(jnp.concatenate([-gaps, best]), k)
            found = place.astype(jnp.int32) + (block.first + g * group) * 2**l
            return -best, jnp.concatenate([numbers, found])[order]

        worth = (least[g] < base + exactly.size * gaps[-1]) & (least[g] <= most)
        found: tuple[jax.Array, jax.Array] = lax.cond(worth, merged, lambda: carry)
        return found

    gaps, numbers = lax.fori_loop(0, least.shape[0], merge, (gaps, kept.numbers))
    return _State(base + exactly.size * gaps, numbers)


def _energies(linear: jax.Array, matrix: jax.Array, states: jax.Array) -> jax.Array:
    """linear.x + 1/2 x'Mx for linear (P, n), states (m, n) -> (P, m)."""
    inner = 0.5 * (_matmul(states, matrix) * states).sum(-1)
    return _matmul(linear, states.T) + inner[None, :]


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
