"""`python -m experiments sweep EXPERIMENT --grid field=a,b,c ...`: the options, the study, the workers, the tables.

OUT/sweeps/NAME/    sweep.db (where no other storage is given), results.csv, results.parquet, sweep.json, summary.md
OUT/EXPERIMENT/     the experiment's own cells: one that is stored is not computed again, whoever asked for it
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial

import optuna
from rich.console import Console

from experiments.harness.presentation import environment, terminal
from experiments.harness.presentation.cells import (
    Cell,
    Scale,
    Store,
    StoreError,
    UsageError,
    plain_errors,
    write_atomic,
)
from experiments.harness.presentation.driver import select
from experiments.sweeps import queue, results
from experiments.sweeps.fields import names
from experiments.sweeps.options import Sweep
from experiments.sweeps.pruning import NoValue, objective
from experiments.sweeps.queue import Plan
from experiments.sweeps.space import Axis, axes, corners, points
from experiments.sweeps.worker import Worker, progress_line, varied
from qjax.spelling import unknown

Cells = Callable[[Scale], list[Cell]]


def run(config: Sweep, experiments: Mapping[str, Cells], console: Console) -> bool:
    """Works on the sweep until it is complete; whether nothing failed. Errors: UsageError, StoreError, one line."""
    queue.quiet()
    if config.experiment not in experiments:
        raise UsageError(str(unknown("experiment made of cells", config.experiment, experiments)))
    scale: Scale = "smoke" if config.smoke else "full" if config.full else "default"
    cells = one_seed(select(experiments[config.experiment](scale), config.only, config.methods))
    if not config.grid:
        raise UsageError(f"nothing to sweep: give --grid field=value,value. The fields are {', '.join(_fields(cells))}")
    cells = concerned(config, cells)
    plan = planned(config, cells, scale)
    with plain_errors(config.folder):
        config.folder.mkdir(parents=True, exist_ok=True)
    url = config.storage or f"sqlite:///{config.folder.resolve() / 'sweep.db'}"
    with queue.connected(url, config.heartbeat) as storage:
        study = queue.study_of(storage, config.study, plan, not config.minimise, config.pruner)
        say = partial(terminal.say, console)
        try:
            if not config.status:
                queue.same_code(study, environment.code_digest(), config.any_code)
                _work(config, study, storage, plan, cells, say)
        except KeyboardInterrupt:
            with contextlib.suppress(*queue.AWAY):
                say(f"{progress_line(queue.count(study, plan))}; the same command resumes")
            raise
        return _finish(config, study, plan, console, say)


def _finish(config: Sweep, study: optuna.Study, plan: Plan, console: Console, say: Callable[[str], None]) -> bool:
    """Tables of what there is, on the terminal and in the folder; whether nothing failed."""
    say(progress_line(queue.count(study, plan)))
    found, failed = results.rows(study, plan), failures(study, plan)
    if found:
        shown = [table for table in (results.table(found, plan), results.effects(found, plan)) if table.lines]
        paths = results.write(found, config.folder)
        results.write_plan(plan, config.minimise, config.folder)
        with plain_errors(config.folder):
            write_atomic(config.folder / "summary.md", "\n".join(table.markdown() for table in shown))
        for table in shown:
            table.print(console)
        terminal.written(console, *paths)
    if found and plan.search != "grid":
        best = study.best_trial
        say(f"best {plan.objective} {best.value:.4g}: {', '.join(f'{k}={v}' for k, v in best.params.items())}")
    for task, error in failed.items():
        say(f"failed: {task}: {error}")
    return not failed


def planned(config: Sweep, cells: Sequence[Cell], scale: Scale) -> Plan:
    """What the sweep is to do, tried on the cells before anything runs. Errors: UsageError, one line."""
    chosen = _axes(config, cells)
    seeds = tuple(range(config.seeds))
    grid = points(chosen) if config.search == "grid" else []
    for point in grid or corners(chosen):
        made = varied(cells, point, 0)
        had = {name for cell in made for name in names(cell.config)}
        if missing := [name for name in point if name not in had]:
            held = [f"{name}={value}" for name, value in point.items() if missing[0].startswith(f"{name}.")]
            raise UsageError(f"--grid {missing[0]}: no cell has it where {', '.join(held)}")
    count = len(grid) * len(seeds) if config.search == "grid" else config.trials
    problems = list(dict.fromkeys(cell.problem for cell in cells))
    options = {"scale": scale, "problems": problems, "methods": list(config.methods)}
    return Plan(config.experiment, chosen, seeds, config.search, count, config.objective, options)


def concerned(config: Sweep, cells: Sequence[Cell]) -> list[Cell]:
    """The cells that have any of the fields: the others would be the same at every point."""
    asked = {text.partition("=")[0] for text in config.grid}
    return [cell for cell in cells if asked & set(names(cell.config))] or list(cells)


def one_seed(cells: Sequence[Cell]) -> list[Cell]:
    """Each problem and method once: the sweep has seeds of its own."""
    return list({(cell.problem, cell.method): cell for cell in reversed(cells)}.values())[::-1]


def failures(study: optuna.Study, plan: Plan) -> dict[str, str]:
    """The last error of each (point, seed) that was given up, of each point of a search that raised."""
    given_up = queue.given_up(study)
    found = [trial for trial in queue.broken(study) if plan.search != "grid" or queue.task_key(trial) in given_up]
    return {queue.task_key(trial) or str(trial.params): trial.user_attrs[queue.ERROR] for trial in found}


def _work(
    config: Sweep,
    study: optuna.Study,
    storage: queue.Storage,
    plan: Plan,
    cells: Sequence[Cell],
    say: Callable[[str], None],
) -> None:
    if config.workers > 1:
        _processes(config, study, plan, say)
        return
    env = environment.environment(cell.data for cell in cells)
    store = Store(config.out / config.experiment / "cells", environment.made_by(env), config.any_code).open()
    _check_objective(config.objective, cells, store)
    Worker(study, storage, plan, cells, store, say).run()


def _check_objective(name: str, cells: Sequence[Cell], store: Store) -> None:
    """By a stored cell of each row, where there is one. Errors: UsageError for a name that it has no number of."""
    for cell in cells:
        for path in store.folder.glob(f"{cell.key().rsplit('--', 2)[0]}--*.json"):
            try:
                record = json.loads(path.read_text())
                made_here = record["made_by"] == store.makers
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if made_here:
                with contextlib.suppress(NoValue):
                    objective(record, name)
                break


def _processes(config: Sweep, study: optuna.Study, plan: Plan, say: Callable[[str], None]) -> None:
    """This command again, one worker each; here only the progress of all of them."""
    command = [sys.executable, "-m", "experiments", "sweep", *_arguments(replace(config, workers=1))]
    workers = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(config.workers)]
    before = -1
    try:
        while any(worker.poll() is None for worker in workers):
            time.sleep(1.0)
            # Where the storage is away, the workers wait for it.
            with contextlib.suppress(*queue.AWAY):
                if (counted := queue.count(study, plan)).done != before:
                    before = counted.done
                    say(progress_line(counted))
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()
    if not queue.is_over(study, plan):
        raise StoreError(f"the workers ended with {[worker.returncode for worker in workers]} before the sweep did")


def _arguments(config: Sweep) -> list[str]:
    """The options that make this configuration."""
    words = [config.experiment]
    for field in fields(config):
        value, flag = getattr(config, field.name), f"--{field.name.replace('_', '-')}"
        if field.name == "experiment" or value == field.default:
            continue
        words += [flag] if value is True else [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return words


def _axes(config: Sweep, cells: Sequence[Cell]) -> tuple[Axis, ...]:
    """Each axis as the first cell that has its field reads it. Errors: UsageError where none has it."""
    found: list[Axis] = []
    for text in config.grid:
        name = text.partition("=")[0]
        owner = next((cell for cell in cells if name in names(cell.config)), cells[0])
        if name == queue.SEED:
            raise UsageError(f"--grid {name}: seeds are given by --seeds")
        if name and name not in names(owner.config):
            raise UsageError(str(unknown("field", name, _fields(cells))))
        found += axes([text], owner.config, config.search)
    if len({axis.name for axis in found}) < len(found):
        raise UsageError("--grid: a field is given twice")
    # A sampler before its fields: those are the new one's.
    return tuple(sorted(found, key=lambda axis: axis.name.count(".")))


def _fields(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name in names(cell.config)))
