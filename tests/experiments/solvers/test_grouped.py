"""Problems with groups of bits, against their own formulas on all states and the graphs of networkx."""

import numpy as np
import pytest

from experiments.solvers.generate import generate
from experiments.solvers.grouped import mycielski, queens
from qjax import find_blocks
from tests.samplers.problems import all_states


@pytest.mark.parametrize(("penalty", "seed"), [(1000, 0), (26101, 3)])
def test_one_hot_groups_have_their_couplings_and_a_penalty_with_its_value(penalty: int, seed: int) -> None:
    instance = generate(f"one-hot-4x3-P{penalty}-s{seed}")
    q = np.triu(np.random.default_rng(seed).integers(-50, 50, (12, 12))).astype(float)
    states = all_states(12).astype(float)
    missed = states.reshape(-1, 4, 3).sum(-1) - 1
    wanted = np.einsum("si,ij,sj->s", states, q, states) + penalty * (missed**2).sum(-1)
    np.testing.assert_allclose(instance.qubo.energies(states), wanted, atol=0.5)
    inside = (missed == 0).all(-1)
    np.testing.assert_array_equal(instance.feasible(states), inside)
    assert np.array_equal(np.asarray(instance.qubo.energies(states[inside])), wanted[inside])


def test_the_groups_of_the_benchmark_are_those_that_the_finder_finds() -> None:
    instance = generate("one-hot-19x6-P26101")
    found = find_blocks(instance.qubo)
    assert instance.blocks is not None
    (given,) = instance.blocks.families
    np.testing.assert_array_equal(given.indices, np.arange(114).reshape(19, 6))
    assert found is not None
    (same,) = found.families
    np.testing.assert_array_equal(np.sort(np.asarray(same.indices), axis=None), np.arange(114))
    assert {tuple(sorted(group)) for group in np.asarray(same.indices).tolist()} == set(
        map(tuple, given.indices.tolist())
    )
    assert instance.best_known == -2912 and generate("one-hot-19x6-s1").best_known is None


def test_a_colouring_counts_the_edges_between_alike_and_what_groups_miss() -> None:
    """myciel2, the ring of five nodes, with two colours, of which it needs three."""
    n, edges = mycielski(2)
    assert n == 5
    for name, penalty in (("myciel2-2", 1.0), ("myciel2-2-P2.5", 2.5)):
        instance = generate(name)
        states = all_states(10)
        table = states.reshape(-1, 5, 2)
        alike = (table[:, edges[:, 0]] * table[:, edges[:, 1]]).sum((-1, -2))
        wanted = alike + penalty * ((table.sum(-1) - 1) ** 2).sum(-1)
        np.testing.assert_allclose(instance.qubo.energies(states), wanted, rtol=1e-6, atol=1e-5)
        assert instance.best_known is None and wanted.min() == 1
    assert generate("myciel2-3").best_known == 0


def test_graphs_are_the_published_ones() -> None:
    networkx = pytest.importorskip("networkx")
    for number in (2, 3, 4):
        n, edges = mycielski(number)
        same = networkx.mycielski_graph(number + 1)
        assert networkx.is_isomorphic(networkx.Graph(edges.tolist()), same) and n == len(same)
    n, edges = mycielski(5)
    assert (n, len(np.unique(edges, axis=0))) == (47, 236)
    board = queens(8)
    assert (len(np.unique(board, axis=0)), board.max()) == (728, 63)
    # The corner, and a square in the middle: 21 and 27 squares are attacked from there.
    assert [int((board == square).sum()) for square in (0, 27)] == [21, 27]
    proper = generate("queen5_5-5")
    rows, columns = np.divmod(np.arange(25), 5)
    bits = np.eye(5, dtype=int)[(2 * rows + columns) % 5].reshape(-1)
    assert float(proper.qubo.energies(bits)) == 0 == proper.best_known and proper.feasible(bits)
