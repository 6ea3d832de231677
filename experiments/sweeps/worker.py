"""One worker of a sweep: it takes a trial, runs the trial's cells, tells their value, until nothing is left."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import optuna
from optuna.trial import TrialState

from experiments.harness.presentation.cells import Cell, Store, StoreError, UsageError, run_cells
from experiments.sweeps import fields, queue
from experiments.sweeps.pruning import Judge, NoValue, Record, objective
from experiments.sweeps.queue import SEED, Plan
from experiments.sweeps.space import Point

Say = Callable[[str], None]
Found = TypeVar("Found")

_IDLE_SECONDS = 2.0
_SAY_SECONDS = 1.0


class _Surplus(Exception):
    """A trial that no task stands behind, or one that another trial stands for already."""


@dataclass
class Worker:
    """cells: those of the experiment as it stands, of one seed; store: where finished cells are kept.

    patience: seconds that the storage may be away before the worker gives up.
    """

    study: optuna.Study
    storage: queue.Storage
    plan: Plan
    cells: Sequence[Cell]
    store: Store
    say: Say
    patience: float = 600.0
    _silence: queue.Silence = field(init=False)
    _more: bool = field(init=False, default=False)  # whether trials waited when the last one was taken
    _said: float = field(init=False, default=-_SAY_SECONDS)

    def __post_init__(self) -> None:
        self._silence = queue.Silence(self.storage)

    def run(self) -> None:
        """Works until every trial is complete. Errors: StoreError where results or the storage stay out of reach."""
        while True:
            trial = self._patiently(self._taken)
            if trial is None:
                return
            with self._beating(trial), contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                # Where it is finished already, we were taken for dead, and the trial was given to another.
                self._work(trial)

    def _taken(self) -> optuna.Trial | None:
        """A trial to work on; None where the sweep is over."""
        while not self._more and not (
            queue.waits(self.study, self.plan) or queue.replenish(self.study, self.plan, self._silence)
        ):
            if queue.is_over(self.study, self.plan):
                return None
            time.sleep(_IDLE_SECONDS)  # others are at the last ones; should they die, it is ours to go on
        self._more = False
        return self.study.ask({} if self.plan.search == "grid" else self.plan.distributions())

    def _work(self, trial: optuna.Trial) -> None:
        """Runs the trial, and tells what came of it."""
        state, value = TrialState.COMPLETE, None
        try:
            value = self._value(trial)
        except optuna.TrialPruned:
            state = TrialState.PRUNED
        except _Surplus:
            state = TrialState.FAIL
        except _Broken as broken:  # by the configuration, mostly: the sweep goes on, and says so at its end
            state, error = TrialState.FAIL, str(broken)
            self._patiently(lambda: trial.set_user_attr(queue.ERROR, error))
        except optuna.exceptions.UpdateFinishedTrialError:
            raise
        except BaseException:
            with contextlib.suppress(*queue.AWAY):
                self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
        self._patiently(lambda: self.study.tell(trial, value, state=state, skip_if_finished=True))
        if state == TrialState.COMPLETE and time.monotonic() - self._said >= _SAY_SECONDS:
            self.say(progress_line(self._patiently(lambda: queue.count(self.study, self.plan))))
            self._said = time.monotonic()

    def _value(self, trial: optuna.Trial) -> float:
        if self.plan.search == "grid":
            others = self._patiently(lambda: queue.others(self.study, trial))
            self._more = others.waiting > 0
            if "task" not in trial.user_attrs or others.ahead is not None:
                raise _Surplus
        elif self._patiently(lambda: queue.surplus(self.study, trial, self.plan)):
            raise _Surplus
        params = trial.params
        seeds = [params.pop(SEED)] if self.plan.search == "grid" else list(self.plan.seeds)
        point = self.plan.point(params)
        values: list[float] = []
        records: list[dict[str, Any]] = []
        pruned = self.plan.search != "grid" and not isinstance(self.study.pruner, optuna.pruners.NopPruner)
        judge = Judge(trial, self.plan.objective, records, self._patiently) if pruned else None
        for seed in seeds:
            with _breaking():
                cells = varied(self.cells, point, seed)
            for cell in cells:
                with _breaking():
                    run_cells([cell], self.store, None, records, judge)
                with _breaking(NoValue):
                    values.append(objective(records[-1], self.plan.objective))
            if judge is not None and seed != seeds[-1]:
                judge.seed_done()
        self._patiently(lambda: trial.set_user_attr("cells", [_row(record) for record in records]))
        return sum(values) / len(values)

    def _patiently(self, action: Callable[[], Found]) -> Found:
        """action(), again and again while the storage is away. Errors: StoreError when patience ends."""
        since: float | None = None
        while True:
            try:
                return action()
            except queue.AWAY as error:
                now = time.monotonic()
                if since is None:
                    since = now
                    self.say(f"the storage is away ({queue.line(error)}); trying again for {self.patience:.0f} s")
                if now - since > self.patience:
                    reason = queue.line(error)
                    raise StoreError(f"the storage stayed away for {self.patience:.0f} s: {reason}") from error
                time.sleep(_IDLE_SECONDS)

    @contextlib.contextmanager
    def _beating(self, trial: optuna.Trial) -> Iterator[None]:
        """Signs of life for this trial while the context lasts."""
        over = threading.Event()

        def beat() -> None:
            while not over.is_set():
                with contextlib.suppress(*queue.AWAY):
                    self.storage.record_heartbeat(trial._trial_id)
                over.wait(self.storage.get_heartbeat_interval())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class _Broken(Exception):
    """A cell raised."""


@contextlib.contextmanager
def _breaking(kind: type[Exception] = Exception) -> Iterator[None]:
    """Inside, what a cell or its configuration raises is `_Broken`."""
    try:
        yield
    except (StoreError, optuna.TrialPruned, optuna.exceptions.UpdateFinishedTrialError):
        raise
    except kind as error:
        raise _Broken(f"{type(error).__name__}: {error}") from error


def progress_line(count: queue.Count) -> str:
    """How far all workers are, and the time left at their pace."""
    line = f"{count.done} of {count.total} trials complete"
    for number, what in ((count.pruned, "pruned"), (count.running, "running")):
        line += f", {number} {what}" if number else ""
    left = (count.total - count.done - count.pruned) * count.seconds / max(count.running, 1)
    return line + (f", about {left:.0f} s left" if left and count.done else "")


def varied(cells: Sequence[Cell], point: Point, seed: int) -> list[Cell]:
    """The cells with this seed and the point's values, each field in the cells that have it. Errors: UsageError."""
    found = [_varied(cell, point, seed) for cell in cells]
    return list({cell.key(): cell for cell in found}.values())


def _varied(cell: Cell, point: Point, seed: int) -> Cell:
    if cell.varied is None:
        raise UsageError(f"the cells of {cell.problem} cannot be varied")
    config = cell.config
    for name, value in point.items():
        if name in fields.names(config):
            config = fields.changed(config, name, value)
    try:
        return cell.varied(config, seed)
    except (ValueError, TypeError) as error:
        values = ", ".join(f"{name}={value!r}" for name, value in point.items())
        raise UsageError(f"{cell.problem} {cell.method} at {values}: {error}") from None


def _row(record: Record) -> dict[str, Any]:
    """What the study keeps of a cell: names, scalars, seconds."""
    outcome = record["outcome"]
    names = {name: record[name] for name in ("problem", "method", "sampler", "seed")}
    numbers = {
        part: {k: v for k, v in outcome[part].items() if v is None or isinstance(v, bool | int | float)}
        for part in ("results", "timed")
    }
    return {**names, **numbers, "phases": outcome["timed"]["phases"]}
