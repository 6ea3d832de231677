"""Folders of finished results, and what is stored in them."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.harness.presentation.cells import StoreError, UsageError, named
from experiments.report.shapes import AGAIN, CONFIG, RECORD, SUMMARY, SWEEP, checked

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """An experiment made of cells: its summary, and the records of the cells that the summary is about."""

    folder: Path
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]] = field(repr=False)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def environment(self) -> Mapping[str, Any]:
        return self.summary["environment"]


@dataclass(frozen=True)
class Swept:
    """A sweep: its plan, and one row per cell."""

    folder: Path
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]
    rows: Sequence[Row] = field(repr=False)

    @property
    def name(self) -> str:
        return f"sweeps/{self.folder.name}"

    @property
    def axes(self) -> list[str]:
        return [name for name, _, _ in self.plan["axes"]]

    @property
    def objective(self) -> str:
        return str(self.plan["objective"])

    @property
    def sign(self) -> int:
        """1 where more of the objective is better, else -1."""
        return 1 if self.plan["direction"] == "maximize" else -1


def collected(paths: Sequence[Path], say: Callable[[str], None]) -> list[Run | Swept]:
    """All finished results in these folders and directly below them; what is left out is said, one line each.

    Errors: UsageError for a folder without results, StoreError for results that cannot be read.
    """
    found: dict[Path, Run | Swept] = {}
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder: give one of finished results, as results/table1")
        if _is_run(path) or _is_sweep(path):
            found[path.resolve()] = _read(path)
            continue
        below = [inner for inner in _below(path) if _is_run(inner) or _is_sweep(inner)]
        before = len(found)
        for inner in below:
            try:
                found[inner.resolve()] = _read(inner)
            except UsageError as error:
                say(f"left out: {error}")
        if len(found) == before:
            raise UsageError(f"no finished results of table1, hardware or a sweep in {path}")
    return list(found.values())


def _below(folder: Path) -> Iterator[Path]:
    for parent in (folder, folder / "sweeps"):
        if parent.is_dir():
            yield from sorted(inner for inner in parent.iterdir() if inner.is_dir())


def _is_run(folder: Path) -> bool:
    return (folder / "config.json").exists() and (folder / "cells").is_dir()


def _is_sweep(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("results.csv", "sweep.json", "sweep.db"))


def _read(folder: Path) -> Run | Swept:
    return _read_run(folder) if _is_run(folder) else _read_sweep(folder)


def _read_run(folder: Path) -> Run:
    if not (folder / "summary.json").exists():
        raise UsageError(f"{folder} has no summary.json: nothing of it is finished; its command goes on with it")
    summary, config = _json(folder / "summary.json"), _json(folder / "config.json")
    if isinstance(summary, dict) and "against_peers" in summary:
        raise UsageError(f"{folder} is about peers at equal wall-clock: its summary.md has the tables")
    checked(folder / "summary.json", summary, SUMMARY)
    checked(folder / "config.json", config, CONFIG)
    rows = {(row["problem"], row["method"]) for row in summary["rows"]}
    records = []
    for identity in config["cells"]:
        path = folder / "cells" / f"{named(identity).key()}.json"
        if (identity["problem"], identity["method"]) in rows and path.exists():
            records.append(_record(path))
    if not records:
        raise StoreError(f"{folder / 'cells'} has none of the cells that config.json names: {AGAIN}")
    return Run(folder, summary, config, records)


def _record(path: Path) -> Mapping[str, Any]:
    record = _json(path)
    checked(path, record, RECORD)
    return record


def _read_sweep(folder: Path) -> Swept:
    table, about = folder / "results.csv", folder / "sweep.json"
    if not table.exists():
        raise UsageError(f"{folder} has no results.csv: no trial is complete; its command goes on with it")
    if not about.exists():
        raise StoreError(f"{folder} has no sweep.json beside results.csv: {AGAIN}, with --status")
    content = _json(about)
    checked(about, content, SWEEP)
    plan = content["plan"]
    try:
        with table.open(newline="") as file:
            rows: list[Row] = [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {table}: {error}") from None
    plan, rows = _apart(plan, rows)
    axes = [name for name, _, _ in plan["axes"]]
    for row in rows:
        checked(table, row, dict.fromkeys([*axes, "problem", "method", "seed", "seconds", plan["objective"]]))
        row.update({name: "none" if row[name] is None else str(row[name]) for name in axes})
    if not rows:
        raise UsageError(f"{table} has no rows: no trial is complete")
    return Swept(folder, plan, content["environment"], rows)


def _apart(plan: Row, rows: list[Row]) -> tuple[Row, list[Row]]:
    """A field that has the name of what every row has is called "NAME (field)", so that the latter keeps its name."""
    common = ("problem", "method", "seed", "seconds", plan["objective"])
    names = {name: f"{name} (field)" for name, _, _ in plan["axes"] if name in common}
    axes = [[names.get(name, name), values, is_range] for name, values, is_range in plan["axes"]]
    cells = {f"cell_{name}": name for name in names}
    renamed = names | cells
    return {**plan, "axes": axes}, [{renamed.get(name, name): value for name, value in row.items()} for row in rows]


def _value(text: str | None) -> Any:
    if not text:
        return None
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from None
