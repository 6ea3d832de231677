"""An energy as qjax.energy.finder searches it: its couplings on the host, and which of them may be those of penalties.

A choice is an interval of positive couplings, or two: those above a wide gap in their sorted values, and those equal to
one or two of the most common values. In a large matrix the rows of a few bits make the choices, and say which of them
may hold groups at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from qjax.energy.terms import Terms

# Couplings more than this many times those below them may be those of penalties, ...
_GAP = 1.5
# ... unless they are small beside the largest: near 0 such gaps are common.
_SMALL = 0.02
_GAPS, _VALUES = 5, 3
_EXACT = 1e-5
# From so many bits on, rows tell: of some bits at random, and of those that have the largest couplings.
_MANY, _PROBES, _LARGEST = 200, 32, 8

Choice: TypeAlias = tuple[tuple[float, float], ...]
Ends: TypeAlias = tuple[np.ndarray, np.ndarray]


class Matrix:
    """scale * (1/2 x'Mx) + linear.x + offset for a symmetric matrix M (n, n) without diagonal."""

    def __init__(self, matrix: np.ndarray, linear: np.ndarray, offset: float, scale: float = 1.0) -> None:
        self.linear, self.offset, self._matrix, self._scale = linear, offset, matrix, scale
        self._couplings = matrix if scale == 1 else scale * matrix

    @property
    def squares(self) -> np.ndarray:
        """The couplings of each bit squared and summed, (n,)."""
        return np.einsum("ij,ij->i", self._couplings, self._couplings, dtype=np.float64)

    def values(self, ends: Ends) -> np.ndarray:
        return np.asarray(self._scale * self._matrix[ends].astype(np.float64))

    def edges(self, choice: Choice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rows, cols, couplings), each (E,): the pairs in a choice, once each."""
        rows, cols = np.divmod(np.flatnonzero(_inside(self._couplings, choice)), max(self.linear.size, 1))
        once = rows < cols
        ends = rows[once], cols[once]
        return *ends, self.values(ends)

    def choices(self) -> Iterator[Choice]:
        n = self.linear.size
        if n < _MANY:
            upper = np.triu(self._couplings, 1)
            yield from _choices(upper[upper > 0])
            return
        some = np.random.default_rng(0).choice(n, _PROBES, replace=False)
        probes = np.concatenate([some, np.argpartition(self._couplings.max(1), -_LARGEST)[-_LARGEST:]])
        rows = self._couplings[probes].astype(np.float64)
        for choice in _choices(rows[rows > 0]):
            if self._promising(rows, choice):
                yield choice

    def _promising(self, rows: np.ndarray, choice: Choice) -> bool:
        inside, squares = _inside(rows, choice), rows**2
        degree = inside.sum(1)
        if strong(degree, np.where(inside, squares, 0).sum(1), squares.sum(1)).any():
            return True
        even = degree > 0
        for near in (inside.argmax(1), self.linear.size - 1 - inside[:, ::-1].argmax(1)):
            even &= _inside(self._couplings[near], choice).sum(1) == degree
        # Groups that are not strong must be those of half of all bits.
        return int(even[:_PROBES].sum()) > _PROBES // 8

    def less(self, ends: Ends, values: np.ndarray) -> np.ndarray:
        """M without couplings of these values at these pairs."""
        left = self._matrix.copy()
        left[ends] = left[ends[::-1]] = (self.values(ends) - values) / self._scale
        return left


class Edges:
    """The terms, whose couplings are a list of pairs, each once."""

    def __init__(self, terms: Terms, scale: float = 1.0) -> None:
        self.linear, self.offset, self._scale = terms.linear, terms.offset, scale
        n, above = terms.linear.size, terms.weights > 0
        low, high = np.minimum(terms.rows, terms.cols), np.maximum(terms.rows, terms.cols)
        self._table = sparse.csr_array((terms.weights, (low, high)), shape=(n, n))
        self._positive = low[above], high[above], terms.weights[above]
        squares = terms.weights**2
        self.squares = np.bincount(low, squares, n) + np.bincount(high, squares, n)

    def values(self, ends: Ends) -> np.ndarray:
        low, high = np.minimum(*ends), np.maximum(*ends)
        return np.asarray(self._table[low, high])

    def edges(self, choice: Choice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rows, cols, couplings), each (E,): the pairs in a choice, once each."""
        rows, cols, weights = self._positive
        inside = np.flatnonzero(_inside(weights, choice))
        return rows[inside], cols[inside], weights[inside]

    def choices(self) -> Iterator[Choice]:
        return _choices(self._positive[2])

    def less(self, ends: Ends, values: np.ndarray) -> Any:
        """The couplings over the scale, as a sparse array (n, n), its upper triangle, without these values."""
        low, high = np.minimum(*ends), np.maximum(*ends)
        left = self._table - sparse.csr_array((values, (low, high)), shape=self._table.shape)
        left.eliminate_zeros()
        left.data /= self._scale
        return left


def strong(degree: np.ndarray, own: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Whether bits can be in a group whose P is above the root of the sum of squares of all else that a bit has.

    degree: their couplings in a choice; own: the squares of these, summed; squares: those of all. Where the group's d
    couplings are 2P + c, |c| < P, the root of own is at least 2P sqrt(d) - P, and the rest of the squares is below P^2.
    """
    most = own / (2 * np.sqrt(np.maximum(degree, 1)) - 1) ** 2
    return np.asarray((degree > 0) & (squares - own <= most + _EXACT * squares))


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
    for at in wide[np.argsort(-ratio, kind="stable")][:_GAPS]:
        yield ((math.sqrt(float(below[at]) * float(values[at])), np.inf),)
    common = np.argsort(-counts, kind="stable")[:_VALUES]
    ends = np.nextafter(values, np.float32(0)), np.nextafter(values, np.float32(np.inf))
    same = [(float(ends[0][at]), float(ends[1][at])) for at in common if counts[at] > 2]
    yield from itertools.combinations(same, 1)
    yield from itertools.combinations(same, 2)
