"""Qubos of sparse matrices and dictionaries, against the dense matrix of the same entries."""

import sys

import numpy as np
import pytest
import scipy.sparse

from qjax import Dense, Labels, Qubo, Sparse

RNG = np.random.default_rng(0)


def _matrix(n, part):
    return (RNG.normal(size=(n, n)) * (RNG.uniform(size=(n, n)) < part)).astype(np.float32)


@pytest.mark.parametrize("kind", ["coo_matrix", "csr_matrix", "csc_array", "lil_array", "dok_matrix", "coo_array"])
@pytest.mark.parametrize(("part", "form"), [(0.03, Sparse), (0.9, Dense)])
def test_a_sparse_matrix_is_its_dense_one(kind, part, form):
    matrix = _matrix(30, part)
    qubo = Qubo.from_matrix(getattr(scipy.sparse, kind)(matrix), 0.5)
    assert isinstance(qubo.couplings, form)
    states = RNG.integers(0, 2, (20, 30))
    np.testing.assert_allclose(qubo.energies(states), Qubo.from_matrix(matrix, 0.5).energies(states), rtol=1e-5)


def test_entries_that_come_twice_are_added_and_zeros_left_out():
    rows, cols, values = [0, 0, 1, 2, 2, 3], [1, 1, 0, 2, 2, 1], [1, 2, 3, 4, 5, 0]
    coo = scipy.sparse.coo_array((np.array(values), (rows, cols)), shape=(9, 9))
    qubo = Qubo.from_matrix(coo)
    assert isinstance(qubo.couplings, Sparse) and qubo.couplings.integer_dtype == "int8"
    assert [part.tolist() for part in qubo.couplings.edges()] == [[0], [1], [6.0]]
    assert qubo.linear.tolist() == [0, 0, 9, 0, 0, 0, 0, 0, 0]
    assert Qubo.from_matrix({(0, 1): 2, (1, 0): -2, (7, 7): 1}).couplings.edges()[0].size == 0


def test_where_the_form_changes():
    """A sixth of all entries off the diagonal: of 12 bits 12 pairs of the 66."""
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    assert isinstance(Qubo.from_matrix(dict.fromkeys(pairs[-12:], 1)).couplings, Sparse)
    assert isinstance(Qubo.from_matrix(dict.fromkeys(pairs[-13:], 1)).couplings, Dense)
    large = Qubo.from_matrix(scipy.sparse.coo_array(([1.0], ([0], [8192])), shape=(8193, 8193)))
    assert isinstance(large.couplings, Sparse) and large.num_bits == 8193


def test_dictionaries_of_bits_and_of_names():
    by_bit = Qubo.from_matrix({(0, 0): -1, (np.int64(0), 3): 2.5, (3, 1): 1})
    assert by_bit.num_bits == 4 and by_bit.labels == Labels.range(4)
    assert float(by_bit.energies([1, 1, 0, 1])) == 2.5
    names = {("a", "a"): -1, ("a", ("w", 2)): 2.5, (("w", 2), 7): 1}
    by_name = Qubo.from_matrix(names, labels=None)
    assert [by_name.labels[i] for i in range(3)] == ["a", ("w", 2), 7]
    assert float(by_name.energies([1, 1, 1])) == 2.5
    ordered = Qubo.from_matrix(names, labels=Labels.of_names([7, "other", ("w", 2), "a"]))
    assert ordered.num_bits == 4 and float(ordered.energies([1, 0, 1, 0])) == 1.0
    wider = Qubo.from_matrix({(0, 1): 3_000_000_000}, labels=Labels.of_names("abc"))
    assert wider.num_bits == 3 and float(wider.energies([1, 1, 0])) == np.float32(3e9)
    assert Qubo.from_matrix({}).num_bits == 0
    assert Qubo.from_matrix({(True, False): 1.0}).labels[0] is True, "truth values are names"


def test_scipy_is_not_needed():
    class Listed:
        shape, row, col, data = (2, 2), [0], [1], [3.0]

        def tocoo(self):
            return self

    assert float(Qubo.from_matrix(Listed()).energies([1, 1])) == 3.0
    assert "scipy" not in {name.split(".")[0] for name in vars(sys.modules["qjax.energy.entries"])}


@pytest.mark.parametrize(
    ("matrix", "labels", "message"),
    [
        (scipy.sparse.coo_array(np.zeros((2, 3))), None, "square"),
        (scipy.sparse.coo_array(np.array([[0.0, np.nan], [0, 0]])), None, "finite"),
        ({(0, 1): np.inf}, None, "finite"),
        ({0: 1.0}, None, "pairs"),
        ({"ab": 1.0}, None, "pairs"),
        ({(0, 1, 2): 1.0}, None, "pairs"),
        ({(-1, 0): 1.0}, None, "-1"),
        ({(0, 5): 1.0}, Labels.range(3), "0 .. 2"),
        ({("a", "b"): 1.0}, Labels.of_names("ac"), "'b'"),
        ({(0, 1): [1.0, 2.0]}, None, "numbers"),
        (scipy.sparse.eye(3), Labels.range(2), "labels"),
    ],
)
def test_bad_input_is_named(matrix, labels, message):
    with pytest.raises(ValueError, match=message):
        Qubo.from_matrix(matrix, labels=labels)
