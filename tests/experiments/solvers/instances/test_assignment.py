"""Assignments and tours as Qubos: every permutation has its cost, every other state lies above the best."""

import math
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest

from experiments.solvers.instances.assignment import OPTIMA, assignment, geographical, read_qaplib, read_tsplib, tour
from experiments.solvers.instances.folder import best_known, read_folder
from experiments.solvers.instances.problem import InstanceError
from tests.experiments.solvers.instances.files import written
from tests.samplers.problems import all_states

SYMMETRIC = np.array([[0, 5, 9, 4], [5, 0, 3, 8], [9, 3, 0, 7], [4, 8, 7, 0]])


def bits_of(places: tuple[int, ...]) -> np.ndarray:
    return np.eye(len(places), dtype=int)[list(places)].reshape(-1)


def cost(a: np.ndarray, b: np.ndarray, places: tuple[int, ...]) -> float:
    n = len(places)
    return sum(a[i, j] * b[places[i], places[j]] for i in range(n) for j in range(n))


def length(distances: np.ndarray, order: tuple[int, ...]) -> float:
    return sum(distances[a, b] for a, b in zip(order, order[1:] + order[:1], strict=True))


def matrices(n: int, seed: int, low: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(low, 10, (n, n)), draw.integers(low, 10, (n, n))


@pytest.mark.parametrize(("n", "low"), [(1, 0), (2, -5), (3, 0), (3, -9), (4, 0), (4, -9)])
def test_energies_are_costs_and_no_other_state_is_as_low_as_the_best(n: int, low: int) -> None:
    """All 2^(n^2) states, without symmetry, with entries on the diagonals and below 0."""
    for seed in range(4):
        a, b = matrices(n, seed, low)
        instance = assignment("q", "qap", a, b)
        orders = list(permutations(range(n)))
        costs = [cost(a, b, places) for places in orders]
        np.testing.assert_array_equal(instance.qubo.energies(np.array([bits_of(p) for p in orders])), costs)
        states = all_states(n * n)
        energies = np.asarray(instance.qubo.energies(states))
        feasible = instance.feasible(states)
        assert feasible.sum() == math.factorial(n)
        assert energies[feasible].min() == min(costs) < energies[~feasible].min(initial=math.inf)


def test_the_penalty_is_half_of_the_most_that_a_thing_adds_to_a_part_of_an_assignment() -> None:
    n = 4
    a, b = matrices(n, 0, 0)
    added = []
    for size in range(n):
        for things in combinations(range(n), size):
            for taken in permutations(range(n), size):
                for i in set(range(n)) - set(things):
                    for p in set(range(n)) - set(taken):
                        ways = ((a[i, j] * b[p, q], a[j, i] * b[q, p]) for j, q in zip(things, taken, strict=True))
                        added.append(a[i, i] * b[p, p] + sum(map(sum, ways)))
    instance = assignment("q", "qap", a, b)
    # The empty state has the offset 2 n P, and nothing is below 0 here.
    penalty = float(instance.qubo.energies(np.zeros(n * n, int))) / (2 * n)
    assert max(added) / 2 < penalty <= max(added) / 2 + 20 and penalty == int(penalty)


def test_a_tour_is_as_long_as_its_cities_are_apart() -> None:
    for n in (2, 3, 5):
        distances = np.random.default_rng(n).integers(1, 50, (n, n))
        np.fill_diagonal(distances, 99)
        instance = tour("t", distances)
        # Place p of city i is its time: the order of cities is the inverse.
        orders = list(permutations(range(n)))
        bits = np.array([bits_of(tuple(np.argsort(order))) for order in orders])
        np.testing.assert_array_equal(instance.qubo.energies(bits), [length(distances, order) for order in orders])
        assert instance.feasible(bits).all() and not instance.feasible(bits[0] * 0)
    states = all_states(9)
    three = tour("t", np.array([[0, 5, 9], [5, 0, 3], [9, 3, 0]]))
    assert float(three.qubo.energies(states).min()) == 17


def test_qaplib_files_break_their_lines_as_they_like(tmp_path: Path) -> None:
    a, b = matrices(3, 1, 0)
    numbers = [str(v) for v in (*a.reshape(-1), *b.reshape(-1))]
    text = "3\n\n" + " ".join(numbers[:5]) + "\n " + " ".join(numbers[5:12]) + "\n\n" + " ".join(numbers[12:]) + "\n"
    instance = read_qaplib(written(tmp_path, "a.dat", text), {})
    places = (2, 0, 1)
    assert float(instance.qubo.energies(bits_of(places))) == cost(a, b, places)
    assert (instance.kind, instance.best_known) == ("qap", None)
    (family,) = instance.blocks.families
    assert family.kind == "assignment" and family.indices.tolist() == [[[0, 1, 2], [3, 4, 5], [6, 7, 8]]]


def test_best_values_are_the_published_ones_unless_the_folder_has_its_own(tmp_path: Path) -> None:
    written(tmp_path, "nug12.dat", "1\n0\n0\n")
    written(tmp_path, "mine.dat", "1\n0\n0\n")
    (mine, published) = read_folder(tmp_path)
    assert (mine.best_known, published.best_known) == (None, OPTIMA["nug12"])
    table = written(tmp_path, "best_known.csv", "instance,best_known,sense\nnug12,7,min\n")
    assert read_qaplib(tmp_path / "nug12.dat", best_known(table)).best_known == 7
    with pytest.raises(InstanceError, match="minimised"):
        read_qaplib(tmp_path / "nug12.dat", {"nug12": (-1, 7.0)})


def explicit(form: str, values: list[int], kind: str = "TSP") -> str:
    head = (
        f"NAME : t\nTYPE: {kind} (of a test)\nDIMENSION: 4\nEDGE_WEIGHT_TYPE : EXPLICIT\nEDGE_WEIGHT_FORMAT: {form} \n"
    )
    body = "EDGE_WEIGHT_SECTION\n" + "".join(f" {v}" + "\n" * (k % 3 == 2) for k, v in enumerate(values))
    return f"{head}{body}\nDISPLAY_DATA_SECTION\n 1 0.0 1.0\nEOF\n"


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("FULL_MATRIX", SYMMETRIC.reshape(-1).tolist()),
        ("UPPER_ROW", [5, 9, 4, 3, 8, 7]),
        ("LOWER_COL", [5, 9, 4, 3, 8, 7]),
        ("LOWER_ROW", [5, 9, 3, 4, 8, 7]),
        ("UPPER_COL", [5, 9, 3, 4, 8, 7]),
        ("UPPER_DIAG_ROW", [0, 5, 9, 4, 0, 3, 8, 0, 7, 0]),
        ("LOWER_DIAG_COL", [0, 5, 9, 4, 0, 3, 8, 0, 7, 0]),
        ("LOWER_DIAG_ROW", [0, 5, 0, 9, 3, 0, 4, 8, 7, 0]),
        ("UPPER_DIAG_COL", [0, 5, 0, 9, 3, 0, 4, 8, 7, 0]),
    ],
)
def test_every_format_of_a_matrix_gives_the_same_distances(tmp_path: Path, form: str, values: list[int]) -> None:
    instance = read_tsplib(written(tmp_path, "t.tsp", explicit(form, values)), {"t": (1, 19.0)})
    for order in permutations(range(4)):
        bits = bits_of(tuple(np.argsort(order)))
        assert float(instance.qubo.energies(bits)) == length(SYMMETRIC, order)
    assert (instance.kind, instance.best_known) == ("tsp", 19.0)


def test_a_full_matrix_need_not_be_symmetric(tmp_path: Path) -> None:
    distances = np.arange(16).reshape(4, 4)
    path = written(tmp_path, "t.tsp", explicit("FULL_MATRIX", distances.reshape(-1).tolist(), "ATSP"))
    order = (0, 2, 1, 3)
    energy = float(read_tsplib(path, {}).qubo.energies(bits_of(tuple(np.argsort(order)))))
    assert energy == length(distances, order) == 2 + 9 + 7 + 12


def test_geographical_distances_are_minutes_and_whole_kilometres() -> None:
    # A quarter of the equator is 6378.388 pi/2 = 10019.15 km, and the rule rounds up; 10.30 is ten and a half degrees.
    found = geographical(np.array([[0.0, 0.0], [0.0, 90.0], [10.30, 0.0], [-10.30, 0.0], [0.0, 10.30]]))
    assert found[0, 1] == 10020
    half = math.floor(6378.388 * 3.141592 * 10.5 / 180 + 1)
    assert half == 1169 and found[0, 2] == found[0, 3] == found[0, 4] == half
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 0)


def test_a_file_of_coordinates_gives_the_shortest_tour_of_its_distances(tmp_path: Path) -> None:
    places = {2: (48.51, 2.21), 1: (52.31, 13.24), 3: (-33.52, 151.12), 4: (40.43, -74.00)}
    head = "NAME: t\nTYPE: TSP\nDIMENSION: 4\nEDGE_WEIGHT_TYPE: GEO\nEDGE_WEIGHT_FORMAT: FUNCTION\nNODE_COORD_SECTION\n"
    text = head + "".join(f"{i} {x} {y}\n" for i, (x, y) in places.items()) + "EOF\n\n\n"
    instance = read_tsplib(written(tmp_path, "t.tsp", text), {})
    distances = geographical(np.array([places[i] for i in range(1, 5)]))
    best = min(length(distances, order) for order in permutations(range(4)))
    energies = np.asarray(instance.qubo.energies(all_states(16)))
    assert energies.min() == best and instance.feasible(all_states(16)[energies.argmin()])


HEAD = "NAME: t\nTYPE: TSP\nDIMENSION: 2\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.dat", "", r"a.dat:0: .*`n`"),
        ("a.dat", "0\n", r"a.dat:1: .*at least one facility"),
        ("a.dat", "2\n1 2 3 4\n1 2 3\n", r"a.dat: two matrices need 8 numbers, there are 7"),
        ("a.dat", "1\n1\n\n2 3\n", r"a.dat:4: more than the 2 numbers"),
        ("a.dat", "1\n1 x\n", r"a.dat:2: expected a number, got 'x'"),
        ("a.dat", "1\n1 inf\n", r"a.dat:2: .*finite"),
        ("a.tsp", "TYPE: TSP\n", r"a.tsp: there is no line `DIMENSION: ...`"),
        ("a.tsp", "1 2\n", r"a.tsp:1: expected `KEYWORD: value`, got '1 2'"),
        ("a.tsp", "TYPE: CVRP\n", r"a.tsp:1: TYPE is read as TSP, ATSP, got 'CVRP'"),
        ("a.tsp", "TYPE: TSP\nDIMENSION: two\n", r"a.tsp:2: expected a count, got 'two'"),
        ("a.tsp", "TYPE: TSP\nDIMENSION: 1\n", r"a.tsp:2: .*two cities"),
        ("a.tsp", f"{HEAD}EDGE_WEIGHT_TYPE: EUC_2D\n", r"a.tsp:4: EDGE_WEIGHT_TYPE is read as EXPLICIT, GEO"),
        ("a.tsp", f"{HEAD}EDGE_WEIGHT_TYPE: GEO\n", r"a.tsp: there is no NODE_COORD_SECTION"),
        ("a.tsp", f"{HEAD}EDGE_WEIGHT_TYPE: GEO\nNODE_COORD_SECTION\n1 1 1\n1 2 2\n", r"are not 1 .. 2"),
        ("a.tsp", f"{HEAD}EDGE_WEIGHT_TYPE: EXPLICIT\nEDGE_WEIGHT_FORMAT: FUNCTION\n", r"a.tsp:5: EDGE_WEIGHT_FORMAT"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    written(tmp_path, name, text)
    with pytest.raises(InstanceError, match=message):
        read_folder(tmp_path)
