"""Cells: stored whole or not at all, computed once, resumable after anything."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from experiments.harness.presentation.cells import Cell, Store, StoreError, plain, run_cells, write_atomic

MAKERS = {"code": "abc", "device": "cpu"}


@dataclass(frozen=True)
class Settings:
    steps: int = 3
    rate: float = 0.1


def outcome(final: float = 50.0, **results: float) -> dict:
    timed = {"seconds": 2.0, "curve": [[1.0, 40.0], [2.0, final]], "phases": {"data": 0.5, "refine": 1.5}}
    return {"results": {"final": final, **results}, "timed": timed}


def cell(seed: int, run=None, **changes) -> Cell:
    made = Cell("cifar10", "adam", seed, Settings(), run or (lambda progress: outcome(50.0 + seed)))
    return replace(made, **changes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cells", MAKERS).open()


def test_a_stored_cell_is_not_computed_again(store: Store) -> None:
    calls: list[int] = []

    def cells() -> list[Cell]:
        return [cell(s, lambda progress, s=s: calls.append(s) or outcome(50.0 + s)) for s in range(3)]

    first = run_cells(cells(), store)
    second = run_cells(cells(), store)
    assert calls == [0, 1, 2]
    assert first == second
    assert [r["outcome"]["results"]["final"] for r in second] == [50.0, 51.0, 52.0]
    assert second[0]["config"] == {"class": "Settings", "steps": 3, "rate": 0.1}


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"config": Settings(steps=4)}, {"method": "hybrid"}, {"problem": "digits"}]
)
def test_another_key_is_another_cell(store: Store, changes: dict) -> None:
    run_cells([cell(0)], store)
    assert store.load(cell(0)) is not None
    assert store.load(replace(cell(0), **changes)) is None


def test_cells_made_by_other_code_count_only_on_request(store: Store) -> None:
    run_cells([cell(0)], store)
    newer = Store(store.folder, {**MAKERS, "code": "def"})
    assert newer.load(cell(0)) is None
    assert replace(newer, any_code=True).load(cell(0)) is not None
    assert Store(store.folder, {**MAKERS, "device": "gpu"}, any_code=True).load(cell(0)) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"outcome": {}, "made_by": {}}', '{"outcome": 3}'])
def test_a_damaged_file_is_computed_again(store: Store, damage: str) -> None:
    run_cells([cell(0)], store)
    (store.folder / f"{cell(0).key()}.json").write_text(damage)
    assert store.load(cell(0)) is None
    assert run_cells([cell(0)], store)[0]["outcome"] == outcome(50.0)


def test_interrupted_runs_keep_what_is_finished(store: Store) -> None:
    def stop(progress):
        progress(0.5, "half way")
        raise KeyboardInterrupt

    cells = [cell(0), cell(1), cell(2, stop)]
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, store)
    assert [store.load(c) is not None for c in cells] == [True, True, False]
    assert len(run_cells([cell(0), cell(1), cell(2)], store)) == 3


def test_two_cells_with_one_key_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="share the key"):
        run_cells([cell(0), cell(0)], store)


def test_progress_is_one_only_when_stored(store: Store) -> None:
    heard: list[tuple[float, bool]] = []

    def run(progress):
        progress(1.5, "")
        return outcome()

    run_cells([cell(0, run)], store, lambda c, fraction, text: heard.append((fraction, store.load(c) is not None)))
    assert heard == [(0.0, False), (0.999, False), (1.0, True)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"results": {"final": float("nan")}, "timed": outcome()["timed"]}, r"has nan at /results/final"),
        ({"results": {}, "timed": outcome()["timed"]}, "lacks 'final'"),
        ({"results": {"final": 1.0}}, "lacks 'timed'"),
        ({"results": {"final": 1.0}, "timed": {**outcome()["timed"], "seconds": 9.0}}, "add up to 2.00 s"),
        ({"results": {"final": 1.0}, "timed": {**outcome()["timed"], "curve": [[1.0]]}}, "pairs"),
        ({"results": {"final": 1.0, "w": np.zeros(3)}, "timed": outcome()["timed"]}, "ndarray cannot"),
    ],
)
def test_a_bad_outcome_names_its_cell_or_value(store: Store, broken: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_cells([cell(0, lambda progress: broken)], store)
    assert store.load(cell(0)) is None


def test_a_folder_under_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write results to .*file/cells: Not a directory"):
        Store(tmp_path / "file" / "cells", MAKERS).open()


def test_a_read_only_folder_is_one_clear_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        store.open()


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_full_disk_keeps_the_finished_cells(store: Store, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    run_cells([cell(0)], store)
    before = sorted(p.name for p in store.folder.iterdir())

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(call, full)
    with pytest.raises(StoreError, match="No space left on device"):
        run_cells([cell(0), cell(1)], store)
    assert sorted(p.name for p in store.folder.iterdir()) == before
    monkeypatch.undo()
    assert len(run_cells([cell(0), cell(1)], store)) == 2


def test_write_atomic_leaves_the_old_text_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_plain_keeps_values_and_refuses_objects() -> None:
    value = {"a": Settings(), "b": (1, np.float32(0.5)), "c": Path("x")}
    expected = {"a": {"class": "Settings", "steps": 3, "rate": 0.1}, "b": [1, 0.5], "c": "x"}
    assert plain(value) == expected
    with pytest.raises(ValueError, match="function cannot"):
        plain({"f": lambda: 0})


PROGRAM = """
import sys, time
from pathlib import Path
from experiments.harness.presentation.cells import Cell, Store, run_cells

def run(seed):
    def steps(progress):
        for step in range(20):
            time.sleep(0.002)
            progress(step / 20, "")
        timed = {"seconds": 1.0, "curve": [], "phases": {"other": 1.0}}
        return {"results": {"final": (seed * 37 % 11) / 7, "text": "x" * 20000}, "timed": timed}
    return steps

cells = [Cell("p", "m", seed, {"steps": 20}, run(seed)) for seed in range(12)]
run_cells(cells, Store(Path(sys.argv[1]), {"code": "1"}).open(), lambda c, f, t: f == 1.0 and print(c.seed, flush=True))
"""


def test_killed_at_any_moment_and_restarted_gives_the_same_numbers(tmp_path: Path) -> None:
    def start(folder: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE, text=True)

    def finals(folder: Path) -> dict[str, str]:
        return {p.name: json.dumps(json.loads(p.read_text())["outcome"]) for p in sorted(folder.glob("p--*.json"))}

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(whole).communicate(timeout=60)
    kept = 0
    for delay in (0.003, 0.017, 0.029, 0.041):
        process = start(killed)
        assert process.stdout is not None
        process.stdout.readline()  # a first cell is stored, or kept from before
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert len(finals(killed)) >= kept
        kept = len(finals(killed))
        assert finals(killed).items() <= finals(whole).items()
    assert 0 < kept < 12
    start(killed).communicate(timeout=60)
    assert finals(killed) == finals(whole)
    assert len(finals(whole)) == 12


def resuming(bodies: list) -> Cell:
    """A cell that writes its steps into its folder; bodies: what happens after each, and what they found."""

    def run(progress: object, folder: Path | None) -> dict:
        found = sorted(path.name for path in folder.iterdir()) if folder and folder.exists() else []
        ends, seen = bodies[0]
        seen.append(None if folder is None else found)
        if folder is not None:
            folder.mkdir(exist_ok=True)
            (folder / f"step-{len(found)}").touch()
        if ends is not None:
            raise ends
        return {"results": {"final": 1.0}, "timed": {"seconds": 1.0, "curve": [], "phases": {"refine": 1.0}}}

    return Cell("p", "m", 0, {}, run, resumes=True)


def test_a_cell_finds_what_it_left_when_it_was_killed(tmp_path: Path) -> None:
    store, seen = Store(tmp_path, {"code": "a"}).open(), []

    def run(ends: BaseException | None, store: Store = store) -> None:
        with pytest.raises(type(ends)) if ends else contextlib.nullcontext():
            run_cells([resuming([(ends, seen)])], store)

    run(KeyboardInterrupt())
    run(OSError("no space"))
    run(ValueError("a mistake"))  # which would be found again
    run(KeyboardInterrupt())
    run(KeyboardInterrupt(), Store(tmp_path, {"code": "b"}))
    run(KeyboardInterrupt(), Store(tmp_path, {"code": "a"}, any_code=True))
    with store.unfinished(resuming([])):  # another process
        run(KeyboardInterrupt(), Store(tmp_path, {"code": "b"}))
    one, two = ["step-0"], ["step-0", "step-1"]
    assert seen == [[], one, two, [], [], one, None]
    run(None)
    assert [path.name for path in tmp_path.iterdir()] == [f"{resuming([]).key()}.json"]
