"""Exact minimisation by enumeration: the oracle of the tests, and the right choice up to some 26 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from qjax.samplers.contract import Outcome, Sampler, Task, positive

_LOW_BITS = 12
_HIGH_BITS = 6


class _Prepared(NamedTuple):
    matrix: jax.Array  # (n, n), zero diagonal
    linear: jax.Array  # (P, n)
    sign: jax.Array  # (P,), of the scale
    low: jax.Array  # (2^l, l), all states of the low bits
    low_energies: jax.Array  # (P, 2^l)


class _State(NamedTuple):
    energies: jax.Array  # (P, k), lowest first
    numbers: jax.Array  # (P, k), states as integers, bit i of the number is x_i


@dataclass(frozen=True)
class Exact(Sampler):
    """The num_reads lowest of all 2^n states, lowest first; equal energies by their number sum_i x_i 2^i.

        x = (a, b), a the low 12 bits:     E/scale - offset = E(a) + E(b) + b'Ma

    A table holds E(a), and one matmul gives the cross terms of 2^18 states. Read r is the state of rank r; where
    2^n < num_reads the highest state fills the rest. The key and `initial_states` are not used; no info.
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
        whole = task.qubo.couplings.to_dense().astype(linear.dtype)
        linear = linear + 0.5 * jnp.diagonal(whole)[None, :]
        matrix = jnp.where(jnp.eye(n, dtype=bool), jnp.zeros((), linear.dtype), whole)
        l = min(n, _LOW_BITS)
        low = _bits(jnp.arange(2**l), l).astype(linear.dtype)
        return _Prepared(matrix, linear, jnp.sign(task.qubo.scale), low, _energies(linear[:, :l], matrix[:l, :l], low))

    def init(self, task: Task, prepared: _Prepared) -> _State:
        k = min(task.num_reads, 2**task.num_bits)
        shape = (task.num_problems, k)
        return _State(jnp.full(shape, jnp.inf, prepared.linear.dtype), jnp.zeros(shape, jnp.int32))

    def step(self, task: Task, prepared: _Prepared, t: jax.Array, state: _State) -> _State:
        n = task.num_bits
        l = prepared.low.shape[1]
        rows = 2 ** min(n - l, _HIGH_BITS)
        first = t * rows
        high = _bits(first + jnp.arange(rows), n - l).astype(prepared.linear.dtype)  # (rows, n - l)
        cross = _matmul(_matmul(high, prepared.matrix[l:, :l]), prepared.low.T)  # (rows, 2^l)
        high_energies = _energies(prepared.linear[:, l:], prepared.matrix[l:, l:], high)

        def merge(one: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            kept, numbers, low_energies, high_energies, sign = one
            table = sign * (cross + low_energies[None, :] + high_energies[:, None])

            def improve() -> tuple[jax.Array, jax.Array]:
                lowest, place = lax.top_k(-table.reshape(-1), min(kept.shape[0], table.size))
                found = place.astype(jnp.int32) + first * 2**l
                best, order = lax.top_k(-jnp.concatenate([kept, -lowest]), kept.shape[0])
                return -best, jnp.concatenate([numbers, found])[order]

            # Most blocks of states hold none of the lowest, and a minimum is cheaper than a partial sort.
            merged: tuple[jax.Array, jax.Array] = lax.cond(jnp.min(table) < kept[-1], improve, lambda: (kept, numbers))
            return merged

        args = (state.energies, state.numbers, prepared.low_energies, high_energies, prepared.sign)
        return _State(*lax.map(merge, args))

    def finish(self, task: Task, prepared: _Prepared, state: _State) -> Outcome:
        rank = jnp.minimum(task.reads.astype(jnp.int32), state.numbers.shape[1] - 1)
        chosen = state.numbers[:, rank].reshape(-1)
        return Outcome((_bits(chosen, task.num_bits).T,), {}, {})


def _bits(numbers: jax.Array, n: int) -> jax.Array:
    """States as integers (m,) -> bits (m, n), x_i being bit i of the number."""
    return (numbers.astype(jnp.int32)[:, None] >> jnp.arange(n, dtype=jnp.int32)[None, :]) & 1


def _energies(linear: jax.Array, matrix: jax.Array, states: jax.Array) -> jax.Array:
    """linear.x + 1/2 x'Mx for linear (P, n), states (m, n) -> (P, m)."""
    inner = 0.5 * (_matmul(states, matrix) * states).sum(-1)
    return _matmul(linear, states.T) + inner[None, :]


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
