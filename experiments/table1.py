"""Table I: does quantum-assisted training beat Adam, and is it the annealer that does it? Every row, every control.

    python -m experiments table1 --smoke      under a minute on 2 cores: every part once, too short to mean anything
    python -m experiments table1              3 paired seeds, about 12 minutes on 2 cores
    python -m experiments table1 --full       10 paired seeds, all controls, the whole grid: hours; resumes cell by cell

Problems: the planted double-well glass and rotated test functions (`landscapes.synthetic`), CIFAR-10 or the embedded
digits on one wide layer (`images.training`), the one-bit head (`images.lowbit`), and CIFAR-10 on several convolutions
(`images.deep`: one epoch of one pair; to the end with --full). The annealer is simulated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from rich.console import Console

from experiments.harness.presentation import driver, figures, report, tables
from experiments.harness.presentation.cells import Cell, Comparison, Scale
from experiments.harness.presentation.driver import Report, Scaled, select


@dataclass(frozen=True)
class Table1(Scaled):
    """Classical against quantum-assisted training: table, summary.json, summary.md, figures.

    About 12 minutes on 2 cores; --smoke under one minute, --full hours. Interrupted, the same command resumes.
    """

    full: bool = False
    """10 paired seeds, about 120 s per CIFAR-10 run, all controls, the whole grid."""
    any_code: bool = False
    """Keep stored cells that another version of the code computed."""


def run(config: Table1, console: Console) -> dict[str, Any]:
    """Computes the missing cells and writes everything; returns the summary. See `driver.run`."""
    scale = config.scale
    cells = select(all_cells(scale), config.only, config.methods)
    return driver.run(
        config.out / "table1",
        cells,
        partial(reported, all_comparisons(scale)),
        console,
        {"options": config, "scale": scale, "cells": [cell.record() for cell in cells]},
        config.fresh,
        config.any_code,
        [f"data: {name}" for name in sorted({cell.data for cell in cells} - {""})],
    )


def all_cells(scale: Scale) -> list[Cell]:
    """Every run of this scale."""
    return [cell for part in _parts() for cell in part.cells(scale)]


def all_comparisons(scale: Scale) -> list[Comparison]:
    """What is compared at this scale, whether its data are here or not."""
    return [comparison for part in _parts() for comparison in part.comparisons(scale)]


def reported(
    comparisons: Sequence[Comparison],
    records: Sequence[Mapping[str, Any]],
    env: Mapping[str, Any],
    remarks: Sequence[str] = (),
) -> Report:
    """Rows, comparisons, targets and figures of these records."""
    summary = report.summary(records, comparisons, env)
    problems = [comparison.problem for comparison in comparisons]
    return Report(
        summary,
        tables.markdown(summary, "Table I: classical against quantum-assisted", remarks=remarks),
        tables.tables(summary),
        lambda folder: figures.draw(records, folder, problems, summary["comparisons"]),
    )


def _parts() -> tuple[ModuleType, ...]:
    from experiments.images import lowbit, training
    from experiments.images.deep import rows
    from experiments.images.deep.lowbit import rows as deep_lowbit
    from experiments.landscapes import synthetic

    return synthetic, training, lowbit, rows, deep_lowbit
