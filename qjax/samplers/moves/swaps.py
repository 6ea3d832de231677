"""Sweeps that keep the number of ones: pairs of unlike bits are exchanged, so "choose k of n" needs no penalty.

Exchanging x_i != x_j changes E/scale by (1 - 2x_i) f_i + (1 - 2x_j) f_j - M_ij, with the fields f of
qjax.samplers.moves.sweeps. A sweep draws an order of the bits, the same for all reads, cuts it into blocks, and in each
block tries to exchange each bit with the next one, the last with the first. The order does not depend on the states, so
a sweep leaves exp(-beta E) on the states of k ones invariant; orders differ between sweeps, so each pair has its turn.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from qjax.energy.qubo import Qubo
from qjax.samplers.moves import columns, streams
from qjax.samplers.moves.acceptance import Rule
from qjax.samplers.moves.sweeps import PerColumn

_BLOCK = 32
_DENSE_LIMIT = 8192


def check_cardinality(k: Any, num_bits: int | None = None) -> None:
    """None, or an integer in 0 .. num_bits. Errors: ValueError."""
    if k is None:
        return
    if isinstance(k, bool) or not isinstance(k, int) or k < 0:
        raise ValueError(f"fixed_cardinality must be an integer of at least 0 or None, got {k!r}")
    if num_bits is not None and k > num_bits:
        raise ValueError(f"fixed_cardinality is {k}, but qubo has {num_bits} bits")


def with_ones(bits: jax.Array, k: int, seeds: jax.Array, step: int) -> jax.Array:
    """Bits (n, C) with exactly k ones per column: ones are removed or added at random."""
    score = streams.uniforms(seeds, step, jnp.arange(bits.shape[0])) + bits.astype(jnp.float32)
    rank = jnp.argsort(jnp.argsort(-score, axis=0), axis=0)
    return (rank < k).astype(jnp.int8)


class Swaps:
    """A sweeper (qjax.samplers.moves.sweeps) of exchanges, on a dense matrix; the state is x (n padded, C).

    Errors: ValueError beyond 8192 bits.
    """

    def __init__(self, qubo: Qubo, per_column: PerColumn) -> None:
        linear, _ = columns.zero_diagonal_terms(qubo)
        self._n, self._per_column = qubo.num_bits, per_column
        if self._n > _DENSE_LIMIT:
            raise ValueError(f"fixed_cardinality takes {_DENSE_LIMIT} bits at most, qubo has {self._n}")
        pad = -self._n % _BLOCK
        self._matrix = jnp.pad(columns.dense_matrix(qubo.couplings, linear.dtype), ((0, pad), (0, pad)))
        self._linear = jnp.pad(linear, ((0, pad), (0, 0)))

    def load(self, bits: jax.Array) -> Any:
        return jnp.pad(bits.astype(self._linear.dtype), ((0, -self._n % _BLOCK), (0, 0)))

    def snapshot(self, state: Any) -> Any:
        return state

    def unload(self, snapshot: Any) -> jax.Array:
        return jnp.asarray(snapshot[: self._n]).astype(jnp.int8)

    def _order(self, step: jax.Array | int) -> jax.Array:
        # A fixed seed: all reads share the order, so it must not come from the seeds of any.
        return jnp.argsort(streams.words(jnp.zeros((2, 1), jnp.uint32), step, jnp.arange(self._linear.shape[0]))[:, 0])

    def sweep(
        self, state: Any, rule: Rule, weights: jax.Array, seeds: jax.Array, step: jax.Array, bias: Any = None
    ) -> tuple[Any, jax.Array]:
        assert bias is None
        weights, order = weights.astype(state.dtype), self._order(step).reshape((-1, _BLOCK))

        def block(b: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            x, change = carry
            sites = order[b]
            rows = self._matrix[sites]
            among, real = rows[:, sites], sites < self._n
            fields = jnp.matmul(rows, x, precision="highest") + self._per_column(self._linear[sites])
            noise = rule.noise(streams.uniforms(seeds, step, b * _BLOCK + jnp.arange(_BLOCK)))

            def pair(i: jax.Array, carry: Any) -> Any:
                fields, part, change = carry
                j = (i + 1) % _BLOCK
                one, sign = part[i], 1 - 2 * part[i]
                gap = sign * (fields[i] - fields[j]) - among[i, j]
                unlike = (one != part[j]) & real[i] & real[j]
                moves = unlike & (rule.decide(sign * gap * weights, one, noise[i]) != one)
                delta = jnp.where(moves, sign, 0)
                fields = fields + (among[i] - among[j])[:, None] * delta[None, :]
                part = part.at[i].add(delta).at[j].add(-delta)
                return fields, part, change + jnp.where(moves, gap, 0)

            _, part, change = lax.fori_loop(0, _BLOCK, pair, (fields, x[sites], change))
            return x.at[sites].set(part), change

        zeros = jnp.zeros(state.shape[1], state.dtype)
        swept: tuple[jax.Array, jax.Array] = lax.fori_loop(0, order.shape[0], block, (state, zeros))
        return swept

    def _fields(self, x: jax.Array) -> jax.Array:
        return jnp.matmul(self._matrix, x, precision="highest") + self._per_column(self._linear)

    def gaps(self, state: Any) -> jax.Array:
        """Changes of E/scale by the exchanges of a sample of pairs, 0 for equal bits; here rows are pairs."""
        i = self._order(0)
        j = jnp.roll(i, -1)
        fields, sign = self._fields(state), 1 - 2 * state
        gap = sign[i] * (fields[i] - fields[j]) - self._matrix[i, j][:, None]
        real = (i < self._n) & (j < self._n)
        return jnp.where((state[i] != state[j]) & real[:, None], gap, 0)

    def energies(self, state: Any, often: bool = False) -> jax.Array:
        linear = self._per_column(self._linear)
        return jnp.sum(state * 0.5 * (self._fields(state) + linear), axis=0)
