"""The page on samplers: its table is that of the registry, its code runs, and its commands, options and files exist."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.commandline.registry import EXPERIMENTS
from experiments.solvers import peers
from experiments.solvers.compare import Solvers
from qjax import samplers
from qjax.energy.blocks import KINDS
from qjax.energy.couplings import Implicit
from qjax.samplers.auto import CHOICES
from qjax.samplers.turns import extension
from tests.samplers import problems

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/samplers.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its first two lines."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_is_that_of_the_registry() -> None:
    """Forms of couplings, what else a sampler can do, and what more time means for it."""
    yes = {True: "yes", False: "no"}
    expected, qubo = [], problems.qubo("dense", n=20)
    for row in samplers.table():
        more = extension(samplers.get(row.name), qubo, 2)[0]
        flags = [yes[flag] for flag in (row.batches, row.thermal, row.host, row.fixed_cardinality)]
        assert set(row.couplings) == set(problems.FORMS)
        assert set(row.blocks) in (set(), set(KINDS))
        kept = "all" if row.blocks else "penalties"
        expected.append([row.name, *flags, kept, "as chosen" if row.name == "auto" else more])
    assert [[row[0], *row[3:]] for row in rows("All of them")] == expected


@pytest.mark.parametrize("row", rows("All of them"), ids=lambda row: row[0])
def test_those_marked_so_need_a_diagonal_and_no_others(row: list[str]) -> None:
    known = problems.qubo("implicit", n=20)
    unknown = dataclasses.replace(known, couplings=Implicit(known.couplings.apply, 20, None))
    sampler, key = samplers.get(row[0]), jax.random.key(0)
    if row[2] == "all":
        assert jax.eval_shape(lambda key: sampler(key, unknown, 2).bits, key).shape == (2, 20)
    else:
        assert row[2] == "all, diagonal"
        with pytest.raises(ValueError, match="diagonal"):
            sampler(key, unknown, 2)


def test_the_rows_of_auto_are_those_of_its_table() -> None:
    """In their order; the page adds from which n on the last two rows have their problems."""
    names = {samplers.sampler_class(name): name for name in samplers.names()}
    expected = [
        (takes.replace(" couplings", "").replace(" bits", ""), names[type(choice.sampler)])
        for choice in CHOICES
        for takes in choice.takes.split("; ")
    ]
    listed = [(re.sub(", n >= .*", "", row[0]), row[1]) for row in rows("The rows of `auto`")]
    assert listed == expected


@pytest.mark.slow
def test_its_code_runs(capsys: Any) -> None:
    """In order, in one set of names."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    qubo = names["qubo"]
    assert names["best"].shape == (16, 20) and names["samples"].info["seconds"] > 0
    again = names["sampler"](jax.random.key(0), qubo, names["spread"].bits.shape[0])
    np.testing.assert_array_equal(names["spread"].bits, again.bits)
    assert capsys.readouterr().out


def test_its_commands_options_and_files_exist() -> None:
    commands = re.findall(r"python -m experiments ([a-z0-9-]+)((?:[^`\n]|\\\n)*)", PAGE)
    assert commands and {name for name, _ in commands} <= EXPERIMENTS.keys()
    fields = {field.name.replace("_", "-") for field in dataclasses.fields(Solvers)}
    for name, options in commands:
        assert name == "solvers" and set(re.findall(r"--([a-z-]+)", options)) <= fields
        for listed in re.findall(r"--samplers ([a-z-]+(?:,[a-z_-]+)*)", options):
            assert set(listed.split(",")) <= {*samplers.names(), *peers.PACKAGES}
    assert set(re.findall(r"`(bench-[a-z]+)`", PAGE)) <= EXPERIMENTS.keys()
    for path in re.findall(r"`([A-Za-z_/]+\.(?:md|py))`", PAGE):
        assert (ROOT / path).exists(), path
