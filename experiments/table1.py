"""Table I: classical (Adam) against quantum-assisted training, with every control.

    python -m experiments table1 --smoke      under a minute on 2 cores: every part once, too short to mean anything
    python -m experiments table1              3 paired seeds, about 12 minutes on 2 cores
    python -m experiments table1 --full       10 paired seeds, all controls, the whole grid: hours; resumes cell by cell

Problems: the planted double-well glass and rotated test functions (`synthetic`), CIFAR-10 or the embedded digits
(`images`), and the low-bit network (`lowbit`). The annealer is simulated.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from experiments import environment, figures, report, tables
from experiments.cells import (
    Cell,
    Comparison,
    Scale,
    Store,
    UsageError,
    plain,
    plain_errors,
    run_cells,
    write_atomic,
)
from experiments.progress import Watch


@dataclass(frozen=True)
class Table1:
    """Classical against quantum-assisted training: table, summary.json, summary.md, figures.

    About 12 minutes on 2 cores; --smoke under one minute, --full hours. Interrupted, the same command resumes.
    """

    smoke: bool = False
    """Every part once, in under a minute: shows that it runs, nothing else."""
    full: bool = False
    """10 paired seeds, about 120 s a CIFAR-10 run, all controls, the whole grid."""
    out: Path = Path("results")
    """Results go to OUT/table1."""
    only: tuple[str, ...] = ()
    """Only problems of these names, or whose name starts with one of these where none has it."""
    methods: tuple[str, ...] = ()
    """Only these methods; comparisons with the others are left out."""
    fresh: bool = False
    """Compute everything again, whatever is stored."""
    any_code: bool = False
    """Keep stored cells that another version of the code computed."""

    @property
    def scale(self) -> Scale:
        """The size of the run. Errors: UsageError for both at once."""
        if self.smoke and self.full:
            raise UsageError("--smoke and --full exclude each other")
        return "smoke" if self.smoke else "full" if self.full else "default"


def run(config: Table1, console: Console, parts: Sequence[ModuleType | Any] | None = None) -> dict[str, Any]:
    """Computes the missing cells and writes everything; returns the summary.

    Interrupted or failing, it first writes the summary of what is finished, then lets the exception through.
    """
    scale = config.scale
    folder = config.out / "table1"
    chosen = _parts() if parts is None else parts
    cells = select([cell for part in chosen for cell in part.cells(scale)], config.only, config.methods)
    comparisons = [comparison for part in chosen for comparison in part.comparisons(scale)]
    env = environment.environment(cell.data for cell in cells)
    store = Store(folder / "cells", environment.made_by(env), config.any_code).open()
    if config.fresh:
        store.discard(cells)
    _write(
        folder, "config.json", plain({**env, "options": config, "scale": scale, "cells": [c.record() for c in cells]})
    )
    try:
        with Watch(cells, console) as watch:
            records = run_cells(cells, store, watch)
    except BaseException:
        finished = [record for cell in cells if (record := store.load(cell)) is not None]
        if finished:
            finish(finished, comparisons, env, folder)
        console.print(
            f"{len(finished)} of {len(cells)} runs are finished and kept in {store.folder}; the same command resumes.",
            highlight=False,
            soft_wrap=True,
        )
        raise
    summary = finish(records, comparisons, env, folder)
    for table in tables.tables(summary):
        table.print(console)
    for name in sorted({cell.data for cell in cells} - {""}):
        console.print(f"data: {name}", highlight=False)
    console.print(f"written to {folder}", highlight=False, soft_wrap=True)
    return summary


def finish(
    records: Sequence[Mapping[str, Any]], comparisons: Iterable[Comparison], env: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Writes summary.json, summary.md and the figures for these records. Errors: StoreError."""
    comparisons = list(comparisons)
    summary = report.summary(records, comparisons, env)
    _write(folder, "summary.json", summary)
    with plain_errors(folder):
        write_atomic(folder / "summary.md", tables.markdown(summary, "Table I: classical against quantum-assisted"))
        figures.draw(records, folder, [comparison.problem for comparison in comparisons])
    return summary


def select(cells: Sequence[Cell], only: Sequence[str], methods: Sequence[str] = ()) -> list[Cell]:
    """The cells of the chosen problems and methods, seed by seed, so that an early stop leaves complete pairs.

    Errors: UsageError for a name that no problem starts with, or for a method that there is not.
    """
    problems = list(dict.fromkeys(cell.problem for cell in cells))
    for name in only:
        if not any(problem.startswith(name) for problem in problems):
            raise UsageError(f"no problem starts with {name!r}; there are {', '.join(problems)}")
    wanted = {p for name in only for p in ([name] if name in problems else [p for p in problems if p.startswith(name)])}
    kept = [cell for cell in cells if not only or cell.problem in wanted]
    known = sorted({cell.method for cell in kept})
    if unknown := sorted(set(methods) - set(known)):
        raise UsageError(f"unknown method {unknown[0]!r}; there are {', '.join(known)}")
    kept = [cell for cell in kept if not methods or cell.method in methods]
    return sorted(kept, key=lambda cell: (problems.index(cell.problem), cell.seed))


def _parts() -> tuple[ModuleType, ...]:
    from experiments import images, lowbit, synthetic

    return synthetic, images, lowbit


def _write(folder: Path, name: str, content: Any) -> None:
    with plain_errors(folder):
        write_atomic(folder / name, json.dumps(content, indent=1, allow_nan=False) + "\n")
