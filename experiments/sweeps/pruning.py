"""Early stopping: what a trial's runs have come to is told to the study's pruner, which may give the trial up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from experiments.harness.presentation.cells import Standing, UsageError
from qjax.spelling import unknown

Record = Mapping[str, Any]
# Of a cell: its reports are at these steps, as trials are compared at the same one, and a report takes milliseconds.
PARTS = 10


class NoValue(Exception):
    """A run without a value of the objective: it was not solved, say."""


class Judge:
    """Called as `run_cells` asks of a judge: reports the objective's mean over the finished cells (`records`, of all of
    the trial's seeds, which grows meanwhile) and the running one, where that gives the objective at an evaluation.

    patiently: what calls the storage. Errors: optuna.TrialPruned where the pruner gives the trial up.
    """

    def __init__(
        self, trial: optuna.Trial, name: str, records: Sequence[Record], patiently: Callable[[Callable[[], Any]], Any]
    ) -> None:
        self.trial, self.name, self.records, self.patiently = trial, name, records, patiently
        self.step = 0

    def __call__(self, fraction: float, standing: Standing) -> None:
        if self._due(len(self.records) + fraction) and (now := standing().get(self.name)) is not None:
            self._report(len(self.records) + fraction, [*self._finished(), now])

    def seed_done(self) -> None:
        """Hears that all cells of a seed are finished."""
        self._report(len(self.records), self._finished())

    def _finished(self) -> list[float]:
        return [objective(record, self.name) for record in self.records]

    def _due(self, cells: float) -> bool:
        return int(PARTS * cells) > self.step

    def _report(self, cells: float, values: Sequence[float]) -> None:
        self.step = int(PARTS * cells)
        self.patiently(lambda: self.trial.report(sum(values) / len(values), self.step))
        if self.patiently(self.trial.should_prune):
            raise optuna.TrialPruned


def objective(record: Record, name: str) -> float:
    """The number of this name among a record's results, or its timings.

    Errors: UsageError for a name that is not there, with the nearest; NoValue where the run has none of this name.
    """
    outcome = record["outcome"]
    known = {**outcome["timed"], **outcome["results"]}
    numbers = {key: value for key, value in known.items() if value is None or isinstance(value, int | float)}
    if name not in numbers:
        raise UsageError(str(unknown("objective", name, numbers)))
    if (value := numbers[name]) is None:
        raise NoValue(f"{record['problem']} {record['method']}, seed {record['seed']}, has no {name}")
    return float(value)
