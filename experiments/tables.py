"""The tables of finished cells, made again from a folder in which they are kept. Nothing is computed.

    python -m experiments tables experiments/measured/cifar10-conv

reads FOLDER/config.json and FOLDER/cells/ of a `table1` run, whatever code and machine made them, with no data set at
hand, and writes summary.md, summary.json and figures to OUT/tables/NAME, with what it read beside them: that folder is
one for `report`. What config.json plans and the folder lacks is said.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from experiments import table1
from experiments.harness.presentation.cells import Cell, Store, StoreError, UsageError, named, plain_errors
from experiments.harness.presentation.driver import Report, show_report, write_report
from experiments.harness.presentation.terminal import written
from experiments.report.shapes import CONFIG, ENVIRONMENT, checked

# What config.json holds beside the environment.
PLAN = ("options", "scale", "cells")


@dataclass(frozen=True)
class Tables:
    """Tables and figures of a `table1` run that is kept in a folder: of what is there, by any code, on any machine."""

    folder: tyro.conf.Positional[Path]
    """A folder with the config.json and the cells/ of a run."""
    out: Path = Path("results")
    """Results go to tables/NAME in OUT, NAME that of the folder."""


def run(config: Tables, console: Console) -> dict[str, Any]:
    """Writes and shows the tables; returns the summary. Errors: UsageError, StoreError."""
    target = (config.out / "tables" / config.folder.resolve().name).resolve()
    if target.is_relative_to(config.folder.resolve()):
        raise UsageError(f"--out {config.out} is within {config.folder}: what was measured is only read")
    made, remarks = rebuilt(config.folder)
    with plain_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(config.folder / "config.json", target)
        (target / "cells").mkdir(exist_ok=True)
        for path in (config.folder / "cells").glob("*.json"):
            shutil.copy(path, target / "cells")
    write_report(made, target)
    show_report(made, console, remarks)
    written(console, config.out / "tables" / target.name)
    return made.summary


def rebuilt(folder: Path) -> tuple[Report, list[str]]:
    """The report of the cells in this folder, and remarks on them. Errors: UsageError, StoreError."""
    about = _about(folder)
    store, cells = Store(folder / "cells", None), [named(identity) for identity in about["cells"]]
    found = [(cell, store.load(cell)) for cell in cells]
    records = [record for _, record in found if record is not None]
    if not records:
        raise StoreError(f"{store.folder} has none of the cells that config.json names")
    missing = [cell for cell, record in found if record is None]
    remarks = [*_made_by(records), *_missing(missing, len(cells))]
    env = {name: value for name, value in about.items() if name not in PLAN}
    return table1.reported(table1.all_comparisons(about["scale"]), records, env, remarks), remarks


def _about(folder: Path) -> dict[str, Any]:
    """What config.json says."""
    path = folder / "config.json"
    if not (folder / "cells").is_dir() or not path.is_file():
        raise UsageError(f"{folder} has no config.json and cells/ of a run")
    try:
        about: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}") from None
    checked(path, about, {**CONFIG, **ENVIRONMENT, "scale": None})
    return about


def _made_by(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who made the cells, one line for each set of makers."""
    said = Counter(", ".join(f"{name} {value}" for name, value in r["made_by"].items() if value) for r in records)
    return [f"{count} of {len(records)} cells by {makers}" for makers, count in said.items()]


def _missing(cells: Sequence[Cell], planned: int) -> list[str]:
    """What is missing, one line a row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        rows.setdefault((cell.problem, cell.method), []).append(str(cell.seed))
    lines = [f"missing: {problem} {method}, seed {', '.join(seeds)}" for (problem, method), seeds in rows.items()]
    return [*lines, f"{len(cells)} of {planned} cells are missing"] if lines else []
