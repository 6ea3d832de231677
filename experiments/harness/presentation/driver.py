"""How an experiment made of cells runs: its options, the run, and the files it leaves behind.

OUT/NAME/config.json                 where it ran and with which options, before the first cell
OUT/NAME/cells/                      one file per finished cell, from which the same command resumes
OUT/NAME/summary.json, summary.md    and figures: of all cells, or of those finished when it was stopped
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.harness.presentation import environment
from experiments.harness.presentation.cells import (
    Cell,
    Scale,
    Store,
    UsageError,
    plain,
    plain_errors,
    run_cells,
    write_atomic,
)
from experiments.harness.presentation.progress import Watch
from experiments.harness.presentation.tables import Table
from experiments.harness.presentation.terminal import say, written
from qjax.spelling import unknown


@dataclass(frozen=True)
class Scaled:
    """The options of an experiment of three sizes, with problems and methods to choose from."""

    smoke: bool = False
    """Every part once, in under a minute: shows that it runs, nothing else."""
    full: bool = False
    """More seeds, and everything that the default leaves out."""
    out: Path = Path("results")
    """Results go to a folder of the experiment's name in OUT."""
    only: tuple[str, ...] = ()
    """Only problems of these names, or whose name starts with one of these where none has it."""
    methods: tuple[str, ...] = ()
    """Only these methods, and comparisons among them."""
    fresh: bool = False
    """Compute everything again, whatever is stored."""

    @property
    def scale(self) -> Scale:
        """The size of the run. Errors: UsageError for both at once."""
        if self.smoke and self.full:
            raise UsageError("--smoke and --full exclude each other")
        return "smoke" if self.smoke else "full" if self.full else "default"


@dataclass(frozen=True)
class Report:
    """What is made of finished cells: summary.json, summary.md, tables for the terminal, and what draws figures."""

    summary: dict[str, Any]
    markdown: str
    tables: Sequence[Table]
    draw: Callable[[Path], object] = lambda folder: None


def select(cells: Sequence[Cell], only: Sequence[str], methods: Sequence[str] = ()) -> list[Cell]:
    """The cells of the chosen problems and methods, seed by seed, so that an early stop leaves complete pairs. Those
    that lack something here are left out.

    Errors: UsageError for a name that no problem starts with, or for an unknown method, with the nearest; for a name
    whose problems all lack something.
    """
    problems = list(dict.fromkeys(cell.problem for cell in cells))
    for name in only:
        if not any(problem.startswith(name) for problem in problems):
            raise UsageError(str(unknown("problem", name, problems)))
    wanted = {p for name in only for p in ([name] if name in problems else [p for p in problems if p.startswith(name)])}
    chosen = [cell for cell in cells if not only or cell.problem in wanted]
    kept = [cell for cell in chosen if not cell.lacks]
    if only and not kept:
        raise UsageError(f"{chosen[0].problem}: {chosen[0].lacks}")
    known = sorted({cell.method for cell in kept})
    if missing := sorted(set(methods) - set(known)):
        raise UsageError(str(unknown("method", missing[0], known)))
    kept = [cell for cell in kept if not methods or cell.method in methods]
    ranks = {problem: rank for rank, problem in enumerate(problems)}
    return sorted(kept, key=lambda cell: (ranks[cell.problem], cell.seed))


def run(
    folder: Path,
    cells: Sequence[Cell],
    report: Callable[[list[dict[str, Any]], dict[str, Any]], Report],
    console: Console,
    options: Mapping[str, Any],
    fresh: bool = False,
    any_code: bool = False,
    remarks: Iterable[str] = (),
) -> dict[str, Any]:
    """Computes the missing cells and writes everything under `folder`; returns the summary.

    report(records, environment) makes the report; options go into config.json beside the environment; remarks are
    printed below the tables. Interrupted or failing, it first writes the report of what is finished, then lets the
    exception through. Errors: StoreError; those of the cells.
    """
    env = environment.environment(cell.data for cell in cells)
    store = Store(folder / "cells", environment.made_by(env), any_code).open()
    if fresh:
        store.discard(cells)
    _write(folder, "config.json", {**env, **options})
    records: list[dict[str, Any]] = []
    try:
        with Watch(cells, console) as watch:
            run_cells(cells, store, watch, records)
    except BaseException:
        later = (store.load(cell) for cell in cells[len(records) :])
        finished = [*records, *(record for record in later if record is not None)]
        if finished:
            write_report(report(finished, env), folder)
        say(
            console,
            f"{len(finished)} of {len(cells)} runs are finished and kept in {store.folder}; the same command resumes.",
        )
        raise
    made = report(records, env)
    write_report(made, folder)
    show_report(made, console, remarks)
    written(console, folder)
    return made.summary


def show_report(report: Report, console: Console, remarks: Iterable[str] = ()) -> None:
    """The tables on the terminal, and the remarks below them."""
    for table in report.tables:
        table.print(console)
    for line in remarks:
        say(console, line)


def write_report(report: Report, folder: Path) -> None:
    """summary.json, summary.md and figures, into a folder that there is. Errors: StoreError."""
    _write(folder, "summary.json", report.summary)
    with plain_errors(folder):
        write_atomic(folder / "summary.md", report.markdown)
        report.draw(folder)


def _write(folder: Path, name: str, content: Any) -> None:
    with plain_errors(folder):
        write_atomic(folder / name, json.dumps(plain(content), indent=1, allow_nan=False) + "\n")
