"""How an experiment made of cells runs: which of them are chosen."""

from experiments.harness.presentation import driver
from experiments.harness.presentation.cells import Cell


def test_problems_are_chosen_by_name_or_by_the_start_of_it() -> None:
    def outcome(progress: object) -> dict:
        raise AssertionError("nothing is run here")

    cells = [
        Cell(problem, method, 0, {}, outcome)
        for problem in ("cifar10", "cifar10-1bit")
        for method in ("adam", "hybrid")
    ]
    chosen = {
        only: {cell.problem for cell in driver.select(cells, [only])} for only in ("cifar10", "cifar10-", "cifar")
    }
    assert chosen == {"cifar10": {"cifar10"}, "cifar10-": {"cifar10-1bit"}, "cifar": {"cifar10", "cifar10-1bit"}}
    assert {cell.method for cell in driver.select(cells, (), ["adam"])} == {"adam"}
