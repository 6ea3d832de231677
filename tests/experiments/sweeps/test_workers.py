"""Workers that are killed, a server that goes away: every point and seed is complete exactly once, nothing is lost."""

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
GRID = ("toy.inner.rate=0.1,0.2,0.3,0.4", "toy.inner.steps=1,2,3", "toy.sampler=anneal,tabu")
COMMAND = [sys.executable, "-m", "tests.experiments.sweeps.toy", "toy", "--seconds", "0.3"]
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
@pytest.mark.timeout(600)
def test_killed_workers_and_a_server_that_restarts_lose_nothing(server: postgres.Server | None, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sweep.db'}" if server is None else server.url
    out = tmp_path / "results"
    options = ["--config.grid", *GRID, "--config.seeds", "2", "--config.heartbeat", "1", "--config.out", str(out)]
    command = [*COMMAND, *options, "--config.storage", url]
    generator = random.Random(0)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    steady, victim = start(), start()
    for kill in range(KILLS):
        time.sleep(generator.uniform(2.0, 5.0))
        victim.kill()
        victim.communicate()
        if kill == KILLS // 2 and server is not None:
            server.stop()
            time.sleep(2.0)
            server.start()
        victim = start()
    for worker in (steady, victim):
        said = worker.communicate(timeout=200)[0]
        assert worker.returncode == 0, said
    queue.quiet()
    with queue.connected(url, 1) as storage:
        trials = optuna.load_study(study_name="toy", storage=storage).get_trials()
    complete = Counter(queue.task_key(trial) for trial in trials if trial.state == TrialState.COMPLETE)
    assert len(complete) == 48 and set(complete.values()) == {1}
    assert not [trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    rows = (out / "sweeps" / "toy" / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 48
