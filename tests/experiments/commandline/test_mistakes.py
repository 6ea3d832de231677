"""One line for each mistake, with the nearest name; exit codes."""

from pathlib import Path

import pytest

from experiments import __main__ as cli
from experiments.commandline import parsing
from experiments.commandline.registry import EXPERIMENTS, Command, Experiment
from experiments.data.unavailable import DataUnavailable
from experiments.harness.presentation.cells import Failed, StoreError, UsageError
from experiments.harness.presentation.terminal import written

INSTANCE = "3 2\n1 2 1\n2 3 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "which experiment?"),
        ("tabel1", "unknown experiment 'tabel1'; did you mean 'table1'? There are table1, hardware"),
        ("lits", "did you mean 'list'?"),
        ("--smoke table1", "an experiment's name comes before its options, got '--smoke'"),
        (
            "table1 --onyl digits",
            "table1: unknown option '--onyl'; did you mean '--only'? python -m experiments table1",
        ),
        ("table1 --onyl=digits", "unknown option '--onyl'; did you mean '--only'?"),
        ("bench-bqm --bitz 3", "did you mean '--bits'?"),
        ("bench-bqm --queit", "did you mean '--quiet'?"),
        ("bench-bqm 7", "bench-bqm: unexpected '7'."),
        ("bench-bqm --bits many", "bench-bqm: Error parsing --bits: invalid literal for int() with base 10: 'many'"),
        ("bench-bqm --bits", "bench-bqm: Missing value for argument '--bits'"),
        ("bench-samplers --measures propsals", "--measures: unknown value 'propsals'; did you mean 'proposals'?"),
        ("bench-samplers --compiled anneall", "unknown sampler 'anneall'; did you mean 'anneal'?"),
        ("bench-samplers --level-data digts", "unknown data set 'digts'; did you mean 'digits'?"),
        ("bench-samplers --instances INSTANCES --graphs rimg", "unknown graph 'rimg'; did you mean 'ring'?"),
        ("bench-samplers --instances nowhere", "nowhere: no such folder of instances"),
        ("bench-refine --networks mpl", "unknown network 'mpl'; did you mean 'mlp'?"),
        ("sweep", "sweep: Missing from"),
        ("sweep table1 --search grd", "--search: unknown value 'grd'; did you mean 'grid'?"),
        ("hardware --only glas16", "unknown problem 'glas16'; did you mean 'glass-16bit'?"),
        ("hardware --methods aneal", "unknown method 'aneal'; did you mean 'anneal'?"),
        ("solvers --instances INSTANCES --only rng", "unknown instance 'rng'; did you mean 'ring'?"),
        ("solvers --generate tiles-8", "unknown problem 'tiles-8'; did you mean 'tile-32'?"),
        ("solvers --generate sk-9 --samplers auto,neel", "unknown sampler 'neel'; did you mean 'neal'?"),
        ("solvers --generate sk-9 --samplers auto+gven", "unknown way 'auto+gven'; did you mean 'auto+given'?"),
        ("solvers --generate sk-9 --seconds -1", "--seconds must be positive, got -1"),
        ("list hardwere", "unknown experiment 'hardwere'; did you mean 'hardware'?"),
        ("list --smoke --full table1", "exclude each other"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_name(
    arguments: str, message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "INSTANCES").mkdir()
    (tmp_path / "INSTANCES" / "ring.txt").write_text(INSTANCE)
    assert cli.main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("box", "line"),
    [
        (
            "╭─ Title ──────╮\n│ What is      │\n│ wrong.       │\n│ ──────────── │\n│ More │\n╰──────╯\n",
            "What is wrong.",
        ),
        (" Title        \n ------------- \n What is       \n wrong.    \n ------- \n More\n   ", "What is wrong."),
        ("", "these options are not understood"),
    ],
)
def test_boxes_drawn_or_in_ascii_become_one_line(box: str, line: str) -> None:
    assert parsing.one_line(box) == line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (StoreError("no space"), 1),
        (DataUnavailable("no data"), 1),
        (Failed("two trials"), 1),
        (ModuleNotFoundError("No module named 'dwave'", name="dwave"), 1),
        (UsageError("two\nlines"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error: BaseException | None, code: int, monkeypatch, capsys) -> None:
    def run(options, console) -> None:
        if error is not None:
            raise error

    stand_in(monkeypatch, run)
    assert cli.main(["bench-bqm"]) == code
    assert capsys.readouterr().err.count("\n") == (error is not None)


def test_what_is_our_own_mistake_is_not_hidden(monkeypatch) -> None:
    def run(options, console) -> None:
        raise ZeroDivisionError

    stand_in(monkeypatch, run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["bench-bqm"])


def test_quiet_leaves_the_paths_alone(monkeypatch, capsys) -> None:
    def run(options, console) -> None:
        console.print("a table")
        written(console, Path("a"), Path("b"))

    stand_in(monkeypatch, run)
    assert cli.main(["bench-bqm"]) == 0
    assert capsys.readouterr().out == "a table\nwritten to a, b\n"
    assert cli.main(["bench-bqm", "--quiet"]) == 0
    assert capsys.readouterr().out == "a\nb\n"


def stand_in(monkeypatch, run) -> None:
    """Another `bench-bqm`, of the same options."""
    before = EXPERIMENTS["bench-bqm"]
    options = before.load().options
    entry = Experiment("bench-bqm", before.asks, before.cost, before.example, lambda: Command(options, run))
    monkeypatch.setitem(EXPERIMENTS, "bench-bqm", entry)
