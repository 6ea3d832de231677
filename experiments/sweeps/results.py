"""What a sweep found: one row per cell, and the means over seeds of each point."""

import csv
import importlib.util
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from experiments.harness.presentation import environment
from experiments.harness.presentation.cells import plain_errors, write_atomic
from experiments.harness.presentation.intervals import mean_interval
from experiments.harness.presentation.tables import Table
from experiments.sweeps.queue import Plan, label
from experiments.sweeps.space import Axis
from qjax.ledger import PHASES

Row = dict[str, Any]
_NAMES = ("problem", "method", "sampler", "seed")
_ORDER = ("problem", "method", "seed")


def rows(study: optuna.Study, plan: Plan) -> list[Row]:
    """One row per cell of every complete trial, all of the same columns in the same order, None where a cell lacks one:

    the point's values, as they are labelled; problem, method, sampler, seed; the scalars of the results, `final` first;
    seconds, other scalars of the timings, seconds_PHASE. Numbers are those of the cells' files. A column that has the
    name of a field of the sweep is called cell_NAME.
    """
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        point = {axis.name: trial.params[axis.name] for axis in plan.axes}
        found += [(point, cell) for cell in trial.user_attrs["cells"]]

    def rank(entry: tuple[Row, Row]) -> list[Any]:
        point, cell = entry
        return [*(_rank(axis, point[axis.name]) for axis in plan.axes), *(cell[name] for name in _ORDER)]

    def union(part: str) -> set[str]:
        return {name for _, cell in found for name in cell[part]}

    scalars = sorted(union("results"), key=lambda name: (name != "final", name))
    timed = sorted(union("timed"), key=lambda name: (name != "seconds", name))
    phases = [phase for phase in PHASES if phase in union("phases")]
    made = []
    for point, cell in sorted(found, key=rank):
        row = {column(plan, name): cell[name] for name in _NAMES}
        row |= {column(plan, name): cell["results"].get(name) for name in scalars}
        row |= {column(plan, name): cell["timed"].get(name) for name in timed if name not in scalars}
        row |= {column(plan, f"seconds_{phase}"): cell["phases"].get(phase) for phase in phases}
        made.append({**point, **row})
    return made


def column(plan: Plan, name: str) -> str:
    """The column of a name or a number of the cells."""
    return f"cell_{name}" if any(axis.name == name for axis in plan.axes) else name


def write(found: Sequence[Row], folder: Path) -> list[Path]:
    """results.csv under the folder, and results.parquet where pyarrow is installed; who has one of them open keeps what
    it was. Errors: StoreError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    made = [folder / "results.csv"]
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(made[0], text.getvalue())
        if importlib.util.find_spec("pyarrow"):
            made.append(folder / "results.parquet")
            write_atomic(made[1], _parquet(found))
    return made


def _parquet(found: Sequence[Row]) -> bytes:
    """The same table; a column whose values are of several kinds (5 and none are one, 5 and "auto" are two) as text."""
    import pyarrow
    from pyarrow import parquet

    def array(values: Sequence[Any]) -> Any:
        try:
            return pyarrow.array(values)
        except pyarrow.ArrowException:
            return pyarrow.array([None if value is None else str(value) for value in values])

    whole = io.BytesIO()
    parquet.write_table(pyarrow.table({name: array([row[name] for row in found]) for name in found[0]}), whole)
    return whole.getvalue()


def write_plan(plan: Plan, minimise: bool, folder: Path) -> None:
    """sweep.json: what was asked, and where and how it was run, which results.csv does not say. Errors: StoreError."""
    asked = {**json.loads(plan.text()), "direction": "minimize" if minimise else "maximize"}
    content = {"plan": asked, "environment": environment.environment()}
    with plain_errors(folder):
        write_atomic(folder / "sweep.json", json.dumps(content, indent=1) + "\n")


def by_seed(found: Sequence[Mapping[str, Any]], objective: str) -> dict[int, float]:
    """The objective's mean over the rows of each seed: what varies by chance is the seed. A point that a search drew
    twice has every seed twice, and tells no more."""
    groups: dict[int, list[float]] = {}
    for row in found:
        groups.setdefault(int(row["seed"]), []).append(float(row[objective]))
    return {seed: statistics.fmean(values) for seed, values in sorted(groups.items())}


def table(found: Sequence[Row], plan: Plan) -> Table:
    """The objective by point, problem and method, over seeds."""
    axes = [axis.name for axis in plan.axes]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in found:
        key = tuple(row[name] for name in (*axes, column(plan, "problem"), column(plan, "method")))
        groups.setdefault(key, []).append(row)
    ranges = [axis.is_range for axis in plan.axes]
    lines = []
    for key, rows_of in groups.items():
        point = (f"{value:.4g}" if drawn else str(value) for value, drawn in zip(key, ranges, strict=False))
        lines.append((*point, *key[len(ranges) :], *_shown(rows_of, plan)))
    return Table(f"{plan.objective} by point", (*axes, "problem", "method", "seeds", plan.objective), tuple(lines))


def effects(found: Sequence[Row], plan: Plan) -> Table:
    """Each listed field alone: the objective at each value, averaged over the other fields within a seed. Problems and
    methods stay apart: levels of problems have nothing to do with each other, and a control may not have the field. A
    drawn field has no value twice."""
    lines = []
    for axis in plan.axes:
        groups: dict[tuple[str, str, str], list[Row]] = {}
        for row in found if not axis.is_range else ():
            key = str(row[axis.name]), row[column(plan, "problem")], row[column(plan, "method")]
            groups.setdefault(key, []).append(row)
        lines += [(axis.name, *key, *_shown(rows_of, plan)) for key, rows_of in groups.items()]
    return Table("Main effects", ("field", "value", "problem", "method", "seeds", plan.objective), tuple(lines))


def _rank(axis: Axis, value: Any) -> Any:
    """Values as they were asked for, drawn ones by size."""
    return value if axis.is_range else [label(known) for known in axis.values].index(value)


def _shown(found: Sequence[Row], plan: Plan) -> tuple[str, str]:
    """(how many seeds, the mean over them with its interval)."""
    values = list(by_seed(found, column(plan, plan.objective)).values())
    mean = statistics.fmean(values)
    if len(values) < 2:
        return str(len(values)), f"{mean:.4g}"
    interval = mean_interval(values)
    return str(len(values)), f"{mean:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
