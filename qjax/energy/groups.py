"""Groups of bits in a graph of pairs, on the host: cliques, and the rows and columns of a square."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

# The adjacency of one square is looked at as a matrix.
_MOST_BITS_OF_A_SQUARE = 4096


class Component(NamedTuple):
    """A connected component in which every bit has as many neighbours: its bits (s,), and whether it is a clique."""

    bits: np.ndarray
    degree: int

    @property
    def clique(self) -> bool:
        return self.degree == self.bits.size - 1


def components(n: int, rows: np.ndarray, cols: np.ndarray) -> list[Component]:
    """The components of more than one bit that are regular graphs. Edges rows, cols (E,) are listed once each."""
    degree = np.bincount(rows, minlength=n) + np.bincount(cols, minlength=n)
    # A regular component has no edge between bits of unlike degrees: most graphs end here.
    if not rows.size or (degree[rows] == degree[cols]).mean() < 0.1:
        return []
    count, member = _members(n, rows, cols)
    order = np.argsort(member, kind="stable")
    sizes = np.bincount(member, minlength=count)
    start = np.cumsum(sizes) - sizes
    least = np.minimum.reduceat(degree[order], start)
    most = np.maximum.reduceat(degree[order], start)
    regular = np.flatnonzero((least == most) & (sizes > 1))
    return [Component(order[start[c] : start[c] + sizes[c]], int(least[c])) for c in regular]


def _members(n: int, rows: np.ndarray, cols: np.ndarray) -> tuple[int, np.ndarray]:
    """(how many components there are, that of each bit (n,))."""
    first = np.arange(n)
    np.minimum.at(first, rows, cols)
    np.minimum.at(first, cols, rows)
    # In a clique all have the same first bit; where all neighbours have, no search is needed.
    if np.array_equal(first[rows], first[cols]):
        own = first == np.arange(n)
        return int(own.sum()), (np.cumsum(own) - 1)[first]
    graph = sparse.coo_array((np.ones(rows.size, bool), (rows, cols)), shape=(n, n))
    count, member = csgraph.connected_components(graph, directed=False)
    return int(count), member


def rectangle(bits: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray | None:
    """Bits (N, M), N, M >= 2, of which two are neighbours exactly where they share a row or a column (a rook's graph),
    or None. bits (s,) are a component; edges rows, cols (E,) may have others, too."""
    size = bits.size
    if not 4 <= size <= _MOST_BITS_OF_A_SQUARE:
        return None
    place = np.full(max(int(bits.max()), int(rows.max()), int(cols.max())) + 1, -1)
    place[bits] = np.arange(size)
    near = np.zeros((size, size), bool)
    inside = place[rows] >= 0
    near[place[rows[inside]], place[cols[inside]]] = True
    near |= near.T
    around = np.flatnonzero(near[0])
    # Of the first bit's neighbours those that are neighbours of one another share a line with it.
    row = np.concatenate([[0, around[0]], around[near[around[0], around]]])
    column = np.concatenate([[0], np.setdiff1d(around, row)])
    if row.size * column.size != size or column.size < 2:
        return None
    square = np.empty((column.size, row.size), np.int64)
    square[0], square[:, 0] = row, column
    for i, below in enumerate(column[1:], 1):
        both = near[below][:, None] & near[:, row[1:]]
        both[0] = False
        if (both.sum(0) != 1).any():
            return None
        square[i, 1:] = both.argmax(0)
    if np.unique(square).size != size:
        return None
    lines, spot = np.divmod(np.argsort(square.reshape(-1)), row.size)
    expected = (lines[:, None] == lines[None, :]) ^ (spot[:, None] == spot[None, :])
    return bits[square] if np.array_equal(near, expected) else None
