"""What a sweep makes of its options: values, points, cells, tables, and one clear line for what cannot be."""

import csv
import dataclasses
import functools
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc
from rich.console import Console

from experiments.harness.presentation.cells import Store, StoreError, UsageError
from experiments.sweeps import command, fields, queue, space
from experiments.sweeps.options import Sweep
from experiments.sweeps.worker import Worker
from qjax import samplers
from tests.experiments.sweeps import toy

CONFIG = {"toy": toy.Toy(), "method": "hybrid"}
CELLS: dict[str, Any] = {"toy": toy.cells}


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn here is the same in every run of the tests."""
    for name in ("RandomSampler", "TPESampler"):
        monkeypatch.setattr(optuna.samplers, name, functools.partial(getattr(optuna.samplers, name), seed=0))


def swept(out: Path, *grid: str, **options: Any) -> tuple[bool, str, list[dict[str, str]]]:
    """(whether nothing failed, what was printed, the rows of results.csv) of a sweep."""
    console = Console(width=130, record=True, file=io.StringIO())
    config = Sweep("toy", grid=grid, **{"out": out, "seeds": 2, "heartbeat": 1, **options})
    fine = command.run(config, CELLS, console)
    table = config.folder / "results.csv"
    rows = list(csv.DictReader(table.read_text().splitlines())) if table.exists() else []
    return fine, console.export_text(), rows


def test_fields_have_dotted_names_and_their_values_types() -> None:
    names = fields.names(CONFIG)
    assert {"toy", "toy.inner.rate", "toy.sampler", "toy.sampler.num_sweeps", "toy.sampler.length"} <= set(names)
    for name, text, value in (
        ("toy.inner.rate", "1", 1.0),
        ("toy.inner.steps", "7", 7),
        ("toy.inner.sizes", "(1,2)", (1, 2)),
        ("toy.inner.deep", "true", True),
        ("toy.kind", "12", "12"),
        ("toy.limit", "5", 5),
        ("toy.limit", "none", None),
    ):
        found = fields.parsed(CONFIG, name, text)
        assert found == value and type(found) is type(value)
        assert fields.value_of(fields.changed(CONFIG, name, found), name) == value
    tabu = fields.changed(CONFIG, "toy.sampler", fields.parsed(CONFIG, "toy.sampler", "bifurcation"))
    assert fields.changed(tabu, "toy.sampler.length", 7)["toy"].sampler == samplers.Bifurcation(num_steps=7)
    greedy = fields.changed(CONFIG, "toy.sampler", "greedy")
    assert fields.changed(greedy, "toy.sampler.length", 7) == greedy  # it ends by itself


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ((), {}, "nothing to sweep: give --grid .* The fields are toy, toy.inner"),
        (("toy.inner.rat=1",), {}, "unknown field 'toy.inner.rat'; did you mean 'toy.inner.rate'"),
        (("toy.inner.steps=1.5",), {}, r"toy.inner.steps=1.5: it is int 10 now"),
        (("toy.inner.steps=true",), {}, r"toy.inner.steps=true: it is int 10 now"),
        (("toy.inner.steps=",), {}, "write field=value"),
        (("toy.inner.steps",), {}, "write field=value"),
        (("toy.inner.steps=1,1",), {}, "a value is given twice"),
        (("toy.inner.steps=1", "toy.inner.steps=2"), {}, "a field is given twice"),
        (("toy.inner.steps=1..5",), {}, "a range needs --search"),
        (("toy.inner.steps=5..1",), {"search": "tpe"}, "a range is low..high"),
        (("toy.inner.steps=0",), {}, "steps must be at least 1, got 0"),
        (("toy.sampler=anneall",), {}, "unknown sampler 'anneall'; did you mean 'anneal'"),
        (("toy.inner.steps=1",), {"objective": "finale"}, "unknown objective 'finale'; did you mean 'final'"),
        (("toy.inner.steps=1",), {"methods": ("hybrit",)}, "unknown method 'hybrit'"),
        (("toy.inner.steps=1",), {"seeds": 0}, "--seeds must be at least 1"),
        (("toy.inner.steps=1",), {"pruner": "median"}, "--pruner median needs --search random or tpe: a grid must be"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    grid: tuple[str, ...], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        swept(tmp_path, *grid, **options)
    assert "\n" not in str(caught.value)


def test_an_experiment_or_a_storage_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown experiment made of cells 'tabel1'"):
        command.run(Sweep("tabel1", grid=("a=1",)), CELLS, Console())
    with pytest.raises(StoreError, match="cannot use the storage") as caught:
        swept(tmp_path, "toy.inner.steps=1", storage=f"sqlite:///{tmp_path}/no/such/folder.db")
    assert "\n" not in str(caught.value)


def test_a_table_that_another_worker_has_just_made_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.quiet()
    storage_of, refusals = optuna.storages.RDBStorage, ["table study_directions already exists"]

    def meets(*args: Any, **kwargs: Any) -> optuna.storages.RDBStorage:
        if refusals:
            raise sqlalchemy.exc.OperationalError("CREATE TABLE", {}, Exception(refusals.pop()))
        return storage_of(*args, **kwargs)

    monkeypatch.setattr(optuna.storages, "RDBStorage", meets)
    with queue.connected(f"sqlite:///{tmp_path / 'sweep.db'}", 1) as storage:
        assert not refusals and not storage.get_all_studies()


def test_a_grid_runs_every_point_with_every_seed_once_and_resumes(tmp_path: Path) -> None:
    grid = ("toy.inner.steps=1,2,3", "toy.sampler.length=5,6", "toy.sampler=anneal,greedy")
    fine, said, rows = swept(tmp_path, *grid)
    assert fine and "24 of 24 trials complete" in said and len(rows) == 48
    points = {tuple(row[name] for name in ("toy.sampler", "toy.inner.steps", "toy.sampler.length")) for row in rows}
    assert len(points) == 12
    for row in rows:
        assert float(row["final"]) == 50 + int(row["toy.inner.steps"]) + int(row["seed"]) + (row["method"] == "hybrid")
        assert row["length"] == (row["toy.sampler.length"] if row["toy.sampler"] == "anneal" else "")
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "toy" / "cells").glob("*.json")}
    assert len(cells) == 3 * (2 + 1) * 2 * 2  # the greedy ones of both lengths are one
    # A study of its own computes nothing that is stored.
    fine, _, again = swept(tmp_path, *grid, name="again")
    assert fine and again == rows
    assert cells == {path: path.stat().st_mtime_ns for path in (tmp_path / "toy" / "cells").glob("*.json")}
    with pytest.raises(UsageError, match=r"the study 'toy' is of another sweep: axes .* there, .* here"):
        swept(tmp_path, "toy.inner.steps=1,2")


@pytest.mark.slow
@pytest.mark.parametrize("beaten", [True, False], ids=["after a heartbeat", "before any"])
def test_a_trial_of_a_worker_that_died_is_run_again(beaten: bool, tmp_path: Path) -> None:
    config = Sweep("toy", grid=("toy.inner.steps=1,2",), out=tmp_path, heartbeat=1)
    queue.quiet()
    cells = command.one_seed(toy.cells("default"))
    plan = command.planned(config, cells, "default")
    config.folder.mkdir(parents=True)
    url = f"sqlite:///{config.folder / 'sweep.db'}"
    with queue.connected(url, 1) as storage:
        study = queue.study_of(storage, "toy", plan, True, "none")
        silence = queue.Silence(storage)
        assert queue.replenish(study, plan, silence) == 6 and queue.replenish(study, plan, silence) == 0
        dead, second = study.ask(), study.get_trials()[1]
        if beaten:
            storage.record_heartbeat(dead._trial_id)
        study.add_trial(queue.waiting(second.params, plan.distributions()))
    fine, said, rows = swept(tmp_path, "toy.inner.steps=1,2", seeds=3)
    assert fine and "6 of 6" in said and len(rows) == 12
    with queue.connected(url, 1) as storage:
        study = queue.study_of(storage, "toy", plan, True, "none")
        states = [trial.state.name for trial in study.get_trials()]
    assert states.count("COMPLETE") == 6 and states.count("FAIL") == 2  # the dead one, and the one given twice


def test_cells_that_raise_are_named_at_the_end_and_do_not_stop_the_others(tmp_path: Path) -> None:
    fine, said, rows = swept(tmp_path, "toy.kind=plain,broken")
    assert not fine and len(rows) == 4 and "2 of 4 trials complete" in said
    assert len(re.findall("failed: .*broken.*: RuntimeError: this one is broken", said)) == 2


def test_a_search_ends_though_its_cells_raise(tmp_path: Path) -> None:
    fine, said, rows = swept(tmp_path, "toy.kind=plain,broken", search="random", trials=8)
    errors = len(re.findall("failed: ", said))
    assert not fine and errors and len(rows) % 4 == 0 and len(rows) // 4 < 8


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_bad_trials_are_pruned_inside_training(pruner: Any, tmp_path: Path) -> None:
    """What is given up takes fewer steps, is stored nowhere, and counts as done; what is kept is stored."""
    toy.STEPS.clear()
    grid = ("toy.inner.rate=0.1..0.9", "toy.kind=trained")
    options: dict[str, Any] = {"search": "random", "trials": 16, "seeds": 1, "methods": ("hybrid",)}
    fine, said, rows = swept(tmp_path, *grid, pruner=pruner, **options)
    pruned = int(re.findall(r"trials complete, (\d+) pruned", said)[-1])
    steps = Counter(toy.STEPS)
    kept = {float(row["toy.inner.rate"]) for row in rows}
    assert fine and 0 < pruned < 16 and len(rows) == 16 - pruned == len(list((tmp_path / "toy/cells").glob("*.json")))
    assert {rate for rate, count in steps.items() if count == 4} == kept
    assert max(kept) == max(steps)
    again = swept(tmp_path, *grid, pruner=pruner, **options)
    assert again[2] == rows and Counter(toy.STEPS) == steps


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_a_search_draws_points_inside_its_ranges_and_takes_all_seeds(search: Any, tmp_path: Path) -> None:
    fine, said, rows = swept(tmp_path, "toy.inner.rate=0.1..0.9", "toy.inner.steps=1..9", search=search, trials=5)
    best = max(rows, key=lambda row: float(row["final"]))
    assert f"toy.inner.rate={best['toy.inner.rate']}" in said and "Main effects" not in said
    assert fine and len(rows) == 5 * 2 * 2
    assert all(0.1 <= float(row["toy.inner.rate"]) <= 0.9 and 1 <= int(row["toy.inner.steps"]) <= 9 for row in rows)
    assert len({row["toy.inner.rate"] for row in rows}) == 5


def test_bad_trials_are_pruned_between_seeds(tmp_path: Path) -> None:
    fine, said, rows = swept(tmp_path, "toy.inner.rate=0.1..0.9", search="random", trials=20, seeds=3, pruner="median")
    pruned = int(re.findall(r"trials complete, (\d+) pruned", said)[-1])
    assert fine and 0 < pruned < 20 and len(rows) == (20 - pruned) * 3 * 2


def test_the_status_runs_nothing(tmp_path: Path) -> None:
    _, said, rows = swept(tmp_path, "toy.inner.steps=1,2", status=True)
    assert "0 of 4 trials complete" in said and not rows


def test_passwords_are_not_shown() -> None:
    assert queue.shown("postgresql+psycopg://me:secret@host/name") == "postgresql+psycopg://me:***@host/name"


def test_values_with_commas_stay_whole() -> None:
    (axis,) = space.axes(["toy.inner.sizes=(1,2),(3,4)"], CONFIG, "grid")
    assert axis.values == ((1, 2), (3, 4))
    assert queue.labelled({"a": (1, 2)}) == {"a": "[1, 2]"}


def test_what_a_worker_tells_that_was_taken_for_dead_is_dropped(tmp_path: Path) -> None:
    """Its trial is failed by another worker while it runs, and put in again."""
    config = Sweep("toy", grid=("toy.inner.steps=1,2",), seeds=1, out=tmp_path)
    queue.quiet()
    cells = command.one_seed(toy.cells("default"))
    plan = command.planned(config, cells, "default")
    with queue.connected(f"sqlite:///{tmp_path / 'sweep.db'}", 15) as storage:
        study = queue.study_of(storage, "toy", plan, True, "none")
        first = [True]

        def run(progress: Any, *, cell: Any) -> Any:
            if first:
                first.clear()
                study.tell(0, state=optuna.trial.TrialState.FAIL)
            return cell.run(progress)

        def watched(config: Any, seed: int) -> Any:
            made = toy.cell(config, seed)
            return dataclasses.replace(made, run=functools.partial(run, cell=made), varied=watched)

        watching = [dataclasses.replace(cell, varied=watched) for cell in cells]
        store = Store(tmp_path / "cells", {}).open()
        Worker(study, storage, plan, watching, store, lambda line: None).run()
        states = [trial.state.name for trial in study.get_trials()]
    assert states == ["FAIL", "COMPLETE", "COMPLETE"]
