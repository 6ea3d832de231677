"""Blocks found in a plain Qubo: groups of bits whose number of ones a penalty fixes.

    E(x) = E_rest(x) + sum over groups P (sum_{i in group} x_i - k)^2,     P > 0

A penalty adds 2P to every pair of a group and P (1 - 2k) to every linear term, on top of what else the energy has. So
the pairs of a group are a clique of couplings near 2P: equal ones, or ones far above all others. Tried are the
couplings above each wide gap in their sorted values, and those equal to one or two of the most common values. Of the
connected components of such a graph a clique is a group (one-hot for k = 1, else choose-k), and N x N bits that are
neighbours along rows and columns are an assignment. k is 1/2 - linear / 2P, rounded, and must be the same for all bits.

A choice is accepted where the couplings of a group are equal, or where P is above the root of the sum of squares of all
else that a bit of it has: chance makes no such groups, as a rule. Of several choices that one is returned which leaves
the fewest states. Whatever is found, the equation above is exact (but for rounding): a find can be useless, not wrong.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass
from scipy import sparse

from qjax.energy import blocks as made
from qjax.energy import groups
from qjax.energy.blocks import Blocks
from qjax.energy.couplings import Dense, Sparse
from qjax.energy.qubo import Qubo
from qjax.energy.terms import Terms

# Samplers look for groups on their own in Qubos of at most so many bits: sweeps of groups go through the whole matrix.
MOST_BITS = 2048
# Couplings more than this many times those below them may be those of penalties, ...
_GAP = 1.5
# ... unless they are small beside the largest: near 0 such gaps are common.
_SMALL = 0.02
_GAPS, _VALUES = 5, 3
_EQUAL = 1e-5
_WHOLE = 32
_LN2 = math.log(2)
# Above this many couplings, those of a few bits tell whether there is anything to look for.
_MANY, _PROBES = 100_000, 24


@partial(register_dataclass, data_fields=["families", "rest", "weights"], meta_fields=[])
@dataclass(frozen=True)
class Found(Blocks):
    """Groups found in a Qubo, and the parts of its energy: rest, a Qubo without the penalties, and these.

    Given to a sampler as its `blocks`, it says which moves are worth making, and keeps no state out.
    weights: P of the groups: for each family one array (R,) for each entry of its `sums()`, in order.
    """

    rest: Any = None
    weights: tuple[tuple[Any, ...], ...] = ()

    def check_states(self, name: str, states: Any) -> None:
        """All states are taken."""

    @property
    def least_weight(self) -> jax.Array:
        """The smallest P, ()."""
        return jnp.min(jnp.concatenate([weight for same in self.weights for weight in same]))

    def penalties(self, bits: Any) -> jax.Array:
        """sum over groups P (sum x - k)^2 of bits (..., n): (...), in the unit of E."""
        x = jnp.asarray(bits)
        total = jnp.zeros(x.shape[:-1], self.rest.linear.dtype)
        for family, weights in zip(self.families, self.weights, strict=True):
            for (indices, k), weight in zip(family.sums(), weights, strict=True):
                missed = x[..., indices].sum(-1, dtype=total.dtype) - k
                spread = jnp.broadcast_to(jnp.asarray(weight), missed.shape).astype(total.dtype)
                total = total + (spread * missed * missed).sum(-1)
        return total


def find_blocks(qubo: Qubo) -> Found | None:
    """The groups of bits whose number of ones penalties in the Qubo fix, or None where there are none.

    None, too, for Gram and implicit couplings, a batch, or a Qubo that is traced or spread over hosts. It runs on this
    host.
    """
    unknown = any(
        isinstance(leaf, jax.core.Tracer) or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable)
        for leaf in jax.tree.leaves(qubo)
    )
    if unknown or qubo.batch_shape or not float(qubo.scale):
        return None
    with jax.ensure_compile_time_eval():
        return _found_in(qubo)


def _found_in(qubo: Qubo) -> Found | None:
    scale = float(qubo.scale)
    match qubo.couplings:
        case Dense(matrix):
            host = np.asarray(matrix)
            if not _promising(host, scale):
                return None
            rows, cols = np.nonzero(np.triu(host, 1))
            weights = host[rows, cols].astype(np.float64)
        case Sparse() as held:
            rows, cols, weights = held.edges()
        case _:
            return None
    linear = scale * np.asarray(qubo.linear, np.float64)
    terms = Terms(linear, rows, cols, scale * weights, scale * float(qubo.offset))
    return found_in(terms, "dense" if isinstance(qubo.couplings, Dense) else "sparse", scale)


def found_in(terms: Terms, form: str | None = None, scale: float = 1.0) -> Found | None:
    """`find_blocks` of terms; form, scale: of the rest."""
    sums = _sums(terms)
    if not sums:
        return None
    linear, offset = terms.linear.copy(), terms.offset
    table, blocks, strengths = _table(terms), Blocks(), []
    for one in sums:
        for bits, k, strength in one.lines:
            first, second = (bits[:, at].reshape(-1) for at in np.triu_indices(bits.shape[1], 1))
            pairs = np.repeat(-2 * strength, first.size // len(bits))
            table = table + _table(Terms(linear, first, second, pairs, 0.0))
            np.add.at(linear, bits, np.broadcast_to((strength * (2 * k - 1))[:, None], bits.shape))
            offset -= float(strength.sum()) * k * k
        blocks = Blocks((*blocks.families, one.family))
        strengths.append(tuple(jnp.asarray(strength, jnp.zeros(0).dtype) for _, _, strength in one.lines))
    table.eliminate_zeros()
    left = table.tocoo()
    rows, cols = (np.asarray(ends, np.int64) for ends in left.coords)
    rest = Terms(linear / scale, rows, cols, left.data / scale, offset / scale).qubo(form)
    return Found(blocks.families, scale * rest, tuple(strengths))


def _table(terms: Terms) -> Any:
    """Couplings as a sparse matrix (n, n), its upper triangle."""
    low, high = np.minimum(terms.rows, terms.cols), np.maximum(terms.rows, terms.cols)
    n = terms.linear.size
    return sparse.csr_array((terms.weights, (low, high)), shape=(n, n))


class _Sum(NamedTuple):
    """One family of groups, and its penalties: (bits (R, K), k, P (R,)) for each entry of its `sums()`."""

    family: Any
    lines: list[tuple[np.ndarray, int, np.ndarray]]


def _promising(matrix: np.ndarray, scale: float) -> bool:
    """Whether rows of a few bits have couplings that are equal, or far above the others."""
    n = len(matrix)
    if n * n < 2 * _MANY:
        return True
    for row in matrix[np.random.default_rng(0).choice(n, _PROBES, replace=False)]:
        values = scale * row.astype(np.float64)
        if next(_choices(values[values > 0]), None) is not None:
            return True
    return False


def _choices(weights: np.ndarray) -> Iterator[tuple[tuple[float, float], ...]]:
    """Intervals (low, high) of the positive couplings to look at, the union of each choice."""
    # Equal numbers that were rounded to float32 once are so again.
    values, counts = np.unique(weights.astype(np.float32), return_counts=True)
    if not values.size:
        return
    below = np.concatenate([[values[0] / 2 / _GAP], values[:-1]])
    wide = np.flatnonzero((values > _SMALL * values[-1]) & (values > _GAP * below))
    ratio = values[wide] / below[wide]
    edges = np.nextafter(values, np.float32(0))
    for at in wide[np.argsort(-ratio, kind="stable")][:_GAPS]:
        yield ((float(edges[at]), np.inf),)
    common = np.argsort(-counts, kind="stable")[:_VALUES]
    same = [(float(edges[at]), float(np.nextafter(values[at], np.float32(np.inf)))) for at in common if counts[at] > 2]
    yield from itertools.combinations(same, 1)
    yield from itertools.combinations(same, 2)


def _sums(terms: Terms) -> list[_Sum]:
    """Of the choices that are accepted, the one that leaves the fewest states."""
    positive = terms.weights > 0
    rows, cols, weights = terms.rows[positive], terms.cols[positive], terms.weights[positive]
    best, fewest, search = list[_Sum](), 0.0, None
    for choice in _choices(weights):
        inside = np.zeros(weights.size, bool)
        for low, high in choice:
            inside |= (weights > low) & (weights < high)
        parts = groups.components(terms.linear.size, rows[inside], cols[inside])
        if not parts:
            continue
        search = search or _Search(terms)
        found = search.accepted(parts, rows[inside], cols[inside])
        # ln of the part of all states that is left.
        left = sum(f.family.groups.shape[0] * (f.family.log_count - f.family.groups.shape[1] * _LN2) for f in found)
        if left < fewest:
            best, fewest = found, left
        # Where all bits are in groups, only the rows of a square can turn out to be more.
        shapes = [f.family.groups.shape for f in best]
        if sum(count * size for count, size in shapes) == terms.linear.size and all(c != s for c, s in shapes):
            break
    return best


class _Search:
    """Terms with what looking at their groups needs."""

    def __init__(self, terms: Terms) -> None:
        self._terms, self._table = terms, _table(terms)
        n, squares = terms.linear.size, terms.weights**2
        self._squares = np.bincount(terms.rows, squares, n) + np.bincount(terms.cols, squares, n)

    def accepted(self, parts: list[groups.Component], rows: np.ndarray, cols: np.ndarray) -> list[_Sum]:
        """The families of the components (of edges rows, cols) that are groups."""
        cliques: dict[int, list[np.ndarray]] = {}
        squares = []
        for part in parts:
            if part.clique:
                cliques.setdefault(part.bits.size, []).append(part.bits)
            elif (shape := groups.rectangle(part.bits, rows, cols)) is not None:
                squares.append(shape if len(shape) <= shape.shape[1] else shape.T)
        beside = self._squares.copy()  # of the couplings of each bit without the penalties, squares summed
        offered = [(np.stack(same), self._strengths(np.stack(same), beside)) for same in cliques.values()]
        sides = [(self._strengths(square, beside), self._strengths(square.T, beside)) for square in squares]
        beside = np.sqrt(np.maximum(beside, 0))
        held: dict[tuple[int, ...], list[_Offer]] = {}
        for square, (by_row, by_column) in zip(squares, sides, strict=True):
            if len(square) < square.shape[1]:
                # The shorter side's lines are many more than can have a one each.
                offered.append((square, by_row))
                continue
            both = by_row.weight[:, None] + by_column.weight[None, :]
            if (np.abs(self._ratio(square, both) - 1) < 0.5).all():
                weakest = min(by_row.weight.min(), by_column.weight.min())
                even = bool(by_row.equal.all() and by_column.equal.all())
                strong = bool((beside[square] < weakest).all())
                held.setdefault((len(square),), []).append(
                    _Offer(square, np.stack([by_row.weight, by_column.weight]), strong, even)
                )
        for lines, side in offered:
            ratio, size = self._ratio(lines, side.weight[:, None]), lines.shape[1]
            k = np.rint(ratio.mean(1)).astype(int)
            fits = (np.abs(ratio - k[:, None]) < 0.5).all(1) & (k > 0) & (k < size)
            strong = (beside[lines] < side.weight[:, None]).all(1)
            for at in np.flatnonzero(fits & (strong | (side.equal & (size > 2)))):
                offer = _Offer(lines[at], side.weight[at], bool(strong[at]), bool(side.equal[at]))
                held.setdefault((size, int(k[at])), []).append(offer)
        # Equal couplings that are weak may be chance, unless most bits have them.
        most = 2 * sum(o.bits.size for same in held.values() for o in same) >= self._terms.linear.size
        kept = {kind: [o for o in same if o.strong or (o.even and most)] for kind, same in held.items()}
        return [_family(kind, same) for kind, same in kept.items() if same]

    def _ratio(self, bits: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """k of each bit, a real number: the penalty's linear term is P (1 - 2k)."""
        return np.asarray(0.5 - self._terms.linear[bits] / (2 * weight))

    def _strengths(self, lines: np.ndarray, beside: np.ndarray) -> _Side:
        """P of the groups lines (R, K), whose couplings `beside` then no longer has."""
        first, second = (lines[:, at] for at in np.triu_indices(lines.shape[1], 1))
        low, high = np.minimum(first, second), np.maximum(first, second)
        values = np.asarray(self._table[low.reshape(-1), high.reshape(-1)]).reshape(low.shape)
        pair = values.mean(1)
        equal = np.ptp(values, axis=1) < _EQUAL * pair
        # Whole numbers keep what is left whole.
        weight = np.where(equal | (pair < _WHOLE), pair / 2, np.rint(pair / 2))
        change = (values - 2 * weight[:, None]) ** 2 - values**2
        for ends in (first, second):
            np.add.at(beside, ends, change)
        return _Side(weight, equal)


class _Side(NamedTuple):
    weight: np.ndarray  # (R,) P of each line
    equal: np.ndarray  # (R,) whether its couplings are equal


class _Offer(NamedTuple):
    """A group (K,) with its P, or a square (N, N) with those of its rows and columns (2, N)."""

    bits: np.ndarray
    weight: Any
    strong: bool
    even: bool


def _family(kind: tuple[int, ...], offers: list[_Offer]) -> _Sum:
    bits = np.stack([o.bits for o in offers])
    weight = np.stack([np.asarray(o.weight) for o in offers])
    match kind:
        case (_,):
            family: Any = made.assignment(bits).families[0]
            strengths = [weight[:, 0].reshape(-1), weight[:, 1].reshape(-1)]
        case (_, 1):
            family, strengths = made.one_hot(bits).families[0], [weight]
        case (_, k):
            family, strengths = made.choose(bits, k).families[0], [weight]
    return _Sum(family, [(np.asarray(b), k, w) for (b, k), w in zip(family.sums(), strengths, strict=True)])
