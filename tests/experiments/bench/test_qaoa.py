"""The QAOA benchmark: its graphs, its numbers' meaning, and its targets judged."""

import numpy as np
import pytest

from experiments.bench.qaoa import BenchQaoa, bench_qaoa, table
from experiments.harness.presentation.cells import UsageError
from experiments.solvers.maxcut import NAMED, maxcut, named, random_regular

pytestmark = pytest.mark.optimised

SMALL = BenchQaoa(
    bits=6, layers=2, steps=5, repeats=1, weighted_bits=6, weighted_layers=2, weighted_steps=10, weighted_graphs=1
)


@pytest.mark.parametrize("name", NAMED)
def test_named_graphs_are_simple_and_3_regular(name: str) -> None:
    n, edges = named(name)
    assert len(edges) == 3 * n // 2 == len({tuple(edge) for edge in edges}) and (edges[:, 0] < edges[:, 1]).all()
    np.testing.assert_array_equal(np.bincount(edges.reshape(-1)), 3)


def test_the_energy_is_minus_the_cut() -> None:
    edges, draw = random_regular(8, 1), np.random.default_rng(0)
    weights, bits = draw.uniform(size=len(edges)), draw.integers(0, 2, (20, 8))
    cut = ((bits[:, edges[:, 0]] != bits[:, edges[:, 1]]) * weights).sum(1)
    np.testing.assert_allclose(maxcut(8, edges, weights).energies(bits), -cut, rtol=1e-5)


def test_graphs_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="no 3-regular graph of 5 nodes"):
        random_regular(5, 0)
    with pytest.raises(UsageError, match="bits must be even and at least 4"):
        BenchQaoa(bits=7)


def test_rows_and_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    # The others are held to their guarantees in tests/samplers/test_qaoa.py.
    monkeypatch.setattr("experiments.bench.qaoa.NAMED", ("Franklin",))
    found = bench_qaoa(SMALL)
    assert [row["layers"] for row in found["guarantees"]] == list(range(1, 12))
    assert all(row["lowest"] >= row["guarantee"] - 1e-6 for row in found["guarantees"])
    assert all(0.5 < row["published"] <= row["ratio"] + 1e-6 <= 1 + 1e-5 for row in found["weighted"])
    assert found["speed"]["steps_per_second"] > 0
    met = {target["quantity"]: target["met"] for target in found["targets"]}
    assert met["lowest ratio over its guarantee"] and len(met) == 4
    text = table(found)
    assert text.count("target:") == 4 and ("MISSED" in text) == (not all(met.values()))
