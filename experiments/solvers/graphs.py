"""Graphs by name and regular ones at random, and Max-Cut on small ones: what QAOA's published guarantees are about.

E(x) = - sum_{(i, j)} w_ij [x_i != x_j] = sum w_ij (2 x_i x_j - x_i - x_j)
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from qjax import Qubo

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# Graphs in LCF notation (jumps, repeats), each a cycle with chords: the hardest kinds for few layers are those of large
# girth that are bipartite (every edge can be cut, and no layer sees a cycle), such as Heawood's.
NAMED = {
    "tetrahedron": ((2,), 4),
    "prism": ((-3, -2, 2, 3, -2, 2), 1),
    "K33": ((3,), 6),
    "cube": ((3, -3), 4),
    "Wagner": ((4,), 8),
    "Franklin": ((5, -5), 6),
    "Heawood": ((5, -5), 7),
    "Moebius-Kantor": ((5, -5), 8),
}


def named(name: str) -> tuple[int, Array]:
    """(n, edges (3 n / 2, 2)) of a graph of `NAMED`."""
    jumps, repeats = NAMED[name]
    n = len(jumps) * repeats
    ring = [(i, (i + 1) % n) for i in range(n)]
    chords = [(i, (i + jumps[i % len(jumps)]) % n) for i in range(n)]
    return n, np.array(sorted({(min(e), max(e)) for e in ring + chords}))


def regular(rng: np.random.Generator, n: int, degree: int, mend: bool = True) -> Array:
    """Edges (degree n / 2, 2) of a random regular graph: half-edges paired at random until no two edges coincide and
    none is a loop.

    mend: wrong pairs exchange an end with random others; else all are drawn anew, which is uniform over all such
    graphs, and slow but for small degrees. Errors: ValueError where there is no such graph.
    """
    if n * degree % 2 or n <= degree:
        raise ValueError(f"there is no {degree}-regular graph of {n} nodes")
    halves = np.repeat(np.arange(n), degree)
    ends = rng.permutation(halves).reshape(-1, 2)
    while (wrong := _wrong(ends, n)).size:
        if not mend:
            ends = rng.permutation(halves).reshape(-1, 2)
            continue
        # An exchange keeps all degrees.
        other = rng.integers(len(ends), size=wrong.size)
        for a, b in zip(wrong, other, strict=True):
            ends[a, 1], ends[b, 1] = ends[b, 1], ends[a, 1]
    return ends


def random_regular(n: int, seed: int, degree: int = 3) -> Array:
    """`regular`, uniform, of a seed, the lower end of each edge first."""
    return np.sort(regular(np.random.default_rng(seed), n, degree, mend=False), axis=1)


def maxcut(n: int, edges: Array, weights: Array | None = None) -> Qubo:
    """The Qubo above, dense and in float32 throughout, for statevectors; `instances.cut` is for files."""
    weights = np.ones(len(edges)) if weights is None else weights
    matrix = np.zeros((n, n), np.float32)
    np.add.at(matrix, (edges[:, 0], edges[:, 1]), weights)
    matrix = matrix + matrix.T
    return Qubo.from_terms(-matrix.sum(1), 2 * matrix)


def _wrong(ends: Array, n: int) -> Array:
    """Pairs that join a node to itself, or that were there before."""
    low, high = ends.min(axis=1), ends.max(axis=1)
    _, first = np.unique(low * n + high, return_index=True)
    again = np.setdiff1d(np.arange(len(ends)), first)
    return np.union1d(again, np.flatnonzero(low == high))
