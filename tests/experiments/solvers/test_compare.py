"""The comparison of solvers: its smoke run, its ladder, its arithmetic, and one line for each mistake."""

from __future__ import annotations

import csv
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import __main__ as cli
from experiments.harness.presentation.cells import UsageError, unheard
from experiments.solvers import compare, peers, report
from experiments.solvers.generate import generate
from experiments.solvers.instances.assignment import tour
from experiments.solvers.instances.problem import Instance
from experiments.solvers.peers import Peer
from qjax import samplers
from tests.samplers.problems import all_states

pytestmark = [pytest.mark.optimised, pytest.mark.slow]


def rows(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "solvers/summary.json").read_text())["rows"]


def test_smoke_writes_rows_table_and_figure_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("dwave.samplers")
    arguments = ["solvers", "--smoke", "--samplers", "auto,dwave-sa", "--generate", "tile-4", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    found = {row["sampler"]: row for row in rows(tmp_path)}
    assert set(found) == {"auto", "dwave-sa"}
    for row in found.values():
        assert row["instance"] == "tile-4" and row["repeats"] == 2
        # A planted minimum of 16 spins: no run of 0.2 s misses it.
        assert row["best"] == row["median"] == row["best_known"] and row["gap"] == row["median_gap"] == 0
        assert 0 < row["seconds_to"]["best_known"] == row["seconds_to"]["best_peer_median"] < 5
        assert row["tts99"]["seconds"] > 0 and row["tts99"]["hits"] > 0 and row["proposals_per_second"] > 0
    assert (tmp_path / "solvers/gap-tile-4.png").exists()
    assert "| tile-4 | auto |" in (tmp_path / "solvers/summary.md").read_text()
    capsys.readouterr()
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.count("kept from an earlier run") == 4


def test_all_climb_the_same_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps of the runs that each sampler makes where a sweep takes a second of a fake clock."""
    now, climbed = [0.0], []
    module = import_module("qjax.samplers.within")
    monkeypatch.setattr(module, "_clock", lambda: now[0])
    problem = generate("sk-8")

    def spent(sweeps: int) -> samplers.Samples:
        climbed.append(sweeps)
        now[0] += sweeps
        bits = np.zeros((4, 8), np.int8)
        return samplers.Samples(bits, np.asarray(problem.qubo.energies(bits)), {})

    def peer(reads: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        found = spent(length)
        return np.asarray(found.bits), np.asarray(found.energies)

    samplers.within(Peer(peer, 10), 1000)(jax.random.key(0), problem.qubo, 4)
    theirs = list(climbed)
    assert theirs == [10, 20, 40, 80, 160, 320, 370]
    for name in ("anneal", "bifurcation"):
        climbed.clear()
        sampler = samplers.get(name, length=10)
        monkeypatch.setattr(
            type(sampler), "repeated", lambda self, k, q, r, i, repeats, blocks: spent(10 * int(repeats))
        )
        samplers.within(sampler, 1000)(jax.random.key(0), problem.qubo, 4)
        assert climbed == [0, *theirs]


@pytest.mark.parametrize("name", [*peers.SINGLE_THREADED, "simulated-bifurcation"])
def test_a_peer_answers_with_the_energies_of_the_qubo(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: starting others is what the smoke run tests."""
    if not peers.installed(name):
        pytest.skip(f"{peers.PACKAGES[name]} is not installed")
    qubo = generate("lattice2-3").qubo
    if name == "simulated-bifurcation":
        solve = peers._bifurcation(peers.model_of(qubo), 1)
    else:
        peers.load(name, peers.model_of(qubo))
        solve = peers.answer
    bits, energies = solve(4, 20, 1)
    assert bits.shape == (4, 9) and bits.dtype == np.int8
    np.testing.assert_allclose(energies, qubo.energies(bits), rtol=1e-5)
    assert energies.min() >= float(qubo.energies(all_states(9)).min()) - 1e-4


def test_curves_keep_their_rises_and_their_end() -> None:
    assert compare.rises([1, 2, 3, 4, 5], [3.0, 3.0, 5.0, 5.0, 5.0]) == [[1.0, 3.0], [3.0, 5.0], [5.0, 5.0]]
    assert compare.rises([1.0], [3.0]) == [[1.0, 3.0]]
    many = compare.rises(range(1, 10001), [float(k >= 5000) for k in range(10000)])
    assert many == [[1.0, 0.0], [5001.0, 1.0], [10000.0, 1.0]]


def test_programs_of_many_instances_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[int] = []
    monkeypatch.setattr(compare, "_structures", set())
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(len(compare._structures)))
    for _ in range(3):  # repeats of one instance, and instances of one shape, share their programs
        compare.forget_programs(generate("sk-5").qubo)
        compare.forget_programs(generate("sk-5-s1").qubo)
    assert not cleared
    for size in range(6, 6 + 2 * compare.STRUCTURES_KEPT):
        compare.forget_programs(generate(f"sk-{size}").qubo)
        assert len(compare._structures) <= compare.STRUCTURES_KEPT
    assert len(cleared) == 2


def test_an_assignment_is_solved_and_counted_as_one() -> None:
    """Four cities: the best of three tours, found by enumeration, and a run whose best state is no assignment."""
    distances = np.array([[0, 5, 9, 4], [5, 0, 3, 8], [9, 3, 0, 7], [4, 8, 7, 0]])
    problem = tour("t", distances, 19.0)
    outcome = compare.solve(problem, "exact", options("exact", 4, 10), 0, unheard)
    assert outcome["results"]["objective"] == 19.0 and outcome["results"]["feasible"] is True
    runs = [{**record("exact", seed, [[1.0, -19.0]]), "problem": "t"} for seed in range(2)]
    for run, feasible in zip(runs, (True, False), strict=True):
        run["outcome"]["results"]["feasible"] = feasible
    (row,) = report.summary(runs, [problem], {}, 4.0)["rows"]
    assert row["feasible"] == 0.5 and row["gap"] == 0.0
    assert (
        report.summary([record("auto", 0, [[1.0, 9.0]])], [Instance("g", "qubo", problem.qubo)], {}, 4.0)["rows"][0][
            "feasible"
        ]
        is None
    )


@pytest.mark.parametrize(
    ("name", "way", "groups"),
    [
        ("auto", "found", "6 one_hot"),
        ("auto+found", "found", "6 one_hot"),
        ("auto+given", "given", "6 one_hot"),
        ("auto+none", "none", ""),
        ("tabu+given", "given", "6 one_hot"),
        ("tabu", "none", ""),
    ],
)
def test_a_run_says_how_it_had_the_groups(name: str, way: str, groups: str) -> None:
    if name == "auto+found":
        pytest.importorskip("dimod")
    problem = generate("one-hot-6x3-P300")
    outcome = compare.solve(problem, name, options(name, 8, 20), 0, unheard)
    results = outcome["results"]
    assert (results["blocks"], results["groups"]) == (way, groups)
    # 3^6 states inside the groups, and penalties that no state outside is worth.
    states = all_states(18)
    inside = states[problem.feasible(states)]
    assert len(inside) == 3**6
    if way != "none":
        assert results["feasible"] and results["objective"] == float(problem.qubo.energies(inside).min())
    looked = outcome["timed"]["phases"]["formulate"]
    assert (looked > 0) == (name == "auto+found") and outcome["timed"]["curve"][0][0] > looked
    run = {"problem": problem.name, "method": name, "seed": 0, "outcome": outcome}
    made = report.summary([run], [problem], {}, 0.1)
    (row,) = made["rows"]
    assert (row["blocks"], row["groups"]) == (way, groups)
    assert report.tables(made)[0].lines[0][1:3] == (name, f"{way}: {groups}" if groups else "-")


def test_blocks_are_given_where_there_are_some() -> None:
    """Peers, and instances without groups, have none."""
    config = compare.Solvers(samplers="tabu,tabu+given,dwave-sa", repeats=1)
    with_groups, without = generate("one-hot-3x2"), generate("sk-5")
    cells = compare.cells_of(config, [with_groups, without], config.names)
    assert [(cell.problem, cell.method) for cell in cells] == [
        *((with_groups.name, name) for name in config.names),
        *((without.name, name) for name in ("tabu", "dwave-sa")),
    ]


def test_a_sweep_over_samplers_and_their_fields(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its cells are those of the experiment: what is stored is not computed again. Bad grids are one line."""
    pytest.importorskip("optuna")
    problems = ["--generate", "sk-8", "one-hot-3x2", "--methods", "anneal", "--smoke", "--out", str(tmp_path)]
    sweep = ["sweep", "solvers", *problems, "--seeds", "1"]
    assert cli.main([*sweep, "--grid", "sampler=anneal,tabu", "sampler.length=5,9", "seconds=0.1"]) == 0
    with (tmp_path / "sweeps/solvers/results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 2 * 2 * 2 and {row["method"] for row in found} == {"anneal", "tabu"}
    assert all(row["sampler"] == row["cell_sampler"] and float(row["cell_seconds"]) > 0.1 for row in found)
    assert len({row["final"] for row in found if row["problem"] == "sk-8"}) == 1  # eight spins: all find the minimum
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "solvers/cells").iterdir()}
    assert cli.main([*sweep, "--grid", "sampler.length=5,9", "seconds=0.1", "--name", "again"]) == 0
    assert stored == {path: path.stat().st_mtime_ns for path in (tmp_path / "solvers/cells").iterdir()}
    for grid, message in (
        (
            ["sampler=anneal,qaoa", "sampler.num_sweeps=5"],
            "--grid sampler.num_sweeps: no cell has it where sampler=qaoa",
        ),
        (["instance=x"], "problems are chosen by --only"),
        (["way=given"], "sk-8 has no blocks that could be given"),
        (["reads=0"], "reads must be positive, got 0"),
    ):
        capsys.readouterr()
        assert cli.main([*sweep, "--name", "bad", "--grid", *grid]) == 2
        assert message in capsys.readouterr().err


def options(name: str, reads: int, num_sweeps: int) -> dict[str, Any]:
    return compare.options(compare.Solvers(reads=reads, num_sweeps=num_sweeps), name, 0.1)


class Passes(list):
    """A list that counts how often it is gone through."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def test_cells_are_varied_by_the_names_of_their_options() -> None:
    """The method's name follows the sampler; a peer keeps its own."""
    config = compare.Solvers(samplers="anneal,dwave-sa", repeats=1, reference_seconds=9.0)
    ours, peer, reference = compare.cells_of(config, [generate("one-hot-3x2")], config.names)
    assert reference.method == report.REFERENCE and reference.config["seconds"] == 9.0
    assert ours.varied and peer.varied and reference.varied
    tabu = ours.varied({**ours.config, "sampler": samplers.get("tabu", num_sweeps=7), "way": "given"}, 3)
    assert (tabu.method, tabu.sampler, tabu.seed) == ("tabu+given", "tabu+given", 3)
    longer = peer.varied({**peer.config, "num_sweeps": 7, "seconds": 20.0}, 1)
    assert longer.method == "dwave-sa" and longer.cost > peer.cost and longer.digest() != peer.digest()
    assert reference.varied(reference.config, 0).key() == reference.key()
    for change, message in (
        ({"instance": "another"}, "problems are chosen by --only"),
        ({"seconds": 0.0}, "seconds must be positive"),
        ({"way": "gven"}, "unknown way"),
    ):
        with pytest.raises(UsageError, match=message):
            ours.varied({**ours.config, **change}, 0)
    (plain,) = compare.cells_of(compare.Solvers(samplers="anneal", repeats=1), [generate("sk-5")], ["anneal"])
    assert plain.varied
    with pytest.raises(UsageError, match="no blocks that could be given"):
        plain.varied({**plain.config, "way": "given"}, 0)


def test_the_summary_goes_through_its_records_once() -> None:
    problems = [Instance(f"g{k}", "maxcut", generate("sk-8").qubo, -1, 100.0) for k in range(12)]
    runs = Passes()
    for problem in problems:
        runs += [{**record(method, 0, [[1.0, 99.0]]), "problem": problem.name} for method in ("auto", "dwave-sa")]
    found = report.summary(runs, problems, {}, 4.0)
    assert len(found["rows"]) == 24 and len(found["against_peers"]) == 12
    assert runs.passes == 1


def record(method: str, seed: int, curve: list[list[float]]) -> dict[str, Any]:
    results = {"final": curve[-1][1], "reads": 4}
    timed = {"curve": curve, "phases": {"compile": 1.0, "anneal": 4.0}, "proposals_per_second": 5.0}
    return {"problem": "g", "method": method, "seed": seed, "outcome": {"results": results, "timed": timed}}


def test_gaps_and_seconds_of_a_cut() -> None:
    problem = Instance("g", "maxcut", generate("sk-8").qubo, -1, 100.0)
    runs = [
        record("auto", 0, [[1.0, 90.0], [2.0, 100.0]]),
        record("auto", 1, [[1.0, 98.0], [3.0, 99.0]]),
        record("auto", 2, [[1.5, 99.0], [4.0, 100.0]]),
        record("dwave-sa", 0, [[1.0, 97.0], [4.0, 98.0]]),
        record("reference", 0, [[1.0, 100.0]]),
    ]
    found = report.summary(runs, [problem], {}, 4.0)
    ours, theirs = found["rows"]
    assert (ours["best"], ours["median"], ours["best_known"], ours["gap"]) == (100.0, 100.0, 100.0, 0.0)
    assert ours["seconds_to"] == {"best_peer_median": 1.5, "best_known": 4.0}
    # 1 of 3 by second 2: 2 ln 0.01 / ln(2/3) = 22.7; 2 of 3 by second 4: 4 ln 0.01 / ln(1/3) = 16.8.
    assert ours["tts99"]["seconds"] == pytest.approx(4 * np.log(0.01) / np.log(1 / 3))
    assert theirs["median_gap"] == pytest.approx(2.0) and theirs["tts99"]["seconds"] is None
    assert theirs["seconds_to"] == {"best_peer_median": 4.0, "best_known": None}
    (beside,) = found["against_peers"]
    assert (beside["sampler"], beside["peer"], beside["not_worse"]) == ("auto", "dwave-sa", True)
    assert beside["peer_gap"] == pytest.approx(2.0) and beside["share"] == 1.5 / 4
    line = ("g", "auto", "dwave-sa", "2.000", "0.000", "yes", "0.375")
    assert report.tables(found)[1].lines == (line,)
    worse = [record("anneal", 0, [[1.0, 97.0]]), record("dwave-sa", 0, [[2.0, 98.0]])]
    (beside,) = report.summary(worse, [problem], {}, 4.0)["against_peers"]
    assert not beside["not_worse"] and beside["share"] is None
    unknown = Instance("g", "maxcut", problem.qubo, -1)
    assert report.summary(runs, [unknown], {}, 4.0)["rows"][1]["reference"] == 100.0


def test_tts99_has_the_interval_that_its_share_has() -> None:
    """Ends of Clopper and Pearson's interval: 0.025 = p^5 for 5 of 5, 0.025 = (1 - p)^5 for 0 of 5."""
    end = 0.025 ** (1 / 5)
    all_hit = report.tts99([1.0, 1.0, 1.0, 1.0, 2.0], 10.0)
    # 2 s at p = 1 (one run), against 1 s x 2.86 at p = 4/5.
    assert (all_hit["seconds"], all_hit["second"], all_hit["hits"], all_hit["p"]) == (2.0, 2.0, 5, 1.0)
    assert all_hit["p_interval"] == pytest.approx([end, 1.0])
    assert all_hit["interval"] == pytest.approx([2.0, 2 * np.log(0.01) / np.log(1 - end)])
    none = report.tts99([None] * 5, 10.0)
    assert (none["seconds"], none["second"], none["hits"]) == (None, 10.0, 0)
    assert none["p_interval"] == pytest.approx([0.0, 1 - end])
    assert none["interval"] == [pytest.approx(10 * np.log(0.01) / np.log(end)), None]
    some = report.tts99([4.0, None, 3.0, None, None], 10.0)
    assert (some["second"], some["hits"]) == (4.0, 2)
    low, high = some["interval"]
    assert some["seconds"] == pytest.approx(4 * np.log(0.01) / np.log(3 / 5)) and low < some["seconds"] < high
    assert some["p_interval"] == pytest.approx([0.0527, 0.8534], abs=1e-4)


def test_the_table_prints_tts99_with_its_interval_and_a_bound_where_it_is_not_reached() -> None:
    problem = Instance("g", "maxcut", generate("sk-8").qubo, -1, 100.0)
    runs = [record("auto", seed, [[1.0, 100.0]]) for seed in range(5)]
    runs += [record("anneal", seed, [[1.0, 90.0]]) for seed in range(5)]
    found = json.loads(json.dumps(report.summary(runs, [problem], {}, 4.0), allow_nan=False))
    table = report.tables(found)[-1]
    assert table.lines == (
        ("g", "auto", "100", "1.00", "5/5 [0.48, 1.00]", "1.00 [1.00, 7.08]"),
        ("g", "anneal", "100", "4.00", "0/5 [0.00, 0.52]", "not reached, > 24.97"),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no instances: name a folder"),
        (["--instances", "none"], "none: no such folder"),
        (["--generate", "ring-4"], "unknown problem 'ring-4'"),
        (["--generate", "sk-9", "--samplers", "auto,neel"], "unknown sampler 'neel'"),
        (["--generate", "sk-9", "--seconds", "0"], "--seconds must be positive"),
        (["--generate", "sk-9", "--samplers", "auto+all"], "unknown way 'auto+all'"),
        (["--generate", "sk-9", "--samplers", "dwave-sa+given"], "dwave-sa+given: peers take the plain model"),
        (["--generate", "sk-9", "--samplers", "tabu+found"], "tabu+found: tabu does not move groups that are found"),
        (["--generate", "sk-9", "--samplers", "tabu+given"], "none of the problems has blocks"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], message: str) -> None:
    assert cli.main(["solvers", "--out", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_peer_that_is_not_installed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(peers.PACKAGES, "openjij-sa", "no.such.package")
    options = ["--smoke", "--samplers", "exact,openjij-sa", "--generate", "lattice2-3", "--out", str(tmp_path)]
    assert cli.main(["solvers", *options]) == 0
    assert "openjij-sa is left out: no.such.package is not installed" in capsys.readouterr().out
    assert [row["sampler"] for row in rows(tmp_path)] == ["exact"]
