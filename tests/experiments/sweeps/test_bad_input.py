"""What cannot be is one clear line: options, studies of something else, storages that are no storage or are away."""

import contextlib
import csv
import errno
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from rich.console import Console

from experiments.harness.presentation import environment
from experiments.harness.presentation.cells import Store, StoreError, UsageError
from experiments.sweeps import command, fields, queue
from experiments.sweeps.options import Sweep
from experiments.sweeps.worker import Worker
from tests.experiments.sweeps import postgres, toy
from tests.experiments.sweeps.test_command import CONFIG, swept

POINT = "toy.inner.steps=1"


@contextlib.contextmanager
def one_line(kind: type[Exception], message: str) -> Iterator[None]:
    """Inside, such an error comes within ten seconds, in one line."""
    begin = time.monotonic()
    with pytest.raises(kind, match=message) as caught:
        yield
    assert time.monotonic() - begin < 10.0
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("toy.limit", "1.5", "toy.limit=1.5: it is NoneType None now, and may be int or none"),
        ("toy.inner.steps", "none", "it is int 10 now$"),
        ("toy.inner.deep", "1", "it is bool False now$"),
        ("toy.inner.rate", "true", "it is float 0.5 now$"),
        ("toy.inner.sizes", "3", r"it is tuple \(3, 3\) now$"),
        ("toy.mode", "fats", "toy.mode: unknown value 'fats'; did you mean 'fast'"),
        ("toy.inner", "1", "toy.inner holds fields of its own: toy.inner.rate, "),
        ("toy.sampler.length", "ten", "toy.sampler.length=ten: it is int"),
    ],
)
def test_values_of_the_wrong_type(name: str, text: str, message: str) -> None:
    with one_line(UsageError, message):
        fields.parsed(CONFIG, name, text)


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        (("toy.kind=a,",), {}, "a value is empty"),
        (("seed=1,2",), {}, "--grid seed: seeds are given by --seeds"),
        (("toy.sampler=anneal,bifurcation", "toy.sampler.num_sweeps=5"), {}, "no cell has it where toy.sampler=bifurc"),
        (("toy.kind=nowhere",), {}, "toy hybrid at toy.kind='nowhere': unknown data set 'nowhere'"),
        (("toy.sampler.beta_range=5",), {}, "toy.sampler.beta_range=5: "),
        (("toy.inner.steps=0..5",), {"search": "tpe"}, "steps must be at least 1, got 0"),
        ((POINT,), {"generate": ("sk-5",)}, "--instances and --generate are options of solvers"),
    ],
)
def test_grids_that_no_cell_can_be_given(
    grid: tuple[str, ...], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with one_line(UsageError, message):
        swept(tmp_path, *grid, **options)
    assert not list(tmp_path.rglob("*.json"))


def test_studies_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(tmp_path, POINT)
    cells: dict[str, Any] = {"toy": toy.cells, "other": toy.cells}
    other = Sweep("other", grid=(POINT,), seeds=2, out=tmp_path, name="toy")
    with one_line(UsageError, "is of another sweep: experiment 'toy' there, 'other' here; give another"):
        command.run(other, cells, Console(file=io.StringIO()))
    with one_line(UsageError, "the study 'toy' is to maximize, --minimise says otherwise"):
        swept(tmp_path, POINT, minimise=True)
    monkeypatch.setattr(environment, "code_digest", lambda: "another")
    with one_line(UsageError, "begun by another version of the code: give another --name, or --any-code"):
        swept(tmp_path, POINT)
    assert swept(tmp_path, POINT, status=True)[0] and swept(tmp_path, POINT, any_code=True)[0]


@pytest.mark.parametrize("change", [{"format": 1}, {"format": None}, {"colour": "red"}])
def test_a_study_of_another_version(change: dict[str, Any], tmp_path: Path) -> None:
    """Its plan has another format, or has not all that ours has, or more."""
    swept(tmp_path, POINT)
    folder = tmp_path / "sweeps" / "toy"
    with queue.connected(f"sqlite:///{folder / 'sweep.db'}", 1) as storage:
        study = optuna.load_study(study_name="toy", storage=storage)
        plan = {k: v for k, v in {**json.loads(study.user_attrs["plan"]), **change}.items() if v is not None}
        study.set_user_attr("plan", json.dumps(plan))
    with one_line(UsageError, "'toy' is of another version of qjax, which cannot be gone on with; give another --name"):
        swept(tmp_path, POINT)


def test_a_study_that_was_not_made_by_this_command(tmp_path: Path) -> None:
    queue.quiet()
    url = f"sqlite:///{tmp_path / 'mine.db'}"
    with queue.connected(url, 1) as storage:
        optuna.create_study(study_name="toy", storage=storage, direction="maximize").add_trial(
            optuna.trial.create_trial(value=1.0)
        )
    with one_line(UsageError, "the study 'toy' was not made by this command; give another --name"):
        swept(tmp_path, POINT, storage=url)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database " * 100)
    with one_line(StoreError, "cannot use the storage sqlite:.*notes.txt: file is not a database"):
        swept(tmp_path, POINT, storage=f"sqlite:///{tmp_path / 'notes.txt'}")


def test_a_database_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "sweep.db"
    swept(tmp_path, POINT, storage=f"sqlite:///{path}")
    read_only = f"sqlite:///file:{path}?mode=ro&uri=true"
    with one_line(StoreError, "cannot use the storage .*: attempt to write a readonly database"):
        swept(tmp_path, POINT, storage=read_only)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of a disk that is full or read-only: root writes everywhere."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with one_line(StoreError, f"cannot write results to .*: {os.strerror(number)}"):
        swept(tmp_path, POINT)
    monkeypatch.undo()
    assert swept(tmp_path, POINT)[0]


@pytest.mark.slow
def test_a_disk_that_fills_up_under_the_database_loses_nothing(tmp_path: Path) -> None:
    config = Sweep("toy", grid=("toy.inner.steps=1,2,3",), seeds=8, out=tmp_path)
    queue.quiet()
    cells = command.one_seed(toy.cells("default"))
    plan = command.planned(config, cells, "default")
    said: list[str] = []
    with queue.connected(f"sqlite:///{tmp_path / 'sweep.db'}", 15) as storage:
        study = queue.study_of(storage, "toy", plan, True, "none")
        queue.replenish(study, plan, queue.Silence(storage))
        pages = []

        @sqlalchemy.event.listens_for(storage.engine, "connect")
        def few(connection: Any, record: Any) -> None:
            pages[:] = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count={pages[0] + 1}")

        storage.engine.dispose()
        store = Store(tmp_path / "cells", {}).open()
        with pytest.raises(StoreError, match=r"^the storage stayed away for 0 s: database or disk is full$"):
            Worker(study, storage, plan, cells, store, said.append, patience=0.0).run()
        assert "the storage is away (database or disk is full); trying again for 0 s" in said
        sqlalchemy.event.remove(storage.engine, "connect", few)
        storage.remove_session()
        storage.engine.dispose()
        done = queue.count(study, plan).done
    assert 0 < done < 24
    fine, said_, rows = swept(tmp_path, *config.grid, seeds=8, storage=f"sqlite:///{tmp_path / 'sweep.db'}")
    assert fine and "24 of 24 trials complete" in said_ and len(rows) == 48


def test_who_has_the_table_open_keeps_what_it_was(tmp_path: Path) -> None:
    swept(tmp_path, "toy.inner.steps=1,2", seeds=1)
    with (tmp_path / "sweeps/toy/results.csv").open(newline="") as held:
        assert len(swept(tmp_path, "toy.inner.steps=1,2", seeds=1, any_code=True)[2]) == 4
        assert len(list(csv.DictReader(held))) == 4


def test_an_objective_that_the_cells_do_not_have(tmp_path: Path) -> None:
    """Said after the first cell; before it, where one of the row is stored."""
    toy.STEPS.clear()
    grid = ("toy.kind=trained", "toy.inner.rate=0.1,0.2")
    with one_line(UsageError, "unknown objective 'fidelty'; did you mean 'final'"):
        swept(tmp_path, *grid, objective="fidelty", methods=("hybrid",))
    assert toy.STEPS == [0.1] * 4
    with one_line(UsageError, "unknown objective 'finale'; did you mean 'final'"):
        swept(tmp_path, *grid, objective="finale", name="again", methods=("hybrid",))
    assert toy.STEPS == [0.1] * 4


def test_runs_without_a_value_of_the_objective_are_named_at_the_end(tmp_path: Path) -> None:
    fine, said, rows = swept(tmp_path, "toy.kind=plain,trained", seeds=1, objective="level", methods=("hybrid",))
    assert not fine and len(rows) == 1 and "NoValue: toy hybrid, seed 0, has no level" in said


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.running() as found:
        yield found


@pytest.mark.slow
def test_a_password_that_is_wrong(server: postgres.Server, tmp_path: Path) -> None:
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    rules = server.folder / "data" / "pg_hba.conf"
    rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    server.run("pg_ctl", "-D", str(server.folder / "data"), "reload")
    url = f"postgresql+psycopg://guarded:wrong@127.0.0.1:{server.port}/postgres"
    with one_line(StoreError, r"guarded:\*\*\*@127.*password authentication failed for user"):
        swept(tmp_path, POINT, storage=url)


@pytest.mark.slow
def test_a_server_that_is_down_or_gone(server: postgres.Server, tmp_path: Path) -> None:
    assert swept(tmp_path, POINT, storage=server.url)[0]
    server.stop()
    try:
        with one_line(StoreError, "cannot use the storage postgresql.*: connection .*refused"):
            swept(tmp_path, POINT, storage=server.url)
    finally:
        server.start()
    assert "2 of 2" in swept(tmp_path, POINT, storage=server.url, status=True)[1]


@pytest.mark.slow
def test_a_host_that_does_not_answer(tmp_path: Path) -> None:
    if reason := postgres.missing():
        pytest.skip(reason)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with one_line(StoreError, "cannot use the storage postgresql.*: .*timeout"):
            swept(tmp_path, POINT, storage=f"postgresql+psycopg://me@127.0.0.1:{port}/postgres")
