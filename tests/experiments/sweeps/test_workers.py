"""Workers that are killed, a server that goes away: every point and seed is complete exactly once, nothing is lost."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from experiments.sweeps import queue
from tests.experiments.sweeps import postgres

ROOT = Path(__file__).resolve().parents[3]
GRID = (
    "lowbit.sampler=anneal,tabu",
    "lowbit.sampler.length=10,20,30",
    "lowbit.num_reads=4,8",
    "lowbit.num_rounds=1,2",
)
COMMAND = [sys.executable, "-m", "experiments", "sweep", "table1", "--only", "digits-patch-1bit", "--methods", "hybrid"]
KILLS = 10


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> Iterator[postgres.Server | None]:
    if request.param == "sqlite":
        yield None
        return
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.running() as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_workers_and_a_server_that_restarts_lose_nothing(server: postgres.Server | None, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sweep.db'}" if server is None else server.url
    out = tmp_path / "results"
    options = ["--grid", *GRID, "--seeds", "2", "--heartbeat", "1", "--out", str(out), "--storage", url]
    generator = random.Random(0)
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path)}  # without CIFAR-10 there, the problem is the digits
    with contextlib.ExitStack() as ended:

        def start(name: str) -> subprocess.Popen[bytes]:
            log = ended.enter_context((tmp_path / f"{name}.log").open("w"))
            command = [*COMMAND, *options]
            worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
            ended.callback(worker.wait)
            ended.callback(worker.kill)
            return worker

        steady, victim = start("steady"), start("victim")
        for kill in range(KILLS):
            time.sleep(generator.uniform(4.0, 12.0))
            assert not steady.poll(), (tmp_path / "steady.log").read_text()
            victim.kill()
            victim.wait()
            if kill == KILLS // 2 and server is not None:
                server.stop()
                time.sleep(2.0)
                server.start()
            victim = start("victim")
        for name, worker in (("steady", steady), ("victim", victim)):
            assert worker.wait(timeout=500) == 0, (tmp_path / f"{name}.log").read_text()
    queue.quiet()
    with queue.connected(url, 1) as storage:
        trials = optuna.load_study(study_name="table1", storage=storage).get_trials()
    complete = Counter(queue.task_key(trial) for trial in trials if trial.state == TrialState.COMPLETE)
    assert len(complete) == 48 and set(complete.values()) == {1}
    states = {trial.state for trial in trials}
    assert states == {TrialState.COMPLETE, TrialState.FAIL}  # kills met trials that were running
    rows = (out / "sweeps" / "table1" / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 48
