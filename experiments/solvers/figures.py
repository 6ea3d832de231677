"""Gap against seconds, one png per instance: how far each sampler's best was from the reference by then."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness.presentation import figures
from experiments.solvers.report import REFERENCE, gap, grouped


def draw(records: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """FOLDER/gap-INSTANCE.png for each instance: the median over repeats as a staircase, minimum to maximum as a band.

    A run has no gap before its first rung is done. Errors: OSError.
    """
    methods = dict.fromkeys(r["method"] for r in records if r["method"] != REFERENCE)
    styles, written = figures.method_styles(list(methods)), []
    outcomes = grouped(records)
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in summary["rows"]:
        lines.setdefault(row["instance"], []).append(row)
    for name, rows in lines.items():
        figure, (axis,) = figures.panels(1, 6.4, 4.2)
        lowest = 0.0
        for row in rows:
            # Curves hold energies with their sign changed.
            curves = [record["outcome"]["timed"]["curve"] for record in outcomes[name][row["sampler"]]]
            seconds, table = staircase(curves, -row["sense"] * row["reference"])
            colour, line = styles[row["sampler"]]
            # A run whose first rung outlasted the budget has no line: the dot shows it.
            shape = {"where": "post", "marker": "o", "markersize": 3, "markevery": [0]}
            axis.step(seconds, np.median(table, axis=0), line, color=colour, label=row["sampler"], lw=1.8, **shape)
            lowest = min(lowest, float(table.min()))
            axis.fill_between(
                seconds, table.min(axis=0), table.max(axis=0), step="post", color=colour, alpha=0.15, lw=0
            )
        axis.set(xscale="log", xlabel="seconds, without compilation", ylabel="gap to the reference (%)")
        axis.set_yscale("symlog", linthresh=0.01)
        axis.set_ylim(bottom=1.5 * lowest - 0.002)
        axis.set_title(f"{name}: median and range of {rows[0]['repeats']} repeats", fontsize=9)
        axis.legend(frameon=False, fontsize=8)
        written.append(figures.save(figure, folder / f"gap-{name}.png"))
    return written


def staircase(curves: Sequence[Sequence[Sequence[float]]], reference: float) -> tuple[np.ndarray, np.ndarray]:
    """(seconds (k,), gaps (repeats, k)) from the second at which all runs have a value."""
    start = max(curve[0][0] for curve in curves)
    seconds = np.array(sorted({start, *(second for curve in curves for second, _ in curve if second > start)}))
    table = [
        [gap(max(v for s, v in curve if s <= second), reference) for second in seconds.tolist()] for curve in curves
    ]
    return seconds, np.array(table)
