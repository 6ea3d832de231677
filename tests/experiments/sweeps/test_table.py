"""The table of a sweep: one row a cell, its columns in one order, the numbers of the cells' files."""

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.sweeps import results
from experiments.sweeps.queue import Plan
from experiments.sweeps.space import Axis
from tests.experiments.sweeps.test_command import swept

GRID = ("toy.inner.rate=0.3,0.1", "toy.inner.steps=10,9", "toy.sampler=anneal,greedy")  # a sampler goes first
COLUMNS = [
    *("toy.sampler", "toy.inner.rate", "toy.inner.steps", "problem", "method", "sampler", "seed"),
    *("final", "length", "level", "seconds", "seconds_anneal"),
]


def test_one_row_a_cell_with_the_numbers_of_the_cells_files(tmp_path: Path) -> None:
    _, _, rows = swept(tmp_path, *GRID, methods=("hybrid",))
    assert list(rows[0]) == COLUMNS and len(rows) == 8 * 2
    found = {}
    for path in (tmp_path / "toy" / "cells").glob("*.json"):
        record = json.loads(path.read_text())
        config = record["config"]["toy"]
        key = (config["inner"]["rate"], config["inner"]["steps"], config["sampler"]["class"].lower())
        found[*key, record["method"], record["seed"]] = record["outcome"]
    assert len(found) == len(rows)
    for row in rows:
        rate, steps, sampler = float(row["toy.inner.rate"]), int(row["toy.inner.steps"]), row["toy.sampler"]
        outcome = found[rate, steps, sampler, row["method"], int(row["seed"])]
        assert float(row["final"]) == outcome["results"]["final"]
        assert row["length"] == ("" if sampler == "greedy" else str(outcome["results"]["length"]))
        assert float(row["seconds"]) == outcome["timed"]["seconds"]
        assert float(row["seconds_anneal"]) == outcome["timed"]["phases"]["anneal"]
    # Values as they were asked for, and seeds by number.
    assert [row["toy.inner.rate"] for row in rows[:8]] == ["0.3"] * 4 + ["0.1"] * 4
    assert [row["toy.inner.steps"] for row in rows[:4]] == ["10"] * 2 + ["9"] * 2


def test_the_columns_of_a_part_are_those_of_the_whole(tmp_path: Path) -> None:
    """Cells that have no length come first here."""
    _, _, rows = swept(tmp_path, "toy.sampler=greedy,anneal", "toy.inner.steps=1,2")
    _, _, part = swept(tmp_path, "toy.sampler=greedy", "toy.inner.steps=1,2", name="part")
    assert list(rows[0]) == list(part[0]) and part == rows[:8] and len(rows) == 16


@pytest.mark.parametrize("installed", [True, False])
def test_parquet_has_the_same_table_where_pyarrow_is(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec
    if installed:
        parquet = pytest.importorskip("pyarrow.parquet")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else spec(name))
    _, _, rows = swept(tmp_path, "toy.limit=5,none", "toy.inner.sizes=(1,2),(3,)", "toy.inner.deep=true", seeds=1)
    path = tmp_path / "sweeps" / "toy" / "results.parquet"
    assert path.exists() == installed and len(rows) == 8
    if installed:
        table = parquet.read_table(path)
        assert table.column_names == list(rows[0])
        shown = [{k: "" if v is None else str(v) for k, v in row.items()} for row in table.to_pylist()]
        assert shown == rows
        assert {str(table.schema.field(name).type) for name in ("toy.limit", "seed")} == {"int64"}


def test_parquet_keeps_a_column_of_several_kinds_as_text(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    results.write([{"value": value} for value in (5, "auto", None)], tmp_path)
    assert parquet.read_table(tmp_path / "results.parquet").to_pydict() == {"value": ["5", "auto", None]}
    assert (tmp_path / "results.csv").read_text() == 'value\n5\nauto\n""\n'


def test_a_field_and_a_number_of_one_name_both_have_a_column() -> None:
    """The cells of `solvers` have fields called sampler and seconds."""
    plan = Plan("solvers", (Axis("sampler", ("anneal",)), Axis("seconds", (1.0,))), (0,), "grid", 1, "seconds", {})
    cell: dict[str, Any] = {"problem": "sk", "method": "anneal+given", "sampler": "anneal+given", "seed": 0}
    cell |= {"results": {"final": 3.0}, "timed": {"seconds": 1.25, "rate": 7.0}, "phases": {"anneal": 1.25}}
    trial = type("Trial", (), {"params": {"sampler": "anneal", "seconds": 1.0}, "user_attrs": {"cells": [cell]}})
    study: Any = type("Study", (), {"get_trials": lambda self, **_: [trial]})()
    (row,) = results.rows(study, plan)
    assert row == {
        **{"sampler": "anneal", "seconds": 1.0, "problem": "sk", "method": "anneal+given"},
        **{"cell_sampler": "anneal+given", "seed": 0, "final": 3.0, "cell_seconds": 1.25, "rate": 7.0},
        "seconds_anneal": 1.25,
    }
    assert results.table([row], plan).lines == (("anneal", "1.0", "sk", "anneal+given", "1", "1.25"),)


def test_every_line_of_the_csv_is_read_back(tmp_path: Path) -> None:
    results.write([{"a": 0.1 + 0.2, "b": "x,y"}, {"a": 1e-300, "b": 'say "z"'}], tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (float(first["a"]), first["b"], float(second["a"]), second["b"]) == (0.1 + 0.2, "x,y", 1e-300, 'say "z"')


def drawn(*points: tuple[str, int], value: Any) -> tuple[list[dict[str, Any]], Plan]:
    """Rows of these points, as a search leaves them, of two methods and three seeds."""
    rows = [
        {"a": a, "b": b, "problem": "toy", "method": method, "seed": seed, "final": float(value(a, b, method, seed))}
        for a, b in points
        for method in ("greedy", "hybrid")
        for seed in range(3)
    ]
    axes = (Axis("a", ("x", "y")), Axis("b", (1, 2)))
    return rows, Plan("toy", axes, (0, 1, 2), "random", len(points), "final", {})


def test_a_point_that_was_drawn_twice_has_no_more_seeds() -> None:
    rows, plan = drawn(("x", 1), ("x", 1), ("x", 1), value=lambda a, b, method, seed: seed)
    assert results.table(rows, plan).lines == (
        ("x", "1", "toy", "greedy", "3", "1 [0, 2]"),
        ("x", "1", "toy", "hybrid", "3", "1 [0, 2]"),
    )


def test_a_field_alone_is_averaged_within_seeds_and_methods_stay_apart() -> None:
    points = (("x", 1), ("x", 2), ("y", 1), ("y", 2))
    rows, plan = drawn(
        *points, value=lambda a, b, method, seed: 100 * b + (10 * (a == "y") + seed) * (method == "hybrid")
    )
    assert results.effects(rows, plan).lines[:4] == (
        ("a", "x", "toy", "greedy", "3", "150 [150, 150]"),
        ("a", "x", "toy", "hybrid", "3", "151 [150, 152]"),
        ("a", "y", "toy", "greedy", "3", "150 [150, 150]"),
        ("a", "y", "toy", "hybrid", "3", "161 [160, 162]"),
    )
