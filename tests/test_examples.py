"""Every example under docs/examples runs as a program of its own, and prints what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.py"))


def printed(name: str, folder: Path) -> str:
    """folder: for what the example writes."""
    path, environment = ROOT / "docs/examples" / f"{name}.py", {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, path], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[0-9]+(?:[.][0-9]+)?", line)]


def own_sampler(lines: list[str]) -> None:
    random, relaxed, annealed = (numbers(line)[-1] for line in lines)
    assert annealed <= relaxed < 2 * random < 0


def metrics(lines: list[str]) -> None:
    annealed, descended = numbers(lines[0])
    assert 0.01 < descended < annealed
    assert [path.name for path in Path(lines[1].split()[-1]).iterdir() if ".tfevents." in path.name]


def numpy_qubo(lines: list[str]) -> None:
    energy, by_numpy = numbers(lines[0])
    assert energy == by_numpy < 0
    assert 1 <= numbers(lines[1])[0] <= 100


def model(lines: list[str]) -> None:
    before, annealed = numbers(lines[0])
    descended, accuracy = numbers(lines[1])
    assert annealed < before
    assert descended < 0.1 * annealed
    assert accuracy > 85


# What each prints, checked; a new example needs its entry.
CHECKS = {
    "equinox_model": model,
    "linen_model": model,
    "metrics": metrics,
    "nnx_model": model,
    "numpy_qubo": numpy_qubo,
    "own_sampler": own_sampler,
}


def test_every_example_is_checked() -> None:
    assert {path.stem for path in EXAMPLES} == set(CHECKS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.endswith(("_model", "metrics")) else ())
        for name in sorted(CHECKS)
    ],
)
def test_examples_run_as_printed(name: str, tmp_path: Path) -> None:
    if name == "metrics":
        pytest.importorskip("tensorboardX", reason="comes with `make extras`")
    CHECKS[name](printed(name, tmp_path).strip().splitlines())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 50
