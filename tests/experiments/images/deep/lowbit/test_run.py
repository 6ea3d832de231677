"""Rows of the network at one bit: settings, and a tiny run of each method."""

import pytest

from experiments.data.prepare import is_prepared
from experiments.harness.presentation.cells import check_outcome
from experiments.images.deep.lowbit import rows
from experiments.images.deep.lowbit.run import METHODS, run

needs_images = pytest.mark.skipif(not is_prepared("cifar10"), reason="CIFAR-10 is not prepared")


@needs_images
@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_each_kind(method: str) -> None:
    cell = next(cell for cell in rows.cells("smoke") if cell.method == method)
    outcome = cell.run(lambda fraction, text="", standing=None: None)
    check_outcome(cell, outcome)
    results = outcome["results"]
    assert len(outcome["timed"]["curve"]) == 3 and outcome["timed"]["curve"][-1][1] == results["validation"]
    assert ("layer_error" in results) == (method != "adam") and 0 <= results["turned"] < 0.5
    if method == "hybrid":
        assert run(rows.configuration("smoke"), method, 0)["results"] == results


def test_cells_are_paired_and_leave_the_default_table_alone() -> None:
    assert not rows.cells("default")
    full = rows.cells("full")
    assert {(cell.method, cell.seed) for cell in full} == {(m, s) for m in METHODS for s in range(10)}
    assert len({cell.digest() for cell in full}) == len(METHODS) and {cell.problem for cell in full} == {rows.PROBLEM}
    (comparison,) = rows.comparisons("full")
    assert {comparison.baseline, comparison.method, *comparison.controls} == set(METHODS)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'muon'; there are adam, hybrid"):
        run(rows.configuration("smoke"), "muon", 0)
