"""Blocks: which states groups of bits may take together, as data beside a Qubo.

    kind         a group of bits may take              made by
    states       the listed states of its b bits       digits (all 2^b), levels (some of them, such as a ternary's 3)
    one_hot      K states, one bit of K is 1           one_hot
    choose       the states of k ones among K bits     choose
    assignment   the N! permutation matrices of N x N  assignment

`blocks = one_hot(groups) + digits(others)`. Groups share no bit; bits in no group are free. Samplers that know a kind
move its groups from one such state to another (`qjax.samplers.table`), for others the sampler contract adds the
penalties of `qjax.penalties.blocks`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass

KINDS = ("states", "one_hot", "choose", "assignment")

# A table of states has 2^b rows at most.
_MOST_BITS = 12

State: TypeAlias = tuple[int, ...]


@partial(register_dataclass, data_fields=["indices"], meta_fields=["states"])
@dataclass(frozen=True)
class States:
    """G groups of b bits, indices (G, b), each in one of the listed states, S rows of b bits."""

    indices: Any
    states: tuple[State, ...]
    kind: ClassVar[str] = "states"

    @property
    def groups(self) -> Any:
        """The bits of each group, (G, bits of a group)."""
        return self.indices

    @property
    def log_count(self) -> float:
        """ln of the number of states of one group."""
        return math.log(len(self.states))

    def hold(self, x: Any) -> Any:
        """Whether groups of bits x (..., G, bits of a group) are in one of their states, (..., G); NumPy or JAX."""
        width = self.indices.shape[-1]
        if len(self.states) == 2**width:
            return (x >= 0).all(-1)
        allowed = np.zeros(2**width, bool)
        allowed[np.asarray(self.states) @ (1 << np.arange(width))] = True
        code = (x > 0).astype(np.int32) @ (1 << np.arange(width, dtype=np.int32))
        return jnp.asarray(allowed)[code] if isinstance(code, jax.Array) else allowed[code]

    def sums(self) -> list[tuple[Any, int]]:
        """Pairs (indices (R, K), k) that say the same: k of the bits in each row are 1."""
        return []


@partial(register_dataclass, data_fields=["indices"], meta_fields=[])
@dataclass(frozen=True)
class OneHot:
    """G groups of K bits, indices (G, K), in each of which exactly one bit is 1."""

    indices: Any
    kind: ClassVar[str] = "one_hot"

    @property
    def groups(self) -> Any:
        return self.indices

    @property
    def log_count(self) -> float:
        return math.log(self.indices.shape[-1])

    def hold(self, x: Any) -> Any:
        return (x > 0).sum(-1) == 1

    def sums(self) -> list[tuple[Any, int]]:
        return [(self.indices, 1)]


@partial(register_dataclass, data_fields=["indices"], meta_fields=["k"])
@dataclass(frozen=True)
class Choose:
    """G groups of K bits, indices (G, K), in each of which exactly k bits are 1."""

    indices: Any
    k: int
    kind: ClassVar[str] = "choose"

    @property
    def groups(self) -> Any:
        return self.indices

    @property
    def log_count(self) -> float:
        return math.log(math.comb(self.indices.shape[-1], self.k))

    def hold(self, x: Any) -> Any:
        return (x > 0).sum(-1) == self.k

    def sums(self) -> list[tuple[Any, int]]:
        return [(self.indices, self.k)]


@partial(register_dataclass, data_fields=["indices"], meta_fields=[])
@dataclass(frozen=True)
class Assignment:
    """G squares of N x N bits, indices (G, N, N), in each of which every row and every column has exactly one 1."""

    indices: Any
    kind: ClassVar[str] = "assignment"

    @property
    def groups(self) -> Any:
        return self.indices.reshape((self.indices.shape[0], -1))

    @property
    def log_count(self) -> float:
        return math.lgamma(self.indices.shape[-1] + 1)

    def hold(self, x: Any) -> Any:
        n = self.indices.shape[-1]
        square = (x > 0).reshape((*x.shape[:-1], n, n))
        return ((square.sum(-1) == 1) & (square.sum(-2) == 1)).all(-1)

    def sums(self) -> list[tuple[Any, int]]:
        n = self.indices.shape[-1]
        return [(self.indices.reshape((-1, n)), 1), (self.indices.swapaxes(-1, -2).reshape((-1, n)), 1)]


Family: TypeAlias = States | OneHot | Choose | Assignment


@partial(register_dataclass, data_fields=["families"], meta_fields=[])
@dataclass(frozen=True)
class Blocks:
    """Families of groups: those of a family have equal shapes. `+` joins; the indices are the pytree's leaves."""

    families: tuple[Family, ...] = ()

    def __add__(self, other: Blocks) -> Blocks:
        """The families of both, those of equal kind, shape and states as one."""
        joined = list(self.families)
        for new in other.families:
            like = (k for k, old in enumerate(joined) if _alike(old, new))
            if (place := next(like, None)) is None:
                joined.append(new)
            else:
                both = [joined[place].indices, new.indices]
                traced = any(isinstance(part, jax.core.Tracer) for part in both)
                module: Any = jnp if traced else np
                joined[place] = replace(joined[place], indices=module.concatenate(both))
        return Blocks(tuple(joined))

    @property
    def num_bits(self) -> int:
        """The number of bits in groups."""
        return sum(math.prod(family.indices.shape) for family in self.families)

    @property
    def traced(self) -> bool:
        """Whether some indices are those of a traced call."""
        return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(self))

    def of_kinds(self, kinds: Iterable[str]) -> Blocks:
        """The families of these kinds."""
        known = set(kinds)
        return Blocks(tuple(family for family in self.families if family.kind in known))

    def moved_by(self, kinds: Iterable[str]) -> bool:
        """Whether there are groups, all of them of these kinds."""
        return bool(self.families) and {family.kind for family in self.families} <= set(kinds)

    @property
    def binding(self) -> Blocks:
        """The families that exclude some state of their bits: not those of all digits."""
        kept = (f for f in self.families if not (isinstance(f, States) and len(f.states) == 2 ** f.indices.shape[-1]))
        return Blocks(tuple(kept))

    def within(self, start: int, stop: int) -> Blocks:
        """The groups whose bits all lie in start .. stop - 1, the bits then counted from start."""
        kept = []
        for family in self.families:
            groups = np.asarray(family.groups)
            inside = ((groups >= start) & (groups < stop)).all(-1)
            if inside.any():
                kept.append(replace(family, indices=np.asarray(family.indices)[inside] - np.int32(start)))
        return Blocks(tuple(kept))

    def log_count(self, num_bits: int) -> float:
        """ln of the number of states of num_bits bits that the blocks allow."""
        free = num_bits - self.num_bits
        return free * math.log(2) + sum(f.groups.shape[0] * f.log_count for f in self.families)

    def first_of(self, total: int, num_bits: int) -> Blocks | None:
        """The groups of the first num_bits bits, where all of `total` bits are problems like them, one after another;
        None where a group has bits of two problems."""
        first = self.within(0, num_bits)
        return first if first.num_bits * (total // max(num_bits, 1)) == self.num_bits else None

    def shifted(self, start: int) -> Blocks:
        """The same groups, bit i of them at start + i."""
        return Blocks(tuple(replace(f, indices=f.indices + np.int32(start)) for f in self.families))

    def feasible(self, bits: Any) -> jax.Array:
        """Whether every group of bits (..., n) is in one of its states, (...)."""
        x = jnp.asarray(bits)
        holds = jnp.ones(x.shape[:-1], bool)
        for family in self.families:
            holds &= family.hold(x[..., family.groups]).all(-1)
        return holds

    def check(self, num_bits: int) -> None:
        """Errors: ValueError naming the group for bits outside 0 .. num_bits - 1 or in two places; of traced indices
        nothing is known."""
        if self.traced:
            return
        listed = [np.asarray(family.groups) for family in self.families]
        every = np.sort(np.concatenate([np.zeros(0, np.int32), *(groups.reshape(-1) for groups in listed)]))
        if not every.size or (every[0] >= 0 and every[-1] < num_bits and (np.diff(every) > 0).all()):
            return
        owner: dict[int, str] = {}
        for name, group in zip(self._names(), itertools.chain(*(groups.tolist() for groups in listed)), strict=True):
            for bit in group:
                if not 0 <= bit < num_bits:
                    raise ValueError(f"blocks: {name} has bit {bit}, the qubo has bits 0 .. {num_bits - 1}")
                if bit in owner:
                    where = "twice" if owner[bit] == name else f"as has {owner[bit]}: groups must share no bit"
                    raise ValueError(f"blocks: {name} has bit {bit} {where}")
                owner[bit] = name

    def check_states(self, name: str, states: Any) -> None:
        """Errors: ValueError naming the group for states (..., n) of the host outside it; traced ones pass."""
        if self.traced or isinstance(states, jax.core.Tracer):
            return
        x, names, first = np.asarray(states), list(self._names()), 0
        for family in self.families:
            wrong = ~family.hold(x[..., np.asarray(family.groups)]).reshape((-1, family.groups.shape[0])).all(0)
            if wrong.any():
                raise ValueError(f"{name} must be inside the blocks, {names[first + int(wrong.argmax())]} is not")
            first += wrong.size

    def _names(self) -> Iterable[str]:
        for number, family in enumerate(self.families):
            for group in range(family.groups.shape[0]):
                yield f"group {group} of {family.kind} (family {number})"


def digits(groups: Any) -> Blocks:
    """Groups of bits that may take all 2^b states, such as the digits of one parameter: moved as one.

    groups: lists of bits, of any lengths b up to 12. Errors: ValueError for a group that is empty or larger.
    """
    families = []
    for indices in _by_size("digits", groups):
        _check_width("digits", indices)
        families.append(States(indices, tuple(itertools.product((0, 1), repeat=indices.shape[1]))))
    return Blocks(tuple(families))


def levels(groups: Any, states: Any) -> Blocks:
    """Groups of b bits (G, b), each in one of `states` (S, b): rows of 0 and 1, such as one for each distinct level.

    Errors: ValueError for no states, states that are repeated or no rows of b bits, and groups of other lengths.
    """
    rows = tuple(tuple(int(bit) for bit in state) for state in states)
    families = []
    for indices in _by_size("levels", groups):
        if not rows:
            raise ValueError(f"levels: group {indices[0].tolist()} has no states")
        _check_width("levels", indices)
        if any(len(row) != indices.shape[1] or not set(row) <= {0, 1} for row in rows) or len(set(rows)) != len(rows):
            raise ValueError(f"levels: states of group {indices[0].tolist()} must be distinct rows of its bits, 0 or 1")
        families.append(States(indices, rows))
    return Blocks(tuple(families))


def one_hot(groups: Any) -> Blocks:
    """Groups of bits, lists of any lengths, with exactly one bit set. Errors: ValueError for an empty group."""
    return Blocks(tuple(OneHot(indices) for indices in _by_size("one_hot", groups)))


def choose(groups: Any, k: int) -> Blocks:
    """Groups of bits, lists of any lengths, with exactly k bits set.

    Errors: ValueError for a group that is empty or has no state of k ones.
    """
    families = _by_size("choose", groups)
    for indices in families:
        if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k <= indices.shape[1]:
            raise ValueError(f"choose: group {indices[0].tolist()} of {indices.shape[1]} bits has no state of {k} ones")
    return Blocks(tuple(Choose(indices, k) for indices in families))


def assignment(square: Any) -> Blocks:
    """A square of bits (N, N), or several (G, N, N), with exactly one bit set in each row and in each column.

    Errors: ValueError for another shape.
    """
    indices = np.asarray(square, np.int32)
    indices = indices[None] if indices.ndim == 2 else indices
    if indices.ndim != 3 or indices.shape[1] != indices.shape[2] or indices.shape[1] == 0:
        raise ValueError(f"assignment: square must have shape (N, N) or (G, N, N), got {np.shape(square)}")
    return Blocks((Assignment(indices),)) if len(indices) else Blocks()


def _by_size(name: str, groups: Any) -> list[np.ndarray]:
    """The groups as arrays (G, K), one for each length K, in the order in which the lengths come."""
    if isinstance(groups, np.ndarray) and groups.ndim == 2 and groups.size and np.issubdtype(groups.dtype, np.integer):
        return [groups.astype(np.int32)]
    found: dict[int, list[np.ndarray]] = {}
    for number, group in enumerate(groups):
        bits = np.asarray(group)
        if bits.ndim != 1 or not bits.size or not np.issubdtype(bits.dtype, np.integer):
            raise ValueError(f"{name}: group {number} must be a list of bits that is not empty, got {group!r}")
        found.setdefault(bits.size, []).append(bits.astype(np.int32))
    return [np.stack(same) for same in found.values()]


def _check_width(name: str, indices: np.ndarray) -> None:
    if indices.shape[1] > _MOST_BITS:
        raise ValueError(f"{name}: group {indices[0].tolist()} has more than {_MOST_BITS} bits, cut it into several")


def _alike(one: Family, other: Family) -> bool:
    """Whether two families differ in their indices alone."""
    structures: Any = jax.tree.structure(one), jax.tree.structure(other)
    return bool(structures[0] == structures[1]) and tuple(one.indices.shape[1:]) == tuple(other.indices.shape[1:])
