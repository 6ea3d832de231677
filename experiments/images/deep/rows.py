"""The rows of Table I on a network of several convolutions: which runs there are, and their settings.

    cifar10-conv         eight epochs, with --full: six to seven minutes a run on 2 cores
    cifar10-conv-short   one epoch of one pair, in the default table: shows that the rows run and how far that goes

There are none where CIFAR-10 is not prepared: the digits are too small for such a network.
"""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.data.prepare import is_prepared
from experiments.data.sources import title
from experiments.harness.controls import SAMPLERS
from experiments.harness.presentation.cells import Cell, Comparison, Scale
from experiments.images.deep.recipe import Recipe
from experiments.images.deep.training import CONTROLS, STARTS, Deep, run
from experiments.images.start import Start

TUNED = Path(__file__).parent.parent.parent / "tuned" / "conv.json"
DATA = "cifar10"
SHORT = ("adam", "hybrid")
# Three seeds where pairs are compared, one where a row is looked at.
SEEDS = {method: 3 if method in ("adam", "adam-data-start", "hybrid", "random-bits") else 1 for method in STARTS}


def configuration(scale: Scale, method: str) -> Deep:
    """Settings of tuned/conv.json, the same for all starts from data; smoke runs are a few steps of a small network."""
    settings = json.loads(TUNED.read_text())["settings"]
    kind = ("muon" if "muon" in method else "adam") + ("-start" if STARTS[method] else "")
    recipe = Recipe(**{"epochs": settings["epochs"] if scale == "full" else 1, **settings[kind]})
    start = Start(**settings["from_data"]) if STARTS[method] else None
    if scale != "smoke":
        return Deep(recipe, start)
    if start is not None:
        start = replace(start, dictionary=32, choice_images=200, choice_sweeps=20)
    brief = Deep(replace(recipe, batch_size=128), start, network="conv-small")
    return replace(brief, training_images=640, test_images=300, validation=300, points=2)


def cells(scale: Scale) -> list[Cell]:
    if not is_prepared(DATA):
        return []
    seeds = SEEDS if scale == "full" else dict.fromkeys(SHORT, 1)
    return [
        _cell(scale, {"deep": configuration(scale, method), "method": method}, seed)
        for seed in range(max(seeds.values()))
        for method in seeds
        if seed < seeds[method]
    ]


def comparisons(scale: Scale) -> list[Comparison]:
    """The full run is judged by the paper's own figures; one epoch is not."""
    name = problem_name(scale)
    targets = (("baseline_final", ">=", 85.2), ("gain", ">=", 0.0), ("time_ratio", "<=", 0.79), ("gain", ">=", 2.3))
    if scale != "full":
        return [Comparison(name, "adam", "hybrid")]
    start = ("start from data", "adam-data-start", "adam"), ("annealer's choice", "hybrid", "adam-data-start")
    muon = (
        ("optimizer", "muon", "adam"),
        ("start from data", "muon-data-start", "muon"),
        ("annealer's choice", "hybrid-muon", "muon-data-start"),
    )
    return [
        Comparison(name, "adam", "hybrid", ("adam-data-start", *CONTROLS), targets, start),
        Comparison(name, "adam", "hybrid-muon", ("muon-data-start",), shares=muon),
    ]


def problem_name(scale: Scale) -> str:
    return f"{DATA}-conv" if scale == "full" else f"{DATA}-conv-short"


def _cell(scale: Scale, settings: dict[str, Any], seed: int) -> Cell:
    config: Deep = settings["deep"]
    method: str = settings["method"]
    return Cell(
        problem=problem_name(scale),
        method=method,
        seed=seed,
        config=settings,
        run=functools.partial(run, config, method, seed),
        sampler=SAMPLERS.get(STARTS[method], "-"),
        cost=5.0 if scale == "smoke" else 50.0 * config.recipe.epochs,
        data=title(config.dataset),
        varied=functools.partial(_cell, scale),
        resumes=scale == "full",
    )
