"""What a sweep found: one row per cell, and the means over seeds of each point."""

import csv
import importlib.util
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from experiments.harness.presentation import environment
from experiments.harness.presentation.cells import plain_errors, write_atomic
from experiments.harness.presentation.intervals import mean_interval
from experiments.harness.presentation.tables import Table
from experiments.sweeps.queue import SEED, Plan

Row = dict[str, Any]


def rows(study: optuna.Study, plan: Plan) -> list[Row]:
    """One row per cell of every complete trial: the point's values, names, scalars of the results, seconds by phase."""
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        point = {name: value for name, value in trial.params.items() if name != SEED}
        for cell in trial.user_attrs.get("cells", ()):
            names = {name: cell[name] for name in ("problem", "method", "sampler", "seed")}
            phases = {f"seconds_{phase}": seconds for phase, seconds in sorted(cell["phases"].items())}
            found.append({**point, **names, **cell["results"], "seconds": cell["seconds"], **phases})
    axes = [axis.name for axis in plan.axes]
    return sorted(found, key=lambda row: [str(row[name]) for name in (*axes, "problem", "method", "seed")])


def write(found: Sequence[Row], folder: Path) -> list[Path]:
    """results.csv under the folder, and results.parquet where pyarrow is installed. Errors: StoreError."""
    columns = list(dict.fromkeys(name for row in found for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    made = [folder / "results.csv"]
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(made[0], text.getvalue())
        if importlib.util.find_spec("pyarrow"):
            import pyarrow
            from pyarrow import parquet

            made.append(folder / "results.parquet")
            table = {name: pyarrow.array([row.get(name) for row in found]) for name in columns}
            parquet.write_table(pyarrow.table(table), made[-1])
    return made


def write_plan(plan: Plan, minimise: bool, folder: Path) -> None:
    """sweep.json: what was asked, and where and how it was run, which results.csv does not say. Errors: StoreError."""
    asked = {**json.loads(plan.text()), "direction": "minimize" if minimise else "maximize"}
    content = {"plan": asked, "environment": environment.environment()}
    with plain_errors(folder):
        write_atomic(folder / "sweep.json", json.dumps(content, indent=1) + "\n")


def table(found: Sequence[Row], plan: Plan) -> Table:
    """The objective by point, problem and method, over seeds."""
    axes = [axis.name for axis in plan.axes]
    groups: dict[tuple[str, ...], list[float]] = {}
    for row in found:
        key = tuple(str(row[name]) for name in (*axes, "problem", "method"))
        groups.setdefault(key, []).append(float(row[plan.objective]))
    lines = [(*key, str(len(values)), _shown(values)) for key, values in groups.items()]
    return Table(f"{plan.objective} by point", (*axes, "problem", "method", "seeds", plan.objective), tuple(lines))


def effects(found: Iterable[Mapping[str, Any]], plan: Plan) -> Table:
    """Each axis alone: the objective's mean at each value, over everything else."""
    lines = []
    rows_ = list(found)
    for axis in plan.axes:
        values: dict[str, list[float]] = {}
        for row in rows_:
            values.setdefault(str(row[axis.name]), []).append(float(row[plan.objective]))
        lines += [(axis.name, value, str(len(numbers)), _shown(numbers)) for value, numbers in values.items()]
    return Table("Main effects", ("field", "value", "runs", plan.objective), tuple(lines))


def _shown(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.4g}"
    interval = mean_interval(values)
    return f"{mean:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
