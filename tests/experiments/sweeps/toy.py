"""An experiment of a millisecond a cell, for sweeps: python -m tests.experiments.sweeps.toy [options of sweep]."""

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import tyro
from rich.console import Console

from experiments.harness.presentation.cells import Cell, Scale, StoreError, UsageError
from experiments.sweeps import command
from experiments.sweeps.options import Sweep
from qjax import samplers

SECONDS = 0.0
STEPS: list[float] = []  # rates of the cells of the kind "trained", once a step that they took


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    steps: int = 10
    sizes: tuple[int, ...] = (3, 3)
    deep: bool = False


@dataclass(frozen=True)
class Toy:
    inner: Inner = field(default_factory=Inner)
    sampler: samplers.Sampler = field(default_factory=samplers.Anneal)
    kind: str = "plain"
    limit: int | None = None
    mode: Literal["fast", "slow"] = "fast"

    def __post_init__(self) -> None:
        if self.inner.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.inner.steps}")


def cells(scale: Scale) -> list[Cell]:
    return [cell({"toy": Toy(), "method": method}, seed) for seed in range(2) for method in ("hybrid", "greedy")]


def cell(config: dict[str, Any], seed: int) -> Cell:
    if config["toy"].kind == "nowhere":
        raise ValueError("unknown data set 'nowhere'")
    run: Callable[..., dict[str, Any]] = functools.partial(outcome, config["toy"], config["method"], seed)
    return Cell("toy", config["method"], seed, config, run, type(config["toy"].sampler).__name__, 1.0, varied=cell)


def outcome(toy: Toy, method: str, seed: int, progress: Any) -> dict[str, Any]:
    if toy.kind == "broken":
        raise RuntimeError("this one is broken")
    time.sleep(SECONDS)
    if toy.kind == "trained":
        for quarter in range(1, 5):
            progress(quarter / 5, "", lambda: {"final": 100 * toy.inner.rate})
            STEPS.append(toy.inner.rate)
    final = 100 * toy.inner.rate + toy.inner.steps + seed + (method == "hybrid")
    results = {"final": final, "length": samplers_length(toy.sampler), "list": [1, 2]}
    results["level"] = None if toy.kind == "trained" else final
    return {"results": results, "timed": {"seconds": 0.001, "phases": {"anneal": 0.001}, "curve": []}}


def samplers_length(sampler: Any) -> int | None:
    name = samplers.length_field(sampler)
    return None if name is None else getattr(sampler, name)


def main(config: Sweep, seconds: float = 0.0) -> bool:
    global SECONDS
    SECONDS = seconds
    return command.run(config, {"toy": cells}, Console(width=130))


if __name__ == "__main__":
    try:
        sys.exit(0 if tyro.cli(main) else 1)
    except (StoreError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
