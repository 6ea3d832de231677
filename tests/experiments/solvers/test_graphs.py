"""Graphs by name and at random: simple, regular, and cut as their energy says."""

import numpy as np
import pytest

from experiments.solvers.graphs import NAMED, maxcut, named, random_regular, regular


def is_simple_and_regular(n: int, edges: np.ndarray, degree: int = 3) -> bool:
    pairs = {(min(edge), max(edge)) for edge in edges.tolist()}
    simple = len(pairs) == len(edges) and all(a != b for a, b in pairs)
    return simple and np.bincount(edges.reshape(-1), minlength=n).tolist() == [degree] * n


@pytest.mark.parametrize("name", NAMED)
def test_named_graphs_are_simple_and_3_regular(name: str) -> None:
    n, edges = named(name)
    assert is_simple_and_regular(n, edges) and (edges[:, 0] < edges[:, 1]).all()


@pytest.mark.parametrize(("n", "degree"), [(4, 3), (8, 3), (12, 5), (300, 3)])
def test_random_graphs_are_simple_and_regular_mended_or_drawn_anew(n: int, degree: int) -> None:
    for seed in range(3):
        mended = regular(np.random.default_rng(seed), n, degree)
        assert is_simple_and_regular(n, mended, degree)
    if degree == 3:
        drawn = random_regular(n, 1)
        assert is_simple_and_regular(n, drawn) and (drawn[:, 0] < drawn[:, 1]).all()


def test_without_mending_it_is_the_first_pairing_that_is_simple() -> None:
    draw, tried = np.random.default_rng(4), 0
    while True:
        pairs, tried = draw.permutation(np.repeat(np.arange(10), 3)).reshape(-1, 2), tried + 1
        if is_simple_and_regular(10, pairs):
            break
    assert tried > 1
    np.testing.assert_array_equal(random_regular(10, 4), np.sort(pairs, axis=1))
    assert not np.array_equal(np.sort(regular(np.random.default_rng(4), 10, 3), axis=1), np.sort(pairs, axis=1))


def test_the_energy_is_minus_the_cut() -> None:
    edges, draw = random_regular(8, 1), np.random.default_rng(0)
    weights, bits = draw.uniform(size=len(edges)), draw.integers(0, 2, (20, 8))
    cut = ((bits[:, edges[:, 0]] != bits[:, edges[:, 1]]) * weights).sum(1)
    np.testing.assert_allclose(maxcut(8, edges, weights).energies(bits), -cut, rtol=1e-5)


def test_graphs_that_there_are_not_are_refused() -> None:
    for n, degree in ((5, 3), (3, 3), (4, 4)):
        with pytest.raises(ValueError, match=f"no {degree}-regular graph of {n} nodes"):
            regular(np.random.default_rng(0), n, degree)
