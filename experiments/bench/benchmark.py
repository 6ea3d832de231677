"""A benchmark as an experiment: measured, printed, and written as summary.json, summary.md and config.json."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from experiments.harness.presentation import environment
from experiments.harness.presentation.cells import plain, plain_errors, write_atomic

Config = TypeVar("Config")


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
    with console.status(f"{name} is measuring"):
        found = measure(config)
    text = table(found)
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    head = (
        f"# {name}\n\n{env['device']}, {env['cores']} cores, jax {env['versions']['jax']}, commit {env['commit']}\n\n"
    )
    with plain_errors(folder):
        write_atomic(folder / "summary.json", _json({"environment": env, **found}))
        write_atomic(folder / "summary.md", head + text + "\n")
    console.print(f"written to {folder}", highlight=False, soft_wrap=True)
    return found


def smaller(config: Config, **changes: Any) -> Config:
    """The configuration of a smoke run."""
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _json(content: Any) -> str:
    return json.dumps(plain(content), indent=1, allow_nan=False) + "\n"
