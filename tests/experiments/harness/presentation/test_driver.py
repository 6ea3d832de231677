"""How an experiment made of cells runs: which of them are chosen, how often their files are read, what is held."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from experiments.harness.presentation import driver, figures, report, tables
from experiments.harness.presentation.cells import Cell, Comparison, Kept, Store
from experiments.harness.presentation.driver import Report


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


PROBLEMS = 25


def many(stop_at: int | None = None) -> list[Cell]:
    """Two methods on each of 25 problems, each run with a thousand sampled energies."""

    def run(number: int):
        def body(progress: object) -> dict:
            if number == stop_at:
                raise KeyboardInterrupt
            results = {"final": float(number), "sampled_energies": [float(number + k) for k in range(1000)]}
            timed = {"seconds": 2.0, "curve": [[1.0, 0.0], [2.0, float(number)]], "phases": {"refine": 2.0}}
            return {"results": results, "timed": timed}

        return body

    plan = [(f"p{k}", method) for k in range(PROBLEMS) for method in ("adam", "hybrid")]
    return [Cell(problem, method, 0, {}, run(number), cost=1.0) for number, (problem, method) in enumerate(plan)]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs cells into one folder, with a report: (names of their files read, texts parsed, records reported)."""
    read: list[str] = []
    parsed = [0]
    text, parse = Path.read_text, json.loads

    def read_text(self: Path, *args, **kwargs) -> str:
        found = text(self, *args, **kwargs)  # one that is not there has not been read
        if self.parent.name == "cells":
            read.append(self.name)
        return found

    def loads(*args, **kwargs):
        parsed[0] += 1
        return parse(*args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(json, "loads", loads)

    def run(cells: list[Cell], draw: bool = False) -> tuple[list[str], int, list[dict]]:
        read.clear()
        parsed[0] = 0
        seen: list[dict] = []

        def drawn(folder: Path) -> None:
            if draw:
                figures.energies(seen, figures.method_styles(["adam"]), folder / "energies.png")

        def reported(records, env) -> Report:
            seen[:] = records
            comparisons = [Comparison(f"p{k}", "adam", "hybrid", ("adam",)) for k in range(PROBLEMS)]
            summary = report.summary(records, comparisons, env)
            return Report(summary, tables.markdown(summary, "many"), tables.tables(summary), drawn)

        driver.run(tmp_path, cells, reported, Console(file=io.StringIO()), {})
        return list(read), parsed[0], seen

    return run


def test_a_stored_cell_is_read_and_parsed_once_a_command(command) -> None:
    read, parsed, first = command(many())
    assert (read, parsed) == ([], 2 * PROBLEMS) and len(first) == 2 * PROBLEMS
    read, parsed, again = command(many())
    assert len(read) == len(set(read)) == parsed == 2 * PROBLEMS
    assert again == first


def test_an_interrupted_command_reads_no_cell_twice_and_reports_later_ones_too(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(many())
    lost = many()[20]
    (tmp_path / "cells" / f"{lost.key()}.json").unlink()
    reported: list[int] = []
    summary = report.summary
    monkeypatch.setattr(
        report, "summary", lambda records, *args: reported.append(len(records)) or summary(records, *args)
    )
    loads = Store.load
    asked: list[str] = []
    monkeypatch.setattr(Store, "load", lambda self, cell: asked.append(cell.key()) or loads(self, cell))
    with pytest.raises(KeyboardInterrupt):
        command(many(stop_at=20))
    assert reported == [2 * PROBLEMS - 1]
    # The missing one is looked for twice, before it is begun and after the stop.
    assert sorted(asked) == sorted([cell.key() for cell in many()] + [lost.key()])


def test_lists_stay_in_their_files_until_they_are_drawn(command) -> None:
    _, _, records = command(many())
    for number, record in enumerate(records):
        energies = record["outcome"]["results"]["sampled_energies"]
        assert isinstance(energies, Kept) and len(energies) == 1000
        np.testing.assert_array_equal(np.asarray(energies)[:2], [number, number + 1])
    assert len(json.dumps(records, default=lambda kept: kept.name)) < 1000 * len(records)
    read, _, _ = command(many(), draw=True)
    # A panel holds both methods of a problem, and there are no more panels than fit.
    assert len(read) == 2 * PROBLEMS + 2 * figures.MOST_PANELS
