"""Graphs to cut, quadratic forms of bits, dimod's models.

.txt .mc .rud .rudy   `n m`, then m lines `i j w`, 1-based: maximise the cut, the sum of w over edges with
                      x_i != x_j (Gset: Helmberg and Rendl 2000)
.sparse               `n m`, then `i j q`: minimise x'Qx, Q symmetric, so that i != j counts twice (Biq Mac library)
.txt of one number    OR-Library's bqp files: the number of problems, then each as `n m` and `i j q`: maximise x'Qx
.bqm                  what `dimod.BinaryQuadraticModel.to_file` wrote: minimise its energy
"""

from pathlib import Path

import numpy as np

from experiments.solvers.instances.problem import Instance, InstanceError, Known, known_value, qubo_of
from experiments.solvers.instances.text import Lines, count_of, lines_of, next_line, nothing_left


def read_text(path: Path, known: Known) -> list[Instance]:
    """The problems of a text file, several in an OR-Library file. Errors: InstanceError."""
    lines = lines_of(path)
    number, first = next_line(path, lines, "a line `n m`")
    if len(first) == 1:
        count = count_of(path, number, first[0])
        names = [path.stem] if count == 1 else [f"{path.stem}-{k + 1}" for k in range(count)]
        made = []
        for name in names:
            number, head = next_line(path, lines, f"problem {name}")
            made.append(_quadratic(path, name, number, head, lines, -1, known))
        nothing_left(path, lines)
        return made
    if path.suffix == ".sparse":
        instance = _quadratic(path, path.stem, number, first, lines, 1, known)
    else:
        instance = _cut(path, number, first, lines, known)
    nothing_left(path, lines)
    return [instance]


def cut(name: str, n: int, rows: np.ndarray, cols: np.ndarray, weights: np.ndarray) -> Instance:
    """Maximise the cut of a graph: E = sum_ij w_ij (2 x_i x_j - x_i - x_j) = -cut."""
    degree = np.zeros(n)
    np.add.at(degree, rows, weights)
    np.add.at(degree, cols, weights)
    # A scale of 2 keeps the couplings as they are in the file: int8 for more of the graphs.
    return Instance(name, "maxcut", qubo_of(n, -0.5 * degree, rows, cols, weights, scale=2.0), -1)


def _cut(path: Path, number: int, head: list[str], lines: Lines, known: Known) -> Instance:
    n, rows, cols, weights, numbers = _entries(path, number, head, lines)
    loops = np.flatnonzero(rows == cols)
    if loops.size:
        raise InstanceError(f"{path}:{numbers[loops[0]]}: an edge joins node {rows[loops[0]] + 1} to itself")
    made = cut(path.stem, n, rows, cols, weights)
    return Instance(made.name, made.kind, made.qubo, made.sense, known_value(path.stem, known, -1))


def _quadratic(
    path: Path,
    name: str,
    number: int,
    head: list[str],
    lines: Lines,
    sense: int,
    known: Known,
) -> Instance:
    """x'Qx, minimised (sense 1) or maximised (-1), an off-diagonal entry counting twice."""
    n, rows, cols, values, _ = _entries(path, number, head, lines)
    values = sense * values
    own = rows == cols
    linear = np.zeros(n)
    np.add.at(linear, rows[own], 0.5 * values[own])
    qubo = qubo_of(n, linear, rows[~own], cols[~own], values[~own], scale=2.0)
    best = known_value(name, known, None)
    # Libraries list the optima of a maximised x'Qx with either sign: the file's own sense decides here.
    if best is not None and known[name][0] != sense:
        best = -best
    return Instance(name, "qubo", qubo, sense, best)


def read_model(path: Path, known: Known) -> Instance:
    from qjax.interop.bqm import from_bqm

    try:
        import dimod

        with path.open("rb") as file:
            model = dimod.BinaryQuadraticModel.from_file(file)
        qubo = from_bqm(model)
    except ImportError as error:
        raise InstanceError(f"{path}: dimod's files need dimod ({error})") from None
    except Exception as error:
        raise InstanceError(f"{path}: no dimod model: {error or type(error).__name__}") from None
    return Instance(path.stem, "bqm", qubo, 1, known_value(path.stem, known, 1))


def _entries(
    path: Path, number: int, head: list[str], lines: Lines
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """(n, rows, cols, values, line numbers) of `n m` and its m entries, 0-based; a missing third number is 1."""
    if len(head) != 2:
        raise InstanceError(f"{path}:{number}: expected `n m`, got {' '.join(head)!r}")
    n, m = (count_of(path, number, word) for word in head)
    pairs, values, numbers = [], [], []
    for k in range(m):
        number, words = next_line(path, lines, f"{m - k} more entries")
        try:
            if len(words) not in (2, 3):
                raise ValueError
            i, j = int(words[0]), int(words[1])
            value = float(words[2]) if len(words) == 3 else 1.0
        except ValueError:
            raise InstanceError(f"{path}:{number}: expected `i j value`, got {' '.join(words)!r}") from None
        if not (1 <= i <= n and 1 <= j <= n):
            raise InstanceError(f"{path}:{number}: expected indices in 1 .. {n}, got {i} {j}")
        if not np.isfinite(value):
            raise InstanceError(f"{path}:{number}: expected a finite value, got {words[2]}")
        pairs.append((i - 1, j - 1))
        values.append(value)
        numbers.append(number)
    rows, cols = np.array(pairs, int).reshape((-1, 2)).T
    return n, rows, cols, np.array(values, float), numbers
