"""Every experiment's --help and example, `list`, completion, and how little they load."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.commandline import parsing
from experiments.commandline.overview import EXIT_CODES
from experiments.commandline.registry import EXPERIMENTS, Experiment, cells_by_experiment

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "experiments/README.md"
every = pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda e: e.name)


def flat(text: str) -> str:
    """Without the boxes and the breaks of lines."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


@every
def test_help_has_question_cost_example_and_every_option_with_its_default(experiment: Experiment, capsys) -> None:
    assert main([experiment.name, "--help"]) == 0
    shown = capsys.readouterr()
    assert not shown.err and "\x1b" not in shown.out
    text = flat(shown.out)
    assert experiment.asks in text and f"cost on 2 cores: {experiment.cost}" in text
    assert f"example: python -m experiments {experiment.name} {experiment.example}" in text
    options = text[text.index("-h, --help") :]
    known = parsing.flags(parsing.given_kind(experiment))
    assert {"--quiet", "--out"} <= set(known) and ("--smoke" in known) == (experiment.name not in ("report", "tables"))
    places = [options.index(f" {flag} ") for flag in known]
    assert len(known) == len(set(known)) and options.count("(default: ") == len(known)
    for here, there in zip(sorted(places), [*sorted(places)[1:], len(options)], strict=True):
        assert "(default: " in options[here:there]


@every
def test_its_example_is_understood_and_costs_are_given(experiment: Experiment) -> None:
    given = parsing.given(experiment, [*shlex.split(experiment.example), "--quiet"])
    assert given.quiet and dataclasses.is_dataclass(given.options)
    assert "--smoke" in experiment.cost or experiment.name in ("sweep", "report", "tables")


@every
def test_readme_asks_the_same_at_the_same_cost(experiment: Experiment) -> None:
    row = next(line for line in README.read_text().splitlines() if line.startswith(f"| `{experiment.name}"))
    assert f"| {experiment.asks.removesuffix(' (docs/sweeps.md)')}" in row and row.endswith(f"| {experiment.cost} |")


def test_help_and_list_have_every_name_and_the_exit_codes(capsys) -> None:
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert main(["--help"]) == 0
    helped = capsys.readouterr().out
    assert listed in helped
    for experiment in EXPERIMENTS.values():
        assert f"{experiment.name} " in listed and experiment.asks in listed and experiment.cost in listed
    readme = README.read_text()
    for code, meaning in EXIT_CODES:
        assert re.search(rf"^  {code} +{re.escape(meaning)}$", helped, re.MULTILINE)
        assert f"| {code} | {meaning} |" in readme


@pytest.mark.parametrize("size", [[], ["--smoke"]])
def test_list_of_one_has_its_problems_and_methods(size: list[str], capsys) -> None:
    assert main(["list", "hardware", *size]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    cells = cells_by_experiment()["hardware"]("smoke" if size else "default")
    assert ", ".join(dict.fromkeys(cell.problem for cell in cells)) in lines
    assert ", ".join(dict.fromkeys(cell.method for cell in cells)) in lines


def test_list_of_one_that_is_not_made_of_cells_is_what_it_asks(capsys) -> None:
    assert main(["list", "bench-bqm"]) == 0
    shown = capsys.readouterr().out
    assert EXPERIMENTS["bench-bqm"].asks in shown and "problems and methods" not in shown


PROBE = """
import json, sys
from experiments.__main__ import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted({"jax", "optuna", "matplotlib", "scipy", "flax"} & sys.modules.keys())]))
"""


@pytest.mark.parametrize("arguments", [["list"], ["--help"]])
def test_what_only_shows_loads_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


@pytest.mark.slow
def test_list_is_quick() -> None:
    # The fastest of several: a busy machine makes it slower, never faster.
    took = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "experiments", "list"], cwd=ROOT, check=True, capture_output=True, timeout=60
        )
        took.append(time.perf_counter() - start)
    assert min(took) < 1.0


COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_tyro_experiments
printf '%s\\n' "${COMPREPLY[@]}"
complete -p experiments
"""


def test_bash_completes_names_options_and_values(tmp_path: Path) -> None:
    script = tmp_path / "experiments"
    assert main(["--tyro-write-completion", "bash", str(script)]) == 0

    def completed(*words: str) -> list[str]:
        command = ["bash", "-c", COMPLETE, "bash", str(script), "experiments", *words]
        *found, registered = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
        assert registered.endswith(" experiments")
        return found

    assert sorted(completed("bench-b")) == ["bench-bqm", "bench-build"]
    assert "list" in completed("")
    assert completed("table1", "--met") == ["--methods"]
    assert completed("solvers", "--qui") == ["--quiet"]
    assert completed("bench-samplers", "--measures", "prop") == ["proposals"]


def test_the_shell_of_a_completion_is_checked(capsys) -> None:
    for arguments in (["--tyro-print-completion"], ["--tyro-print-completion", "csh"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["--tyro-print-completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef experiments")
