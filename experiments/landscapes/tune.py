"""Finds the settings committed in tuned/synthetic.json, on instances that no table uses.

    python -m experiments.landscapes.tune calibrate     numbers of starts and evaluations that take the hybrid's seconds
    python -m experiments.landscapes.tune adam          learning rates of Adam by success, then by the lowest median gap

Calibration: with s the hybrid's median seconds, compilation included, and a baseline's seconds t(N) = c + N r from two
lengths, N = (s - c) / r rounded up, at least 1. Quiet machine, a few minutes on 2 cores.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import statistics
import sys
from collections.abc import Callable
from typing import Any

from experiments.harness.account import Account
from experiments.harness.presentation.cells import write_atomic
from experiments.landscapes.baselines import CMAES, LBFGS, Adam, Method
from experiments.landscapes.synthetic import TUNED, Function, Glass, Shape, measured, methods

INSTANCES = range(1000, 1003)
RATES = (0.01, 0.03, 0.1, 0.3, 0.5, 1.0)
SHAPES: dict[str, Shape] = {"glass": Glass(), "rastrigin": Function("rastrigin", 100)}


def seconds(method: Method, shape: Shape) -> float:
    """Median seconds of a run on this shape, after one that is not counted."""
    runs = []
    for seed in (INSTANCES[0], *INSTANCES):
        problem, account = shape.instance(seed), Account()
        measured(method, problem, seed, account)
        runs.append(account.ledger.total)
    return statistics.median(runs[1:])


def matched(make: Callable[[int], Method], shape: Shape, budget: float, short: int, long: int) -> int:
    """The N whose run takes `budget` seconds, from those of two lengths."""
    first, second = seconds(make(short), shape), seconds(make(long), shape)
    rate = max((second - first) / (long - short), 1e-6)
    return max(1, math.ceil(short + (budget - first) / rate))


def calibrate() -> None:
    """Rewrites the numbers of starts and evaluations, family by family, and prints them with the hybrid's seconds."""
    for family, shape in SHAPES.items():
        record = json.loads(TUNED.read_text())
        tuned = record["settings"][family]
        budget = seconds(methods(shape)["hybrid"], shape)
        searches: dict[str, tuple[Adam | LBFGS | CMAES, str, int, int]] = {
            "multi-adam": (Adam(**tuned["multi-adam"]), "num_starts", 512, 4096),
            "lbfgs": (LBFGS(**tuned["lbfgs"]), "num_starts", 64, 512),
            "cmaes": (CMAES(**tuned["cmaes"]), "num_evaluations", 5000, 40000),
        }
        for name, (search, field, short, long) in searches.items():
            make = functools.partial(_with, search, field)
            tuned[name][field] = matched(make, shape, budget, short, long)
        record["hybrid_seconds"][family] = round(budget, 2)
        print(family, f"{budget:.2f} s:", {name: tuned[name] for name in searches}, flush=True)
        write_atomic(TUNED, json.dumps(record, indent=1) + "\n")


def _with(search: Any, field: str, value: int) -> Method:
    changed: Method = dataclasses.replace(search, **{field: value})
    return changed


def tune_adam() -> None:
    """Prints success and the median gap of multi-start Adam by learning rate."""
    for shape in SHAPES.values():
        tuned: Any = methods(shape)["multi-adam"]
        for rate in RATES:
            method = dataclasses.replace(tuned, learning_rate=rate)
            problems = [(seed, shape.instance(seed)) for seed in INSTANCES]
            gaps = [measured(method, problem, seed, Account()) for seed, problem in problems]
            solved = sum(problem.solved(gap) for (_, problem), gap in zip(problems, gaps, strict=True))
            print(shape.name, f"rate {rate:g}: solved {solved}/{len(gaps)}, median gap {statistics.median(gaps):.3g}")


if __name__ == "__main__":
    tasks = {"calibrate": calibrate, "adam": tune_adam}
    if len(sys.argv) < 2 or sys.argv[1] not in tasks or not set(sys.argv[2:]) <= SHAPES.keys():
        sys.exit(f"usage: python -m experiments.landscapes.tune {'|'.join(tasks)} [{'] ['.join(SHAPES)}]")
    SHAPES = {name: shape for name, shape in SHAPES.items() if name in (sys.argv[2:] or SHAPES)}
    tasks[sys.argv[1]]()
