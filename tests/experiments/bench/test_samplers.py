"""The benchmark of the samplers runs small, and says of every measure what it found and whether that is enough."""

import json
from pathlib import Path
from typing import get_args

import pytest

from experiments.__main__ import main
from experiments.bench.samplers import Measure, _row, table


@pytest.mark.slow
def test_smoke_run_measures_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as in conftest.py, for the process of its own
    assert main(["bench-samplers", "--smoke", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "bench-samplers" / "summary.json").read_text())
    measures = [row["measure"] for row in found["rows"]]
    assert set(measures) == set(get_args(Measure))
    assert all(row["value"] is None or row["value"] > 0 for row in found["rows"] if row["measure"] != "bifurcation")
    memory = next(row for row in found["rows"] if row["name"].endswith("memory"))
    assert memory["value"] < 4 and memory["met"]
    assert "| implicit |" in capsys.readouterr().out


def test_rows_compare_in_the_direction_of_their_measure() -> None:
    rows = [_row("a", "", 2.0, "x", 1.5, least, "") for least in (True, False)]
    rows += [_row("a", "", None, "", 1.5, True, ""), _row("a", "", 1.0, "s", None, True, "")]
    assert [row["met"] for row in rows] == [True, False, None, None]
    text = table({"rows": rows})
    assert "MISSED" in text and "not measured" in text
