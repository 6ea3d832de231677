"""The rows of `cifar10-conv-1bit`: ten short seeds of every method with --full, a tiny one of each in a smoke run.

    python -m experiments table1 --full --only cifar10-conv-1bit     the network is trained first, unless it was before

The checkpoint is the network of `cifar10-conv`'s first run of adam.
"""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.data.prepare import is_prepared
from experiments.data.sources import title
from experiments.harness.controls import named
from experiments.harness.presentation.cells import Cell, Comparison, Scale
from experiments.images.deep import rows
from experiments.images.deep.lowbit.bits import Choosing
from experiments.images.deep.lowbit.run import METHODS, OneBit, run
from experiments.images.deep.lowbit.straight import Straight
from qjax import samplers

TUNED = Path(__file__).parents[3] / "tuned" / "conv-1bit.json"
PROBLEM = "cifar10-conv-1bit"
CONTROLS = tuple(method for method in METHODS if method not in ("adam", "hybrid"))
SEEDS = 10


def configuration(scale: Scale) -> OneBit:
    """Settings of tuned/conv-1bit.json, shortened for a smoke run of the small network."""
    settings = json.loads(TUNED.read_text())["settings"]
    choosing = settings["choosing"] | {"sampler": samplers.get(**settings["choosing"]["sampler"])}
    config = OneBit(rows.configuration(scale, "adam"), Choosing(**choosing), Straight(**settings["straight"]))
    if scale != "smoke":
        return config
    brief = replace(config.choosing, images=128, rows=512, sampler=samplers.of_length(config.choosing.sampler, 10))
    return replace(
        config, choosing=brief, straight=replace(config.straight, steps=4, long_steps=4, points=2), statistics=500
    )


def cells(scale: Scale) -> list[Cell]:
    """None in the default table, whose minutes are spoken for."""
    if scale == "default":
        return []
    seeds = 1 if scale == "smoke" else SEEDS
    config = configuration(scale)
    return [_cell(scale, {"onebit": config, "method": method}, seed) for seed in range(seeds) for method in METHODS]


def comparisons(scale: Scale) -> list[Comparison]:
    targets = (("annealer_gain", ">", 0.0),) if scale == "full" else ()
    return [Comparison(PROBLEM, "adam", "hybrid", CONTROLS, targets)]


def _cell(scale: Scale, settings: dict[str, Any], seed: int) -> Cell:
    config: OneBit = settings["onebit"]
    method: str = settings["method"]
    dataset = config.deep.dataset
    here = is_prepared(dataset)
    return Cell(
        problem=PROBLEM,
        method=method,
        seed=seed,
        config=settings,
        run=functools.partial(run, config, method, seed),
        sampler=named(method, config.choosing.sampler),
        cost=3.0 if scale == "smoke" else 60.0,
        data=title(dataset) if here else "",
        varied=functools.partial(_cell, scale),
        lacks="" if here else f"{dataset} is not prepared: python experiments/data/prepare.py {dataset}",
    )
