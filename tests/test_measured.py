"""Figures in the docs are those of the committed tables."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
HEAD = ROOT / "experiments" / "measured" / "one-bit-head" / "results.csv"


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
