"""Figures: drawn for what there is, from tables and bands with known answers."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.harness.presentation import figures, report
from tests.experiments.harness.presentation.records import COMPARISON, ENVIRONMENT, pair, record


def test_figures_are_drawn_for_what_there_is(tmp_path) -> None:
    records = [r for seed in range(2) for r in pair(seed)]
    for method in ("hybrid", "spectral"):
        for depth in (0.3, 1.0):
            tags = {"family": "glass", "n": 64, "alpha": 0.95, "a": depth}
            solved = 100.0 if method == "hybrid" else 0.0
            records.append(record(f"glass-{depth}", method, 0, solved, tags=tags, energies=[-3.0, -2.5, -1.0]))
    written = figures.draw(records, tmp_path, ["glass-1.0"])
    assert [p.name for p in written] == ["curves.png", "phases.png", "energies.png", "success.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in written)
    assert figures.draw([], tmp_path) == []


@pytest.mark.parametrize("problems", [1, 2])
def test_the_legend_of_the_phases_lies_inside_the_figure(tmp_path, monkeypatch, problems: int) -> None:
    drawn, save = [], figures.save

    def kept(figure, path):
        legend, whole = figure.legends[0].get_window_extent(), figure.bbox
        drawn.append(whole.x0 <= legend.x0 and legend.x1 <= whole.x1)
        return save(figure, path)

    monkeypatch.setattr(figures, "save", kept)
    records = [record(f"p{number}", "hybrid", 0, 50.0) for number in range(problems)]
    for timed in (r["outcome"]["timed"] for r in records):
        timed["phases"] = dict.fromkeys(figures.PHASE_COLOURS, 1.0)
    figures.phases(records, tmp_path / "phases.png")
    assert drawn == [True]


def test_the_success_table_counts_instances() -> None:
    group = [record("g", "hybrid", s, f, tags={"a": 1.0, "alpha": 0.95}) for s, f in enumerate([100.0, 0.0, 100.0])]
    table, counts = figures.success_table(group, [0.3, 1.0], [0.95])
    assert table[1, 0] == pytest.approx(200 / 3) and counts[1, 0] == 3
    assert np.isnan(table[0, 0]) and counts[0, 0] == 0


def test_the_band_spans_the_common_seconds() -> None:
    seconds, low, middle, high = figures.band([[(0, 0.0), (10, 10.0)], [(2, 4.0), (8, 10.0)]])
    assert (seconds[0], seconds[-1]) == (2.0, 8.0)
    np.testing.assert_allclose(low, seconds)
    np.testing.assert_allclose(high, seconds + 2.0)
    np.testing.assert_allclose(middle, seconds + 1.0)


def test_shares_are_stacked_to_either_side_of_zero() -> None:
    assert figures.stacked([3.0, -0.5, 1.0, -0.25]) == [(0.0, 3.0), (-0.5, 0.0), (3.0, 4.0), (-0.75, -0.5)]


def test_shares_are_drawn_where_there_are_any(tmp_path) -> None:
    chain = (("others", "greedy", "adam"), ("annealer", "hybrid", "greedy"))
    for seeds in (1, 2):
        records = [r for seed in range(seeds) for r in pair(seed)]
        for timed in (r["outcome"]["timed"] for r in records):
            timed["curve"] = timed["curve"] or [[1.0, 30.0], [9.0, 63.0]]
        compared = report.summary(records, [replace(COMPARISON, shares=chain)], ENVIRONMENT)["comparisons"]
        assert figures.draw(records, tmp_path, compared=compared)[-1].name == "shares.png"
    assert figures.shares([{}], tmp_path / "none.png") is None
