"""The QAOA benchmark: its numbers' meaning, and its targets judged."""

import pytest

from experiments.bench.qaoa import BenchQaoa, bench_qaoa, table
from experiments.harness.presentation.cells import UsageError

pytestmark = pytest.mark.optimised

SMALL = BenchQaoa(
    bits=6, layers=2, steps=5, repeats=1, weighted_bits=6, weighted_layers=2, weighted_steps=10, weighted_graphs=1
)


def test_sizes_without_a_3_regular_graph_are_refused() -> None:
    with pytest.raises(UsageError, match="bits must be even and at least 4"):
        BenchQaoa(bits=7)


@pytest.mark.slow
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
