"""The moves of one window of a block sweep: one group, or several small ones of a family one after the other.

With the fields f = linear + Mx of the window's bits, and the couplings A among them, a move x -> x + d changes
E/scale by d.f + 1/2 d'Ad. All keep every group in its states, and leave exp(-w E) on these invariant, w = beta scale:

    Listed, OneOf   a group takes state s with probability ~ exp(-w E(s)), E(s) = s.(f - Ax) + 1/2 s'As, its exact
                    conditional law (Gibbs), drawn as the largest of -w E(s) + Gumbel noise
    Exchanges       one of the k ones of a group, drawn at random, is put on one of the K - k zeros or stays, by the
                    exact conditional law of its place; min(k, K - k) times
    RowSwaps        two rows of a permutation matrix exchange their columns, by the rule of the sweep, each pair once

Under `descend` each takes the lowest instead, and stays where none is lower; Exchanges then try each one in turn. The
first three need no rule for that: `metropolis` and `heat_bath` both mean their exact law.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from qjax.energy.blocks import Assignment, Choose, Family, State, States
from qjax.samplers.moves.acceptance import Rule

# Bits of a window, where groups are smaller.
_WINDOW = 16

# draw(first, count): uniform numbers (count, C) of a window's own; a move says in `numbers` how many it has.
Draw: TypeAlias = Callable[[Any, int], jax.Array]


class Move(Protocol):
    """What a sweep does with a window: `size` bits of `per` groups."""

    @property
    def size(self) -> int: ...

    @property
    def per(self) -> int: ...

    @property
    def numbers(self) -> int: ...

    def move(
        self, rule: Rule, fields: jax.Array, old: jax.Array, among: jax.Array, weights: jax.Array, draw: Draw
    ) -> tuple[jax.Array, jax.Array]:
        """(new bits (B, C), change of E/scale (C,)) for fields, old (B, C), among (B, B), weights (C,)."""

    def gaps(self, fields: jax.Array, old: jax.Array, among: jax.Array) -> jax.Array:
        """Changes of E/scale (R, C) by moves that the window could make; 0 for those that change nothing."""


def move_of(family: Family) -> Move:
    """The move of a family's groups."""
    count, size = family.groups.shape
    per = min(max(_WINDOW // size, 1), count)
    match family:
        case States(states=states):
            return Listed(size, len(states), per, states)
        case Choose(k=k):
            return Exchanges(size, k)
        case Assignment():
            return RowSwaps(int(family.indices.shape[-1]))
        case _:
            return OneOf(size, size, per)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")


def gumbel(uniform: jax.Array) -> jax.Array:
    return -jnp.log(-jnp.log(uniform))


@dataclass(frozen=True)
class _Gibbs(ABC):
    """`per` groups, each of `bits` bits with `count` states."""

    bits: int
    count: int
    per: int

    @property
    def size(self) -> int:
        return self.per * self.bits

    @property
    def numbers(self) -> int:
        return self.per * self.count

    @abstractmethod
    def energies(self, fields: jax.Array, own: jax.Array) -> jax.Array:
        """E(s) (S, C) for fields (b, C) without the group's own part, and the couplings own (b, b) inside it."""

    @abstractmethod
    def chosen(self, index: jax.Array, dtype: Any) -> jax.Array:
        """States (b, C) of the numbers (C,)."""

    def move(
        self, rule: Rule, fields: jax.Array, old: jax.Array, among: jax.Array, weights: jax.Array, draw: Draw
    ) -> tuple[jax.Array, jax.Array]:
        dtype, b, s = fields.dtype, self.bits, self.count
        noise = None if rule.strict else gumbel(draw(0, self.numbers)).astype(dtype)

        def group(j: jax.Array | int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            fields, x, change = carry
            at = j * b
            before = lax.dynamic_slice_in_dim(x, at, b, 0)
            columns = lax.dynamic_slice_in_dim(among, at, b, 1)
            own = lax.dynamic_slice_in_dim(columns, at, b, 0)
            force = lax.dynamic_slice_in_dim(fields, at, b, 0)
            score = -weights[None, :] * self.energies(force - _matmul(own, before), own)
            if noise is not None:
                score = score + lax.dynamic_slice_in_dim(noise, j * s, s, 0)
            after = self.chosen(jnp.argmax(score, axis=0), dtype)
            delta = after - before
            gap = jnp.sum(delta * (force + 0.5 * _matmul(own, delta)), axis=0)
            if rule.strict:
                lower = weights * gap < 0
                delta, gap = jnp.where(lower[None, :], delta, 0), jnp.where(lower, gap, 0)
            if self.per > 1:
                fields = fields + _matmul(columns, delta)
            return fields, lax.dynamic_update_slice_in_dim(x, before + delta, at, 0), change + gap

        carry = (fields, old, jnp.zeros_like(weights))
        _, new, change = lax.fori_loop(0, self.per, group, carry) if self.per > 1 else group(0, carry)
        return new, change

    def gaps(self, fields: jax.Array, old: jax.Array, among: jax.Array) -> jax.Array:
        found = []
        for j in range(self.per):
            part = slice(j * self.bits, (j + 1) * self.bits)
            own, before = among[part, part], old[part]
            force = fields[part] - _matmul(own, before)
            now = jnp.sum(before * (force + 0.5 * _matmul(own, before)), axis=0)
            found.append(self.energies(force, own) - now[None, :])
        return jnp.concatenate(found)


@dataclass(frozen=True)
class Listed(_Gibbs):
    """Groups with a table of states, S = count rows of b = bits bits."""

    states: tuple[State, ...]

    def energies(self, fields: jax.Array, own: jax.Array) -> jax.Array:
        table = jnp.asarray(self.states, fields.dtype)
        inner = 0.5 * jnp.sum(_matmul(table, own) * table, axis=1)
        return _matmul(table, fields) + inner[:, None]

    def chosen(self, index: jax.Array, dtype: Any) -> jax.Array:
        return jnp.asarray(self.states, dtype)[index].T

    def cheapest(self, fields: jax.Array, old: jax.Array, among: jax.Array, sign: jax.Array) -> jax.Array:
        """Of each group the smallest of its `gaps` times sign (C,) above 0, (per, C); 0 where none is."""
        gaps = (self.gaps(fields, old, among) * sign[None, :]).reshape((self.per, self.count, -1))
        # The gap of the state that a group is in is rounding alone.
        here = old.reshape((self.per, 1, self.bits, -1)) == jnp.asarray(self.states, old.dtype)[None, :, :, None]
        least = jnp.min(jnp.where((gaps > 0) & ~here.all(axis=2), gaps, jnp.inf), axis=1)
        return jnp.where(jnp.isinf(least), 0, least)


@dataclass(frozen=True)
class OneOf(_Gibbs):
    """One-hot groups of K = bits bits; the couplings inside a group never count."""

    def energies(self, fields: jax.Array, own: jax.Array) -> jax.Array:
        return fields

    def chosen(self, index: jax.Array, dtype: Any) -> jax.Array:
        return (jnp.arange(self.bits, dtype=index.dtype)[:, None] == index[None, :]).astype(dtype)


@dataclass(frozen=True)
class Exchanges:
    """A group of `size` bits, k of them 1."""

    size: int
    k: int
    per: int = 1

    @property
    def moves(self) -> int:
        return min(self.k, self.size - self.k)

    @property
    def numbers(self) -> int:
        return 2 * self.size * self.moves

    def move(
        self, rule: Rule, fields: jax.Array, old: jax.Array, among: jax.Array, weights: jax.Array, draw: Draw
    ) -> tuple[jax.Array, jax.Array]:
        dtype, sites = fields.dtype, jnp.arange(self.size)

        def exchange(t: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            fields, x, change = carry
            if rule.strict:
                taken = jnp.full(weights.shape, t)
            else:
                uniform = draw(t * (2 * self.size), 2 * self.size).astype(dtype)
                taken = jnp.argmax(jnp.where(x > 0, uniform[: self.size], 0), axis=0)
            here = sites[:, None] == taken[None, :]
            lifted = jnp.sum(jnp.where(here, fields, 0), axis=0)
            row = among[taken].T
            # The change of E/scale with the one put on each site; 0 where it stays.
            gaps = jnp.where(here, 0, fields - row - lifted[None, :])
            score = -weights[None, :] * gaps
            if not rule.strict:
                score = score + gumbel(uniform[self.size :])
            score = jnp.where((x > 0) & ~here, -jnp.inf, score)
            put = jnp.argmax(score, axis=0)
            there = sites[:, None] == put[None, :]
            gap = jnp.sum(jnp.where(there, gaps, 0), axis=0)
            if rule.strict:
                lower = (weights * gap < 0) & (x[t] > 0)
                put, gap = jnp.where(lower, put, taken), jnp.where(lower, gap, 0)
                there = sites[:, None] == put[None, :]
            delta = there.astype(dtype) - here.astype(dtype)
            return fields + (among[put].T - row), x + delta, change + gap

        start = (fields, old, jnp.zeros_like(weights))
        moved: tuple[jax.Array, ...] = lax.fori_loop(0, self.size if rule.strict else self.moves, exchange, start)
        return moved[1], moved[2]

    def gaps(self, fields: jax.Array, old: jax.Array, among: jax.Array) -> jax.Array:
        """Of the exchanges of each bit with a few others."""
        sites, sign, found = np.arange(self.size), 1 - 2 * old, [jnp.zeros_like(fields)]
        for shift in {1 + (self.size - 1) * part // 8 for part in range(8)} if self.size > 1 else ():
            other = (sites + shift) % self.size
            gap = sign * (fields - fields[other]) - among[sites, other][:, None]
            found.append(jnp.where(old != old[other], gap, 0))
        return jnp.concatenate(found)


@dataclass(frozen=True)
class RowSwaps:
    """A square of n x n bits, a permutation matrix. The couplings inside a row or a column never count."""

    n: int
    per: int = 1

    @property
    def size(self) -> int:
        return self.n * self.n

    @property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        first, second = np.triu_indices(self.n, 1)
        return first.astype(np.int32), second.astype(np.int32)

    @property
    def numbers(self) -> int:
        return len(self._pairs[0])

    def _without_inside(
        self, fields: jax.Array, old: jax.Array, among: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(columns of the rows (n, C), fields by read (C, size), couplings), those inside rows and columns left out."""
        row, column = np.divmod(np.arange(self.size), self.n)
        inside = (row[:, None] == row[None, :]) | (column[:, None] == column[None, :])
        force = fields - _matmul(jnp.where(inside, among, 0), old)
        place = jnp.argmax(old.reshape((self.n, self.n, -1)), axis=1).astype(jnp.int32)
        return place, force.T, jnp.where(inside, 0, among)

    def _gap(
        self, place: jax.Array, force: jax.Array, among: jax.Array, r: jax.Array, s: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """(changes (R, C) by exchanging rows r and s (R,), the bits (R, C) that fall and rise)."""
        own, other = place[r], place[s]
        r, s = (row[:, None] * self.n for row in (r, s))
        ra, sb, rb, sa = r + own, s + other, r + other, s + own
        f = [jnp.take_along_axis(force, site.T, axis=1).T for site in (rb, sa, ra, sb)]
        return f[0] + f[1] - f[2] - f[3] + among[rb, sa] + among[ra, sb], (ra, sb, rb, sa)

    def move(
        self, rule: Rule, fields: jax.Array, old: jax.Array, among: jax.Array, weights: jax.Array, draw: Draw
    ) -> tuple[jax.Array, jax.Array]:
        if self.n < 2:
            return old, jnp.zeros_like(weights)
        place, force, among = self._without_inside(fields, old, among)
        first, second = (jnp.asarray(rows) for rows in self._pairs)
        noise, one = rule.noise(draw(0, self.numbers)), jnp.ones_like(weights)

        def swap(p: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            place, force, change = carry
            r, s = first[p], second[p]
            gaps, sites = self._gap(place, force, among, r[None], s[None])
            moves = rule.decide(-gaps[0] * weights, one, noise[p]) != one
            ra, sb, rb, sa = (site[0] for site in sites)
            own, other = place[r], place[s]
            place = place.at[r].set(jnp.where(moves, other, own)).at[s].set(jnp.where(moves, own, other))

            def moved() -> jax.Array:
                return force + jnp.where(moves[:, None], among[rb] + among[sa] - among[ra] - among[sb], 0)

            # Most exchanges are refused by all reads once these are cold.
            force = lax.cond(jnp.any(moves), moved, lambda: force)
            return place, force, change + jnp.where(moves, gaps[0], 0)

        start = (place, force, jnp.zeros_like(weights))
        place, _, change = lax.fori_loop(0, self.numbers, swap, start)
        new = place[:, None] == jnp.arange(self.n, dtype=place.dtype)[None, :, None]
        return new.reshape(old.shape).astype(old.dtype), change

    def gaps(self, fields: jax.Array, old: jax.Array, among: jax.Array) -> jax.Array:
        place, force, among = self._without_inside(fields, old, among)
        if self.n < 2:
            return jnp.zeros_like(fields)
        first, second = (jnp.asarray(rows) for rows in self._pairs)
        return self._gap(place, force, among, first, second)[0]
