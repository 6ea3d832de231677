"""Folders of finished results, as the experiments leave them behind."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness.presentation import report
from experiments.harness.presentation.cells import Cell
from experiments.sweeps import results
from experiments.sweeps.queue import Plan
from experiments.sweeps.space import Axis
from tests.experiments.harness.presentation.records import COMPARISON, ENVIRONMENT, record

ENV = {**ENVIRONMENT, "x64": False, "code": "abc"}


def records(seeds: int = 3, gain: float = 4.0) -> list[dict[str, Any]]:
    """The digits of `records.pair`, with energies; and a problem that is solved or not."""
    found = []
    for seed in range(seeds):
        curves = {
            "adam": [(2 + 0.1 * seed, 20.0), (6, 50.0), (10, 60.0 + seed)],
            "hybrid": [(4, 40.0), (8, 62.0), (12, 60.0 + gain + 2 * seed)],
            "greedy": [(4, 30.0), (8, 55.0), (12, 61.0 + seed)],
            "random-bits": [(4, 25.0), (8, 50.0), (11, 58.0 - seed)],
        }
        for number, (method, curve) in enumerate(curves.items()):
            energies = None if method == "adam" else np.random.default_rng(seed).normal(number, 1, 64).tolist()
            phases = {"data": 1.0, "compile": 1.0, "formulate": 2.0, "anneal": 1.5, "decode": 0.1, "refine": 4.4}
            found.append(record("digits", method, seed, curve[-1][1], curve, phases, energies=energies))
        for method, solved in (("hybrid", True), ("multi-adam", False)):
            one = record("glass", method, seed, 100.0 * solved, seconds_to_target=3.0 if solved else None)
            one["outcome"]["results"]["solved"] = solved
            found.append(one)
    return found


def run(folder: Path, found: Sequence[dict[str, Any]], **config: Any) -> Path:
    """An experiment's folder with these records."""
    glass = dataclasses.replace(
        COMPARISON, problem="glass", baseline="multi-adam", controls=("multi-adam",), targets=(("final", ">=", 90.0),)
    )
    summary = report.summary(found, [COMPARISON, glass], ENV)
    cells = [{name: one[name] for name in ("problem", "method", "seed", "config")} for one in found]
    write(folder / "summary.json", summary)
    write(folder / "config.json", {**ENV, "options": {"smoke": True}, "cells": cells, **config})
    for one in found:
        cell = Cell(one["problem"], one["method"], one["seed"], one["config"], lambda progress: {})
        write(folder / "cells" / f"{cell.key()}.json", one)
    return folder


def sweep(
    folder: Path,
    value: Callable[[dict[str, Any], str, int], float],
    seeds: int = 3,
    search: str = "grid",
    axes: Sequence[Axis] = (Axis("toy.sampler", ("anneal", "tabu")), Axis("toy.sampler.length", (10, 100, 1000))),
    points: Sequence[dict[str, Any]] = (),
) -> Path:
    """A sweep's folder: the objective is value(point, method, seed)."""
    grid = [{"toy.sampler": a, "toy.sampler.length": b} for a in ("anneal", "tabu") for b in (10, 100, 1000)]
    points = points or grid
    found = [
        {**point, "problem": "toy", "method": method, "sampler": "-", "seed": seed, "final": value(point, method, seed)}
        | {"seconds": 1.0 + seed}
        for point in points
        for method in ("greedy", "hybrid")
        for seed in range(seeds)
    ]
    trials = len(points) * seeds if search == "grid" else len(points)
    plan = Plan("toy", tuple(axes), tuple(range(seeds)), search, trials, "final", {"scale": "smoke"})
    results.write(found, folder)
    results.write_plan(plan, False, folder)
    return folder


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
