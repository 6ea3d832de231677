"""Readers of problem files against plain formulas on all states, their errors, and generators against enumeration."""

from pathlib import Path

import numpy as np
import pytest

from experiments.solvers.generate import generate
from experiments.solvers.instances import InstanceError, read, read_folder
from qjax.energy.couplings import Dense, Sparse
from tests.samplers.problems import all_states, lowest

GRAPH = "4 4 \n1 2 1\n\n2 3 -2\n3 4 1\n1 4 3\n"
MATRIX = "4 4\n1 1 -5\n1 2 3\n3 4 -7\n2 2 4\n"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def entries(text: str) -> np.ndarray:
    """The upper triangle that a file lists."""
    matrix = np.zeros((4, 4))
    for i, j, value in (line.split() for line in text.splitlines()[1:] if line):
        matrix[int(i) - 1, int(j) - 1] += float(value)
    return matrix


def test_a_graph_is_the_negative_of_its_cut(tmp_path: Path) -> None:
    (instance,) = read(written(tmp_path, "g.txt", GRAPH), {"g": (-1, 4.0)})
    states, weights = all_states(4), entries(GRAPH)
    cuts = [sum(weights[i, j] for i in range(4) for j in range(4) if x[i] != x[j]) for x in states]
    energies = instance.qubo.energies(states)
    np.testing.assert_array_equal(energies, -np.array(cuts))
    assert instance.objective(float(energies.min())) == max(cuts) == instance.best_known == 4.0


def test_biqmac_and_or_library_count_an_off_diagonal_entry_twice(tmp_path: Path) -> None:
    (least,) = read(written(tmp_path, "a.sparse", MATRIX))
    several = read(written(tmp_path, "b.txt", f"2\n{MATRIX}1 1\n1 1 6\n"), {"b-1": (1, -3.0)})
    states, upper = all_states(4), entries(MATRIX)
    symmetric = upper + upper.T - np.diag(np.diag(upper))
    values = np.einsum("si,ij,sj->s", states, symmetric, states)
    np.testing.assert_array_equal(least.qubo.energies(states), values)
    assert [i.name for i in several] == ["b-1", "b-2"] and several[1].qubo.num_bits == 1
    np.testing.assert_array_equal(several[0].qubo.energies(states), -values)
    assert several[0].sense == -1 and several[0].best_known == 3.0


def test_integer_couplings_stay_integers_and_dense_files_become_dense(tmp_path: Path) -> None:
    ring = "".join(f"{i} {i % 40 + 1} 1\n" for i in range(1, 41))
    (sparse,) = read(written(tmp_path, "ring.rud", f"40 40\n{ring}"))
    assert isinstance(sparse.qubo.couplings, Sparse) and sparse.qubo.couplings.integer_dtype == "int8"
    (dense,) = read(written(tmp_path, "g.txt", GRAPH))
    assert isinstance(dense.qubo.couplings, Dense)


def test_a_folder_with_its_best_known_values(tmp_path: Path) -> None:
    dimod = pytest.importorskip("dimod")
    written(tmp_path, "one/g.txt", GRAPH)
    written(tmp_path, "README.txt", "no instance\n")
    written(tmp_path, "best_known.csv", "instance,kind,variables,best_known,sense\ng,maxcut,4,5,max\n")
    written(tmp_path, "one/best_known.csv", "instance,best_known,sense\nm,-1.5,min\n")
    model = dimod.BinaryQuadraticModel({0: 0.5, 1: -1}, {(0, 1): -1.0}, 0.0, "SPIN")
    with model.to_file() as file:
        (tmp_path / "one/m.bqm").write_bytes(file.read())
    found = {i.name: i for i in read_folder(tmp_path)}
    assert {n: i.best_known for n, i in found.items()} == {"g": 5.0, "m": -1.5}
    assert float(found["m"].qubo.energies(all_states(2)).min()) == -1.5
    written(tmp_path, "two/g.txt", GRAPH)
    with pytest.raises(InstanceError, match="another instance g"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"a.txt:0: .*`n m`"),
        ("a.txt", "3 2\n1 2 1\n", r"a.txt:2: the file ends .* 1 more"),
        ("a.txt", "3 1\n1 2 1\n2 3 1\n", r"a.txt:3: more entries"),
        ("a.txt", "3 1\n1 4 1\n", r"a.txt:2: .*1 .. 3"),
        ("a.txt", "3 1\n\n2 2 1\n", r"a.txt:3: .*node 2 to itself"),
        ("a.txt", "3 1\n1 x 1\n", r"a.txt:2: expected `i j value`"),
        ("a.txt", "3 1\n1 2 nan\n", r"a.txt:2: .*finite"),
        ("a.txt", "3 -1\n", r"a.txt:1: expected a count"),
        ("a.txt", "3 1 1\n", r"a.txt:1: expected `n m`"),
        ("a.sparse", "3 99999999999\n", r"a.sparse:1: expected a count"),
        ("b.txt", "2\n1 1\n1 1 3\n", r"b.txt:3: .*problem b-2"),
        ("a.txt", "é\n", "a.txt: not a text file"),
        ("a.bqm", "nothing", "a.bqm: no dimod model"),
        ("best_known.csv", "instance,best_known\n", r"best_known.csv:1: no column 'sense'"),
        ("best_known.csv", "instance,best_known,sense\ng,much,max\n", r"best_known.csv:2: needs a number"),
        ("none.csv", "", "no instance files"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    if name.endswith("bqm"):
        pytest.importorskip("dimod")
    written(tmp_path, name, text)
    with pytest.raises(InstanceError, match=message):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["wishart-12-0.5", "wishart-10-s3", "tile-4", "tile-4-s1"])
def test_planted_minima_are_minima(name: str) -> None:
    instance = generate(name)
    assert instance.best_known is not None
    np.testing.assert_allclose(lowest(instance.qubo), instance.best_known, rtol=1e-5)


def test_generated_graphs() -> None:
    for name, n, degree in (("regular3-50", 50, 3), ("lattice2-5", 25, 4), ("lattice3-4", 64, 6), ("sk-12", 12, 11)):
        qubo = generate(name).qubo
        matrix = np.asarray(qubo.couplings.to_dense())
        assert matrix.shape == (n, n) and set(np.unique(matrix)) <= {-1, 0, 1}
        np.testing.assert_array_equal((matrix != 0).sum(1), degree)
        spins = np.where(np.random.default_rng(0).random(n) < 0.5, 1, -1)
        np.testing.assert_allclose(qubo.energies((spins + 1) / 2), 0.5 * spins @ matrix @ spins)
    one, same, other = (np.asarray(generate(n).qubo.linear) for n in ("sk-12", "sk-12", "sk-12-s1"))
    assert (one == same).all() and (one != other).any()


@pytest.mark.parametrize("name", ["sk", "ring-5", "lattice-5", "regular3-5", "lattice2-2", "tile-5", "sk-9-0.5"])
def test_names_and_sizes_that_there_are_not(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown problem|regular|lattice|tile|parameter"):
        generate(name)
