"""Figures in the docs are those of the committed tables and cells."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments import tables

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "experiments" / "measured"
HEAD = MEASURED / "one-bit-head" / "results.csv"
PAGES = (ROOT / "README.md", ROOT / "experiments" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKED = re.compile(r"<!-- measured/(\S+): (.+) -->\n((?:\|.*\n)+)")


def differences(column: str, sweeps: int, scale: float) -> tuple[float, float, float]:
    """Annealer minus greedy, paired by seed, at sixteen reads and 10,000 images: mean and 95 % t interval."""
    found: dict[tuple[str, str], float] = {}
    with HEAD.open() as file:
        for row in csv.DictReader(file):
            point = tuple(row[f"lowbit.{name}"] for name in ("sampler.length", "num_reads", "curvature_rows"))
            if point == (str(sweeps), "16", "10000"):
                found[row["sampler"], row["seed"]] = scale * float(row[column])
    pairs = np.array([found["anneal", str(seed)] - found["greedy", str(seed)] for seed in range(10)])
    half = stats.t.ppf(0.975, 9) * pairs.std(ddof=1) / np.sqrt(10)
    return pairs.mean(), pairs.mean() - half, pairs.mean() + half


@pytest.mark.parametrize("sweeps", [3, 30, 300, 3000])
def test_the_ablation_in_the_docs_is_that_of_its_table(sweeps: int) -> None:
    cells = [
        "{:+.{n}f} [{:+.{n}f}, {:+.{n}f}]".format(*differences(column, sweeps, scale), n=digits)
        for column, scale, digits in (
            ("best_energy", 1000, 1),
            ("train_loss", 1000, 1),
            ("unrefined", 1, 2),
            ("final", 1, 2),
        )
    ]
    assert f"| {sweeps} | {' | '.join(cells)} |" in (ROOT / "docs" / "sweeps.md").read_text()


def marked(page: str) -> list[tuple[str, str, str]]:
    """(folder, title, table) of every table of a page that says which cells it was made of."""
    found = MARKED.findall(page)
    assert page.count("\n<!-- measured/") == len(found)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tables_in_the_docs_are_those_of_their_cells(page: Path) -> None:
    for name, title, shown in marked(page.read_text()):
        made, _ = tables.rebuilt(MEASURED / name)
        (table,) = (table for table in made.tables if table.title == title)
        assert table.markdown().split("\n\n", 1)[1] == shown


def test_what_is_kept_names_no_path_of_a_machine() -> None:
    for file in MEASURED.rglob("*.json"):
        assert not re.search(r'[" =](/|~/|[A-Z]:\\)', file.read_text()), file


@pytest.mark.parametrize(
    ("method", "frozen", "named"),
    [
        ("hybrid", "False", "hybrid"),
        ("hybrid", "True", "hybrid, first layer frozen"),
        ("adam-data-start", "True", "adam-data-start, first layer frozen"),
    ],
)
def test_the_starts_on_a_gpu_are_those_of_their_table(method: str, frozen: str, named: str) -> None:
    found: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    with (MEASURED / "cifar10-conv" / "trials" / "starts-h100.csv").open() as file:
        for row in csv.DictReader(file):
            values = float(row["final"]), float(row["validation"])
            found.setdefault((row["method"], row["deep.recipe.frozen"]), {})[row["seed"]] = values
    chosen, adam = found[method, frozen], found["adam", "False"]
    pairs = np.array([np.subtract(chosen[seed], adam[seed]) for seed in chosen])
    half = stats.t.ppf(0.975, len(pairs) - 1) * pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs))
    mean = pairs.mean(axis=0)
    gains = [f"{m:+.2f} [{m - h:+.2f}, {m + h:+.2f}]" for m, h in zip(mean, half, strict=True)]
    final = np.mean([values[0] for values in chosen.values()])
    line = f"| {named} | {len(pairs)} | {final:.2f} | {' | '.join(gains)} |"
    assert line in (ROOT / "experiments" / "README.md").read_text()
