"""Where and how results came about: the end of the page."""

from collections.abc import Mapping
from typing import Any

from experiments.harness.presentation.tables import Table
from experiments.report.collect import Run, Swept


def of_run(run: Run) -> list[Table]:
    """Environment and options of a run."""
    env = {**run.environment, "results digest": run.summary["results_digest"]}
    return [_table(f"{run.name}: environment", env), _table(f"{run.name}: options", run.config["options"])]


def of_sweep(sweep: Swept) -> list[Table]:
    """Environment and plan of a sweep."""
    plan = {**sweep.plan, "axes": "; ".join(f"{name} = {_said(values)}" for name, values, _ in sweep.plan["axes"])}
    return [_table(f"{sweep.name}: environment", sweep.environment), _table(f"{sweep.name}: plan", plan)]


def _table(title: str, content: Mapping[str, Any]) -> Table:
    lines = [(name.replace("_", " "), _said(value)) for name, value in content.items()]
    # The command first: it makes everything again.
    lines.sort(key=lambda line: (line[0] != "command", line[0] != "commit"))
    return Table(title, ("of it", "value"), tuple(line for line in lines if line[1]))


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {said}" for name, one in value.items() if (said := _said(one)))
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return "" if value is None else str(value)
