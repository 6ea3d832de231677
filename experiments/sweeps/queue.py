"""Optuna's study as a queue for any number of workers on any number of machines.

A grid's points, each with every seed, are trials that wait; a worker takes one, and tells its value. Each (point, seed)
ends with exactly one trial COMPLETE, whatever died meanwhile:

    a worker that stops sending heartbeats       its trial is failed by the others, and put in again
    one that died before its first               the same, once another worker has seen it so for as long
    two trials of one (point, seed)              the later one gives way: it fails as it starts
    a point that no open trial stands for        it is put in again, whenever a worker finds nothing to do

A search (random, tpe) has no points at first: its trials are drawn when they are asked for, up to their number, and
each takes all seeds.
"""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from experiments.harness.presentation.cells import StoreError, UsageError
from experiments.sweeps.space import Axis, Point, points

SEED = "seed"
_PLAN = "plan"
_FORMAT = 2  # of the plan and of what trials hold of their cells: one more whenever either changes
ERROR = "error"
Storage: TypeAlias = optuna.storages.RDBStorage
AWAY = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)
ATTEMPTS = 2  # of a task whose cells raise
_OPEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)
_CONNECT_SECONDS = 4  # for each address of the host, of which it may have two
_MEETINGS = 5


@dataclass(frozen=True)
class Plan:
    """What a study is about. Every worker of a sweep must have the same."""

    experiment: str
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    search: str  # "grid", "random" or "tpe"
    trials: int  # points x seeds of a grid
    objective: str
    options: dict[str, Any]  # of the experiment

    def text(self) -> str:
        axes = [[axis.name, list(axis.values), axis.is_range] for axis in self.axes]
        whole = {**vars(self), "axes": axes, "seeds": list(self.seeds), "format": _FORMAT}
        return json.dumps(whole, sort_keys=True)

    def tasks(self) -> list[Point]:
        """The grid's points with their seeds, seed by seed, so that an early stop leaves whole grids."""
        return [{**labelled(point), SEED: seed} for seed in self.seeds for point in points(self.axes)]

    def point(self, params: Mapping[str, Any]) -> Point:
        """The values that a trial's parameters stand for."""
        found = {}
        for axis in self.axes:
            labels = {label(value): value for value in axis.values}
            found[axis.name] = params[axis.name] if axis.is_range else labels[params[axis.name]]
        return found

    def distributions(self) -> dict[str, BaseDistribution]:
        found = {axis.name: _distribution(axis) for axis in self.axes}
        return found | ({SEED: CategoricalDistribution(list(self.seeds))} if self.search == "grid" else {})


@dataclass(frozen=True)
class Count:
    """Trials by what became of them; total: how many are to complete."""

    total: int
    done: int
    pruned: int
    running: int
    failed: int
    seconds: float  # the mean of a completed one


@contextlib.contextmanager
def connected(url: str, heartbeat: int) -> Iterator[Storage]:
    """The storage. Errors: StoreError, one line: within some ten seconds, where it cannot be reached; inside, where it
    goes away and nothing waits for it."""
    storage = _storage(url, heartbeat)
    try:
        yield storage
    except AWAY as error:
        raise StoreError(f"cannot use the storage {shown(url)}: {line(error)}") from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _storage(url: str, heartbeat: int) -> Storage:
    arguments: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("postgresql"):
        arguments["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
    elif url.startswith("sqlite"):
        arguments["connect_args"] = {"timeout": 60}
    for attempt in range(_MEETINGS):
        try:
            _reached(url, arguments)
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs=arguments,
                heartbeat_interval=heartbeat,
                grace_period=4 * heartbeat,
                heartbeat_stale_trial_callback=_again,
            )
        except Exception as error:  # SQLAlchemy's and every driver's own
            if not _met(error) or attempt + 1 == _MEETINGS:
                raise StoreError(f"cannot use the storage {shown(url)}: {line(error)}") from error
            time.sleep(0.5)
    raise AssertionError


def _again(study: optuna.Study, lost: FrozenTrial) -> None:
    """Puts in again what a lost worker had, without an error that its cells raised: that is counted at the lost one."""
    lost.user_attrs.pop(ERROR, None)
    optuna.storages.RetryHeartbeatStaleTrialCallback()(study, lost)


def _reached(url: str, arguments: dict[str, Any]) -> None:
    """Asks the database what it has, and leaves it: a storage that fails while it is made leaves connections open."""
    engine = sqlalchemy.create_engine(url, **arguments)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def study_of(storage: Storage, name: str, plan: Plan, maximise: bool, pruner: str) -> optuna.Study:
    """The study of this name, made where there is none. Errors: UsageError where it is about something else, or of
    another version; those of the storage."""
    search: optuna.samplers.BaseSampler
    search = optuna.samplers.TPESampler() if plan.search == "tpe" else optuna.samplers.RandomSampler()
    pruners = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
    }
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=search,
        pruner=pruners[pruner](),
        direction="maximize" if maximise else "minimize",
        load_if_exists=True,
    )
    known, wanted = study.user_attrs.get(_PLAN), StudyDirection.MAXIMIZE if maximise else StudyDirection.MINIMIZE
    if study.directions != [wanted]:
        there = ", ".join(direction.name.lower() for direction in study.directions)
        raise UsageError(f"the study {name!r} is to {there}, --minimise says otherwise: give another --name")
    if known is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_PLAN, plan.text())
    elif known != plan.text():
        raise UsageError(f"the study {name!r} {_difference(known, plan)}; give another --name")
    return study


def same_code(study: optuna.Study, code: str, any_code: bool) -> None:
    """Remembers the code that works on the study. Errors: UsageError where another did; those of a storage that cannot
    be written."""
    if not any_code and study.user_attrs.get("code", code) != code:
        raise UsageError(
            f"the study {study.study_name!r} was begun by another version of the code: give another --name, or "
            "--any-code to go on with this one"
        )
    study.set_user_attr("code", code)


def _met(error: Exception) -> bool:
    """Whether the error is that of workers that start together in an empty database: one of them makes its tables."""
    kinds = sqlalchemy.exc.IntegrityError | sqlalchemy.exc.ProgrammingError
    return isinstance(error, kinds) or (isinstance(error, sqlalchemy.exc.OperationalError) and "exists" in str(error))


@dataclass
class Silence:
    """Running trials that have never had a heartbeat, with the moment at which this process first saw each.

    A worker may die after it has taken a trial and before its first heartbeat. Optuna calls stale only what has had
    one; and the moment at which the trial began is told by the clock of a machine that need not agree with ours.
    """

    storage: Storage
    since: dict[int, float] = field(default_factory=dict)

    def fail(self, study: optuna.Study) -> None:
        """Fails those that have been silent for as long as a lost worker may be."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        with self.storage.engine.connect() as connection:
            heard = set(connection.scalars(sqlalchemy.text("SELECT trial_id FROM trial_heartbeats")))
        now = time.monotonic()
        silent = {trial._trial_id: trial.number for trial in running if trial._trial_id not in heard}
        self.since = {trial_id: self.since.get(trial_id, now) for trial_id in silent}
        grace = self.storage.grace_period or 0
        for trial_id, number in silent.items():
            if now - self.since[trial_id] > grace:
                study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


def replenish(study: optuna.Study, plan: Plan, silence: Silence) -> int:
    """Puts in every (point, seed) of a grid that no open or finished trial stands for; how many those were."""
    optuna.storages.fail_stale_trials(study)
    silence.fail(study)
    if plan.search != "grid":
        return 0
    present = {task_key(trial) for trial in study.get_trials(deepcopy=False, states=_OPEN)} | given_up(study)
    missing = [task for task in plan.tasks() if _key(task) not in present]
    known = plan.distributions()
    study.add_trials([waiting(task, known) for task in missing])
    return len(missing)


def waiting(task: Point, known: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial to be put in. Its parameters are stored with it: that saves a write for each when it is taken."""
    attributes = {"task": _key(task)}
    return optuna.create_trial(state=TrialState.WAITING, params=task, distributions=known, user_attrs=attributes)


def broken(study: optuna.Study) -> list[FrozenTrial]:
    """The trials whose cells raised."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [trial for trial in failed if ERROR in trial.user_attrs]


def given_up(study: optuna.Study) -> set[str | None]:
    """The tasks whose cells raised as often as they may."""
    times = Counter(task_key(trial) for trial in broken(study))
    return {task for task, count in times.items() if count >= ATTEMPTS}


def waits(study: optuna.Study, plan: Plan) -> bool:
    """Whether there is a trial to be taken."""
    if plan.search == "grid":
        return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
    begun = [*study.get_trials(deepcopy=False, states=_OPEN), *broken(study)]
    return len(begun) < plan.trials or any(trial.state == TrialState.WAITING for trial in begun)


@dataclass(frozen=True)
class Others:
    """What the other trials say to one that was just taken.

    ahead: the number of an open or finished trial of the same (point, seed) that goes before it; waiting: how many
    trials wait.
    """

    ahead: int | None
    waiting: int


def others(study: optuna.Study, trial: optuna.Trial) -> Others:
    """The whole study, read once: each reading costs time in proportion to the trials that are not finished."""
    own = trial.user_attrs.get("task")
    open_ = study.get_trials(deepcopy=False, states=_OPEN)
    same = [other for other in open_ if own is not None and task_key(other) == own]
    ahead = (other.number for other in same if other.number < trial.number or other.state == TrialState.COMPLETE)
    return Others(next(ahead, None), sum(other.state == TrialState.WAITING for other in open_))


def surplus(study: optuna.Study, trial: optuna.Trial, plan: Plan) -> bool:
    """Whether a search has all its trials without this one: workers that ask at once can draw one too many."""
    begun = [*study.get_trials(deepcopy=False, states=_OPEN), *broken(study)]
    return sum(other.number < trial.number for other in begun) >= plan.trials


def count(study: optuna.Study, plan: Plan) -> Count:
    trials = study.get_trials(deepcopy=False)
    by_state = {state: [trial for trial in trials if trial.state == state] for state in TrialState}
    complete = by_state[TrialState.COMPLETE]
    took = [trial.duration.total_seconds() for trial in complete if trial.duration is not None]
    return Count(
        plan.trials,
        len(complete),
        len(by_state[TrialState.PRUNED]),
        len(by_state[TrialState.RUNNING]),
        len(by_state[TrialState.FAIL]),
        sum(took) / len(took) if took else 0.0,
    )


def is_over(study: optuna.Study, plan: Plan) -> bool:
    """Whether every trial that was asked for is complete, or pruned."""
    if plan.search == "grid":
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return {_key(task) for task in plan.tasks()} <= {task_key(trial) for trial in ended} | given_up(study)
    found = count(study, plan)
    return found.done + found.pruned + len(broken(study)) >= plan.trials


def task_key(trial: FrozenTrial) -> str | None:
    return trial.user_attrs.get("task")


def quiet() -> None:
    """Optuna's own lines and the notices of what it calls experimental, which heartbeats are, say nothing to a user."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with Study.optimize")


def label(value: Any) -> Any:
    """The value as a database and a dashboard show it."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def labelled(point: Point) -> Point:
    return {name: label(value) for name, value in point.items()}


def _distribution(axis: Axis) -> BaseDistribution:
    if not axis.is_range:
        return CategoricalDistribution([label(value) for value in axis.values])
    low, high = axis.values
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=low > 0)
    return FloatDistribution(float(low), float(high), log=low > 0)


def _key(task: Point) -> str:
    return json.dumps(task, sort_keys=True)


def _difference(known: str | None, plan: Plan) -> str:
    if known is None:
        return "was not made by this command"
    old, new = json.loads(known), json.loads(plan.text())
    if old.keys() != new.keys() or old["format"] != new["format"]:
        return "is of another version of qjax, which cannot be gone on with"
    differing = (
        f"{name} {_brief(old[name])} there, {_brief(new[name])} here" for name in new if old[name] != new[name]
    )
    return f"is of another sweep: {', '.join(differing)}"


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def shown(url: str) -> str:
    """The address without its password."""
    head, at, tail = url.rpartition("@")
    return f"{head.rsplit(':', 1)[0]}:***@{tail}" if at and head.count(":") > 1 else url


def line(error: BaseException) -> str:
    """What the database says, in one line, without what Optuna and SQLAlchemy put around it."""
    while isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    error = getattr(error, "orig", None) or error
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
