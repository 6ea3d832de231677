"""All moves of a family of groups (qjax.energy.blocks) at once, for a search that makes the best one of each read.

    family      its moves                               change of E/scale
    states      a group takes another of its states     that of s.f + 1/2 s'As
    one_hot     the one of a group goes from i to j     f_j - f_i
    choose      so goes the one that costs most         f_j - f_i - M_ij
    assignment  two rows exchange their columns         f_rb + f_sa - f_ra - f_sb + M_rb,sa + M_ra,sb
    free bits   one flips                               (1 - 2x_i) f_i

The fields f = linear + Mx leave out the couplings that are counted apart (A) or never count: those inside groups of
states, inside one-hot groups, inside rows and columns of an assignment.

A move leaves marks, which are tabu for a while: a state or a place that was left, or the flipped bit; for `choose` the
two bits; for an assignment the two places, both of which must be tabu to bar a move (Taillard 1991, Parallel Computing
17, 443).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qjax.energy.blocks import Assignment, Choose, Family, State, States

# A mark holds for at most this part of the places that are like it.
_TABU_PART = 4


class Found(NamedTuple):
    """changes (C, moves) of E/|scale|, infinite for those that change nothing; until (C, moves): the step from which
    each may be made; and what `made` needs to know of them."""

    changes: jax.Array
    until: jax.Array
    extra: Any = None


class Made(NamedTuple):
    """sites (C, r) of one move and their changes (C, r), -1, 0 or 1; marks (C, a), and the longest tenures (a,)."""

    sites: jax.Array
    deltas: jax.Array
    marks: jax.Array
    longest: tuple[int, ...]


@dataclass(frozen=True)
class Part(ABC):
    """`groups` groups of `bits` bits; all arrays are of their G b bits alone, in that order."""

    groups: int
    bits: int

    @property
    def moves(self) -> int:
        return self.groups * self.bits

    @property
    def marks(self) -> int:
        return self.groups * self.bits

    @property
    def rows(self) -> int:
        """The most bits that a move changes."""
        return 2

    def apart(self) -> np.ndarray:
        """Which couplings inside a group are left out of the fields, bool (b, b)."""
        return np.ones((self.bits, self.bits), bool)

    @abstractmethod
    def found(
        self, inner: jax.Array, sign: jax.Array, x: jax.Array, fields: jax.Array, until: jax.Array, step: Any
    ) -> Found:
        """For what `inner` made, sign (C,) of the scale, x and fields (C, G b), the latter times the sign, until
        (C, marks), and the step."""

    def inner(self, own: jax.Array) -> jax.Array:
        """What `found` needs of the couplings inside the groups own (G, b, b)."""
        return own

    @abstractmethod
    def made(self, index: jax.Array, x: jax.Array, extra: Any) -> Made:
        """The moves index (C,) in the states x."""

    def mixed(self, a: jax.Array, b: jax.Array, fresh: jax.Array, words: jax.Array, redrawn: jax.Array) -> jax.Array:
        """A new start (C, G b) from two elites a, b and random states, all int8, by random words, where `redrawn` says
        for each bit whether chance may decide it alone."""
        first = (slice(None), slice(None), slice(0, 1))
        either = jnp.where(self.wide(words)[first] >> 31 == 1, self.wide(a), self.wide(b))
        return jnp.where(self.wide(redrawn)[first], self.wide(fresh), either).reshape(a.shape)

    def wide(self, values: jax.Array) -> jax.Array:
        return values.reshape((values.shape[0], self.groups, -1))

    def of_group(self, group: jax.Array, values: jax.Array) -> jax.Array:
        """(C, width of a group)."""
        return jnp.take_along_axis(self.wide(values), group[:, None, None], axis=1)[:, 0]


def part_of(family: Family) -> Part:
    count, size = family.groups.shape
    match family:
        case States(states=states):
            return Listed(count, size, states)
        case Choose(k=k):
            return Chosen(count, size, k)
        case Assignment():
            return RowPairs(count, size, int(family.indices.shape[-1]))
        case _:
            return OneOf(count, size)


@dataclass(frozen=True)
class Flips(Part):
    """Free bits: groups of one bit."""

    @property
    def rows(self) -> int:
        return 1

    def found(
        self, inner: jax.Array, sign: jax.Array, x: jax.Array, fields: jax.Array, until: jax.Array, step: Any
    ) -> Found:
        return Found((1 - 2 * x) * fields, until)

    def made(self, index: jax.Array, x: jax.Array, extra: Any) -> Made:
        site = index[:, None]
        return Made(site, 1 - 2 * jnp.take_along_axis(x, site, axis=1), site, (self.groups // _TABU_PART,))


@dataclass(frozen=True)
class OneOf(Part):
    """One-hot groups."""

    def found(
        self, inner: jax.Array, sign: jax.Array, x: jax.Array, fields: jax.Array, until: jax.Array, step: Any
    ) -> Found:
        x, fields = self.wide(x), self.wide(fields)
        changes = fields - jnp.sum(x * fields, axis=2, keepdims=True)
        return Found(jnp.where(x > 0, jnp.inf, changes).reshape(until.shape), until)

    def made(self, index: jax.Array, x: jax.Array, extra: Any) -> Made:
        group = index // self.bits
        old = group * self.bits + jnp.argmax(self.of_group(group, x), axis=1)
        sites = jnp.stack([old, index], axis=1)
        deltas = jnp.broadcast_to(jnp.asarray([-1, 1], x.dtype), sites.shape)
        return Made(sites, deltas, old[:, None], (self.marks // _TABU_PART,))


@dataclass(frozen=True)
class Listed(Part):
    """Groups with a table of states, S rows of b bits."""

    states: tuple[State, ...]

    @property
    def moves(self) -> int:
        return self.groups * len(self.states)

    @property
    def marks(self) -> int:
        return self.groups * len(self.states)

    @property
    def rows(self) -> int:
        return self.bits

    def inner(self, own: jax.Array) -> jax.Array:
        """1/2 s'As of each state, (G, S)."""
        table = jnp.asarray(self.states, own.dtype)
        return 0.5 * jnp.einsum("sb,gbc,sc->gs", table, own, table, precision="highest")

    def _now(self, x: jax.Array) -> jax.Array:
        """The numbers (C, G) of the states x (C, G, b)."""
        powers = 1 << np.arange(self.bits)
        number = np.zeros(2**self.bits, np.int32)
        number[np.asarray(self.states) @ powers] = np.arange(len(self.states))
        code = jnp.sum(jnp.where(x > 0, jnp.asarray(powers, jnp.int32)[None, None], 0), axis=2)
        return jnp.asarray(number)[code]

    def found(
        self, inner: jax.Array, sign: jax.Array, x: jax.Array, fields: jax.Array, until: jax.Array, step: Any
    ) -> Found:
        table = jnp.asarray(self.states, x.dtype)
        energies = jnp.einsum("cgb,sb->cgs", self.wide(fields), table, precision="highest")
        energies = energies + sign[:, None, None] * inner[None]
        now = self._now(self.wide(x))[:, :, None]
        changes = energies - jnp.take_along_axis(energies, now, axis=2)
        changes = jnp.where(jnp.arange(len(self.states))[None, None] == now, jnp.inf, changes)
        return Found(changes.reshape(until.shape), until)

    def made(self, index: jax.Array, x: jax.Array, extra: Any) -> Made:
        count = len(self.states)
        group = index // count
        old = self.of_group(group, x)
        deltas = jnp.asarray(self.states, x.dtype)[index % count] - old
        sites = (group * self.bits)[:, None] + jnp.arange(self.bits)[None, :]
        mark = group * count + self._now(old[:, None])[:, 0]
        return Made(sites, deltas, mark[:, None], (self.marks // _TABU_PART,))


@dataclass(frozen=True)
class Chosen(Part):
    """Groups with k ones. Of each group one bit may fall: the free one whose fall lowers the energy most."""

    k: int

    def apart(self) -> np.ndarray:
        return np.zeros((self.bits, self.bits), bool)

    def found(
        self, inner: jax.Array, sign: jax.Array, x: jax.Array, fields: jax.Array, until: jax.Array, step: Any
    ) -> Found:
        x, fields, wide = self.wide(x), self.wide(fields), self.wide(until)
        falls = jnp.where(x > 0, jnp.where(wide <= step, fields, -1e30), -jnp.inf)
        fallen = jnp.argmax(falls, axis=2)
        here = fallen[:, :, None]
        row = inner[jnp.arange(self.groups)[None, :], fallen] * sign[:, None, None]
        changes = fields - jnp.take_along_axis(fields, here, axis=2) - row
        barred = jnp.maximum(wide, jnp.take_along_axis(wide, here, axis=2))
        return Found(jnp.where(x > 0, jnp.inf, changes).reshape(until.shape), barred.reshape(until.shape), fallen)

    def made(self, index: jax.Array, x: jax.Array, extra: Any) -> Made:
        group = index // self.bits
        old = group * self.bits + jnp.take_along_axis(extra, group[:, None], axis=1)[:, 0]
        sites = jnp.stack([old, index], axis=1)
        deltas = jnp.broadcast_to(jnp.asarray([-1, 1], x.dtype), sites.shape)
        longest = (self.groups * (self.bits - self.k) // _TABU_PART, self.groups * self.k // _TABU_PART)
        return Made(sites, deltas, sites, longest)

    def mixed(self, a: jax.Array, b: jax.Array, fresh: jax.Array, words: jax.Array, redrawn: jax.Array) -> jax.Array:
        chance = words.astype(jnp.float32) * jnp.float32(2.0**-32)
        # Ones of both elites first, then those of one; a redrawn bit is as likely in as out.
        worth = jnp.where(redrawn, 3 * chance, (a + b).astype(jnp.float32) + chance)
        rank = jnp.argsort(jnp.argsort(-self.wide(worth), axis=2), axis=2)
        return (rank < self.k).astype(a.dtype).reshape(a.shape)


@dataclass(frozen=True)
class RowPairs(Part):
    """Squares of n x n bits, permutation matrices."""

    n: int

    @property
    def rows(self) -> int:
        return 4

    def apart(self) -> np.ndarray:
        row, column = np.divmod(np.arange(self.bits), self.n)
        return np.asarray((row[:, None] == row[None, :]) | (column[:, None] == column[None, :]))

    def inner(self, own: jax.Array) -> jax.Array:
        return jnp.where(jnp.asarray(self.apart())[None], 0, own)

    def _square(self, values: jax.Array) -> jax.Array:
        return values.reshape((values.shape[0], self.groups, self.n, self.n))

    def found(
        self, inner: jax.Array, sign: jax.Array, x: jax.Array, fields: jax.Array, until: jax.Array, step: Any
    ) -> Found:
        n, rows = self.n, jnp.arange(self.n)
        place = jnp.argmax(self._square(x), axis=3)  # (C, G, n)
        of_others = jnp.broadcast_to(place[:, :, None, :], (*place.shape, n))
        force = jnp.take_along_axis(self._square(fields), of_others, axis=3)  # f of row r in the column of row s
        mine = jnp.sum(self._square(fields * x), axis=3)
        crossed = (rows[:, None] * n)[None, None] + of_others
        held = jnp.broadcast_to(((rows * n)[None, None] + place)[:, :, :, None], crossed.shape)
        groups = jnp.arange(self.groups)[None, :, None, None]
        pairs = inner[groups, crossed, crossed.swapaxes(2, 3)] + inner[groups, held, held.swapaxes(2, 3)]
        changes = force + force.swapaxes(2, 3) - mine[..., None] - mine[..., None, :]
        changes = changes + pairs * sign[:, None, None, None]
        changes = jnp.where((rows[:, None] < rows[None, :])[None, None], changes, jnp.inf)
        free = jnp.take_along_axis(self._square(until), of_others, axis=3)
        free = jnp.minimum(free, free.swapaxes(2, 3))
        return Found(changes.reshape(x.shape), free.reshape(x.shape), place.reshape((x.shape[0], -1)))

    def made(self, index: jax.Array, x: jax.Array, extra: Any) -> Made:
        group, pair = index // self.bits, index % self.bits
        rows = jnp.stack([pair // self.n, pair % self.n], axis=1)
        column = jnp.take_along_axis(extra, group[:, None] * self.n + rows, axis=1)
        old, new = (group[:, None] * self.bits + rows * self.n + c for c in (column, column[:, ::-1]))
        sites = jnp.concatenate([old, new], axis=1)
        deltas = jnp.broadcast_to(jnp.asarray([-1, -1, 1, 1], x.dtype), sites.shape)
        return Made(sites, deltas, old, (self.marks // _TABU_PART,) * 2)

    def mixed(self, a: jax.Array, b: jax.Array, fresh: jax.Array, words: jax.Array, redrawn: jax.Array) -> jax.Array:
        """One of the elites; the rows redrawn, and half of those that differ, take each other's columns."""
        word = self._square(words)[..., 0]
        either = jnp.where(self.wide(words)[:, :, :1] >> 31 == 1, self.wide(a), self.wide(b)).reshape(a.shape)
        place, other = (jnp.argmax(self._square(s), axis=3) for s in (either, a + b - either))
        moving = self._square(redrawn)[..., 0] | ((place != other) & (word >> 30 & 1 == 1))
        rows = jnp.arange(self.n)
        behind = rows.astype(jnp.uint32)[None, None] + jnp.uint32(2**31)
        there = jnp.argsort(jnp.where(moving, rows.astype(jnp.uint32)[None, None], behind), axis=2)
        taken = jnp.argsort(jnp.where(moving, word >> 2, behind), axis=2)
        # The i-th of the moving rows gets the column of the i-th in a random order; the others come after, unmoved.
        back = jnp.argsort(there, axis=2)
        place = jnp.take_along_axis(place, jnp.take_along_axis(taken, back, axis=2), axis=2)
        return (place[..., None] == rows[None, None, None]).astype(a.dtype).reshape(a.shape)
