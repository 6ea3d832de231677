"""Searches that are interrupted, resumed and shared by two workers: as many trials as asked, none twice, none lost."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest

from experiments.sweeps import queue, worker
from tests.experiments.sweeps.test_command import swept

GRID = ("toy.inner.rate=0.1..0.9", "toy.inner.steps=1..1000")
TRIALS = 12


def points(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["toy.inner.rate"], row["toy.inner.steps"]) for row in rows))


@pytest.mark.slow
@pytest.mark.parametrize("search", ["random", "tpe"])
def test_an_interrupted_search_goes_on_with_two_workers(
    search: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = partial(swept, tmp_path, *GRID, search=search, trials=TRIALS)
    ran: list[str] = []
    run_cells = worker.run_cells

    def interrupted(cells: Any, *args: Any) -> Any:
        ran.append(cells[0].key())
        if len(ran) == 4 * 4 + 2:  # in the middle of the fifth trial: two seeds, two rows
            raise KeyboardInterrupt
        return run_cells(cells, *args)

    monkeypatch.setattr(worker, "run_cells", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    before = points(run(status=True)[2])
    assert len(before) == 4
    with ThreadPoolExecutor(2) as pool:
        ends = [end.result() for end in [pool.submit(run) for _ in range(2)]]
    fine, _, rows = run(status=True)
    assert fine and all(end[0] for end in ends)
    assert len(points(rows)) == TRIALS and len(rows) == TRIALS * 2 * 2 and set(before) <= set(points(rows))
    stored = {path.stem for path in (tmp_path / "toy" / "cells").glob("*.json")}
    # The cell that was finished when the fifth trial was interrupted is of no complete one; all others are.
    assert len(stored) == len(rows) + 1 and stored <= set(ran)
    with queue.connected(f"sqlite:///{tmp_path / 'sweeps/toy/sweep.db'}", 1) as storage:
        trials = optuna.load_study(study_name="toy", storage=storage).get_trials()
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert len(complete) == TRIALS == len({json.dumps(trial.params) for trial in complete})
    assert not [trial for trial in trials if not trial.state.is_finished()]


def test_a_trial_that_is_one_too_many_gives_way(tmp_path: Path) -> None:
    """Two workers that asked at once, while one trial was left."""
    swept(tmp_path, *GRID, search="random", trials=3)
    url = f"sqlite:///{tmp_path / 'sweeps/toy/sweep.db'}"
    with queue.connected(url, 1) as storage:
        study = optuna.load_study(study_name="toy", storage=storage)
        plan: Any = type("Plan", (), {"trials": 4})
        fourth, fifth = study.ask(), study.ask()
        assert not queue.surplus(study, fourth, plan) and queue.surplus(study, fifth, plan)
        study.tell(fourth, state=optuna.trial.TrialState.FAIL)  # its worker died: another takes its place
        assert not queue.surplus(study, fifth, plan)


def test_an_error_of_a_worker_that_then_died_is_counted_once(tmp_path: Path) -> None:
    """It died after it had stored what its cells raised, and before it told."""
    queue.quiet()
    with queue.connected(f"sqlite:///{tmp_path / 'sweep.db'}", 1) as storage:
        study = optuna.create_study(storage=storage)
        lost = study.ask()
        lost.set_user_attr("task", "one")
        lost.set_user_attr(queue.ERROR, "raised")
        study.tell(lost, state=optuna.trial.TrialState.FAIL)
        put_in_again = storage.get_heartbeat_stale_trial_callback()
        assert put_in_again is not None
        put_in_again(study, study.get_trials()[0])
        again = study.ask()
        assert again.number == 1 and again.user_attrs == {"task": "one"}
        study.tell(again, state=optuna.trial.TrialState.FAIL)  # it gave way
        assert [trial.number for trial in queue.broken(study)] == [0]
