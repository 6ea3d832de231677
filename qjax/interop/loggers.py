"""Metrics of a run in TensorBoard or Weights & Biases: loggers to give to `qjax.refine` as its callback.

    with qjax.interop.loggers.tensorboard("runs/first") as log:
        trained = qjax.refine(key, loss, params, data, optimizer, 1000, callback=log)

Every step's metrics are logged under the number of steps done then, from 1 on; a resumed run goes on where it stopped.
In `qjax.hybrid` the descents after several rounds, all with one logger, are counted on, and
`log.rounds(trained.rounds)` logs the rounds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np


class Logger:
    """A callback of `qjax.refine`; a context that closes what it writes to.

    write(axis, number, values): {name: value} at a number of steps (axis "step") or rounds (axis "round").
    every: only each `every`-th step is logged; one takes some 0.2 ms (two metrics, 2 cores).
    """

    def __init__(
        self, write: Callable[[str, int, dict[str, float]], object], close: Callable[[], object], every: int = 1
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.write, self.close, self.every = write, close, every
        self._before = self._last = 0  # steps of earlier descents, of this one

    def __call__(self, step: int, metrics: Mapping[str, Any], *params_and_state: Any) -> None:
        """Logs a chunk: metrics (steps, ...) of the steps up to `step`. Never ends the run."""
        length = len(next(iter(metrics.values())))
        if step - length < self._last:  # another descent began
            self._before, self._last = self._before + self._last, 0
        first, self._last = self._before + step - length + 1, step
        for place in range(length):
            if (first + place) % self.every == 0:
                self.write("step", first + place, _numbers({name: rows[place] for name, rows in metrics.items()}))

    def rounds(self, rounds: Iterable[Any]) -> None:
        """Logs the single numbers of each `qjax.Round`, from round 0 on: round/loss, round/seconds/anneal, ..."""
        for number, outcome in enumerate(rounds):
            self.write("round", number, _singles(outcome.to_dict(), "round/"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tensorboard(folder: str | os.PathLike[str], every: int = 1) -> Logger:
    """A logger that writes an event file of TensorBoard into a folder. Errors: ImportError without tensorboardX."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(os.fspath(folder))

    def write(axis: str, number: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, number)

    return Logger(write, writer.close, every)


def wandb(run: Any, every: int = 1) -> Logger:
    """A logger that writes to a run of Weights & Biases, as `wandb.init` returns it, and finishes it when it is closed.

    Metrics are drawn over "step" and "round", which are logged beside them. A run that failed is marked so where it is
    wandb's context: `with wandb.init(...) as run: qjax.refine(..., callback=loggers.wandb(run))`.
    """
    known: set[str] = set()

    def write(axis: str, number: int, values: dict[str, float]) -> None:
        for name in values.keys() - known:
            run.define_metric(name, step_metric=axis)
        known.update(values)
        run.log({axis: number, **values})

    return Logger(write, run.finish, every)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Single numbers under their names, entries of an array under name/0, name/1, ... or name/0/1."""
    found = {}
    for name, value in values.items():
        for place in np.ndindex(np.shape(value)):
            found["/".join([name, *map(str, place)])] = float(np.asarray(value)[place])
    return found


def _singles(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Single numbers of nested dicts under their paths."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _singles(value, f"{prefix}{name}/")
        elif isinstance(value, bool | int | float):
            found[prefix + name] = float(value)
    return found
