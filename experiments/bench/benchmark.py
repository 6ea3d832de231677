"""A benchmark as an experiment: measured, printed, and written as summary.json, summary.md and config.json."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from rich.console import Console

from experiments.harness.presentation import environment
from experiments.harness.presentation.cells import plain, plain_errors, write_atomic
from experiments.harness.presentation.terminal import Flat, animated, say, written

Config = TypeVar("Config")


@dataclass(frozen=True)
class Benchmarked(Generic[Config]):
    """The options of a benchmark, and those that all of them have."""

    config: Annotated[Config, Flat]
    out: Path = Path("results")
    """Results go to a folder of the benchmark's name in OUT."""
    smoke: bool = False
    """Every part once, at sizes of its own: shows that it runs, nothing else."""


def benchmark(
    name: str,
    config: Config,
    measure: Callable[[Config], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
    out: Path,
    console: Console,
) -> dict[str, Any]:
    """Runs `measure(config)`, prints `table(summary)` and writes both to OUT/NAME. Errors: StoreError."""
    folder = out / name
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        env = environment.environment()
        write_atomic(folder / "config.json", _json({**env, "options": config}))
    with console.status(f"{name} is measuring") if animated(console) else contextlib.nullcontext():
        found = measure(config)
    text = table(found)
    say(console, text)
    head = (
        f"# {name}\n\n{env['device']}, {env['cores']} cores, jax {env['versions']['jax']}, commit {env['commit']}\n\n"
    )
    with plain_errors(folder):
        write_atomic(folder / "summary.json", _json({"environment": env, **found}))
        write_atomic(folder / "summary.md", head + text + "\n")
    written(console, folder)
    return found


def _json(content: Any) -> str:
    return json.dumps(plain(content), indent=1, allow_nan=False) + "\n"
