"""Graphs and quadratic forms against plain formulas on all states."""

from pathlib import Path

import numpy as np

from experiments.solvers.instances.folder import read
from qjax.energy.couplings import Dense, Sparse
from tests.experiments.solvers.instances.files import GRAPH, MATRIX, written
from tests.samplers.problems import all_states


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
