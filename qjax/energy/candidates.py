"""Which of the couplings of an energy are those of penalties: what qjax.energy.finder accepts.

A choice of couplings can hold groups only where bits have as many in it as their neighbours: at half of all bits, or at
some whose couplings outside of the choice are small. That costs a count of edges, and ends nearly all choices of an
energy without penalties.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from qjax.energy import blocks as made
from qjax.energy import groups
from qjax.energy.searched import Edges, Matrix, strong

_EQUAL = 1e-5
_WHOLE = 32
_LN2 = math.log(2)

Held: TypeAlias = Matrix | Edges


class Sum(NamedTuple):
    """One family of groups, and its penalties: (bits (R, K), k, P (R,)) for each entry of its `sums()`."""

    family: Any
    lines: list[tuple[np.ndarray, int, np.ndarray]]


def sums(held: Held) -> list[Sum]:
    """Of the choices that are accepted, the one that leaves the fewest states."""
    best, fewest = list[Sum](), 0.0
    n = held.linear.size
    squares = None
    for choice in held.choices():
        rows, cols, weights = held.edges(choice)
        squares = held.squares if squares is None else squares
        if not _may_be_groups(squares, rows, cols, weights):
            continue
        found = _accepted(held, squares, groups.components(n, rows, cols), rows, cols)
        # ln of the part of all states that is left.
        left = sum(f.family.groups.shape[0] * (f.family.log_count - f.family.groups.shape[1] * _LN2) for f in found)
        if left < fewest:
            best, fewest = found, left
        # Where all bits are in groups, only the rows of a square can turn out to be more.
        shapes = [f.family.groups.shape for f in best]
        if sum(count * size for count, size in shapes) == n and all(c != s for c, s in shapes):
            break
    return best


def _may_be_groups(beside: np.ndarray, rows: np.ndarray, cols: np.ndarray, weights: np.ndarray) -> bool:
    """Whether bits of regular components of these edges could be groups: most bits, or any whose edges are strong."""
    n = beside.size
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
    return bool((regular & strong(degree, own, beside)).any())


def _accepted(
    held: Held, squares_of_all: np.ndarray, parts: list[groups.Component], rows: np.ndarray, cols: np.ndarray
) -> list[Sum]:
    """The families of the components (of edges rows, cols) that are groups."""
    cliques: dict[int, list[np.ndarray]] = {}
    squares = []
    for part in parts:
        if part.clique:
            cliques.setdefault(part.bits.size, []).append(part.bits)
        elif (shape := groups.rectangle(part.bits, rows, cols)) is not None:
            squares.append(shape if len(shape) <= shape.shape[1] else shape.T)
    beside = squares_of_all.copy()  # of the couplings of each bit without the penalties, squares summed
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
    values = held.values((first.reshape(-1), second.reshape(-1))).reshape(first.shape)
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
