"""Problems whose bits come in groups of which one is 1, kept by penalties: P (sum x - 1)^2 a group, its value included.

    one-hot-19x6-P1000   E = x'Qx + penalties, Q the upper triangle with its diagonal, uniform integers in -50 .. 49;
                         19 groups of 6 bits, group g has bits 6 g .. 6 g + 5. P = 1000 where the name has none
    queen8_8-9-P1        9 colours for the squares of a board of 8 x 8, two on a line of a queen never alike
    myciel5-6-P1         6 colours for the nodes of a graph without triangles (47 of them, 236 edges: Mycielski 1955)

E = edges with both ends alike + penalties for colourings (Lucas 2014), bit v K + c: node v has colour c. It is 0 for a
proper colouring and at least 1 else, where P >= 1, which is what P is where the name has none.
"""

import re

import numpy as np

from experiments.solvers.instances.problem import Instance, qubo_of
from qjax import blocks

# The lowest that any run here found; no proof is known to us.
_LOWEST = {(0, 19, 6): -2912.0}
# The fewest colours that do; a Mycielski graph takes as many as its place in the family says, by its construction.
_QUEEN_COLOURS = {5: 5, 6: 7, 7: 7, 8: 9, 9: 10}

Array = np.ndarray


def grouped(name: str) -> Instance | None:
    """The problem of that name, None where the name is of no such kind. Errors: ValueError for an impossible size."""
    if match := re.fullmatch(r"one-hot-(\d+)x(\d+)(?:-P(\d+\.?\d*))?(?:-s(\d+))?", name):
        return one_hot(name, int(match[1]), int(match[2]), float(match[3] or 1000), int(match[4] or 0))
    if match := re.fullmatch(r"(?:queen(\d+)_(\d+)|myciel(\d+))-(\d+)(?:-P(\d+\.?\d*))?", name):
        colours, penalty = int(match[4]), float(match[5] or 1)
        if match[3]:
            n, edges = mycielski(int(match[3]))
            return colouring(name, n, edges, colours, penalty, int(match[3]) + 1)
        if match[1] != match[2]:
            raise ValueError(f"{name}: boards are squares")
        side = int(match[1])
        return colouring(name, side * side, queens(side), colours, penalty, _QUEEN_COLOURS.get(side))
    return None


def one_hot(name: str, groups: int, size: int, penalty: float, seed: int) -> Instance:
    """Errors: ValueError for no groups, or groups without a choice."""
    if groups < 1 or size < 2:
        raise ValueError(f"{name}: needs at least one group, and two bits in each")
    n = groups * size
    matrix = np.triu(np.random.default_rng(seed).integers(-50, 50, (n, n)))
    rows, cols = np.nonzero(np.triu(matrix, 1))
    bits = np.arange(n).reshape(groups, size)
    return _penalised(
        name,
        "qubo",
        bits,
        penalty,
        np.diagonal(matrix),
        (rows, cols),
        matrix[rows, cols],
        _LOWEST.get((seed, groups, size)),
    )


def colouring(name: str, n: int, edges: Array, colours: int, penalty: float, fewest: int | None = None) -> Instance:
    """Nodes 0 .. n - 1 of a graph, edges (E, 2). fewest: the number of colours from which on a proper one exists.

    Errors: ValueError for fewer than two colours.
    """
    if colours < 2:
        raise ValueError(f"{name}: needs at least two colours")
    bits = np.arange(n * colours).reshape(n, colours)
    ends = bits[edges[:, 0]].reshape(-1), bits[edges[:, 1]].reshape(-1)
    best = 0.0 if fewest is not None and colours >= fewest else None
    return _penalised(name, "colouring", bits, penalty, np.zeros(bits.size), ends, np.ones(ends[0].size), best)


def queens(side: int) -> Array:
    """Edges (E, 2) between the squares of a board on one line, column or diagonal; square r side + c."""
    row, column = np.divmod(np.arange(side * side), side)
    first, second = np.triu_indices(side * side, 1)
    down, across = row[second] - row[first], column[second] - column[first]
    near = (down == 0) | (across == 0) | (abs(down) == abs(across))
    return np.stack([first[near], second[near]], axis=1)


def mycielski(number: int) -> tuple[int, Array]:
    """(n, edges (E, 2)) of DIMACS's graph mycielNUMBER, which takes NUMBER + 1 colours and has no triangle.

    A step, from an edge (number 1) on: each node v has a twin with the neighbours of v, and one node more has all
    twins. Errors: ValueError below 2.
    """
    if number < 2:
        raise ValueError(f"myciel{number}: the first of them is myciel2")
    n, edges = 2, np.array([[0, 1]])
    for _ in range(number - 1):
        twins = np.array([0, n]) + np.concatenate([edges, edges[:, ::-1]])
        above = np.stack([np.arange(n, 2 * n), np.full(n, 2 * n)], axis=1)
        n, edges = 2 * n + 1, np.concatenate([edges, twins, above])
    return n, edges


def _penalised(
    name: str,
    kind: str,
    bits: Array,
    penalty: float,
    linear: Array,
    ends: tuple[Array, Array],
    weights: Array,
    best: float | None,
) -> Instance:
    """linear.x + sum_ends w x_i x_j + P (sum x - 1)^2 for each row of bits (G, K)."""
    if not penalty > 0:
        raise ValueError(f"{name}: a penalty must be positive")
    first, second = np.triu_indices(bits.shape[1], 1)
    rows = np.concatenate([ends[0], bits[:, first].reshape(-1)])
    cols = np.concatenate([ends[1], bits[:, second].reshape(-1)])
    pairs = np.concatenate([weights, np.full(len(bits) * first.size, 2 * penalty)])
    qubo = qubo_of(bits.size, linear - penalty, rows, cols, pairs, penalty * len(bits))
    return Instance(name, kind, qubo, 1, best, blocks.one_hot(bits))
