"""The command line: names, one clear line for each mistake, and Table I from its cells to its files."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import __main__ as cli
from experiments import table1
from experiments.data.unavailable import DataUnavailable
from experiments.harness.presentation.cells import Cell, Comparison


def outcome(final: float) -> dict:
    timed = {"seconds": 2.0, "curve": [[1.0, final / 2], [2.0, final]], "phases": {"compile": 0.5, "refine": 1.5}}
    return {"results": {"final": final}, "timed": timed}


def part(
    fail_at: int | None = None,
    error: type[BaseException] | BaseException = KeyboardInterrupt,
    calls: list | None = None,
):
    """A stand-in for a module of cells: two methods, two seeds."""

    def run(index: int, final: float):
        def body(progress):
            if calls is not None:
                calls.append(index)
            if index == fail_at:
                raise error
            progress(0.5, "step 1")
            return outcome(final)

        return body

    def cells(scale: str) -> list[Cell]:
        plan = [("adam", 0), ("hybrid", 0), ("adam", 1), ("hybrid", 1)]
        return [
            Cell("digits", method, seed, {"scale": scale}, run(i, 50.0 + i), cost=1.0, data="digits (embedded)")
            for i, (method, seed) in enumerate(plan)
        ]

    def comparisons(scale: str) -> list[Comparison]:
        return [Comparison("digits", "adam", "hybrid", ("adam",), (("gain", ">=", 3.0),))]

    return SimpleNamespace(cells=cells, comparisons=comparisons)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    def use(*chosen) -> None:
        monkeypatch.setattr(table1, "_parts", lambda: chosen)

    return use


def test_table1_writes_summary_tables_figures_and_config(tmp_path: Path, parts, capsys) -> None:
    parts(part())
    assert cli.main(["table1", "--smoke", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "table1"
    summary = json.loads((folder / "summary.json").read_text())
    assert [(r["method"], r["seeds"]) for r in summary["rows"]] == [("adam", [0, 1]), ("hybrid", [0, 1])]
    assert summary["comparisons"][0]["gain"]["mean"] == pytest.approx(1.0)
    config = json.loads((folder / "config.json").read_text())
    assert config["scale"] == "smoke" and len(config["cells"]) == 4
    assert {"versions", "device", "commit"} <= config.keys()
    assert "MISSED" in (folder / "summary.md").read_text()
    assert (folder / "curves.png").exists() and (folder / "phases.png").exists()
    shown = capsys.readouterr().out
    assert "digits (embedded)" in shown and "MISSED" in shown and "[4/4]" in shown


def test_interrupted_table1_keeps_rows_and_resumes(tmp_path: Path, parts, capsys) -> None:
    arguments = ["table1", "--out", str(tmp_path)]
    parts(part(fail_at=2))
    assert cli.main(arguments) == 130
    assert "2 of 4 runs are finished" in " ".join(capsys.readouterr().out.split())
    summary = json.loads((tmp_path / "table1/summary.json").read_text())
    assert [r["seeds"] for r in summary["rows"]] == [[0], [0]]
    calls: list[int] = []
    parts(part(calls=calls))
    assert cli.main(arguments) == 0
    assert calls == [2, 3]
    resumed = json.loads((tmp_path / "table1/summary.json").read_text())
    parts(part())
    assert cli.main(["table1", "--out", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again/table1/summary.json").read_text())
    assert resumed["results_digest"] == again["results_digest"]


def test_an_error_in_a_cell_keeps_rows_and_is_not_hidden(tmp_path: Path, parts) -> None:
    parts(part(fail_at=1, error=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        cli.main(["table1", "--out", str(tmp_path)])
    assert len(json.loads((tmp_path / "table1/summary.json").read_text())["rows"]) == 1


def test_fresh_computes_everything_again(tmp_path: Path, parts) -> None:
    calls: list[int] = []
    parts(part(calls=calls))
    for extra in ([], [], ["--fresh"]):
        assert cli.main(["table1", "--out", str(tmp_path), *extra]) == 0
    assert calls == [0, 1, 2, 3, 0, 1, 2, 3]


def test_results_that_cannot_be_written_are_one_line(tmp_path: Path, parts, capsys) -> None:
    parts(part())
    (tmp_path / "file").write_text("")
    assert cli.main(["table1", "--out", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: cannot write results to \S+: Not a directory\n", error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smoke", "--full"], "exclude each other"),
        (["--only", "cifr"], "unknown problem 'cifr'; did you mean 'digits'? There are digits"),
        (["--methods", "adamw"], "unknown method 'adamw'; did you mean 'adam'? There are adam, hybrid"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, parts, capsys, options: list[str], message: str) -> None:
    parts(part())
    assert cli.main(["table1", "--out", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_bench_build_writes_its_rows(tmp_path: Path, capsys) -> None:
    assert cli.main(["bench-build", "--smoke", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "bench-build/summary.json").read_text())
    assert [r["method"] for r in summary["rows"][:3]] == ["gram matmul", "qjax", "dimod"]
    assert summary["rows"][1]["bits"] == 128 and summary["rows"][1]["seconds"] > 0
    assert "gram matmul" in capsys.readouterr().out


def test_bench_bqm_loses_nothing(tmp_path: Path) -> None:
    assert cli.main(["bench-bqm", "--smoke", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "bench-bqm/summary.json").read_text())["exact"] is True


def test_unreadable_data_is_one_line(tmp_path: Path, parts, capsys) -> None:
    def unreadable(progress):
        raise DataUnavailable("CIFAR-10: cannot read /data/cifar10: Permission denied")

    broken = SimpleNamespace(
        cells=lambda scale: [Cell("cifar10", "adam", 0, {}, unreadable)], comparisons=lambda scale: []
    )
    parts(broken)
    assert cli.main(["table1", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: CIFAR-10: cannot read /data/cifar10: Permission denied\n"


def test_a_missing_package_is_one_line(tmp_path: Path, parts, capsys) -> None:
    missing = ModuleNotFoundError("No module named 'dwave'", name="dwave")
    parts(part(fail_at=0, error=missing))
    assert cli.main(["table1", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: No module named 'dwave': this experiment needs")
    parts(part(fail_at=0, error=ModuleNotFoundError("No module named 'qjax.x'", name="qjax.x")))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["table1", "--out", str(tmp_path)])


def test_only_smoke_runs_compile_with_less_optimisation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    cli.quick_compilation(["table1", "--full"])
    assert os.environ["XLA_FLAGS"] == "--xla_force_host_platform_device_count=8"
    cli.quick_compilation(["table1", "--smoke"])
    assert os.environ["XLA_FLAGS"].endswith(" --xla_force_host_platform_device_count=8")
    assert "--xla_backend_optimization_level=0" in os.environ["XLA_FLAGS"]
