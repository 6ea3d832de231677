"""What is read, what is refused in one line, and what the page holds."""

import html
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from experiments.harness.presentation import report
from experiments.harness.presentation.cells import StoreError, UsageError
from experiments.harness.presentation.tables import Table
from experiments.report import command, page, sweep_part
from experiments.report.collect import Run, collected
from experiments.report.options import Report
from experiments.sweeps import command as sweeps
from experiments.sweeps.options import Sweep
from experiments.sweeps.space import Axis
from tests.experiments.harness.presentation.records import COMPARISON, record
from tests.experiments.report import stored
from tests.experiments.sweeps import toy

MOST_BYTES = 6_000_000


def reported(out: Path, *results: Path, against: Path | None = None) -> tuple[str, str]:
    """(the page, what was printed)."""
    console = Console(width=130, file=io.StringIO(), record=True)
    path = command.run(Report(results, against, out / "report.html"), console)
    assert path.stat().st_size < MOST_BYTES
    return path.read_text(), console.export_text()


def value(point: dict, method: str, seed: int) -> float:
    return 60.0 + seed + (method == "hybrid") * (point["toy.sampler.length"] ** 0.5)


def specs(text: str) -> list[dict]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    return [json.loads(one) for one in found]


def test_a_folder_of_results_becomes_one_page(tmp_path: Path) -> None:
    stored.run(tmp_path / "results" / "table1", stored.records())
    stored.sweep(tmp_path / "results" / "sweeps" / "toy", value)
    (tmp_path / "results" / "bench-bqm").mkdir()
    (tmp_path / "results" / "bench-bqm" / "summary.json").write_text("{}")
    text, said = reported(tmp_path, tmp_path / "results")
    assert said.startswith("written to ")
    assert "<title>Results: table1 and sweeps/toy</title>" in text
    assert "The annealer&#39;s own gain" in text and "trials complete" in text
    assert "python -m experiments table1" in text and "--xla_cpu_x" in text
    assert not re.search(r"<(link|img|iframe)|src=|@import|url\(", text.partition("<body>")[0])
    assert len(specs(text)) == 1 + 2 + 1 + 4 + 1  # curves, seconds of two problems, energies, the sweep's


def test_everything_drawn_is_valid(tmp_path: Path) -> None:
    import vl_convert

    axes = (Axis("toy.rate", (0.1, 1.0), True), Axis("toy.sampler", ("anneal", "tabu")))
    points = [{"toy.rate": 0.1 + 0.05 * n, "toy.sampler": ("anneal", "tabu")[n % 2]} for n in range(12)]
    stored.sweep(tmp_path / "found", lambda p, m, s: p["toy.rate"] + s + (m == "hybrid"), 2, "random", axes, points)
    folders = (stored.run(tmp_path / "table1", stored.records()), stored.sweep(tmp_path / "toy", value))
    text, _ = reported(tmp_path, *folders, tmp_path / "found")
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert {"Importances", "Every point, field by field", "Parallel coordinates", "What explains the differences"} <= {
        *titles
    }
    for spec in specs(text):
        assert vl_convert.vegalite_to_vega(spec, vl_version="6.4")["marks"]


def test_shares_of_a_gain_are_drawn(tmp_path: Path) -> None:
    import vl_convert

    folder, records = stored.run(tmp_path / "table1", stored.records()), stored.records()
    chain = (("others", "greedy", "adam"), ("annealer", "hybrid", "greedy"))
    compared = [replace(COMPARISON, shares=chain)]
    stored.write(folder / "summary.json", report.summary(records, compared, stored.ENV))
    text, _ = reported(tmp_path, folder)
    drawn = [spec for spec in specs(text) if spec["data"]["values"] and "moment" in spec["data"]["values"][0]]
    assert len(drawn) == 1 and text.count("What the gain is made of") >= 2  # as a table, too
    assert vl_convert.vegalite_to_vega(drawn[0], vl_version="6.4")["marks"]
    points = [value["points"] for value in drawn[0]["data"]["values"] if value["moment"] == "at the end"]
    assert sum(points) == pytest.approx(drawn[0]["data"]["values"][0]["whole"], abs=1e-3)


def test_a_field_may_name_the_methods_and_bear_their_name(tmp_path: Path) -> None:
    axes = (Axis("method", ("a", "b")), Axis("method.length", (1, 2, 3)))
    folder = stored.sweep(tmp_path / "toy", value, 2, axes=axes)
    lines = ["method,method.length,problem,cell_method,sampler,seed,final,seconds"]
    lines += [f"{a},{b},toy,sampler-{a},-,{seed},{b + seed},1.0" for a in "ab" for b in (1, 2, 3) for seed in (0, 1)]
    (folder / "results.csv").write_text("\n".join(lines) + "\n")
    text, _ = reported(tmp_path, folder)
    assert "What do method (field) (a, b) and method.length (1, 2, 3) do to final" in text
    assert "with sampler-a and sampler-b?" in text and "12 of 12" in text
    assert "Paired differences of final" in text and "Method against method" not in text


def test_text_from_results_stays_text(tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script>"
    records = [{**one, "problem": bad if one["problem"] == "glass" else one["problem"]} for one in stored.records()]
    text, _ = reported(tmp_path, stored.run(tmp_path / "table1", records))
    assert "alert(1)" in text and "<script>alert(1)" not in text


def _lacks(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = next(folder.glob(name))
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "summary.json").unlink(), UsageError, "no summary.json: nothing of it is finished"),
        (lambda f: (f / "summary.json").write_text("{"), StoreError, r"summary.json is damaged: "),
        (lambda f: next((f / "cells").iterdir()).write_text("[1"), StoreError, r"cells/.* is damaged"),
        (
            lambda f: [p.unlink() for p in (f / "cells").iterdir()],
            StoreError,
            "none of the cells that config.json names",
        ),
        (_lacks("summary.json", lambda s: s.pop("rows")), StoreError, "summary.json lacks rows: written by another"),
        (
            _lacks("summary.json", lambda s: s["comparisons"][0]["targets"][0].pop("end")),
            StoreError,
            "lacks end in comparisons/targets: written by another version",
        ),
        (_lacks("config.json", lambda s: s.pop("cells")), StoreError, "config.json lacks cells"),
        (_lacks("summary.json", lambda s: s.update(rows=3)), StoreError, "has no list in rows"),
        (_lacks("cells/*", lambda s: s["outcome"].pop("timed")), StoreError, "lacks timed in outcome"),
        (_lacks("summary.json", lambda s: s.update(against_peers=[])), UsageError, "peers at equal wall-clock"),
    ],
)
def test_results_of_a_run_that_cannot_be_read(
    tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    folder = stored.run(tmp_path / "table1", stored.records(2))
    damage(folder)
    with pytest.raises(error, match=message) as raised:
        reported(tmp_path, folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "results.csv").unlink(), UsageError, "no results.csv: no trial is complete"),
        (lambda f: (f / "sweep.json").unlink(), StoreError, "no sweep.json beside results.csv"),
        (lambda f: (f / "sweep.json").write_text("nothing"), StoreError, "sweep.json is damaged"),
        (_lacks("sweep.json", lambda s: s["plan"].pop("axes")), StoreError, "sweep.json lacks axes in plan"),
        (
            lambda f: (f / "results.csv").write_text("problem,method\na,b\n"),
            StoreError,
            "results.csv lacks toy.sampler",
        ),
        (lambda f: (f / "results.csv").write_text("problem,method\n"), UsageError, "has no rows"),
        (lambda f: (f / "results.csv").write_bytes(b"\xff\xfe"), StoreError, "cannot read"),
    ],
)
def test_results_of_a_sweep_that_cannot_be_read(
    tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    folder = stored.sweep(tmp_path / "toy", value)
    damage(folder)
    with pytest.raises(error, match=message):
        reported(tmp_path, folder)


def test_folders_without_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        reported(tmp_path, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no finished results of table1, hardware or a sweep in"):
        reported(tmp_path, tmp_path / "empty")
    run = stored.run(tmp_path / "results" / "table1", stored.records(2))
    sweep = stored.sweep(tmp_path / "results" / "sweeps" / "toy", value)
    with pytest.raises(UsageError, match="--against has nothing of the same kind"):
        reported(tmp_path, run, against=sweep)
    (sweep / "results.csv").unlink()
    assert "left out:" in reported(tmp_path, tmp_path / "results")[1]


def test_unfinished_runs_say_so(tmp_path: Path) -> None:
    records = stored.records(3)
    folder = stored.run(tmp_path / "table1", records[:-6])
    config = json.loads((folder / "config.json").read_text())
    config["cells"] = [{name: one[name] for name in ("problem", "method", "seed", "config")} for one in records]
    stored.write(folder / "config.json", config)
    (found,) = collected([folder], lambda line: None)
    assert isinstance(found, Run) and len(found.records) == 12
    assert "Only 12 of 18 runs are finished." in reported(tmp_path, folder)[0]


def test_columns_of_numbers_are_sorted_as_numbers() -> None:
    lines = (
        ("a", "1.5 [1, 2]", "not reached (0/3)", "x"),
        ("b", "−2 %", "- [15.3, ∞] (1/3)", "1"),
        ("c", "-", "3", ""),
    )
    numeric, fields = page.columns(Table("t", ("name", "p", "q", "r"), lines))
    assert numeric == [False, True, True, False]
    assert [[field.key for field in line] for line in fields] == [
        ["a", "1.5", "", "x"],
        ["b", "-2", "", "1"],
        ["c", "", "3", ""],
    ]


def test_short_names_tell_fields_apart() -> None:
    names = ["lowbit.sampler", "images.sampler", "lowbit.sampler.length", "method"]
    assert list(sweep_part.short_names(names).values()) == ["lowbit.sampler", "images.sampler", "length", "method"]
    assert sweep_part.short_names(["sampler", "x.sampler"]) == {"sampler": "sampler", "x.sampler": "x.sampler"}


@pytest.mark.slow
def test_what_a_sweep_leaves_behind_is_read(tmp_path: Path) -> None:
    config = Sweep("toy", grid=("toy.inner.steps=1,2", "toy.sampler=anneal,greedy"), out=tmp_path, seeds=2, heartbeat=1)
    assert sweeps.run(config, {"toy": toy.cells}, Console(quiet=True))
    text, _ = reported(tmp_path, tmp_path)
    assert "What do toy.sampler (anneal, greedy) and toy.inner.steps (1, 2) do to final" in html.unescape(text)
    assert "8 of 8" in text and "Paired differences of final" in text


@pytest.mark.slow
def test_long_runs_are_thinned_to_fit_a_page(tmp_path: Path) -> None:
    curve = [(float(second), 50.0 + second) for second in range(1, 301)]
    found = [
        record(f"problem {number}", method, seed, 70.0, curve, energies=[float(n % 97) for n in range(500)])
        for number in range(12)
        for method in ("hybrid", "adam", "greedy", "rounded", "shuffled")
        for seed in range(10)
    ]
    text, _ = reported(tmp_path, stored.run(tmp_path / "table1", found))
    first = next(spec for spec in specs(text) if spec["params"][0]["name"] == "band")
    seed = [row for row in first["data"]["values"] if row["what"] == "seed 3" and row["method"] == "adam"]
    assert 6 <= len(seed) <= 50
    assert (seed[0]["second"], seed[-1]["second"]) == (1.0, 300.0)
