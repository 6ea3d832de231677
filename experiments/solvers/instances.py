"""The problems that solvers are compared on: files read as Qubos, with the best values known.

.txt .mc .rud .rudy   `n m`, then m lines `i j w`, 1-based: maximise the cut, the sum of w over edges with
                      x_i != x_j (Gset: Helmberg and Rendl 2000)
.sparse               `n m`, then `i j q`: minimise x'Qx, Q symmetric, so that i != j counts twice (Biq Mac library)
.txt of one number    OR-Library's bqp files: the number of problems, then each as `n m` and `i j q`: maximise x'Qx
.bqm                  what `dimod.BinaryQuadraticModel.to_file` wrote: minimise its energy

`best_known.csv` (instance, kind, variables, best_known, sense) in the folder, or beside a file, gives the best values
in the files' own objectives.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qjax.energy.couplings import Dense, Sparse
from qjax.energy.qubo import Qubo

SUFFIXES = (".txt", ".mc", ".rud", ".rudy", ".sparse", ".bqm")
BEST_KNOWN = "best_known.csv"
# Above this share of coupled pairs a matrix is both smaller and faster than neighbour lists.
_DENSE_SHARE = 0.1


class InstanceError(ValueError):
    """A file that cannot be read as a problem: one line that names the file and, where there is one, the line."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One problem. sense: -1 where its objective is maximised, 1 where minimised; objective = sense x energy."""

    name: str
    kind: str
    qubo: Qubo
    sense: int = 1
    best_known: float | None = None
    """In the file's own objective; None where nothing is known."""

    def objective(self, energy: float) -> float:
        return self.sense * energy


def read_folder(folder: Path) -> list[Instance]:
    """Every instance file under a folder, by name. Errors: InstanceError, also for a folder without any."""
    if not folder.is_dir():
        raise InstanceError(f"{folder}: no such folder of instances")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES and not _ignored(path)]
    known = best_known(folder / BEST_KNOWN)
    found: dict[str, Instance] = {}
    for path in paths:
        beside = known if path.parent == folder else {**known, **best_known(path.parent / BEST_KNOWN)}
        for instance in read(path, beside):
            if instance.name in found:
                raise InstanceError(f"{path}: there is another instance {instance.name} under {folder}")
            found[instance.name] = instance
    if not found:
        raise InstanceError(f"{folder}: no instance files ({' '.join(SUFFIXES)})")
    return list(found.values())


def read(path: Path, known: dict[str, tuple[int, float]] | None = None) -> list[Instance]:
    """The problems of one file (several in an OR-Library file). known: what `best_known` read.

    Errors: InstanceError naming the file and the line.
    """
    known = {} if known is None else known
    if path.suffix == ".bqm":
        return [_model(path, known)]
    lines = _words(path)
    number, first = _next(path, lines, "a line `n m`")
    if len(first) == 1:
        count = _count(path, number, first[0])
        names = [path.stem] if count == 1 else [f"{path.stem}-{k + 1}" for k in range(count)]
        made = []
        for name in names:
            number, head = _next(path, lines, f"problem {name}")
            made.append(_quadratic(path, name, number, head, lines, -1, known))
        _nothing_left(path, lines)
        return made
    if path.suffix == ".sparse":
        instance = _quadratic(path, path.stem, number, first, lines, 1, known)
    else:
        instance = _cut(path, number, first, lines, known)
    _nothing_left(path, lines)
    return [instance]


def best_known(path: Path) -> dict[str, tuple[int, float]]:
    """{instance: (sense, value)} of a best_known.csv, sense -1 for "max"; empty where there is no such file.

    Errors: InstanceError naming the file and the line.
    """
    if not path.exists():
        return {}
    table = csv.DictReader(_text(path).splitlines())
    if missing := {"instance", "best_known", "sense"} - set(table.fieldnames or ()):
        raise InstanceError(f"{path}:1: no column {sorted(missing)[0]!r}")
    found = {}
    for row in table:
        try:
            found[row["instance"]] = ({"min": 1, "max": -1}[row["sense"]], float(row["best_known"]))
        except (KeyError, TypeError, ValueError):
            raise InstanceError(f"{path}:{table.line_num}: needs a number and min or max, got {row}") from None
    return found


def cut(name: str, n: int, rows: np.ndarray, cols: np.ndarray, weights: np.ndarray) -> Instance:
    """Maximise the cut of a graph: E = sum_ij w_ij (2 x_i x_j - x_i - x_j) = -cut."""
    degree = np.zeros(n)
    np.add.at(degree, rows, weights)
    np.add.at(degree, cols, weights)
    # A scale of 2 keeps the couplings as they are in the file: int8 for more of the graphs.
    return Instance(name, "maxcut", qubo_of(n, -0.5 * degree, rows, cols, weights, scale=2.0), -1)


def qubo_of(
    n: int,
    linear: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    weights: np.ndarray,
    offset: float = 0.0,
    scale: float = 1.0,
) -> Qubo:
    """scale (offset + linear.x + sum_edges w x_i x_j), dense where more than a tenth of the pairs are coupled."""
    couplings: Dense | Sparse
    if len(weights) > _DENSE_SHARE * n * (n - 1) / 2:
        matrix = np.zeros((n, n))
        np.add.at(matrix, (rows, cols), weights)
        couplings = Dense(Qubo.from_matrix(matrix).couplings.to_dense())
    else:
        couplings = Sparse.from_edges(n, rows, cols, weights)
    return Qubo.from_terms(linear, couplings, offset, scale)


def _cut(path: Path, number: int, head: list[str], lines: "_Lines", known: dict[str, tuple[int, float]]) -> Instance:
    n, rows, cols, weights, numbers = _entries(path, number, head, lines)
    loops = np.flatnonzero(rows == cols)
    if loops.size:
        raise InstanceError(f"{path}:{numbers[loops[0]]}: an edge joins node {rows[loops[0]] + 1} to itself")
    made = cut(path.stem, n, rows, cols, weights)
    return Instance(made.name, made.kind, made.qubo, made.sense, _known(path.stem, known, -1))


def _quadratic(
    path: Path,
    name: str,
    number: int,
    head: list[str],
    lines: "_Lines",
    sense: int,
    known: dict[str, tuple[int, float]],
) -> Instance:
    """x'Qx, minimised (sense 1) or maximised (-1), an off-diagonal entry counting twice."""
    n, rows, cols, values, _ = _entries(path, number, head, lines)
    values = sense * values
    own = rows == cols
    linear = np.zeros(n)
    np.add.at(linear, rows[own], 0.5 * values[own])
    qubo = qubo_of(n, linear, rows[~own], cols[~own], values[~own], scale=2.0)
    best = _known(name, known, None)
    # Libraries list the optima of a maximised x'Qx with either sign: the file's own sense decides here.
    if best is not None and known[name][0] != sense:
        best = -best
    return Instance(name, "qubo", qubo, sense, best)


def _model(path: Path, known: dict[str, tuple[int, float]]) -> Instance:
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
    return Instance(path.stem, "bqm", qubo, 1, _known(path.stem, known, 1))


_Lines = Iterator[tuple[int, list[str]]]


def _entries(
    path: Path, number: int, head: list[str], lines: _Lines
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """(n, rows, cols, values, line numbers) of `n m` and its m entries, 0-based; a missing third number is 1."""
    if len(head) != 2:
        raise InstanceError(f"{path}:{number}: expected `n m`, got {' '.join(head)!r}")
    n, m = (_count(path, number, word) for word in head)
    pairs, values, numbers = [], [], []
    for k in range(m):
        number, words = _next(path, lines, f"{m - k} more entries")
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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError:
        raise InstanceError(f"{path}: not a text file") from None
    except OSError as error:
        raise InstanceError(f"{path}: {error.strerror or error}") from None


def _words(path: Path) -> _Lines:
    """(line number, words) of the lines that are not blank."""
    return iter([(k, line.split()) for k, line in enumerate(_text(path).splitlines(), 1) if line.strip()])


def _next(path: Path, lines: _Lines, wanted: str) -> tuple[int, list[str]]:
    for line in lines:
        return line
    raise InstanceError(f"{path}:{len(_text(path).splitlines())}: the file ends where it should have {wanted}")


def _nothing_left(path: Path, lines: _Lines) -> None:
    for number, words in lines:
        raise InstanceError(f"{path}:{number}: more entries than announced, from {' '.join(words)!r} on")


def _count(path: Path, number: int, word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 10):
        raise InstanceError(f"{path}:{number}: expected a count, got {word!r}")
    return int(word)


def _known(name: str, known: dict[str, tuple[int, float]], sense: int | None) -> float | None:
    if name not in known:
        return None
    listed, value = known[name]
    if sense is not None and listed != sense:
        raise InstanceError(f"{BEST_KNOWN}: {name} is to be {'minimised' if sense == 1 else 'maximised'}")
    return value


def _ignored(path: Path) -> bool:
    return path.name.startswith(".") or path.stem.lower() == "readme"
