"""Random spin problems, E = sum_edges J_ij s_i s_j, s in {-1, 1}^n; of the planted ones the minimum is known. And one
in bits, E = x'Qx.

    sk-500            complete graph, J = +-1 (Sherrington and Kirkpatrick)
    regular3-1000     random 3-regular graph, J = +-1
    lattice2-32       square lattice of side 32, periodic, J = +-1;  lattice3-10: cubic
    wishart-100-0.6   Wishart planting, alpha = M/n = 0.6 (Hamze, Raymond, Pattison, Biswas, Katzgraber 2020)
    tile-32           tile planting on the periodic square lattice (Hamze, Jacob, Ochoa, Perera, Wang, Katzgraber 2018)
    dense-fields-500  all pairs and the diagonal of Q, uniform integers in -50 .. 50 (the class of gka5f)

A fourth part, as in sk-500-s7, is the seed (0 without it). Problems with groups of bits, such as one-hot-19x6 and
colourings: experiments/solvers/grouped.py.
"""

import re
from collections.abc import Callable

import numpy as np

from experiments.landscapes.functions import wishart_couplings
from experiments.solvers.graphs import regular
from experiments.solvers.grouped import grouped
from experiments.solvers.instances.problem import Instance, qubo_of
from qjax.energy.qubo import Qubo
from qjax.spelling import unknown

EXAMPLES = (
    *("sk-500", "regular3-1000", "lattice2-32", "lattice3-10", "wishart-100-0.6", "tile-32", "dense-fields-500"),
    *("one-hot-19x6", "queen8_8-9", "myciel5-6"),
)
Edges = tuple[np.ndarray, np.ndarray, np.ndarray]


def generate(name: str) -> Instance:
    """The problem of that name. Errors: ValueError for an unknown name or an impossible size."""
    if (problem := grouped(name)) is not None:
        return problem
    match = re.fullmatch(r"([a-z]+(?:-[a-z]+)?)([23]?)-(\d+)(?:-(\d*\.?\d+))?(?:-s(\d+))?", name)
    kinds: dict[str, Callable[[np.random.Generator, int], tuple[int, Edges, float | None]]] = {
        "sk": sk,
        "regular3": regular3,
        "lattice2": lambda rng, side: lattice(rng, (side, side)),
        "lattice3": lambda rng, side: lattice(rng, (side, side, side)),
        "tile": tile,
    }
    if match is None or (match[1] + match[2] not in kinds and match[1] not in ("wishart", "dense-fields")):
        raise unknown("problem", name, EXAMPLES)
    kind, size, seed = match[1] + match[2], int(match[3]), int(match[5] or 0)
    rng = np.random.default_rng([3, size, sum(map(ord, kind)), seed])
    planted: float | None
    if kind == "wishart":
        n, edges, planted = wishart(rng, size, float(match[4] or 1.0))
    elif match[4]:
        raise ValueError(f"{kind} has no parameter {match[4]}")
    elif kind == "dense-fields":
        return Instance(name, "qubo", dense_fields(rng, size))
    else:
        n, edges, planted = kinds[kind](rng, size)
    return spins(name, n, edges, planted)


def spins(name: str, n: int, edges: Edges, planted: float | None = None) -> Instance:
    """sum J_ij s_i s_j with s = 2x - 1: 4 (sum J_ij x_i x_j - 1/2 sum_i d_i x_i + 1/4 sum J), d_i = sum_j J_ij."""
    rows, cols, weights = edges
    sums = np.bincount(rows, weights, n) + np.bincount(cols, weights, n)
    qubo = qubo_of(n, -0.5 * sums, rows, cols, weights, 0.25 * float(weights.sum()), 4.0)
    return Instance(name, "ising", qubo, 1, planted)


def sk(rng: np.random.Generator, n: int) -> tuple[int, Edges, None]:
    rows, cols = np.triu_indices(n, 1)
    return n, (rows, cols, _signs(rng, rows.size)), None


def dense_fields(rng: np.random.Generator, n: int) -> Qubo:
    """Errors: ValueError for n = 0."""
    if n < 1:
        raise ValueError("a problem needs at least one bit")
    matrix = np.triu(rng.integers(-50, 51, (n, n))).astype(np.float64)
    rows, cols = np.nonzero(np.triu(matrix, 1))
    return qubo_of(n, np.diagonal(matrix), rows, cols, matrix[rows, cols])


def regular3(rng: np.random.Generator, n: int) -> tuple[int, Edges, None]:
    """Errors: ValueError where there is no such graph."""
    ends = regular(rng, n, 3)
    return n, (ends[:, 0], ends[:, 1], _signs(rng, len(ends))), None


def lattice(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[int, Edges, None]:
    """A periodic lattice. Errors: ValueError for sides below 3, whose wrapped edges would be edges twice."""
    if min(shape) < 3:
        raise ValueError(f"a periodic lattice needs sides of at least 3, got {shape}")
    sites = np.arange(int(np.prod(shape))).reshape(shape)
    rows = np.concatenate([sites.reshape(-1)] * len(shape))
    cols = np.concatenate([np.roll(sites, -1, axis).reshape(-1) for axis in range(len(shape))])
    return sites.size, (rows, cols, _signs(rng, rows.size)), None


def wishart(rng: np.random.Generator, n: int, alpha: float) -> tuple[int, Edges, float]:
    """s'Js/2 = 0 is the least of a semidefinite J; without the diagonal, which is constant, it is -1/2 tr J."""
    columns = round(alpha * n)
    if n < 2 or columns < 1:
        raise ValueError(f"Wishart planting needs at least 2 spins and alpha n of at least 1, got {n}, {alpha}")
    _, couplings = wishart_couplings(n, columns, rng)
    rows, cols = np.triu_indices(n, 1)
    return n, (rows, cols, couplings[rows, cols]), -0.5 * float(np.trace(couplings))


def tile(rng: np.random.Generator, side: int) -> tuple[int, Edges, float]:
    """Every other plaquette of the lattice is a tile; together they hold each edge once. A tile has one edge of +1
    among edges of -1 and -2, k = 1 .. 4 of size 1 in all: all spins alike leave just that one unsatisfied, which no
    state of a frustrated tile can beat. So the sum of the tiles' minima is the minimum; random spins are gauged in.

    Errors: ValueError for an odd side.
    """
    if side < 4 or side % 2:
        raise ValueError(f"tile planting needs an even side of at least 4, got {side}")
    corners = [(i, j) for i in range(side) for j in range(side) if (i + j) % 2 == 0]
    planted = _signs(rng, side * side)
    rows, cols, weights, least = [], [], [], 0.0
    for i, j in corners:
        around = [(i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)]
        places = [side * (a % side) + b % side for a, b in around]
        sizes = np.full(4, -2.0)
        ones = rng.permutation(4)[: rng.integers(1, 5)]
        sizes[ones] = -1.0
        sizes[ones[0]] = 1.0
        rows += places
        cols += places[1:] + places[:1]
        weights += list(sizes)
        least += float(sizes.sum())
    heads, tails = np.array(rows), np.array(cols)
    return side * side, (heads, tails, np.array(weights) * planted[heads] * planted[tails]), least


def _signs(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], count)
