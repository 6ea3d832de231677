"""The benchmark of a sweep's machinery."""

import json
from pathlib import Path

from experiments.__main__ import main
from experiments.bench.sweeps import BOUND


def test_smoke_run_times_every_trial(tmp_path: Path) -> None:
    assert main(["bench-sweeps", "--smoke", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "bench-sweeps" / "summary.json").read_text())
    assert found["trials"] == 4 and 0 < found["seconds"] <= found["worst"]
    assert found["met"] == (found["seconds"] <= BOUND)
    assert "on PostgreSQL\n" in (tmp_path / "bench-sweeps" / "summary.md").read_text()  # no verdict: it was SQLite
