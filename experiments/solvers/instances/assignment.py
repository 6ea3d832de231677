"""Assignments: n things that take n places, one each, at the least cost; bit i n + p says that thing i has place p.

.dat   QAPLIB: n, then A and B (n, n), however they are broken into lines: minimise sum_ij A_ij B_p(i)p(j) over
       permutations p (Burkard, Karisch, Rendl 1997)
.tsp   TSPLIB: the shortest tour of n cities, whose places are times: A the distances, B_pq = 1 where q follows p around
       the cycle. EXPLICIT matrices of every format, and GEO (Reinelt 1991)

    O(x) = sum_ijpq A_ij B_pq x_ip x_jq,    E(x) = O(x) + P (sum_i (sum_p x_ip - 1)^2 + sum_p (sum_i x_ip - 1)^2)

so that E is the cost of each assignment. Products that no assignment has (i = j or p = q alone) are left out of O.

P = floor(D / 2) + 1, where D = max_ip A_ii B_pp + <A_i., B_p.> + <A_.i, B_.p>, rows and columns without their diagonal
and sorted: by the rearrangement inequality, thing i at place p adds no more to any part of an assignment. Entries below
0 are raised to 0 first, with all others of their kind, which adds a constant to every assignment; the offset takes it
away. Then every state x that is no assignment lies above one: let m be the most of its bits that share no thing and no
place, and z these completed, so O(z) <= O(x) + (n - m) D, for no weight is negative. The bits of x are covered by m
rows and columns (König). The rows left out, whose bits lie in the columns taken, and those columns miss their sums by
n - m together at least; so do the columns left out and the rows taken. The squares thus come to 2 (n - m) or more, and
to 2 where m = n, and E(x) >= O(x) + P max(2 (n - m), 2) > O(z) = E(z).
"""

from pathlib import Path

import numpy as np
from scipy import sparse

from experiments.solvers.instances.problem import Instance, InstanceError, Known, known_value, qubo_of
from experiments.solvers.instances.text import Line, count_of, lines_of, next_line
from qjax import blocks

# Published optima (QAPLIB's and TSPLIB's own lists); what a best_known.csv says comes first.
OPTIMA = {"esc16a": 68, "had12": 1652, "nug12": 578, "tai12a": 224416, "burma14": 3323, "gr17": 2085}

# TSPLIB's own: with more digits, lengths are others.
_PI, _RADIUS = 3.141592, 6378.388


def assignment(name: str, kind: str, a: np.ndarray, b: np.ndarray, best: float | None = None) -> Instance:
    """The Qubo above, of A and B (n, n), n >= 1."""
    n = len(a)
    own = np.outer(np.diag(a), np.diag(b))
    flows, ways = (matrix - np.diag(np.diag(matrix)) for matrix in (a, b))
    raised = [max(-float(matrix.min()), 0.0) for matrix in (own, flows, ways)]
    constant = n * raised[0] + raised[1] * ways.sum() + raised[2] * flows.sum() + n * (n - 1) * raised[1] * raised[2]
    others = 1.0 - np.eye(n)
    own, flows, ways = own + raised[0], flows + raised[1] * others, ways + raised[2] * others
    penalty = np.floor(_most_added(own, flows, ways) / 2) + 1
    same, rest = sparse.eye_array(n), sparse.coo_array(others)
    pairs = sparse.kron(sparse.coo_array(flows), sparse.coo_array(ways))
    pairs = pairs + penalty * (sparse.kron(same, rest) + sparse.kron(rest, same))
    upper = sparse.triu(pairs + pairs.T, 1).tocoo()
    linear = own.reshape(-1) - 2 * penalty
    qubo = qubo_of(n * n, linear, upper.row, upper.col, upper.data, 2 * n * penalty - constant)
    return Instance(name, kind, qubo, 1, best, blocks.assignment(np.arange(n * n).reshape(n, n)))


def tour(name: str, distances: np.ndarray, best: float | None = None) -> Instance:
    """The shortest round trip, from (n, n) distances; time n - 1 is followed by time 0."""
    follows = np.roll(np.eye(len(distances)), 1, axis=1)
    return assignment(name, "tsp", distances, follows, best)


def read_qaplib(path: Path, known: Known) -> Instance:
    """Errors: InstanceError naming the file and the line."""
    lines = lines_of(path)
    number, head = next_line(path, lines, "a line `n`")
    n = count_of(path, number, head[0])
    if n < 1:
        raise InstanceError(f"{path}:{number}: expected at least one facility, got {n}")
    values = _numbers(path, [(number, head[1:]), *lines], 2 * n * n, "two matrices")
    a, b = values.reshape(2, n, n)
    return assignment(path.stem, "qap", a, b, _best(path.stem, known))


def read_tsplib(path: Path, known: Known) -> Instance:
    """Errors: InstanceError naming the file and the line."""
    fields, sections = _parts(path)

    def field(name: str, *allowed: str) -> str:
        if name not in fields:
            raise InstanceError(f"{path}: there is no line `{name}: ...`")
        number, value = fields[name]
        # Some files say more of themselves behind the word.
        word = value.split()[0] if value else ""
        if allowed and word not in allowed:
            raise InstanceError(f"{path}:{number}: {name} is read as {', '.join(allowed)}, got {word!r}")
        return word

    field("TYPE", "TSP", "ATSP")
    size = field("DIMENSION")
    n = count_of(path, fields["DIMENSION"][0], size)
    if n < 2:
        raise InstanceError(f"{path}:{fields['DIMENSION'][0]}: expected at least two cities, got {n}")
    if field("EDGE_WEIGHT_TYPE", "EXPLICIT", "GEO") == "GEO":
        places = _numbers(path, _section(path, sections, "NODE_COORD_SECTION"), 3 * n, f"{n} lines `i x y`").reshape(
            n, 3
        )
        if sorted(places[:, 0].tolist()) != list(range(1, n + 1)):
            raise InstanceError(f"{path}: the cities of NODE_COORD_SECTION are not 1 .. {n}")
        distances = geographical(places[np.argsort(places[:, 0]), 1:])
    else:
        rows, cols = _order(field("EDGE_WEIGHT_FORMAT", *_FORMATS), n)
        values = _numbers(path, _section(path, sections, "EDGE_WEIGHT_SECTION"), len(rows), "the distances")
        distances = np.zeros((n, n))
        distances[rows, cols] = values
        if len(rows) < n * n:
            distances[cols, rows] = values
    return tour(path.stem, distances, _best(path.stem, known))


def geographical(places: np.ndarray) -> np.ndarray:
    """TSPLIB's GEO distances (n, n) in whole km of (latitude, longitude) in DDD.MM, degrees and minutes, towards 0."""
    degrees = np.trunc(places)
    latitude, longitude = (_PI * (degrees + 5 * (places - degrees) / 3) / 180).T
    q1 = np.cos(longitude[:, None] - longitude[None, :])
    q2 = np.cos(latitude[:, None] - latitude[None, :])
    q3 = np.cos(latitude[:, None] + latitude[None, :])
    arcs = np.arccos(np.clip(0.5 * ((1 + q1) * q2 - (1 - q1) * q3), -1, 1))
    distances: np.ndarray = np.trunc(_RADIUS * arcs + 1)
    np.fill_diagonal(distances, 0)
    return distances


def _most_added(own: np.ndarray, flows: np.ndarray, ways: np.ndarray) -> float:
    """D of the rule above, of matrices without diagonals and without entries below 0."""
    out = np.sort(flows, axis=1) @ np.sort(ways, axis=1).T
    into = np.sort(flows.T, axis=1) @ np.sort(ways.T, axis=1).T
    return float((own + out + into).max())


_FORMATS = (
    "FULL_MATRIX",
    *(f"{half}_{kind}" for half in ("UPPER", "LOWER") for kind in ("ROW", "DIAG_ROW", "COL", "DIAG_COL")),
)


def _order(form: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the numbers of an EDGE_WEIGHT_SECTION, one after the other."""
    if form == "FULL_MATRIX":
        return np.divmod(np.arange(n * n), n)
    half, kind = form.split("_", 1)
    inner = 0 if kind.startswith("DIAG") else 1
    # The upper half by columns is the lower one by rows, with rows and columns exchanged.
    upper = (half == "UPPER") == kind.endswith("ROW")
    return np.triu_indices(n, inner) if upper else np.tril_indices(n, -inner)


def _parts(path: Path) -> tuple[dict[str, tuple[int, str]], dict[str, list[Line]]]:
    """(`KEYWORD: value` as {keyword: (line number, value)}, lines of the sections) of a TSPLIB file."""
    fields: dict[str, tuple[int, str]] = {}
    sections: dict[str, list[Line]] = {}
    section: list[Line] | None = None
    for number, words in lines_of(path):
        keyword, colon, value = " ".join(words).partition(":")
        keyword = keyword.strip()
        if keyword == "EOF":
            break
        if keyword.endswith("_SECTION"):
            section = sections.setdefault(keyword, [])
        elif colon:
            fields[keyword], section = (number, value.strip()), None
        elif section is None:
            raise InstanceError(f"{path}:{number}: expected `KEYWORD: value`, got {' '.join(words)!r}")
        else:
            section.append((number, words))
    return fields, sections


def _section(path: Path, sections: dict[str, list[Line]], name: str) -> list[Line]:
    if name not in sections:
        raise InstanceError(f"{path}: there is no {name}")
    return sections[name]


def _numbers(path: Path, lines: list[Line], count: int, wanted: str) -> np.ndarray:
    """Exactly `count` numbers, wherever lines end."""
    values: list[float] = []
    for number, words in lines:
        for word in words:
            try:
                values.append(float(word))
            except ValueError:
                raise InstanceError(f"{path}:{number}: expected a number, got {word!r}") from None
            if not np.isfinite(values[-1]):
                raise InstanceError(f"{path}:{number}: expected a finite value, got {word}")
            if len(values) > count:
                raise InstanceError(f"{path}:{number}: more than the {count} numbers of {wanted}")
    if len(values) < count:
        raise InstanceError(f"{path}: {wanted} need {count} numbers, there are {len(values)}")
    return np.array(values)


def _best(name: str, known: Known) -> float | None:
    listed = known_value(name, known, 1)
    return OPTIMA.get(name) if listed is None else listed
