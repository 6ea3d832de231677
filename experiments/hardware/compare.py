"""The experiment `hardware`: its command, options, tables and files.

    python -m experiments hardware --smoke      under a minute on 2 cores: every part once
    python -m experiments hardware              3 seeds, about a minute on 2 cores
    python -m experiments hardware --full       10 seeds

Mock rows are software: see `experiments.hardware.cells`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from experiments.hardware import cells
from experiments.harness.presentation import driver, report, tables
from experiments.harness.presentation.driver import Report, Scaled, select
from experiments.harness.presentation.tables import Table, number, with_interval
from qjax.ledger import PHASES

NOTES = (
    "No quantum hardware took part. A MOCK of a D-Wave chip is simulated annealing on that chip's graph, through real",
    "minor embeddings; its times are those of this machine's software. Gaps are (E - E_min) / (mean E - E_min), the",
    "mean over all states, in percent: 0 is the exact minimum, 100 what random bits have on average. Chain breaks are",
    "the percent of chains whose qubits disagreed. `exact` lists the lowest states, each once: only its best counts.",
    "Seconds are medians over seeds; compilation is charged to every row that uses a program.",
    *tables.BRACKETS,
    "",
)


@dataclass(frozen=True)
class Hardware(Scaled):
    """The hybrid step on small problems: energies, chain breaks and seconds by phase under each sampler.

    About a minute on 2 cores; --smoke less. Interrupted, the same command resumes.
    """

    full: bool = False
    """10 seeds instead of 3."""


def run(config: Hardware, console: Console) -> dict[str, Any]:
    """Computes the missing cells, writes config.json, summary.json and summary.md; returns the summary."""
    chosen = select(cells.cells(config.scale), config.only, config.methods)
    return driver.run(
        config.out / "hardware",
        chosen,
        reported,
        console,
        {"options": config, "cells": [cell.record() for cell in chosen]},
        config.fresh,
        remarks=["No quantum hardware took part: mocks are software."],
    )


def reported(records: Sequence[Mapping[str, Any]], env: Mapping[str, Any]) -> Report:
    """Energies and seconds of these records."""
    summary = report.summary(records, (), env)
    made = [energies(summary), seconds(summary)]
    return Report(summary, tables.markdown(summary, "Hardware: one hybrid step", made, NOTES), made)


def energies(summary: Mapping[str, Any]) -> Table:
    """What each sampler found."""
    columns = ("final", "best_gap", "mean_gap", "true_loss", "chain_breaks", "chain_length")
    digits = (1, 2, 2, 4, 1, 1)
    lines = []
    for row in summary["rows"]:
        found = row["results"]
        shown = [
            with_interval(found[name], "mean", places) if name in found else "-"
            for name, places in zip(columns, digits, strict=True)
        ]
        lines.append((row["problem"], row["method"], row["sampler"], *shown))
    header = ("problem", "method", "sampler", "reads at minimum %", "best gap %", "mean gap %", "true loss")
    return Table("Energies", (*header, "chain breaks %", "chain length"), tuple(lines))


def seconds(summary: Mapping[str, Any]) -> Table:
    """Where the time went; phases that no row has are left out."""
    rows = summary["rows"]
    phases = [phase for phase in PHASES if any(phase in row["timed"]["phases"] for row in rows)]
    lines = [
        (
            row["problem"],
            row["method"],
            *(number(row["timed"]["phases"].get(phase), 3) for phase in phases),
            number(row["timed"]["seconds"], 3),
        )
        for row in rows
    ]
    return Table("Seconds by phase", ("problem", "method", *phases, "total"), tuple(lines))
