"""`tables`: from cells that others made to the same tables, with no data at hand and nothing computed."""

import json
import shutil
from pathlib import Path

import pytest

from experiments import __main__ as cli
from experiments import tables
from experiments.harness.presentation import environment
from experiments.harness.presentation.cells import Cell, Store
from tests.test_measured import marked

MAKERS = {"code": "0123456789abcdef", "device": "1 x cpu (another)", "cores": 64, "jax": "0.1"}


def made_elsewhere(folder: Path) -> Path:
    """The run of two rows of cifar10-conv, two seeds each, of which one is missing."""
    cells = [Cell("cifar10-conv", m, s, {"rate": 0.1}, lambda _: {}) for m in ("adam", "hybrid") for s in (0, 1)]
    store = Store(folder / "cells", MAKERS).open()
    for cell in cells[:3]:
        final = 85.0 + (cell.method == "hybrid") + 0.25 * cell.seed
        curve = [[10.0, final / 2], [20.0, final]]
        timed = {"seconds": 20.0, "curve": curve, "phases": {"data": 2.0, "refine": 18.0}}
        store.save(cell, {"results": {"final": final, "sampled_energies": [1.0, 2.0]}, "timed": timed})
    about = environment.environment() | {"command": "python -m experiments table1 --full", "scale": "full"}
    config = {**about, "options": {}, "cells": [cell.record() for cell in cells]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in; there is no CIFAR-10."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    return tmp_path


def test_tables_come_out_of_what_others_made(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_elsewhere(nowhere / "measured" / "conv")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert cli.main(["tables", str(folder), "--out", str(nowhere / "out")]) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    made = nowhere / "out" / "tables" / "conv"
    summary, text = json.loads((made / "summary.json").read_text()), (made / "summary.md").read_text()
    compared = {(one["baseline"], one["method"]): one for one in summary["comparisons"]}
    assert compared["adam", "hybrid"]["gain"]["mean"] == pytest.approx(1.0)
    assert summary["environment"]["command"] == "python -m experiments table1 --full"
    shown = capsys.readouterr().out
    for said in (
        "missing: cifar10-conv hybrid, seed 1",
        "3 of 3 cells by code 0123456789abcdef, cores 64, device 1 x cpu (another)",
    ):
        assert said in text and said in shown
    assert {path.name for path in made.glob("*.png")} == {"curves.png", "phases.png", "energies.png"}
    assert cli.main(["report", str(made), "--out", str(nowhere / "page.html")]) == 0


def test_mistakes_are_one_line(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_elsewhere(nowhere / "conv")
    assert cli.main(["tables", str(nowhere)]) == 2
    assert cli.main(["tables", str(folder), "--out", str(folder)]) == 2
    shutil.rmtree(folder / "cells")
    (folder / "cells").mkdir()
    assert cli.main(["tables", str(folder), "--out", str(nowhere / "out")]) == 1
    (folder / "config.json").write_text("{}")
    assert cli.main(["tables", str(folder), "--out", str(nowhere / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("error: ") for line in lines)


def test_a_table_in_a_page_is_found_and_compared(nowhere: Path) -> None:
    made, _ = tables.rebuilt(made_elsewhere(nowhere / "conv"))
    rows = made.tables[0]
    lines = rows.markdown().split("\n\n", 1)[1]
    page = f"# Results\n\n<!-- measured/conv: Rows -->\n{lines}\nText.\n"
    ((name, title, shown),) = marked(page)
    assert (name, title) == ("conv", rows.title)
    assert shown == lines
    assert "| cifar10-conv | hybrid | - | 1 | 86.0 | 20.0 |" in shown
