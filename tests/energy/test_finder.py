"""Groups found in plain Qubos: which, and that the parts add up to the energy."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qjax import Gram, Qubo, blocks, penalties
from qjax.energy.finder import Found, find_blocks

OWN = 5


def own_terms(n: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Integers in -OWN .. OWN (n, n), upper triangle: of all pairs, or of a few."""
    terms = np.triu(rng.integers(-OWN, OWN + 1, (n, n))).astype(float)
    return terms if kind == "dense" else terms * (rng.random((n, n)) < 0.08)


def sets(found: Found) -> set[tuple[Any, ...]]:
    """(kind, k, bits) of each group, as sets."""
    return {
        (family.kind, getattr(family, "k", 1), frozenset(group.tolist()))
        for family in found.families
        for group in np.asarray(family.groups)
    }


N = 40
HELD = {
    "one_hot": blocks.one_hot([[7, 3, 30, 21], [1, 2, 38, 9], [20, 4, 5], [10, 19, 33, 0, 11, 12]]),
    "choose": blocks.choose([[7, 3, 30, 21, 2], [1, 38, 9, 16, 11]], 3) + blocks.one_hot([[0, 4, 5]]),
    "cardinality": blocks.choose([range(N)], 9),
    "assignment": blocks.assignment(np.random.default_rng(5).permutation(N)[:25].reshape((5, 5))),
    "two squares": blocks.assignment(np.random.default_rng(5).permutation(N)[:32].reshape((2, 4, 4))),
}


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize(("weight", "scale"), [(40.0, 1.0), (26101.0, 1.0), (1e6, 1.0), (40.0, -0.5)])
def test_groups_of_penalties_are_found_and_nothing_is_lost(name: str, form: str, weight: float, scale: float) -> None:
    rng = np.random.default_rng(2)
    terms = own_terms(N, form, rng)
    matrix: Any = terms if form == "dense" else {(i, j): terms[i, j] for i, j in zip(*np.nonzero(terms), strict=True)}
    plain = Qubo.from_matrix(matrix) if form == "dense" else Qubo.from_matrix({**matrix, (N - 1, N - 1): 1.0})
    plain = scale * plain
    qubo = plain + penalties.blocks(plain, HELD[name], weight)
    found = find_blocks(qubo)
    assert found is not None
    assert sets(found) == {
        (family.kind, getattr(family, "k", 1), frozenset(group.tolist()))
        for family in HELD[name].families
        for group in np.asarray(family.groups)
    }
    x = rng.integers(0, 2, (64, N))
    parts = np.asarray(found.rest.energies(x), float) + np.asarray(jax.jit(found.penalties)(x), float)
    energies = np.asarray(qubo.energies(x), float)
    np.testing.assert_allclose(parts, energies, rtol=1e-6, atol=1e-6 * np.abs(energies).max())
    for family in found.families:
        if family.kind == "assignment":
            square = np.asarray(family.indices)
            same = {
                frozenset(line)
                for lines in (square, square.swapaxes(1, 2))
                for line in lines.reshape(-1, square.shape[1]).tolist()
            }
            given = np.asarray(HELD[name].families[0].indices)  # type: ignore[union-attr]
            lines = np.concatenate(
                [given.reshape(-1, given.shape[1]), given.swapaxes(1, 2).reshape(-1, given.shape[1])]
            )
            assert same == {frozenset(line) for line in lines.tolist()}


def test_rows_and_columns_of_other_weights() -> None:
    """Also squares whose rows and columns have unlike penalties, and rows alone of a rectangle."""
    square, n = np.arange(16).reshape((4, 4)), 16
    plain = Qubo.from_matrix(own_terms(n, "dense", np.random.default_rng(0)))
    qubo = plain + penalties.one_hot(plain, square, 70.0) + penalties.one_hot(plain, square.T, 500.0)
    found = find_blocks(qubo)
    assert found is not None and [f.kind for f in found.families] == ["assignment"]
    across = np.triu(np.ones((4, 4)), 1)
    crowded = np.kron(across, np.eye(5)) * 60.0  # at most one in each column of 4 x 5 bits
    plain = Qubo.from_matrix(crowded)
    found = find_blocks(plain + penalties.one_hot(plain, np.arange(20).reshape((4, 5)), 30.0))
    assert found is not None
    assert sets(found) == {("one_hot", 1, frozenset(range(5 * i, 5 * i + 5))) for i in range(4)}


def test_colours_and_conflicts() -> None:
    """Weak penalties beside many terms are found by their equal couplings: a cycle of 9 nodes in 3 colours."""
    terms = {}
    for v, (i, j) in itertools.product(range(9), itertools.combinations(range(3), 2)):
        terms[3 * v + i, 3 * v + j] = 2.0
    for v, i in itertools.product(range(9), range(3)):
        terms[3 * v + i, 3 * v + i] = -1.0
        terms[3 * v + i, 3 * ((v + 1) % 9) + i] = 1.5
    found = find_blocks(Qubo.from_matrix(terms, 9.0))
    assert found is not None
    assert sets(found) == {("one_hot", 1, frozenset((3 * v, 3 * v + 1, 3 * v + 2))) for v in range(9)}
    assert float(found.rest.offset) == 0


def test_groups_in_large_matrices() -> None:
    """There rows of a few bits tell: of a single strong group, or of weak ones that all bits are in."""
    rng, n = np.random.default_rng(3), 240
    plain = Qubo.from_matrix(own_terms(n, "dense", rng))
    found = find_blocks(plain + penalties.one_hot(plain, [[7, 100, 19, 222]], 900.0))
    assert found is not None and sets(found) == {("one_hot", 1, frozenset((7, 19, 100, 222)))}
    groups = rng.permutation(n).reshape(-1, 4)
    terms = 5 * np.triu(rng.normal(size=(n, n)), 1)
    for group in groups:
        terms[np.ix_(group, group)] = 0
    plain = Qubo.from_matrix(terms)
    assert find_blocks(plain) is None
    found = find_blocks(plain + penalties.one_hot(plain, groups, 2.0))
    assert found is not None
    assert sets(found) == {("one_hot", 1, frozenset(group.tolist())) for group in groups}


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_found_where_nothing_is(seed: int) -> None:
    rng, n = np.random.default_rng(seed), 60
    signs = {(i, j): float(rng.choice([-1, 1])) for i, j in itertools.combinations(range(n), 2) if rng.random() < 0.07}
    for matrix in (
        rng.normal(size=(n, n)),
        own_terms(n, "dense", rng),
        np.triu(rng.choice([-1.0, 1.0], (n, n))),
        signs,
    ):
        assert find_blocks(Qubo.from_matrix(matrix)) is None
    # The pairs alone are no penalty: these forbid two ones of a group, and gain by none.
    apart = np.kron(np.eye(n // 4), np.triu(np.full((4, 4), 100.0), 1))
    assert find_blocks(Qubo.from_matrix(apart + np.diag(rng.uniform(0, 5, n)))) is None


def test_what_is_not_looked_at() -> None:
    plain = Qubo.from_terms(np.zeros((2, 6)), np.zeros((6, 6)))
    penalised = plain + penalties.one_hot(plain, [[0, 1, 2]], 3.0)
    assert find_blocks(penalised) is None
    assert find_blocks(Qubo.from_terms(np.zeros(4), Gram(jnp.ones((2, 4))))) is None
    single = Qubo.from_terms(np.zeros(6), np.zeros((6, 6)))
    assert jax.jit(lambda q: find_blocks(q) is None)(single + penalties.one_hot(single, [[0, 1, 2]], 3.0))
    assert find_blocks(Qubo.from_terms(np.zeros(0), np.zeros((0, 0)))) is None
