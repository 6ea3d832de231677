"""Which couplings of an energy may be those of penalties, and whether they are: what qjax.energy.finder searches.

A choice is an interval of positive couplings, or two. It can hold groups only where bits have as many couplings in it
as their neighbours: at half of all bits, or at some whose couplings outside of the choice are small. That costs a
count of edges, and ends nearly all choices of an energy without penalties. In a large matrix rows of a few bits tell.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from qjax.energy import blocks as made
from qjax.energy import groups
from qjax.energy.terms import Terms

# Couplings more than this many times those below them may be those of penalties, ...
_GAP = 1.5
# ... unless they are small beside the largest: near 0 such gaps are common.
_SMALL = 0.02
_GAPS, _VALUES = 5, 3
_EQUAL = 1e-5
_WHOLE = 32
_LN2 = math.log(2)
# From so many bits on, the rows of a few tell whether there is anything to look for: of some at random, and of those
# that have the largest couplings.
_MANY, _PROBES, _LARGEST = 200, 32, 8
Choice = tuple[tuple[float, float], ...]


class Held(NamedTuple):
    """An energy on the host, the couplings w_ij, i < j, as a table (n, n): an array, or a sparse one.

    rows, cols, weights (E,): the positive couplings; squares (n,): of all couplings of a bit, summed.
    """

    linear: np.ndarray
    table: Any
    offset: float
    rows: np.ndarray
    cols: np.ndarray
    weights: np.ndarray
    squares: np.ndarray


class Sum(NamedTuple):
    """One family of groups, and its penalties: (bits (R, K), k, P (R,)) for each entry of its `sums()`."""

    family: Any
    lines: list[tuple[np.ndarray, int, np.ndarray]]


def of_terms(terms: Terms) -> Held:
    """With a sparse table."""
    n, squares, above = terms.linear.size, terms.weights**2, terms.weights > 0
    low, high = np.minimum(terms.rows, terms.cols), np.maximum(terms.rows, terms.cols)
    table = sparse.csr_array((terms.weights, (low, high)), shape=(n, n))
    beside = np.bincount(low, squares, n) + np.bincount(high, squares, n)
    return Held(terms.linear, table, terms.offset, low[above], high[above], terms.weights[above], beside)


def of_table(linear: np.ndarray, table: np.ndarray, offset: float) -> Held:
    """Of an upper triangle (n, n) in float64."""
    n = linear.size
    places = np.flatnonzero(table > 0)
    rows, cols = np.divmod(places, max(n, 1))
    beside = np.einsum("ij,ij->i", table, table) + np.einsum("ij,ij->j", table, table)
    return Held(linear, table, offset, rows, cols, table.reshape(-1)[places], beside)


def promising(matrix: np.ndarray, scale: float) -> bool:
    """Whether the rows of a few bits of the couplings scale * matrix (n, n) may have those of penalties."""
    n = len(matrix)
    if n < _MANY:
        return True
    largest = matrix.max(1) if scale > 0 else -matrix.min(1)
    some = np.random.default_rng(0).choice(n, _PROBES, replace=False)
    probes = np.concatenate([some, np.argpartition(largest, -_LARGEST)[-_LARGEST:]])
    rows = scale * matrix[probes].astype(np.float64)
    squares = rows**2
    beside = squares.sum(1)
    every = np.arange(len(probes))
    for choice in _choices(rows[rows > 0]):
        inside = _inside(rows, choice)
        degree = inside.sum(1)
        if _strong(degree, np.where(inside, squares, 0).sum(1), beside).any():
            return True
        first, last = inside.argmax(1), n - 1 - inside[:, ::-1].argmax(1)
        even = degree > 0
        for near in (first, last):
            even &= _inside(scale * matrix[near].astype(np.float64), choice).sum(1) == degree
        # Equal couplings that are not strong must be those of half of all bits.
        if even[every < _PROBES].sum() > _PROBES // 8:
            return True
    return False


def _inside(values: np.ndarray, choice: Choice) -> np.ndarray:
    (low, high), *others = choice
    found: np.ndarray = (values > low) & (values < high)
    for low, high in others:
        found |= (values > low) & (values < high)
    return found


def _choices(weights: np.ndarray) -> Iterator[Choice]:
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


def sums(held: Held) -> list[Sum]:
    """Of the choices that are accepted, the one that leaves the fewest states."""
    best, fewest = list[Sum](), 0.0
    n = held.linear.size
    for choice in _choices(held.weights):
        inside = np.flatnonzero(_inside(held.weights, choice))
        rows, cols = held.rows[inside], held.cols[inside]
        parts = groups.components(n, rows, cols) if _may_be_groups(held, rows, cols, held.weights[inside]) else []
        if not parts:
            continue
        found = _accepted(held, parts, rows, cols)
        # ln of the part of all states that is left.
        left = sum(f.family.groups.shape[0] * (f.family.log_count - f.family.groups.shape[1] * _LN2) for f in found)
        if left < fewest:
            best, fewest = found, left
        # Where all bits are in groups, only the rows of a square can turn out to be more.
        shapes = [f.family.groups.shape for f in best]
        if sum(count * size for count, size in shapes) == n and all(c != s for c, s in shapes):
            break
    return best


def _may_be_groups(held: Held, rows: np.ndarray, cols: np.ndarray, weights: np.ndarray) -> bool:
    """Whether bits of regular components of these edges could be groups: most bits, or any whose edges are strong."""
    n = held.linear.size
    degree = np.bincount(rows, minlength=n) + np.bincount(cols, minlength=n)
    uneven = degree[rows] != degree[cols]
    regular = degree > 0
    regular[rows[uneven]] = False
    regular[cols[uneven]] = False
    count = np.count_nonzero(regular)
    if not count or 2 * count >= n:
        return bool(count)
    squares = weights**2
    own = np.bincount(rows, squares, n) + np.bincount(cols, squares, n)
    return bool((regular & _strong(degree, own, held.squares)).any())


def _strong(degree: np.ndarray, own: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Whether bits can be in a group whose P is above the root of the sum of squares of all else that a bit has.

    degree: their couplings in a choice; own: the squares of these, summed; squares: those of all. Where the group's d
    couplings are 2P + c, |c| < P, the root of own is at least 2P sqrt(d) - P, and the rest of the squares is below P^2.
    """
    most = own / (2 * np.sqrt(np.maximum(degree, 1)) - 1) ** 2
    return np.asarray((degree > 0) & (squares - own <= most + _EQUAL * squares))


def _accepted(held: Held, parts: list[groups.Component], rows: np.ndarray, cols: np.ndarray) -> list[Sum]:
    """The families of the components (of edges rows, cols) that are groups."""
    cliques: dict[int, list[np.ndarray]] = {}
    squares = []
    for part in parts:
        if part.clique:
            cliques.setdefault(part.bits.size, []).append(part.bits)
        elif (shape := groups.rectangle(part.bits, rows, cols)) is not None:
            squares.append(shape if len(shape) <= shape.shape[1] else shape.T)
    beside = held.squares.copy()  # of the couplings of each bit without the penalties, squares summed
    offered = [(np.stack(same), _strengths(held, np.stack(same), beside)) for same in cliques.values()]
    sides = [(_strengths(held, square, beside), _strengths(held, square.T, beside)) for square in squares]
    beside = np.sqrt(np.maximum(beside, 0))
    offers: dict[tuple[int, ...], list[_Offer]] = {}
    for square, (by_row, by_column) in zip(squares, sides, strict=True):
        if len(square) < square.shape[1]:
            # The shorter side's lines are many more than can have a one each.
            offered.append((square, by_row))
            continue
        both = by_row.weight[:, None] + by_column.weight[None, :]
        if (np.abs(_ratio(held, square, both) - 1) < 0.5).all():
            weakest = min(by_row.weight.min(), by_column.weight.min())
            even = bool(by_row.equal.all() and by_column.equal.all())
            strong = bool((beside[square] < weakest).all())
            offers.setdefault((len(square),), []).append(
                _Offer(square, np.stack([by_row.weight, by_column.weight]), strong, even)
            )
    for lines, side in offered:
        ratio, size = _ratio(held, lines, side.weight[:, None]), lines.shape[1]
        k = np.rint(ratio.mean(1)).astype(int)
        fits = (np.abs(ratio - k[:, None]) < 0.5).all(1) & (k > 0) & (k < size)
        strong = (beside[lines] < side.weight[:, None]).all(1)
        for at in np.flatnonzero(fits & (strong | (side.equal & (size > 2)))):
            offer = _Offer(lines[at], side.weight[at], bool(strong[at]), bool(side.equal[at]))
            offers.setdefault((size, int(k[at])), []).append(offer)
    # Equal couplings that are weak may be chance, unless most bits have them.
    most = 2 * sum(o.bits.size for same in offers.values() for o in same) >= held.linear.size
    kept = {kind: [o for o in same if o.strong or (o.even and most)] for kind, same in offers.items()}
    return [_family(kind, same) for kind, same in kept.items() if same]


def _ratio(held: Held, bits: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """k of each bit, a real number: the penalty's linear term is P (1 - 2k)."""
    return np.asarray(0.5 - held.linear[bits] / (2 * weight))


def _strengths(held: Held, lines: np.ndarray, beside: np.ndarray) -> _Side:
    """P of the groups lines (R, K), whose couplings `beside` then no longer has."""
    first, second = (lines[:, at] for at in np.triu_indices(lines.shape[1], 1))
    low, high = np.minimum(first, second), np.maximum(first, second)
    values = np.asarray(held.table[low.reshape(-1), high.reshape(-1)]).reshape(low.shape)
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


def _family(kind: tuple[int, ...], offers: list[_Offer]) -> Sum:
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
    return Sum(family, [(np.asarray(b), k, w) for (b, k), w in zip(family.sums(), strengths, strict=True)])
