"""What a sweep's machinery costs a trial: to take it, check it, store an empty cell, tell it, count the others."""

import itertools
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments.harness.presentation.cells import Cell, Progress, Store
from experiments.sweeps import queue
from experiments.sweeps.queue import Plan
from experiments.sweeps.space import Axis
from experiments.sweeps.worker import Worker

BOUND = 0.05


@dataclass(frozen=True)
class BenchSweeps:
    """Seconds a trial beside its cells: `python -m experiments bench-sweeps --storage URL`.

    Some ten seconds. The bound of 50 ms is for PostgreSQL on the same machine.
    """

    storage: str = ""
    """SQLAlchemy's address of a database that may get a new study; SQLite in a temporary folder if not given."""
    values: tuple[int, int, int] = (5, 5, 4)
    """Of the three fields: their product is the number of trials."""


SMOKE: dict[str, Any] = {"values": (2, 2, 1)}


def bench_sweeps(config: BenchSweeps) -> dict[str, Any]:
    """{"config", "seconds": median of a trial, "worst", "trials", "bound", "met"}."""
    queue.quiet()
    moments: list[float] = []  # at which each cell ran, and the end
    axes = tuple(Axis(f"field{place}", tuple(range(count))) for place, count in enumerate(config.values))
    total = config.values[0] * config.values[1] * config.values[2]
    plan = Plan("nothing", axes, (0,), "grid", total, "final", {})
    name = f"bench-sweeps {time.time_ns()}"
    with tempfile.TemporaryDirectory() as folder:
        url = config.storage or f"sqlite:///{folder}/sweep.db"
        with queue.connected(url, heartbeat=15) as storage:
            study = queue.study_of(storage, name, plan, True, "none")
            store = Store(Path(folder) / "cells", {}).open()
            first = _cell(moments, {axis.name: 0 for axis in axes}, 0)
            queue.replenish(study, plan, queue.Silence(storage))
            Worker(study, storage, plan, [first], store, lambda line: None).run()
            moments.append(time.perf_counter())
    took = [after - before for before, after in itertools.pairwise(moments)]
    median = statistics.median(took)
    found = {"seconds": median, "worst": max(took), "trials": len(took), "bound": BOUND, "met": median <= BOUND}
    return {"config": asdict(config) | {"storage": queue.shown(url).partition(":")[0]}, **found}


def table(found: dict[str, Any]) -> str:
    """The figures in one line."""
    storage = found["config"]["storage"]
    verdict = f": {'met' if found['met'] else 'MISSED'}" if storage.startswith("postgresql") else ""
    return (
        f"{storage}: {1e3 * found['seconds']:.1f} ms a trial (median of {found['trials']}, worst "
        f"{1e3 * found['worst']:.0f} ms); at most {1e3 * found['bound']:.0f} on PostgreSQL{verdict}"
    )


def _cell(moments: list[float], config: dict[str, Any], seed: int) -> Cell:
    def run(progress: Progress) -> dict[str, Any]:
        moments.append(time.perf_counter())
        return {"results": {"final": 0.0}, "timed": {"seconds": 0.0, "phases": {}, "curve": []}}

    return Cell("nothing", "none", seed, config, run, varied=partial(_cell, moments))
